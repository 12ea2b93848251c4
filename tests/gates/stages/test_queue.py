"""The queue stage: what counts as a growing backlog, as done, and as a load that was handled."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gates.contract.queues import ProbeOptions, Queue, QueueOptions, presets
from gates.deployment.queue.jobs import JobState, QueueDoor, QueueTroubleError
from gates.evidence import Outcome
from gates.stages.queue import LEAST_GROWTH, LEAST_POINTS, Probing, grown, watched
from tests.postgres_fixture import PgServer

SCHEMAS = Path(__file__).parents[2] / "sql_checks" / "queues" / "schemas"


def points(*jobs: int) -> list[tuple[float, int]]:
    return [(float(n), count) for n, count in enumerate(jobs)]


@pytest.mark.parametrize(
    ("jobs", "outcome"),
    [
        ((0, 5, 10, 15, 20, 25, 30, 35), Outcome.FAIL),
        ((1000, 1100, 1200, 1300, 1400, 1500), Outcome.FAIL),
        ((0, 0, 0, 0, 0, 0, 0, 0), Outcome.PASS),
        ((0, 1, 2, 3, 4, 5, 6, 7), Outcome.PASS),
        ((0, 50, 40, 30, 20, 15, 12, 11), Outcome.PASS),
        ((500, 400, 300, 200, 100, 50, 20, 0), Outcome.PASS),
        ((0, 60, 5, 60, 5, 60, 5, 60), Outcome.PASS),
        ((0, 100, 200), Outcome.UNKNOWN),
        ((), Outcome.UNKNOWN),
    ],
)
def test_a_backlog_grows_where_it_only_grows(jobs: Sequence[int], outcome: Outcome) -> None:
    """Steady growth fails; bursts, saw teeth, drains and few jobs pass; few samples are unknown."""
    assert grown(points(*jobs)).outcome is outcome


@given(st.lists(st.integers(0, 10_000), min_size=6, max_size=40))
def test_no_growth_is_seen_where_the_last_is_near_the_first(jobs: list[int]) -> None:
    """It passes whatever happened between the first and the last sample."""
    if jobs[-1] - jobs[0] <= LEAST_GROWTH:
        assert grown(points(*jobs)).outcome is Outcome.PASS


class FakeQueueDoor:
    """A queue whose jobs become, in turn, what `become` says: state, seconds, effects."""

    def __init__(self, *become: tuple[str, float | None, int], within_s: float = 0.3) -> None:
        self.queue = Queue(presets()["pgqueuer"], QueueOptions(probe=ProbeOptions("probe", within_s=within_s, rate=9)))
        self.become, self.sent, self.removed = become, 0, list[str]()

    def enqueue(self) -> str:
        self.sent += 1
        return str(self.sent - 1)

    def look(self, ids: Sequence[str]) -> list[JobState]:
        return [JobState(i, *self.become[int(i) % len(self.become)]) for i in ids]

    def remove(self, ids: Sequence[str]) -> None:
        self.removed += ids


def probed(door: FakeQueueDoor, count: int) -> Probing:
    probing = Probing(door)  # type: ignore[arg-type]
    probing.run(0.0, count)
    return probing


def test_a_slow_database_is_watched_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """If each look is slow, the watch lasts until it has enough samples."""

    class SlowDoor:
        queue = Queue(presets()["pgmq"], QueueOptions(prefix="mail"))
        now = 0.0

        def waiting(self) -> int:
            self.now += 3
            return 7

        def ended(self) -> int:
            return 1

    door = SlowDoor()
    monkeypatch.setattr("gates.stages.queue.time", SimpleNamespace(monotonic=lambda: door.now, sleep=lambda _: None))
    seen, _ = watched(door, until_ended=True)  # type: ignore[arg-type]
    assert len(seen) == LEAST_POINTS
    assert grown(seen).outcome is Outcome.PASS


@pytest.mark.parametrize(
    ("become", "outcome"),
    [
        (("done", 0.1, 1), Outcome.PASS),
        (("done", None, 1), Outcome.PASS),
        (("failed", None, 0), Outcome.FAIL),
        (("waiting", None, 0), Outcome.FAIL),
        (("lost", None, 0), Outcome.FAIL),
    ],
)
def test_one_job_is_the_proof(become: tuple[str, float | None, int], outcome: Outcome) -> None:
    """A job done in time passes; others fail with their state, and unclaimed jobs are removed."""
    door = FakeQueueDoor(become)
    line = probed(door, 1).proof()
    assert line.outcome is outcome
    assert become[0] in line.message or outcome is Outcome.PASS
    assert door.removed == ([] if become[0] == "done" else ["0"])


def test_a_load_is_judged_by_all_its_jobs() -> None:
    """A quarter not done fails two checks; a job done twice fails the third; five jobs prove nothing."""
    good, late, twice = ("done", 0.1, 1), ("waiting", None, 0), ("done", 0.1, 2)
    by = [e.outcome for e in probed(FakeQueueDoor(good), 20).load()]
    assert by == [Outcome.PASS, Outcome.PASS, Outcome.PASS]
    by = [e.outcome for e in probed(FakeQueueDoor(good, good, good, late), 20).load()]
    assert by == [Outcome.FAIL, Outcome.FAIL, Outcome.PASS]
    by = [e.outcome for e in probed(FakeQueueDoor(good, twice), 20).load()]
    assert by == [Outcome.PASS, Outcome.PASS, Outcome.FAIL]
    assert [e.outcome for e in probed(FakeQueueDoor(good), 5).load()[:2]] == [Outcome.UNKNOWN, Outcome.UNKNOWN]


def test_the_door_enqueues_looks_and_takes_back(pg_server: PgServer) -> None:
    """On pgmq, a job waits, is done when archived, and can be removed while unread."""
    with pg_server.database() as name, psycopg.connect(pg_server.url(name), autocommit=True) as admin:
        admin.execute((SCHEMAS / "pgmq.sql").read_bytes())
        queue = Queue(presets()["pgmq"], QueueOptions(prefix="mail", probe=ProbeOptions("mail", payload={"a": 1})))
        with QueueDoor(queue, pg_server.url(name)) as door:
            first, second = door.enqueue(), door.enqueue()
            assert [j.state for j in door.look([first, second])] == ["waiting", "waiting"]
            assert (door.waiting(), door.ended()) == (2, 0)
            admin.execute(
                "with m as (delete from pgmq.q_mail where msg_id = 1 returning msg_id, message)"
                " insert into pgmq.a_mail (msg_id, message) select msg_id, message from m"
            )
            assert [j.state for j in door.look([first])] == ["done"]
            assert door.ended() == 1
            door.remove([second])
            assert door.waiting() == 0
        admin.execute("drop table pgmq.a_mail")
        with pytest.raises(QueueTroubleError, match="pgmq is absent: schema pgmq has no table a_mail"):
            QueueDoor(queue, pg_server.url(name)).__enter__()
