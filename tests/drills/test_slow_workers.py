"""Waiting for an effect tells slow or busy workers from those that forget."""

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from threading import Event, Thread
from typing import Any, NoReturn, cast

import pytest

from drills.workbench.crowd import DRILLING, IDLE, Crowd
from drills.workbench.scene import Scene
from drills.workbench.waiting import Waiting
from gates.checks.observation import Busy, Observer
from gates.checks.recorder import Unmet
from gates.deployment.requests import Answer
from gates.deployment.sql.database import Connection, connect, execute
from gates.deployment.target import Target
from gates.deployment.tenants.tenants import Tenants
from gates.evidence import TargetKind

SLOW_S, BUSY_S, QUICK_S = 0.1, 0.06, 0.03
"""Between two events that a worker delivers. A check waits for 1.8 s here, and for 5.4 s while some come."""


class Prompt:
    """A service that answers at once."""

    def send(self, *_: object, **__: object) -> Answer:
        return Answer(200, (), b"{}", 1.0)


class Hurried(Scene):
    """A scene with short waits."""

    wait_scale = 0.3

    def company(self, label: str = "t", **_: object) -> str:
        return self.tenants.create(label=label)


@pytest.fixture
def scene(migrated_url: str) -> Iterator[Scene]:
    target = Target(TargetKind.STAGING, database_url=migrated_url)
    nothing = cast("Any", None)
    with connect(migrated_url) as connection:
        execute(connection, "insert into public.feature_flags (key, enabled) values ('outbox.enabled', true)")
        tenants = Tenants(connection, "slow")
        yield Hurried(target, connection, cast("Any", Prompt()), tenants, Observer(target), nothing)


@contextmanager
def meanwhile(work: Callable[[Event], None]) -> Iterator[None]:
    """Runs something beside the block, until the event is set."""
    over = Event()
    thread = Thread(target=work, args=[over])
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def beside(url: str, work: Callable[[Connection, Event], None]) -> Iterator[None]:
    """The same, with its own connection."""
    with connect(url) as connection, meanwhile(partial(work, connection)):
        yield


def worker(url: str, events: Sequence[str], every_s: float) -> AbstractContextManager[None]:
    """Delivers these events in turn, each in this time."""

    def work(connection: Connection, over: Event) -> None:
        for event in events:
            if over.wait(every_s):
                return
            deliver(connection, event)

    return beside(url, work)


def everything_but(scene: Scene, events: Sequence[str]) -> AbstractContextManager[None]:
    """Writes a tenant's events, and delivers at once whatever waits but these."""
    other = stranger(scene)
    waiting = (
        "select event_id::text from public.event_outbox where processed_at is null and event_id <> all(%s::uuid[])"
    )

    def work(connection: Connection, over: Event) -> None:
        while not over.wait(QUICK_S):
            write(connection, other, 1)
            for row in execute(connection, waiting, list(events)):
                deliver(connection, str(row["event_id"]))

    return beside(scene.target.database_url, work)


def deliver(connection: Connection, event: str) -> None:
    execute(
        connection,
        "with done as (update public.event_outbox set processed_at = clock_timestamp() where event_id = %s"
        " returning company_id, event_id)"
        " insert into public.agent_tasks (company_id, agent_name, event_id, status)"
        " select company_id, 'slow', event_id, 'completed' from done",
        event,
    )


def write(connection: Connection, company: str, number: int, *, age_s: float = 0.0) -> list[str]:
    events = [str(uuid.uuid4()) for _ in range(number)]
    for event in events:
        execute(
            connection,
            "insert into public.event_outbox (event_id, company_id, event_type, payload, inserted_at)"
            " values (%s, %s, 'x', '{}', clock_timestamp() - make_interval(secs => %s))",
            event,
            company,
            age_s,
        )
    return events


def stranger(scene: Scene) -> str:
    """A tenant of another drill."""
    return Tenants(scene.db, "other").create()


def test_slow_delivery_is_waited_for(scene: Scene) -> None:
    """Thirty events in turn take nearly twice the patience."""
    events = write(scene.db, scene.tenants.create(), 30)
    with worker(scene.target.database_url, events, SLOW_S):
        scene.delivered(events)


def test_delivery_that_is_far_too_slow_is_unknown(scene: Scene) -> None:
    """The wait ends after three times the patience."""
    events = write(scene.db, scene.tenants.create(), 100)
    with worker(scene.target.database_url, events, SLOW_S), pytest.raises(Unmet, match="comes slowly"):
        scene.delivered(events)


def test_what_is_forgotten_fails(scene: Scene) -> None:
    """Three of four events come at once, then none."""
    events = write(scene.db, scene.tenants.create(), 4)
    with (
        worker(scene.target.database_url, events[:3], QUICK_S),
        pytest.raises(AssertionError, match="observed nothing"),
    ):
        scene.delivered(events)


@pytest.mark.parametrize(("delivered", "expected"), [(99, Unmet), (0, AssertionError)], ids=["busy before it", "dead"])
def test_older_events_of_other_drills(delivered: int, expected: type[Exception], scene: Scene) -> None:
    """Workers busy with older events are late; workers that do nothing are broken."""
    older = write(scene.db, stranger(scene), 100, age_s=10)
    events = write(scene.db, scene.tenants.create(), 1)
    with worker(scene.target.database_url, older[:delivered], BUSY_S), pytest.raises(expected):
        scene.delivered(events)


def test_what_younger_events_passed_fails(scene: Scene) -> None:
    """Older events wait as well, but much younger ones were delivered."""
    other = stranger(scene)
    write(scene.db, other, 3, age_s=60)
    events = write(scene.db, scene.tenants.create(), 1, age_s=30)
    younger = write(scene.db, other, 60)
    with worker(scene.target.database_url, younger, BUSY_S), pytest.raises(AssertionError, match="observed nothing"):
        scene.delivered(events)


