"""The row-security probe gives the same results under other names, tables and claims."""

import psycopg
import pytest
from psycopg.rows import dict_row

from gates.contract.names import names_of
from gates.deployment.dialect.current import use
from gates.deployment.sql.database import connect
from sql_checks.attempts.row_level_security import probe
from sql_checks.attempts.statements import TenantStatement, attempt
from tests import renamed
from tests.postgres_fixture import PgServer
from tests.sql_checks.test_rls_red import HOLES, verdicts

CLAIM = "app_metadata.tenant"
GIVEN = {k: v for k, v in renamed.names(tenant_claim=CLAIM).items() if k != "roles"}


def looked_at_under_other_names(url: str) -> dict[str, str]:
    with psycopg.connect(url, row_factory=dict_row) as connection:
        renamed.rename(connection, roles=False)
        renamed.move_claim(connection, CLAIM)
    use(names_of(GIVEN))
    return verdicts(probe(url))


@pytest.mark.parametrize("hole", ["", *sorted(HOLES)])
def test_a_hole_is_a_hole_under_other_names(hole: str, pg_server: PgServer, clone: str) -> None:
    """Green without a hole; with one, the checks that it concerns fail, with other names and without."""
    url = pg_server.url(clone)
    if hole:
        with psycopg.connect(url) as connection:
            connection.execute("set local search_path = public, pg_catalog")
            connection.execute(HOLES[hole][0].encode())
    before = verdicts(probe(url))
    assert looked_at_under_other_names(url) == before
    assert bool(hole) == ("fail" in before.values())
    assert not hole or {name for name, outcome in before.items() if outcome == "fail"} >= HOLES[hole][1]


def test_a_table_that_is_absent_leaves_the_others_judged(pg_server: PgServer, clone: str) -> None:
    """Only statements on the absent table fail; the others keep their results."""
    use(names_of({"tables": {"replay_budgets": {"absent": True}}}))
    asked = [TenantStatement(f"select 1 from public.{table}") for table in ("replay_budgets", "agent_tasks")]
    with connect(pg_server.url(clone)) as connection, connection.transaction():
        without, others = attempt(connection, asked)
        assert "absent" in without.error
        assert not others.error
    with psycopg.connect(pg_server.url(clone)) as owner:
        owner.execute("drop table public.replay_budgets cascade")
    assert set(verdicts(probe(pg_server.url(clone))).values()) == {"pass"}


ARCHIVED = """
alter table public.dead_letter_queue add column gone_at timestamptz;
update public.dead_letter_queue set gone_at = now();
"""
LEFT_OUT = {"tables": {"dead_letter_queue": {"rows": "gone_at is null"}}}


@pytest.mark.parametrize("rows", ["gone_at is not null", ""])
def test_rows_that_do_not_count_are_their_tenants(rows: str, pg_server: PgServer, clone: str) -> None:
    """A policy that shows everybody what is deleted softly is a hole, whatever `rows` leaves out; without it, none."""
    with psycopg.connect(pg_server.url(clone)) as connection:
        connection.execute(ARCHIVED)
        if rows:
            policy = "create policy gone on public.dead_letter_queue for select to authenticated using"
            connection.execute(f"{policy} ({rows})".encode())
    use(names_of(LEFT_OUT))
    assert ("fail" in verdicts(probe(pg_server.url(clone))).values()) == bool(rows)
