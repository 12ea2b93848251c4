"""The row-security probe acts as a member where a table maps users to tenants."""

from collections.abc import Iterator

import psycopg
import pytest
from psycopg.rows import dict_row

from gates.contract.names import names_of
from gates.deployment.dialect.current import use
from gates.deployment.sql.database import session
from gates.deployment.tenants.tenants import Tenants
from sql_checks.attempts.row_level_security import probe
from tests.postgres_fixture import PgServer
from tests.renamed import MEMBERS, by_members
from tests.sql_checks.test_rls_red import HOLES, verdicts

LEFT = "select (select count(*) from public.people) + (select count(*) from public.memberships)"


@pytest.fixture
def clone(pg_server: PgServer, seeded_db: str) -> Iterator[str]:
    """The URL of a copy of the seeded database in which members are listed, to be broken."""
    with pg_server.database(seeded_db) as name:
        with psycopg.connect(pg_server.url(name), row_factory=dict_row) as connection:
            by_members(connection)
        use(names_of({"members": MEMBERS}))
        yield name


OF_MEMBERS = sorted(hole for hole, (_, failing) in HOLES.items() if failing != {"garbage"})
"""Claims that shape the name of a tenant are no hole where they name none."""


@pytest.mark.parametrize("hole", ["", *OF_MEMBERS])
def test_a_hole_is_red_and_members_are_not(hole: str, pg_server: PgServer, clone: str) -> None:
    """Green without a hole, red with one; nothing of the probe stays."""
    url = pg_server.url(clone)
    with psycopg.connect(url) as connection:
        connection.execute("set local search_path = public, pg_catalog")
        connection.execute((HOLES[hole][0] if hole else "select").encode())
    assert bool(hole) == ("fail" in verdicts(probe(url)).values())
    with psycopg.connect(url) as connection:
        assert connection.execute(LEFT).fetchone() == (0,)


def test_a_login_that_may_make_no_member_proves_nothing(pg_server: PgServer, clone: str) -> None:
    """Without the right to add a member the probe is unknown, not failed."""
    looked = probe(pg_server.url(clone, "replay_gate"))
    assert set(verdicts(looked).values()) == {"unknown"}
    assert "may make no user a member" in looked.exempt


def test_the_tenants_of_a_run_have_a_member_while_they_are_there(pg_server: PgServer, clone: str) -> None:
    """Drill tenants get a user and a membership, which are removed with them."""
    with session(pg_server.url(clone)) as connection:
        tenants = Tenants(connection, "t")
        tenants.create()
        assert connection.execute(LEFT).fetchone() == {"?column?": 2}
        tenants.remove()
        assert connection.execute(LEFT).fetchone() == {"?column?": 0}
