"""Who waits for an effect tells workers that are slow, or busy with others, from workers that forget."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any, cast

import pytest

from drills.workbench.scene import Scene
from gates.checks.observation import Observer
from gates.checks.recorder import Unmet
from gates.deployment.database import Connection, connect, execute
from gates.deployment.requests import Answer
from gates.deployment.target import Target
from gates.deployment.tenants import Tenants
from gates.evidence import TargetKind
from tests.postgres_fixture import migrated_db, migrated_url, pg_server

__all__ = ["migrated_db", "migrated_url", "pg_server"]

PATIENCE_S = 0.6


class Prompt:
    """A service that answers at once."""

    def send(self, *_: object, **__: object) -> Answer:
        return Answer(200, {}, b"{}", 1.0)


class Hurried(Scene):
    """A tenth of the patience."""

    wait_scale = 0.1


@pytest.fixture
def scene(migrated_url: str) -> Iterator[Scene]:
    target = Target(TargetKind.STAGING, database_url=migrated_url)
    nothing = cast("Any", None)
    with connect(migrated_url) as connection:
        execute(connection, "insert into public.feature_flags (key, enabled) values ('outbox.enabled', true)")
        tenants = Tenants(connection, "slow")
        yield Hurried(target, connection, cast("Any", Prompt()), tenants, Observer(target), nothing)


@contextmanager
def worker(url: str, events: Sequence[str], every_s: float) -> Iterator[None]:
    """Delivers these events, one after the other, in steps of so long."""
    over = Event()

    def work(connection: Connection) -> None:
        for event in events:
            if over.wait(every_s):
                return
            deliver(connection, event)

    with connect(url) as connection:
        thread = Thread(target=work, args=[connection])
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def deliver(connection: Connection, event: str) -> None:
    execute(
        connection,
        "with done as (update public.event_outbox set processed_at = clock_timestamp() where event_id = %s"
        " returning company_id, event_id)"
        " insert into public.agent_tasks (company_id, agent_name, event_id, status)"
        " select company_id, 'slow', event_id, 'completed' from done",
        event,
    )


def write(scene: Scene, company: str, number: int, *, age_s: float = 0.0) -> list[str]:
    events = [str(uuid.uuid4()) for _ in range(number)]
    for event in events:
        execute(
            scene.db,
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
    events = write(scene, scene.tenants.create(), 8)
    with worker(scene.target.database_url, events, PATIENCE_S / 6):
        scene.delivered(events)


def test_delivery_that_is_far_too_slow_is_unknown(scene: Scene) -> None:
    events = write(scene, scene.tenants.create(), 40)
    with worker(scene.target.database_url, events, PATIENCE_S / 6), pytest.raises(Unmet, match="comes slowly"):
        scene.delivered(events)


def test_what_is_forgotten_fails(scene: Scene) -> None:
    events = write(scene, scene.tenants.create(), 4)
    with (
        worker(scene.target.database_url, events[:3], PATIENCE_S / 20),
        pytest.raises(AssertionError, match="observed nothing"),
    ):
        scene.delivered(events)


def _untouched(older: list[str]) -> list[str]:
    return []


def _in_turn(older: list[str]) -> list[str]:
    return older[:-1]


@pytest.mark.parametrize(
    ("delivers", "expected"), [(_in_turn, Unmet), (_untouched, AssertionError)], ids=["busy before it", "dead"]
)
def test_older_events_of_other_drills(
    delivers: Callable[[list[str]], list[str]], expected: type[Exception], scene: Scene
) -> None:
    """Workers that are busy with them come to ours later; workers that do nothing are broken."""
    older = write(scene, stranger(scene), 30, age_s=10)
    events = write(scene, scene.tenants.create(), 1)
    with worker(scene.target.database_url, delivers(older), PATIENCE_S / 10), pytest.raises(expected):
        scene.delivered(events)


def test_what_younger_events_passed_fails(scene: Scene) -> None:
    """Older events wait, too; but others, written long after ours, were delivered."""
    other = stranger(scene)
    write(scene, other, 3, age_s=60)
    events = write(scene, scene.tenants.create(), 1, age_s=30)
    younger = write(scene, other, 30)
    with (
        worker(scene.target.database_url, younger, PATIENCE_S / 10),
        pytest.raises(AssertionError, match="observed nothing"),
    ):
        scene.delivered(events)
