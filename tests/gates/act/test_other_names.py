"""Acts under other names: the right row is changed and read back; under wrong names nothing is called done."""

from __future__ import annotations

import time
from collections.abc import Iterator

import psycopg
import pytest
from psycopg.rows import dict_row

from gates.act.emergency import emergency
from gates.act.flag import Order, look_at
from gates.act.rollback import roll_back
from gates.act.rollout import promote
from gates.contract.names import Names, names_of
from gates.decision.rules import RolloutPlan
from gates.deployment.database import connect, session, value
from gates.deployment.dialect.current import use
from gates.deployment.loans import Ending, LiveRow, give_back, lend
from gates.deployment.tenants import Tenants
from tests import renamed

PLAN = RolloutPlan("outbox.enabled", drain_timeout_s=2, rollback_patience_s=2)
ORDER = Order(PLAN, "r1", "test", "why", by_hand=True)
GIVEN = {k: v for k, v in renamed.names().items() if k != "roles"}  # roles are the whole server's


@pytest.fixture
def url(migrated_url: str) -> Iterator[str]:
    """A renamed database with its names in use; the flag is on at 10 %."""
    with psycopg.connect(migrated_url, row_factory=dict_row) as connection:
        connection.execute("delete from public.feature_flags")
        connection.execute("insert into public.feature_flags (key, enabled, rollout_percentage) values (%s, true, 10)",
                           (PLAN.flag,))  # fmt: skip
        renamed.rename(connection, roles=False)
    use(names_of(GIVEN))
    yield migrated_url
    use(Names())


def real(url: str, statement: str) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute(statement.encode()).fetchone()
        return row[0] if row else None


def test_a_step_and_the_way_back(url: str) -> None:
    """Promoted by compare-and-set and rolled back, with audit rows, in the real tables."""
    action = promote(url, Order(PLAN, "r1", "test", "why", seen=look_at(url, PLAN.flag), by_hand=True))
    assert action.result == "done", action
    assert real(url, "select share from app.switches") == 50
    back = roll_back(url, ORDER, time.monotonic, print)
    assert (back.result, back.flag) == ("done", "off")
    assert real(url, "select is_on from app.switches") is False
    assert real(url, "select string_agg(action, ',' order by id) from ops.journal") == "flag_promoted,flag_rolled_back"


def test_an_emergency(url: str) -> None:
    """The flag off, everybody paused, limits cleared."""
    done = emergency(url, ORDER, time.monotonic, print)
    assert [s.result for s in done.steps] == ["done"] * 3, done
    assert real(url, "select is_paused from app.controls where tenant_id is null") is True


@pytest.mark.parametrize(
    "wrong",
    [
        {"feature_flags": {"is": "app.no_such_table"}},
        {"feature_flags": {"is": "app.controls"}},
        {"feature_flags": {"is": "app.switches", "columns": {"enabled": "nothing"}}},
        {"feature_flags": {"absent": True}},
        {"feature_flags": {"is": "app.switches", "columns": {"key": "description", "enabled": "is_on"}}},
    ],
)
def test_a_rollback_under_wrong_names_is_not_done(url: str, wrong: dict[str, object]) -> None:
    """It says that it could not (exit code 21), and the flag stays as it is."""
    use(names_of({**GIVEN, "tables": {**GIVEN["tables"], **wrong}}))
    action = roll_back(url, ORDER, time.monotonic, print)
    assert action.result in {"failed", "not_possible"}
    assert action.flag != "off"
    assert real(url, "select is_on from app.switches") is True


def test_drill_tenants_and_loans(url: str) -> None:
    """What drills write, lend and give back is in the real tables, and is removed."""
    with session(url) as connection:
        tenants = Tenants(connection, "run")
        company = tenants.create()
        items = tenants.add_items(company, 2, status="replaying")
        assert real(url, "select string_agg(distinct status, ',') from ops.failed_jobs") == "in_progress"
        assert value(connection, "select status from public.dead_letter_queue where id = %s", items[0]) == "replaying"
        loan = lend(connection, LiveRow(PLAN.flag), {"enabled": False}, run="run", lease="h1")
        assert real(url, f"select is_on from app.switches where key = '{PLAN.flag}'") is False
        assert give_back(connection, loan) is Ending.GIVEN_BACK
        tenants.remove()
    assert real(url, "select count(*) from app.accounts") == 0
    assert real(url, "select count(*) from ops.failed_jobs") == 0


def test_an_index_serves_a_renamed_column(url: str) -> None:
    """The sub-query is flattened: a look-up by the contract's column uses the index on the real one."""
    with connect(url) as connection:
        connection.execute("set enable_seqscan = off")
        plan = connection.execute(
            "explain select 1 from public.agent_tasks where event_id = gen_random_uuid()"
        ).fetchall()
    assert "Index" in str(plan)
    assert "fact_id" in str(plan)
