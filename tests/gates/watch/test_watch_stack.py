"""The watch on the whole reference, with its short drill and faults planted between rounds."""

import dataclasses
import datetime as dt
import os
from collections.abc import Iterator

import psycopg
import pytest

from faults.cohorts import FLEET, UNDO, lost
from gates import catalogue
from gates.decision.policy_file import parse
from gates.stack.plan import StackOptions
from gates.stack.stack import reference_stack
from gates.watch import history
from gates.watch.look import Drills
from gates.watch.story import FinishedRound, Watch, one_round
from tests.gates.reports.test_webhook import webhook
from tests.postgres_fixture import sql_at

CHECKS = ("preflight/", "drill/proof/", "sql/spot/rls-enabled", "sql/spot/replay-runs-unique", "alert/dlq-size")


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watch]:
    """A watch over the running reference, with a few checks of each kind."""
    folder = tmp_path_factory.mktemp("watch")
    with reference_stack(StackOptions(release="r1"), os.environ) as stack:
        yield Watch(
            target=stack.info.target(),
            policy_file=parse("version: 1\n", "gate.yaml", folder, dt.date(2026, 1, 1)),
            catalogue=tuple(s for s in catalogue.load() if s.id.startswith(CHECKS)),
            history=folder / "history.ndjson",
            interval_s=5.0,
            environ=os.environ,
        )


def run(watch: Watch, statement: str = "select 1") -> FinishedRound:
    """Change something in the database, then make a round."""
    sql_at(watch.target.database_url, statement)
    done = one_round(watch)
    assert done is not None
    return done


def test_a_fault_between_rounds_is_seen_told_once_rolled_back_and_recovers_on_sight(deployed: Watch) -> None:
    """Lost row security fails, is told once and rolls back next round; repaired, it is good again."""
    with webhook() as (url, posts):
        target = dataclasses.replace(deployed.target, slack_webhook_url=url)
        watch = dataclasses.replace(deployed, target=target, rollback=True, drills=Drills.SHORT)
        first = run(watch)
        assert (first.round.state, first.round.drills) == ("good", "short"), first.round.reason
        assert sum(c.startswith("drill/proof/") for c in first.round.readings) == 7
        quiet = dataclasses.replace(watch, drills=Drills.NONE)
        broken = run(quiet, "alter table public.dead_letter_queue disable row level security")
        assert (broken.round.state, broken.round.action) == ("failing", {})
        again = run(quiet)
        assert (again.round.state, again.round.action["result"]) == ("failing", "done")
        repaired = run(quiet, "alter table public.dead_letter_queue enable row level security")
        assert repaired.round.state == "good", repaired.round.reason
    kinds = [[word for word in ("*failing*", "*rolled back*", "*recovered*") if word in str(p)] for p in posts]
    assert kinds == [["*failing*"], ["*rolled back*"], ["*recovered*"]]
    found = history.read(deployed.history, deployed.name)
    assert (found.total, found.broken, found.untold) == (4, (), ())
    with psycopg.connect(deployed.target.database_url) as connection:
        rows = connection.execute(
            "select (select enabled from public.feature_flags where key = 'outbox.enabled' and company_id is null),"
            " (select count(*) from public.audit_logs where action = 'flag_rolled_back'),"
            " (select count(*) from public.companies where name like 'drill-%')"
        ).fetchone()
    assert rows == (False, 1, 0)


FLAG = "select enabled from public.feature_flags where key = 'outbox.enabled' and company_id is null"
ROLLED_BACK = "select count(*) from public.audit_logs where action = 'flag_rolled_back'"


def cohort_watch(deployed: Watch, policy: str = "version: 1\n") -> Watch:
    """A watch of cohorts alone, with its own policy and history."""
    return dataclasses.replace(
        deployed,
        catalogue=tuple(s for s in catalogue.load() if s.id.startswith(("preflight/", "cohort/"))),
        policy_file=parse(policy, "gate.yaml", deployed.history.parent, dt.date(2026, 1, 1)),
        history=deployed.history.parent / f"{abs(hash(policy))}.ndjson",
        drills=Drills.NONE,
        rollback=True,
    )


def value(watch: Watch, query: str) -> object:
    with psycopg.connect(watch.target.database_url) as connection:
        row = connection.execute(query.encode()).fetchone()
    return row[0] if row else None


@pytest.fixture
def fleet(deployed: Watch) -> Iterator[None]:
    """200 tenants half an hour after a step to 50 %; removed at the end."""
    run_sql(deployed, f"{FLEET}; analyze")
    yield
    run_sql(deployed, UNDO)


def run_sql(watch: Watch, statements: str) -> None:
    sql_at(watch.target.database_url, f"set search_path = public; {statements}")


@pytest.mark.usefixtures("fleet")
def test_a_watch_decides_by_cohorts_through_the_bake(deployed: Watch) -> None:
    """Equal cohorts are good; lost events of the new release fail, and the next round switches the flag off."""
    watch = cohort_watch(deployed)
    before = value(watch, ROLLED_BACK)
    first = run(watch).round
    assert first.state == "good", first.reason
    assert first.readings["cohort/success"].outcome == "pass"
    run_sql(watch, lost(0.05))
    harmed = run(watch).round
    assert (harmed.state, harmed.action) == ("failing", {}), harmed.reason
    assert "cohort/success" in harmed.reason
    assert value(watch, FLAG) is True
    again = run(watch).round
    assert (again.state, again.action["result"]) == ("failing", "done")
    assert value(watch, FLAG) is False
    assert value(watch, ROLLED_BACK) == int(str(before)) + 1


MILD = "version: 1\nchecks:\n  cohort/*: {severity: warn}\n"


@pytest.mark.usefixtures("fleet")
def test_a_policy_that_warns_of_cohorts_rolls_nothing_back(deployed: Watch) -> None:
    """If a worse cohort is only a warning, rounds are doubtful, and the flag stays."""
    watch = cohort_watch(deployed, MILD)
    run_sql(watch, lost(0.05))
    for _ in range(2):
        harmed = run(watch).round
        assert (harmed.state, harmed.action) == ("doubtful", {}), harmed.reason
    assert value(watch, FLAG) is True
