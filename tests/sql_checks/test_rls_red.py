"""Row-level security is green on the reference, and unknown where the probe proves nothing. The HOLES are seen red in
`test_rls_renamed`.
"""

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from gates.checks.observation import Observer
from gates.contract.names import names_of
from gates.deployment.dialect.current import use
from gates.deployment.sql import database
from sql_checks import test_row_level_security as checks
from sql_checks.attempts import functions
from sql_checks.attempts.row_level_security import RlsProbe, probe
from sql_checks.attempts.statements import TenantStatement, attempt
from tests.cases import cases
from tests.postgres_fixture import PgServer
from tests.sql_checks.conftest import outcome_of

OWN = "company_id = (auth.jwt() ->> 'company_id')::uuid"
READS = ("no_claims", "empty_claims", "no_company", "anon", "garbage", "row_security_off")
WRITES = ("insert", "move", "update", "delete", "upsert")


def verdicts(looked: RlsProbe) -> dict[str, str]:
    """The outcomes of all checks that use one probe."""
    judges: dict[str, Callable[[Observer], None]] = {
        "own": lambda seen: checks.test_own_rows_visible(looked, seen),
        "foreign": lambda seen: checks.test_other_tenants_hidden(looked, seen),
        "stranger": lambda seen: checks.test_stranger_sees_nothing(looked, seen),
        **{n: lambda seen, n=n: checks.test_sees_nothing(n, looked, seen) for n in READS},  # type: ignore[misc]
        **{n: lambda seen, n=n: checks.test_writes_nothing(n, looked, seen) for n in WRITES},  # type: ignore[misc]
    }
    return {name: outcome_of(judge)[0] for name, judge in judges.items()}


@pytest.mark.parametrize("role", [None, "replay_gate"])
def test_green_on_the_reference(role: str | None, pg_server: PgServer, clone: str) -> None:
    """All checks pass for superuser and least role, and nothing is left."""
    url = pg_server.url(clone, role) if role else pg_server.url(clone)
    assert set(verdicts(probe(url)).values()) == {"pass"}
    with psycopg.connect(pg_server.url(clone)) as connection:
        left = connection.execute("select count(*) from public.companies where name like 'drill-rls%'").fetchone()
    assert left == (0,)


@pytest.mark.parametrize(
    ("opened", "due"),
    [
        ("select", "pass"),
        ("grant select on dead_letter_queue to public", "unknown"),
        ("grant select (payload) on dead_letter_queue to public", "unknown"),
        ("grant select on dead_letter_queue to anon", "unknown"),
    ],
)
def test_strangers_who_have_no_role_by_gate_yaml(opened: str, due: str, pg_server: PgServer, clone: str) -> None:
    """`anon: null` alone is no pass: what PUBLIC, or a role of that name, may read is still looked at."""
    with psycopg.connect(pg_server.url(clone), autocommit=True) as connection:
        connection.execute("revoke all on all tables in schema public from anon, public")
        connection.execute(opened.encode())
    use(names_of({"roles": {"anon": None}}))
    assert verdicts(probe(pg_server.url(clone)))["anon"] == due


def test_shared_rows_of_an_own_table(pg_server: PgServer, clone: str) -> None:
    """An own table may show rows without a tenant to everybody, but no tenant's rows."""
    with psycopg.connect(pg_server.url(clone), autocommit=True) as connection:
        connection.execute("create table templates (company_id uuid, body text)")
        connection.execute(
            "insert into templates values (null, 'for all'), (gen_random_uuid(), 'a'), (gen_random_uuid(), 'b')"
        )
        connection.execute(
            "alter table templates enable row level security; alter table templates force row level security"
        )
        connection.execute(f"create policy p on templates for select using (company_id is null or {OWN})")
        connection.execute("grant select on templates to authenticated, anon")
        assert set(verdicts(probe(pg_server.url(clone))).values()) == {"pass"}
        connection.execute("create policy q on templates for select to anon using (true)")
        assert verdicts(probe(pg_server.url(clone)))["anon"] == "fail"


SEEN_AS = """create or replace function seen_as(company uuid) returns setof events language plpgsql as $$ begin
perform set_config('request.jwt.claims', json_build_object('company_id', {})::text, true);
return query select * from events; end $$"""


