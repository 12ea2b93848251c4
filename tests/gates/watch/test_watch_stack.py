"""The watch on a whole deployment: the reference, its short drill, and faults planted between two rounds."""

from __future__ import annotations

import dataclasses
import datetime as dt
import os
from collections.abc import Iterator

import psycopg
import pytest

from gates import catalogue
from gates.decision.policy_file import parse
from gates.stack.plan import StackOptions
from gates.stack.stack import reference_stack
from gates.watch import history
from gates.watch.look import Drills
from gates.watch.story import FinishedRound, Watch, one_round
from tests.gates.reports.test_webhook import webhook

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
            drills=Drills.SHORT,
            environ=os.environ,
        )


def run(watch: Watch, statement: str = "select 1") -> FinishedRound:
    """Change something in the database, then make a round."""
    with psycopg.connect(watch.target.database_url, autocommit=True) as connection:
        connection.execute(statement.encode())
    done = one_round(watch)
    assert done is not None
    return done


def test_a_fault_between_rounds_is_seen_told_once_rolled_back_and_recovers_on_sight(deployed: Watch) -> None:
    """A table loses its row security: failing, told once, the flag off in the next round; repaired: good again."""
    with webhook() as (url, posts):
        target = dataclasses.replace(deployed.target, slack_webhook_url=url)
        watch = dataclasses.replace(deployed, target=target, rollback=True)
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
