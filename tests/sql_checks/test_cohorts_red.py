"""The checks of cohorts over a fleet of 200 tenants: red where those with the release fare worse, green elsewhere."""

from collections.abc import Iterator, Mapping
from functools import partial

import pytest

from faults.cohorts import DONE, FLEET, TENANTS, later, lost
from gates.checks.observation import Observer
from gates.decision.cohorts import CohortLimits, is_as_planned
from gates.deployment.sql.database import connect, execute, script
from gates.stack import seed
from sql_checks.cohorts.run import METRICS, OUTBOX_FLAG, CohortLook, judge_cohorts, judge_share, told
from tests.postgres_fixture import TEMPLATE, PgServer
from tests.sql_checks.conftest import COMPANY, PlantedSession, outcome_of

CHECKS = {*METRICS, "share"}
Judged = Mapping[str, tuple[str, str, Observer]]


@pytest.fixture(scope="module")
def fleet_url(pg_server: PgServer) -> Iterator[str]:
    """A database with the fleet, unchanged."""
    with pg_server.database(TEMPLATE) as name:
        seed.write(pg_server.url(name), COMPANY, history=False)
        with connect(pg_server.url(name)) as connection:
            connection.execute("set search_path = public, pg_catalog")
            script(connection, FLEET)
            connection.execute("analyze")
        yield pg_server.url(name)


@pytest.fixture
def fleet(fleet_url: str) -> Iterator[PlantedSession]:
    """An open transaction on it, which is rolled back."""
    with connect(fleet_url) as connection:
        execute(connection, "begin transaction isolation level repeatable read")
        yield PlantedSession(fleet_url, planted=connection)
        connection.rollback()


def judged(
    session: PlantedSession, sql: str = "", limits: CohortLimits | None = None, *, bake_minutes: int = 60
) -> Judged:
    """After these statements: each check's outcome, message and observation."""
    if sql:
        session.planted.execute("set local search_path = public, pg_catalog")
        script(session.planted, sql)
    session.planted.execute("set local search_path = pg_catalog, pg_temp")
    limits = limits or CohortLimits()
    for name, value in told(OUTBOX_FLAG, "10,50,100", limits, bake_minutes).items():
        session.planted.execute("select set_config(%s, %s, true)", (f"replaygate.{name}", value))
    look = CohortLook(session, OUTBOX_FLAG, limits)
    found = {name: outcome_of(partial(judge_cohorts, metric, look)) for name, metric in METRICS.items()}
    return found | {"share": outcome_of(partial(judge_share, look))}


def not_passed(found: Judged) -> dict[str, str]:
    return {name: outcome for name, (outcome, _, _) in found.items() if outcome != "pass"}


def test_green_on_a_step_that_changes_nothing(fleet: PlantedSession) -> None:
    """Half an hour after a step to 50 % everything is decided."""
    found = judged(fleet)
    assert not_passed(found) == {}
    details = found["success"][2].details
    for side in (details["on"], details["off"]):
        assert isinstance(side, dict)
        assert isinstance(side["shares"], list)
        assert len(side["shares"]) == 5


@pytest.mark.parametrize("name", DONE)
def test_red_on_its_fault_alone(name: str, fleet: PlantedSession) -> None:
    """Each check fails on its fault and names tenants; the others do not change."""
    _, sql, checks = DONE[name]
    found = judged(fleet, sql)
    assert not_passed(found) == dict.fromkeys(checks, "fail"), {name: said for name, (_, said, _) in found.items()}
    for check in checks:
        assert found[check][2].witness
        assert OUTBOX_FLAG in found[check][1]


def test_a_look_that_reads_a_part_reads_it_of_every_tenant(fleet: PlantedSession) -> None:
    """A look at 8,000 events still sees all 200 tenants."""
    found = judged(fleet, limits=CohortLimits(most_events=8000))["share"]
    assert found[2].samples == 200
    assert found[0] == "pass"


