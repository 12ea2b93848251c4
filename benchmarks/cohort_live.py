"""When the checks of cohorts decide on a database: 200 tenants, half of them on, 100 events an hour each, no model.

    DATABASE_URL=... python -m benchmarks.cohort_live

DATABASE_URL names a server on which it may make databases. The step is made 11, 21, ... 62 minutes ago, the fleet with
all its events written anew, a release does its harm, and all checks look as in a run. Prints a table.
"""

import os
import sys
from functools import partial

import psycopg

from benchmarks.decision_rates import table
from benchmarks.sql_stage import database
from faults.cohorts import UNDO, fleet, later, lost
from gates.checks.observation import Observer, Unmet
from gates.decision.cohorts import CohortLimits
from gates.deployment.target import Target
from gates.evidence import TargetKind
from gates.stack import seed
from replay_service.migrate import migrate
from sql_checks.cohorts.run import METRICS, OUTBOX_FLAG, CohortLook, judge_cohorts, told
from sql_checks.sqlsession import SqlSession

COMPANY = "00000000-0000-4000-8000-000000000004"
AGES, AN_HOUR = (10, 20, 30, 40, 50, 61), 100
LARGE = """delete from agent_tasks t using events e where e.id = t.event_id and e.path = 'outbox'
    and e.company_id::text = (select min(company_id::text) from events where path = 'outbox')"""
RELEASES = {
    "nothing": "",
    "loses 1 event more in 100": lost(0.01),
    "loses 2 more": lost(0.02),
    "loses 5 more": lost(0.05),
    "one tenant with the release loses all": LARGE,
    "all with the release wait 4 s": later(1, 4),
    "everybody waits 4 s since the step": later(1, 4).replace(
        "AND path = 'outbox'", "AND created_at >= (SELECT updated_at FROM feature_flags WHERE key = 'outbox.enabled'"
        " AND company_id IS NULL)"
    ),
}  # fmt: skip


def looked(url: str, age: int, harm: str) -> dict[str, str]:
    """Check -> its outcome, so many minutes after the step."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"set search_path = public; {UNDO}".encode())
        connection.execute(fleet(age, round(age * AN_HOUR / 60), AN_HOUR).encode())
        if harm:
            connection.execute(harm.encode())
        connection.execute("analyze")
    session = SqlSession(url, settings=told(OUTBOX_FLAG, "10,50,100", CohortLimits()))
    look = CohortLook(session, OUTBOX_FLAG, CohortLimits())
    try:
        return {name: outcome(partial(judge_cohorts, metric, look)) for name, metric in METRICS.items()}
    finally:
        session.close()


def outcome(judge: partial[None]) -> str:
    try:
        judge(Observer(Target(TargetKind.REFERENCE)))
    except Unmet:
        return "unknown"
    except AssertionError:
        return "fail"
    return "pass"


def main() -> None:
    url = database(os.environ["DATABASE_URL"], "cohort_live")
    migrate(url)
    seed.write(url, COMPANY, history=False)
    rows = []
    for said, harm in RELEASES.items():
        seen = {age: looked(url, age, harm) for age in AGES}
        first = {
            word: {name: age for age in reversed(AGES) for name, found in seen[age].items() if found == word}
            for word in ("fail", "pass")
        }
        shown = [", ".join(f"{name} {age} min" for name, age in sorted(some.items())) for some in first.values()]
        rows.append([said, *(one or "none" for one in shown)])
    sys.stdout.write(table("the release | red, first seen | green, first seen", rows) + "\n")


if __name__ == "__main__":
    main()