def test_what_was_forgotten_while_others_come_at_once_fails(scene: Scene) -> None:
    """Prompt workers left out one event."""
    events = write(scene.db, scene.tenants.create(), 1)
    with everything_but(scene, events), pytest.raises(AssertionError, match="Look at the workers"):
        scene.delivered(events)


def test_what_no_worker_was_given_is_not_laid_to_them(scene: Scene) -> None:
    """Nothing waits in the outbox, so the service did not write the event."""
    company = scene.tenants.create()
    with everything_but(scene, []), pytest.raises(AssertionError, match="look at what should have written it"):
        scene.until(
            lambda: scene.rows("select from public.audit_logs where scope = %s", company), "the refusal's audit row"
        )


def test_what_a_worker_holds_for_ever_fails(scene: Scene) -> None:
    """The event stays claimed, while others come at once."""
    events = write(scene.db, scene.tenants.create(), 1)
    claim = "update public.event_outbox set claimed_until = now() + interval '1 hour' where event_id = %s"
    execute(scene.db, claim, events[0])
    with everything_but(scene, events), pytest.raises(AssertionError, match="observed nothing"):
        scene.delivered(events)


def test_what_waits_for_a_slow_event_is_unknown(scene: Scene) -> None:
    """A worker that delivers one at a time is at another drill's slow event."""
    events = write(scene.db, scene.tenants.create(), 1)
    slow = write(scene.db, stranger(scene), 1)
    at_work = """update public.event_outbox set claimed_until = now() + interval '15 s',
        payload = '{"drill": {"delay_ms": 5000}}' where event_id = %s"""
    execute(scene.db, at_work, slow[0])
    with pytest.raises(Unmet, match="few events at once"):
        scene.delivered(events)


def test_what_comes_when_younger_events_were_served_is_unknown(scene: Scene) -> None:
    """Workers with little concurrency serve others first, and then this event."""
    events = write(scene.db, scene.tenants.create(), 1, age_s=30)
    younger = write(scene.db, stranger(scene), 40)
    with (
        worker(scene.target.database_url, [*younger, *events], BUSY_S),
        pytest.raises(Unmet, match="had served others"),
    ):
        scene.delivered(events)


@pytest.mark.parametrize(
    ("age_s", "expected"), [(60.0, Busy), (0.0, AssertionError)], ids=["in its turn", "passed over"]
)
def test_replays_that_fail_before_it(age_s: float, expected: type[Exception], scene: Scene) -> None:
    """Slow workers are late while older replayed events fail; if younger ones were served they have forgotten ours."""
    replayed = "update public.event_outbox set replay_run_id = gen_random_uuid() where event_id = any(%s::uuid[])"
    dead = "update public.event_outbox set dead_at = clock_timestamp() where event_id = %s"
    events = write(scene.db, scene.tenants.create(), 1, age_s=30)
    others = write(scene.db, stranger(scene), 200, age_s=age_s)
    execute(scene.db, replayed, [*events, *others])

    def work(connection: Connection, over: Event) -> None:
        for event in others:
            if over.wait(BUSY_S):
                return
            execute(connection, dead, event)

    with (
        everything_but(scene, [*events, *others]),
        beside(scene.target.database_url, work),
        pytest.raises(expected, match=r"have their turn|observed nothing"),
    ):
        scene.delivered(events)


def another_drills(for_s: float = 20.0) -> AbstractContextManager[None]:
    """Another process of the session works for this time, or until the block ends."""
    Scene.crowd.note(7, DRILLING)

    def work(over: Event) -> None:
        over.wait(for_s)
        Scene.crowd.note(7, IDLE)

    return meanwhile(work)


@pytest.fixture
def crowd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Waiting, "crowd", Crowd())


@pytest.mark.usefixtures("crowd")
def test_what_comes_late_beside_other_drills_is_busy(scene: Scene) -> None:
    """Workers may stand still because of other drills at work."""
    events = write(scene.db, scene.tenants.create(), 1)
    with worker(scene.target.database_url, events, 3.0), another_drills(), pytest.raises(Busy, match="served others"):
        scene.delivered(events)


@pytest.mark.usefixtures("crowd")
def test_what_does_not_come_when_the_others_have_ended_fails(scene: Scene) -> None:
    """From then on nobody waits for others."""
    company = scene.tenants.create()
    events, more = write(scene.db, company, 1), write(scene.db, company, 1)
    with another_drills(for_s=3.0), pytest.raises(AssertionError, match=r"nothing in [3-9]"):
        scene.delivered(events)
    with another_drills(), pytest.raises(AssertionError, match=r"nothing in [12]\."):
        scene.delivered(more)


def test_what_comes_at_last_was_only_late(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """It came after the last look, while another tenant's event was examined."""
    events = write(scene.db, scene.tenants.create(), 1)

    def late(*_: object) -> NoReturn:
        deliver(scene.db, events[0])
        raise AssertionError

    monkeypatch.setattr(scene, "late", late)
    scene.delivered(events)


def test_what_waits_behind_customers_is_unknown(scene: Scene) -> None:
    """Other shards are prompt, but our event's shard has a customer's backlog."""
    customer = str(uuid.uuid4())
    execute(scene.db, "insert into public.companies (id, name) values (%s, 'Customer')", customer)
    backlog = write(scene.db, customer, 5)
    events = write(scene.db, scene.tenants.create(), 1)
    with everything_but(scene, [*events, *backlog]), pytest.raises(Unmet, match="were waiting"):
        scene.delivered(events)
