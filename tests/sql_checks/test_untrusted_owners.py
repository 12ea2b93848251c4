"""A role that may only create tables cannot run code with the gate's rights."""

from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
import pytest
from psycopg import sql

from drills.residue.state import rows_left
from drills.workbench.database import query
from gates.deployment.dialect.current import current
from gates.deployment.sql.catalogue import with_fragments
from gates.deployment.sql.database import connect, session
from sql_checks import test_row_level_security as checks
from sql_checks.attempts.row_level_security import probe
from sql_checks.spotfile import read_folder
from sql_checks.spotrun import judge_spot
from sql_checks.sqlsession import SqlSession
from tests.postgres_fixture import PASSWORD, PgServer
from tests.sql_checks.conftest import outcome_of
from tests.sql_checks.test_rls_red import verdicts

NAMES = ('events" limit 1)t;commit;select public.f()--', "x' as part, public.f()::text as rows--", "%s %(x)s 100% \"'")
PLANTED = """
create function public.f() returns boolean language plpgsql as
$$ begin perform setval('public.leak', 1000 + (select count(*) from public.companies)); return true;
exception when insufficient_privilege then return true; end $$;
create sequence public.leak; grant all on public.leak to public;
"""
READ: dict[str, str] = {
    "a view": "create view public.harmless as select null::uuid as company_id where public.f()",
    "a policy": "create table public.harmless (company_id uuid);"
    " insert into public.harmless values (gen_random_uuid()); alter table public.harmless enable row level security;"
    " create policy p on public.harmless using (public.f())",
    "a rule": "create table public.harmless (company_id uuid);"
    " create rule r as on update to public.harmless do instead select public.f()",
}


@dataclass(frozen=True)
class Attacked:
    """A database in which `intern` may create tables: the URLs of the gate, of `intern` and of a superuser."""

    gate: str
    intern: str
    superuser: str

    def plant(self, *statements: str) -> None:
        with psycopg.connect(self.intern, autocommit=True) as connection:
            for statement in (PLANTED, *statements):
                connection.execute(statement.encode())

    @property
    def leaked(self) -> bool:
        """Whether the function of `intern` ran with rights that `intern` lacks."""
        with psycopg.connect(self.superuser) as connection:
            row = connection.execute("select last_value from public.leak").fetchone()
        return row is not None and row[0] > 1000

    def digest_and_residue(self) -> list[str]:
        """What the drills would read for a tenant's digest; they look for what is left of it, too."""
        with session(self.gate) as connection:
            rows_left(connection, ["00000000-0000-4000-8000-000000000004"])
            found = connection.execute(with_fragments(query("tenant_tables")).encode(), (current().all_real,))
            return [str(row["name"]) for row in found]


@pytest.fixture
def attacked(pg_server: PgServer, seeded_db: str) -> Iterator[Attacked]:
    """A copy of the seeded database, with the role."""
    with pg_server.database(seeded_db) as name:
        pg_server.superuser.execute(sql.SQL("create role intern login password {}").format(sql.Literal(PASSWORD)))
        with psycopg.connect(pg_server.url(name), autocommit=True) as owner:
            owner.execute("grant create, usage on schema public to intern")
        yield Attacked(pg_server.url(name, "replay_gate"), pg_server.url(name, "intern"), pg_server.url(name))
    pg_server.superuser.execute("drop role intern")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("owner", ["intern", "replay_owner"])
def test_a_name_is_data(name: str, owner: str, attacked: Attacked) -> None:
    """SQL in a table's name is not run, and the table is checked."""
    table = sql.Identifier("public", name).as_string()
    attacked.plant(f"create table {table} (company_id uuid)", f"grant all on {table} to authenticated, public")
    with psycopg.connect(attacked.superuser, autocommit=True) as connection:
        connection.execute(f"insert into {table} select gen_random_uuid() from generate_series(1, 2)".encode())
        connection.execute(f"alter table {table} owner to {owner}".encode())
    found = verdicts(probe(attacked.gate))
    assert found["foreign"] == ("unknown" if owner == "intern" else "fail"), found
    assert (name in attacked.digest_and_residue()) == (owner == "replay_owner")
    assert not attacked.leaked