def test_a_draw_that_stays_holds_nobody_for_good(fleet: PlantedSession) -> None:
    """44 of 140 tenants are on where half are planned, each as the flag's function has it: nothing is lost."""
    drawn = f"(select c from {TENANTS} as t(c) where is_feature_enabled('{OUTBOX_FLAG}', c) order by c limit 60)"
    tables = ("event_outbox", "agent_tasks", "events")
    gone = "; ".join(f"delete from {table} where company_id in {drawn}" for table in tables)
    outcome, message, seen = judged(fleet, gone)["share"]
    assert not is_as_planned(round(seen.samples * float(str(seen.observed)) / 100), seen.samples, 50)
    assert outcome == "pass", message


def test_every_check_has_a_fault() -> None:
    """Each check of cohorts has a fault that it is seen to find."""
    assert {check for _, _, checks in DONE.values() for check in checks} == CHECKS


@pytest.mark.parametrize("points", [1, 2, 5])
def test_some_points_worse_with_the_release(points: int, fleet: PlantedSession) -> None:
    """One, two or five more lost events in a hundred are found by the end of the bake."""
    found = judged(fleet, lost(points / 100), bake_minutes=30)["success"]
    assert found[0] == "fail", found[1]


def test_one_large_tenant_decides_nothing_alone(fleet: PlantedSession) -> None:
    """If one tenant loses everything, the result is unknown and names it."""
    sql = """delete from agent_tasks t using events e where e.id = t.event_id and e.path = 'outbox'
        and e.company_id::text = (select min(company_id::text) from events where path = 'outbox')"""
    outcome, message, seen = judged(fleet, sql)["success"]
    assert outcome == "unknown"
    assert "minutes more" in message or "a larger step" in message
    worst = seen.details["worst"]
    assert isinstance(worst, list)
    assert len(worst) == 1


def test_what_slows_all_alike_is_no_difference(fleet: PlantedSession) -> None:
    """If everybody waits four seconds, the step is not the cause."""
    others = later(1, 4).replace("AND path = 'outbox'", "AND created_at > now() - interval '31 minutes'")
    assert not_passed(judged(fleet, others)) == {}


def test_tenants_that_fall_silent_with_and_without_the_release_are_no_difference(fleet: PlantedSession) -> None:
    """If one in eight of all tenants is silent, the step is not the cause."""
    _, sql, _ = DONE["tenants-fall-silent"]
    since = "created_at > now() - interval '31 minutes'"
    alike = sql.replace("AND path = 'outbox'", f"AND {since}")
    assert alike.count(since) == 3
    assert not_passed(judged(fleet, alike)) == {}


GIANT = """
    CREATE TEMPORARY TABLE giant ON COMMIT DROP AS SELECT min(company_id::text)::uuid AS id FROM events
    WHERE path = 'direct' AND created_at > now() - interval '31 minutes';
    UPDATE events SET company_id = g.id FROM giant g
    WHERE path = 'direct' AND created_at > now() - interval '31 minutes'
      AND ('x' || substr(md5(events.id::text), 1, 7))::bit(28)::int < 0.6 * 268435456;
    UPDATE agent_tasks t SET company_id = e.company_id, updated_at = e.created_at + interval '20 s'
    FROM events e, giant g WHERE e.id = t.event_id AND e.company_id = g.id"""


def test_one_large_tenant_does_not_say_what_is_usual(fleet: PlantedSession) -> None:
    """Most events without the release are of one tenant, which waits for 20 s: the 4 s of all with it are found."""
    found = judged(fleet, f"{GIANT}; {later(1, 4)}")
    assert found["lag-p50"][0] == "fail", found["lag-p50"][1]


UNDECIDED = {
    "few tenants": ("", "at least 10 are needed"),
    "a step of now": ("update feature_flags set updated_at = now() where company_id is null", "0 s after the step"),
    "a flag that is off": ("update feature_flags set enabled = false, updated_at = now() - interval '1 h'", "to 0 %"),
    "a step of tomorrow": ("update feature_flags set updated_at = now() + interval '1 d'", "does not say when"),
    "no flag": ("delete from feature_flags", "no global row"),
}


@pytest.mark.parametrize("case", UNDECIDED)
def test_unknown_where_nothing_can_be_compared(case: str, planted: PlantedSession) -> None:
    """With few tenants, a step of just now or no flag, every check is unknown and says why."""
    sql, said = UNDECIDED[case]
    found = judged(planted, sql)
    assert not_passed(found) == dict.fromkeys(CHECKS, "unknown")
    assert said in found["success"][1]