def test_what_tenants_may_read_without_a_company(pg_server: PgServer, clone: str) -> None:
    """Lists and sums without a company, what others offer, a user's own rows, and a tenant that says who it is show
    nobody's; one that says it is another does.
    """
    with psycopg.connect(pg_server.url(clone), autocommit=True) as connection:
        for planted in (
            "create table plans (id uuid default gen_random_uuid(), name text)",
            "insert into plans (name) values ('small'), ('large')",
            "create materialized view days as select created_at::date as day, count(*) as sum from events group by 1",
            "create view kinds with (security_invoker) as select distinct event_type, payload from events",
            "create table offers (vendor uuid, name text, payload jsonb, seen_by text default '{company_id}')",
            "insert into offers select id, n::text, '{}' from companies, generate_series(1, 2) n",
            "create table sellers as select jsonb_build_object('company_id', id, 'name', 'a') as about from companies",
            "create table drafts (owner text, company uuid)",
            "insert into drafts select 'somebody', id from companies",
            "alter table drafts enable row level security",
            "create policy own on drafts for select to authenticated using (owner = (select auth.jwt() ->> 'sub'))",
            "grant select on plans, days, kinds, drafts, offers, sellers to authenticated",
        ):
            connection.execute(planted.encode())
        connection.execute(SEEN_AS.format("auth.jwt() ->> 'company_id'").encode())
        assert set(verdicts(probe(pg_server.url(clone))).values()) == {"pass"}
        connection.execute(SEEN_AS.format("company::text").encode())
        assert verdicts(probe(pg_server.url(clone)))["foreign"] == "fail"


ASKS = "c = (auth.jwt() ->> 'company_id')::uuid"
ROWS = "select * from events where company_id = c"
CALLED = {
    "asks": f"(c uuid) returns setof events language sql stable as $$ {ROWS} and {ASKS} $$",
    "raises": "(c uuid) returns setof events language plpgsql stable as"
    f" $$ begin if not {ASKS} then raise 'not yours'; end if; return query {ROWS}; end $$",
    "counts": "(c uuid) returns json language sql as $$ select json_build_object('company', c, 'letters', count(*))"
    f" from dead_letter_queue where company_id = c and {ASKS} $$",
    "counts all": "(c uuid default null) returns bigint language sql stable as 'select count(*) from companies'",
    "writes": "(c uuid) returns setof events language plpgsql as"
    f" $$ begin delete from events where company_id = c and {ASKS}; return query {ROWS} and {ASKS}; end $$",
    "writes its caller's rows alone": "(which uuid, c uuid) returns void language sql as"
    " $$ update dead_letter_queue set status = 'discarded' where id = which and company_id ="
    " (auth.jwt() ->> 'company_id')::uuid; update replay_budgets set daily_limit = 1 where company_id <> c"
    " and company_id = (auth.jwt() ->> 'company_id')::uuid $$",
    "asks for a row": "(e events) returns setof events language sql stable as $$ select * from events where id = e.id"
    " and company_id = (auth.jwt() ->> 'company_id')::uuid $$",
    "asks for an object": "(asked json) returns setof events language sql stable as $$ select * from events where"
    " company_id = (auth.jwt() ->> 'company_id')::uuid and event_type = asked -> 'filter' ->> 'type' $$",
    "whether there is such a company": "(c uuid) returns bool language sql stable as"
    " $$ select exists (select from companies where id = c) $$",
    "slow": "(c uuid) returns bigint language sql stable as 'select count(*) from generate_series(1, 10000000)'",
    "asserts": "(c uuid) returns bigint language plpgsql stable as"
    " $$ begin assert c is null, 'no company'; return 1; end $$",
    "ends a session": "(c uuid) returns bool language sql stable as 'select pg_terminate_backend(pg_backend_pid())'",
}
"""Functions with their owner's rights that tell a tenant nothing of the rows of another."""


@pytest.mark.parametrize("function", CALLED.values(), ids=list(CALLED))
def test_functions_that_keep_tenants_apart(function: str, pg_server: PgServer, clone: str) -> None:
    """Functions that check or assert, count their own, write, are slow or end sessions show nothing foreign."""
    with psycopg.connect(pg_server.url(clone), autocommit=True) as connection:
        made = "create function given" + function.replace(" language", " security definer language")
        connection.execute(made.encode())
        before = connection.execute("select count(*) from events").fetchone()
        assert set(verdicts(probe(pg_server.url(clone))).values()) == {"pass"}
        assert connection.execute("select count(*) from events").fetchone() == before