@pytest.mark.parametrize("what", READ)
@pytest.mark.parametrize("login", ["replay_gate", "a superuser"])
def test_what_another_owns_is_not_read(what: str, login: str, attacked: Attacked) -> None:
    """A foreign owner's function does not run with the gate's rights; the check is unknown and names the owner."""
    attacked.plant(*READ[what].split("; "), "grant all on public.harmless to public")
    looked = probe(attacked.gate if login == "replay_gate" else attacked.superuser)
    outcome, message, _ = outcome_of(lambda seen: checks.test_other_tenants_hidden(looked, seen))
    assert not attacked.leaked
    assert outcome == "unknown"
    assert "public.harmless of intern" in message
    assert {n for n, said in verdicts(looked).items() if said != "pass"} == {"foreign"}
    assert "harmless" not in attacked.digest_and_residue()
    assert not attacked.leaked


@pytest.mark.parametrize(
    ("arguments", "due"),
    [("c uuid", "fail"), ("c uuid, n int default public.f()::int", "fail"), ("c public.odd", "unknown")],
)
def test_what_runs_with_its_owners_rights_alone_is_called(arguments: str, due: str, attacked: Attacked) -> None:
    """A function of an owner who sees all rows is called; what its call would run as the caller is told."""
    attacked.plant(
        "create domain public.odd as uuid check (public.f())",
        f"create function public.letters_of({arguments}) returns setof text language sql stable security definer as"
        " 'select d::text from public.dead_letter_queue d where d.company_id = c'",
    )
    with psycopg.connect(attacked.superuser, autocommit=True) as connection:
        connection.execute("alter role intern bypassrls; grant select on public.dead_letter_queue to intern")
    found = verdicts(probe(attacked.superuser))
    assert {name: said for name, said in found.items() if said != "pass"} == {"foreign": due}
    assert not attacked.leaked


def test_what_no_tenant_may_reach_needs_no_look(attacked: Attacked) -> None:
    """A foreign table without rights for tenants changes no check."""
    attacked.plant("create table public.harmless (company_id uuid)")
    assert set(verdicts(probe(attacked.gate)).values()) == {"pass"}


def test_a_table_that_is_not_read_is_found_by_the_catalogue(attacked: Attacked) -> None:
    """A table of another owner without row security, that tenants may read, fails `rls-enabled`, which runs no code."""
    attacked.plant("create table public.harmless (company_id uuid)", "grant select on public.harmless to authenticated")
    (spot,) = (spot for spot in read_folder() if spot.spec.id == "sql/spot/rls-enabled")
    looking = SqlSession(attacked.gate)
    outcome, message, _ = outcome_of(lambda seen: judge_spot(spot, looking, seen))
    looking.close()
    assert outcome == "fail"
    assert "public.harmless" in message


@pytest.mark.parametrize(
    "makes_trusted",
    [
        "grant replay_owner to intern",
        "grant replay_gate to intern",
        "alter role intern superuser",
        "alter schema public owner to intern",
        "alter table public.agent_tasks owner to intern",
    ],
)
def test_an_owner_with_such_rights_anyway_is_read(makes_trusted: str, attacked: Attacked) -> None:
    """Tables of superusers, and of roles with the gate's rights, are read: they gain nothing."""
    attacked.plant(
        "create view public.harmless with (security_invoker) as select company_id from public.events",
        "grant select on public.harmless to public",
    )
    with psycopg.connect(attacked.superuser, autocommit=True) as connection:
        connection.execute(makes_trusted.encode())
    looked = probe(attacked.gate)
    assert looked.unread == []
    assert "public.harmless" in {sight.table.shown for sight in looked.sights}


def test_a_call_is_one_statement(attacked: Attacked) -> None:
    """The server refuses two statements in one text."""
    with connect(attacked.gate) as connection, pytest.raises(psycopg.errors.SyntaxError, match="multiple commands"):
        connection.execute("select 1; select 2")
