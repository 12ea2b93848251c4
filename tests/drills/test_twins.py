"""The recovery drills turn red on faulty twins of the reference: another composition of its service or its worker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from drills.workbench.scene import Scene
from gates.evidence import Outcome
from gates.stack.stack import Stack
from tests.drills.examination import ROOT, examine
from tests.drills.sql_plants import Plant, planted

RECOVERY = str(ROOT / "drills" / "recovery")
SKEWED = "drill/recovery/worker-clock-skewed"
EACH_PHASE = "drill/recovery/worker-killed-in-each-phase"
IN_A_REPLAY = "drill/recovery/worker-killed-in-a-replay"
FROZEN = "drill/recovery/worker-frozen-past-its-claim"
SESSIONS = "drill/recovery/worker-sessions-ended"
RESTARTED = "drill/recovery/database-restarted"
NOTICE_LOST = "drill/recovery/notice-lost"
LONG = "drill/recovery/long-transaction-held-open"
REPLAY_ENDED = "drill/recovery/replay-session-ended"
SERVICE_KILLED = "drill/recovery/service-killed-in-a-replay"
EVENT_ENDED = "drill/recovery/event-session-ended"
HASTE = 0.3

NOT_UNIQUE = Plant(
    "effects are not unique",
    "alter table public.agent_tasks drop constraint agent_tasks_event_id_key",
    "delete from public.agent_tasks t using agent_tasks o where t.event_id = o.event_id and t.id > o.id;"
    " alter table public.agent_tasks add constraint agent_tasks_event_id_key unique (event_id)",
    (),
)
NOT_DURABLE = Plant(
    "the outbox does not survive a crash",
    "alter table public.event_outbox set unlogged",
    "alter table public.event_outbox set logged",
    (),
)


@dataclass(frozen=True)
class Twin:
    """A function of `twins` for the worker (or `serve`: the service), what is planted beside it, and what it does."""

    parts: str
    red: tuple[str, ...]
    green: tuple[str, ...] = ()
    serve: bool = False
    plant: Plant | None = None


TABLE = (
    Twin("own_clock", (SKEWED,), green=(EACH_PHASE, SESSIONS)),
    Twin("own_clock_behind", (SKEWED,)),
    Twin("own_clock_backs_off", (SKEWED,)),
    Twin("own_clock_stamps", (SKEWED,)),
    Twin("own_clock_postpones", (SKEWED,)),
    Twin("own_clock_leases", (SKEWED,)),
    Twin("never_reclaims", (EACH_PHASE, IN_A_REPLAY), green=(LONG,)),
    Twin("marks_first", (EACH_PHASE, IN_A_REPLAY)),
    Twin("new_id_at_each_claim", (EACH_PHASE,), green=(LONG,)),
    Twin("no_fence", (FROZEN,), plant=NOT_UNIQUE),
    Twin("no_reconnect", (SESSIONS,)),
    Twin("no_polling", (IN_A_REPLAY, NOTICE_LOST), green=(LONG,)),
    Twin("above_the_last", (LONG,)),
    Twin("", (RESTARTED,), plant=NOT_DURABLE),
    Twin("commits_the_key_first", (REPLAY_ENDED, SERVICE_KILLED), green=(EVENT_ENDED,), serve=True),
    Twin("commits_the_items_first", (REPLAY_ENDED,), green=(EVENT_ENDED,), serve=True),
    Twin("two_transactions", (EVENT_ENDED,), green=(REPLAY_ENDED,), serve=True),
)


@pytest.fixture
def in_haste() -> Iterator[None]:
    """Let the drills wait less for what will not come."""
    Scene.wait_scale = HASTE
    yield
    Scene.wait_scale = 1.0


@contextmanager
def installed(twin: Twin, stack: Stack) -> Iterator[None]:
    """The reference with the twin's parts, until the end."""
    parts = ("--parts", f"tests.drills.twins:{twin.parts}") if twin.parts else ()
    stack.recompose(parts if twin.serve else (), () if twin.serve else parts, {})
    try:
        yield
    finally:
        stack.recompose((), (), {})


@pytest.mark.parametrize("twin", TABLE, ids=lambda t: t.parts or t.plant.name.replace(" ", "-"))
@pytest.mark.usefixtures("in_haste")
def test_twin_turns_its_checks_red(twin: Twin, reference: Stack, variables: dict[str, str], tmp_path: Path) -> None:
    """The twin turns its checks to fail, by an observation, and leaves others green."""
    with ExitStack() as stack:
        stack.enter_context(installed(twin, reference))
        if twin.plant:
            stack.enter_context(planted(variables["DATABASE_URL"], twin.plant))
        found = examine(variables, [*twin.red, *twin.green], tmp_path, [RECOVERY], "--deep")
    due = dict.fromkeys(twin.red, Outcome.FAIL) | dict.fromkeys(twin.green, Outcome.PASS)
    wrong = {i: f"{e.outcome}: {e.message}" for i, e in found.items() if e.outcome is not due[i]}
    assert not wrong, f"with {twin.parts or twin.plant} installed: {wrong}"
    assert set(found) == set(due)


def test_recovery_is_green_on_the_reference(variables: dict[str, str], tmp_path: Path) -> None:
    """With nothing planted every recovery drill passes, and each has a twin that turns it red."""
    found = examine(variables, ["drill/recovery/*"], tmp_path, [RECOVERY], "--deep")
    assert {i: e.message for i, e in found.items() if e.outcome is not Outcome.PASS} == {}
    assert set(found) == {check for twin in TABLE for check in twin.red}