def test_what_a_function_changes_is_seen_and_undone(pg_server: PgServer, clone: str) -> None:
    """One that deletes the rows of whom it is told fails, and has deleted none."""
    with psycopg.connect(pg_server.url(clone), autocommit=True) as connection:
        body = f"$$ begin delete from events where company_id = c; return query {ROWS}; end $$"
        connection.execute(
            f"create function given(c uuid) returns setof events security definer language plpgsql as {body}".encode()
        )
        before = connection.execute("select count(*) from events").fetchone()
        found = verdicts(probe(pg_server.url(clone)))
        assert {name for name, outcome in found.items() if outcome != "pass"} == {"update"}
        assert connection.execute("select count(*) from events").fetchone() == before


@pytest.mark.parametrize(
    ("arguments", "may_write", "is_called"),
    [
        ("which uuid", True, True),
        ("which uuid", False, False),
        ("before timestamptz", True, False),
        ("kind text default null, most int default 50", True, True),
        ("most int", True, False),
        ("", True, False),
    ],
)
def test_a_function_that_writes_is_called_with_ids_of_the_gate_alone(
    arguments: str, may_write: bool, is_called: bool, pg_server: PgServer, clone: str
) -> None:
    """What it is given can mean no row of others; on a production it is not called at all."""
    body = "$$ begin perform nextval('calls'); delete from events where id = null; end $$"
    with psycopg.connect(pg_server.url(clone), autocommit=True) as connection:
        connection.execute("create sequence calls")  # a rollback takes no number back
        connection.execute(
            f"create function given({arguments}) returns void security definer language plpgsql as {body}".encode()
        )
        probe(pg_server.url(clone), may_write=may_write)
        assert connection.execute("select is_called from calls").fetchone() == (is_called,)


def test_a_function_that_does_not_end_is_unknown(
    pg_server: PgServer, clone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has seen what it gives; a leak by another function, or by its own faster calls, still fails."""
    monkeypatch.setattr(functions, "FIRST_S", 0.2)
    monkeypatch.setattr(functions, "ALL_S", 2.0)
    made = (
        "(c uuid) returns setof events security definer language plpgsql stable as $$ begin"
        " if {} then perform 1 from generate_series(1, 1000000000); end if;"
        " return query select * from events where company_id = c; end $$"
    )
    with psycopg.connect(pg_server.url(clone), autocommit=True) as connection:
        connection.execute(f"create function endless{made.format('true')}".encode())
        assert verdicts(probe(pg_server.url(clone)))["foreign"] == "unknown"
        connection.execute(f"create function partly{made.format('c is null')}".encode())
        assert verdicts(probe(pg_server.url(clone)))["foreign"] == "fail"


@pytest.mark.parametrize("kept", ["raise exception 'kept'", "return null"])
def test_a_function_of_rows_that_cannot_be_deleted_is_unknown(kept: str, pg_server: PgServer, clone: str) -> None:
    """Whether it would answer otherwise without them, nobody knows; one that reads other tables is judged."""
    body = "'select count(*) from {} where company_id = c'"
    made = f"(c uuid) returns bigint security definer language sql stable as {body}"
    with psycopg.connect(pg_server.url(clone), autocommit=True) as connection:
        connection.execute(
            f"create function kept() returns trigger language plpgsql as $$ begin {kept}; end $$;"
            " create trigger kept before delete on dead_letter_queue for each row execute function kept()".encode()
        )
        connection.execute(f"create function letters{made.format('dead_letter_queue')}".encode())
        looked = probe(pg_server.url(clone))
        assert (verdicts(looked)["foreign"], looked.told.unchanged) == ("unknown", ["public.letters(uuid)"])
        connection.execute(f"create function effects{made.format('agent_tasks')}".encode())
        assert verdicts(probe(pg_server.url(clone)))["foreign"] == "fail"


def test_a_view_that_is_slow_to_read_is_told(pg_server: PgServer, clone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be read to an end is unknown, and is named."""
    monkeypatch.setattr(functions, "FIRST_S", 0.2)
    monkeypatch.setattr(functions, "ALL_S", 1.0)
    with psycopg.connect(pg_server.url(clone), autocommit=True) as connection:
        connection.execute("create view sums as select count(*) from generate_series(1, 1000000000)")
        connection.execute("grant select on sums to authenticated")
    looked = probe(pg_server.url(clone))
    outcome, message, _ = outcome_of(lambda seen: checks.test_other_tenants_hidden(looked, seen))
    assert (outcome, looked.told.slow) == ("unknown", ["public.sums"])
    assert "public.sums" in message


@pytest.mark.parametrize("told", ["message", "marks", "context"])
def test_an_error_of_megabytes_is_the_targets_own(told: str, pg_server: PgServer, clone: str) -> None:
    """However long a policy's error or its place is, the policy is judged by it, and so are all other tables."""
    body = {
        "message": "raise '%', repeat(E'::error::x\\n', 200000)",
        "marks": "raise '%', repeat('[{,', 500000)",
        "context": "execute format('select 1 / 0 -- %s', repeat('x', 2000000))",
    }[told]
    with psycopg.connect(pg_server.url(clone), autocommit=True) as connection:
        connection.execute(
            f"create function long() returns boolean language plpgsql as $$ begin {body}; return true; end $$;"
            " create policy p on events for select to authenticated using (long());"
            " create policy p on agent_tasks for select to authenticated using (long());"
            " create policy p on audit_logs for select to authenticated using (long());"
            " create policy p on agent_controls for select to authenticated using (long());".encode()
        )
    found = verdicts(probe(pg_server.url(clone)))
    assert (found["own"], found["no_claims"], found["insert"]) == ("fail", "fail", "pass")


HOLES = {name: (sql, set(red.split())) for (name, red), sql in cases(Path(__file__).with_name("rls_holes.sql"))}
"""What opens each, and the checks that it turns red."""


@pytest.mark.parametrize("login", ["replay_service", "replay_worker"])
def test_a_login_that_cannot_imitate_tenants_proves_nothing(login: str, pg_server: PgServer, clone: str) -> None:
    """Without SET ROLE every check is unknown."""
    assert set(verdicts(probe(pg_server.url(clone, login))).values()) == {"unknown"}


def test_policies_that_ask_who_the_user_is_are_healthy(pg_server: PgServer, clone: str) -> None:
    """`sub` is a UUID, as auth.uid() reads it; names are found where a tenant's own search_path finds them."""
    with psycopg.connect(pg_server.url(clone), autocommit=True) as connection:
        connection.execute(
            "create or replace function auth.uid() returns uuid language sql stable as"
            " $$ select (auth.jwt() ->> 'sub')::uuid $$; grant execute on function auth.uid() to public;"
            " create function known() returns boolean language plpgsql stable as"
            " $$ begin return yes(); end $$;"
            " create function yes() returns boolean language sql stable as $$ select auth.uid() is not null $$;"
            " create policy p on events as restrictive for select to authenticated using (known())"
        )
    assert set(verdicts(probe(pg_server.url(clone))).values()) == {"pass"}


def _policy_that(connection: psycopg.Connection, does: str) -> None:
    """A policy of events calls a function that does this."""
    connection.execute(
        "create function odd() returns boolean language plpgsql stable security definer as"
        f" $$ begin {does}; return true; end $$; drop policy tenant_sees_own on events;"
        " create policy p on events for select to authenticated using (odd())".encode()
    )


def test_a_statement_that_took_too_long_is_unknown(pg_server: PgServer, clone: str) -> None:
    """A timeout proves nothing about the policy."""
    with psycopg.connect(pg_server.url(clone), autocommit=True) as connection:
        _policy_that(connection, "raise exception using errcode = 'query_canceled'")
    found = verdicts(probe(pg_server.url(clone)))
    assert "fail" not in found.values(), found
    assert found["foreign"] == "unknown"


def test_a_connection_that_is_cut_is_an_error(pg_server: PgServer, clone: str) -> None:
    """A cut connection proves nothing about the policy."""
    with psycopg.connect(pg_server.url(clone), autocommit=True) as connection:
        _policy_that(connection, "perform pg_terminate_backend(pg_backend_pid())")
    with pytest.raises(psycopg.OperationalError):
        probe(pg_server.url(clone))


def test_a_limit_ends_only_the_statement_that_it_is_about(migrated_url: str) -> None:
    """Other statements of the same batch keep their results."""
    slow, quick = TenantStatement("select pg_sleep(20)"), TenantStatement("select 1")
    with database.connect(migrated_url, autocommit=False) as connection:
        connection.execute("set local statement_timeout = '300ms'")
        first, second, third = attempt(connection, [quick, slow, quick])
    assert (first.rows, third.rows) == (1, 1)
    assert second.state == "57014"
    assert second.unclear
