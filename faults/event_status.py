"""Faults of what is read of an event and a run: what it says, and to whom."""

import dataclasses
import time
import uuid
from typing import Any

from faults.altered import altered, around, instead_of
from faults.catalogue import service
from faults.outbox import is_done
from faults.probe import Probe
from replay_service.authentication import authenticate
from replay_service.composition import build_parts
from replay_service.exchange import Call, Caller, RawHeaders, Reply
from replay_service.parts import Parts
from replay_service.problems import Refusal
from replay_service.reads import read_event, read_run
from replay_service.settings import Settings

UNKNOWN_RUN_IS_NOT_FOUND = "drill/lifecycle/unknown-run-is-not-found"
OUTBOX = "drill/outbox"
DIRECT = "drill/flags/outbox-off-takes-direct-path"


@service(lambda p: _effect_at(p) is None, f"{OUTBOX}/status-of-an-event", "effect_at")
@around("read_event_state")
async def status_without_effect_at(release: Parts, parts: Parts, call: Call, path: bytes, event_id: str) -> Reply:
    """The status of an event lacks `effect_at`."""
    reply = await release.read_event_state(parts, call, path, event_id)
    return dataclasses.replace(reply, body={**reply.body, "effect_at": None})


def _state(probe: Probe, event_id: str) -> dict[str, Any]:
    path = f"/events/{event_id}"
    return dict(probe.read(path).json())


def _effect_at(probe: Probe) -> Any:
    with probe.tenant() as company:
        event_id = str(probe.event(company).json()["event_id"])
        is_done(probe, event_id)
        return _state(probe, event_id)["effect_at"]


@service(lambda p: _of_a_direct_event(p)["committed_at"] is None, DIRECT, "committed_at")
def direct_events_have_no_time(settings: Settings) -> Parts:
    """The status of an event that took the direct path lacks `committed_at`: it is read from the outbox row."""
    shown = "CASE WHEN e.path = 'outbox' THEN e.created_at END AS committed_at"
    return altered(settings, "read_event", ("e.created_at AS committed_at", shown))


@service(lambda p: _of_a_direct_event(p)["status"] == "pending", DIRECT, "as of one that waits")
def direct_events_seem_to_wait(settings: Settings) -> Parts:
    """The status of an event that took the direct path stays that of one which waits: it is that of its outbox row."""
    done = "WHEN t.id IS NOT NULL OR o.processed_at IS NOT NULL THEN"
    return altered(settings, "read_event", (done, "WHEN o.processed_at IS NOT NULL THEN"))


def _of_a_direct_event(probe: Probe) -> dict[str, Any]:
    with probe.tenant() as company:
        probe.switch_off(company)
        return _state(probe, str(probe.event(company).json()["event_id"]))


async def _anybody(parts: Parts, headers: RawHeaders, message: bytes, *, accepts_v1: bool = True) -> Caller:
    """The caller, with the right to act for every company."""
    caller = await authenticate(parts, headers, message, accepts_v1=accepts_v1)
    return Caller(caller.signature, caller.claims and dataclasses.replace(caller.claims, role="super_admin"))


@service(lambda p: _read_foreign(p, "/dlq-replay/") == 200, "drill/tokens/foreign-run-hidden", ("404", "foreign"))
@instead_of("read_run")
async def foreign_run_shown(parts: Parts, call: Call, path: bytes, run_id: str) -> Reply:
    """The status of another company's run is shown."""
    return await read_run(dataclasses.replace(parts, authenticate=_anybody), call, path, run_id)


@service(lambda p: _read_foreign(p, "/events/") == 200, "drill/tokens/foreign-event-hidden", ("404", "foreign"))
@instead_of("read_event_state")
async def foreign_event_shown(parts: Parts, call: Call, path: bytes, event_id: str) -> Reply:
    """The status of another company's event is shown."""
    return await read_event(dataclasses.replace(parts, authenticate=_anybody), call, path, event_id)


@service(
    lambda p: _read_foreign(p, "/dlq-replay/", signed=True) == 200,
    ("drill/tokens/foreign-run-hidden", "drill/tokens/foreign-event-hidden"),
    ("404", "foreign"),
)
@instead_of("authenticate")
async def signed_readers_read_all(
    parts: Parts, headers: RawHeaders, message: bytes, *, accepts_v1: bool = True
) -> Caller:
    """The status of another company's run or event is shown to a token that is signed, too."""
    caller = await authenticate(parts, headers, message, accepts_v1=accepts_v1)
    return caller if accepts_v1 or caller.signature is None else Caller(caller.signature, None)


@service(
    lambda p: _read_foreign(p, "/dlq-replay/", role="super_admin") == 404,
    "drill/tokens/foreign-run-hidden",
    "super_admin",
)
def super_admins_read_no_run(settings: Settings) -> Parts:
    """A super_admin reads no run."""
    return _hiding_runs_from(settings, "super_admin")


@service(lambda p: _reads_its_own(p) == 404, "drill/tokens/foreign-run-hidden", "own run")
def company_admins_read_no_run(settings: Settings) -> Parts:
    """A company's admin reads no run, not even its own."""
    return _hiding_runs_from(settings, "company_admin")


@service(
    lambda p: _reads_its_own(p, "viewer") == 200,
    ("drill/tokens/foreign-run-hidden", "drill/tokens/foreign-event-hidden"),
    "without rights",
)
@instead_of("authenticate")
async def any_role_reads(parts: Parts, headers: RawHeaders, message: bytes, *, accepts_v1: bool = True) -> Caller:
    """Any token of a company reads its runs and events, whatever its role."""
    caller = await authenticate(parts, headers, message, accepts_v1=accepts_v1)
    if accepts_v1 or caller.claims is None or caller.has_role:
        return caller
    return Caller(caller.signature, dataclasses.replace(caller.claims, role="company_admin"))


def _reads_its_own(probe: Probe, role: str = "company_admin") -> int:
    with probe.tenant() as company:
        path = f"/dlq-replay/{probe.replay(company).json()['replay_run_id']}"
        own = probe.token({"role": role, "company_id": company})
        return probe.get(path, **probe.as_token(own)).status_code


def _hiding_runs_from(settings: Settings, role: str) -> Parts:
    async def read(parts: Parts, call: Call, path: bytes, run_id: str) -> Reply:
        caller = await authenticate(parts, call.headers, path, accepts_v1=False)
        if caller.claims and caller.claims.role == role:
            raise Refusal("not_found", "There is no such thing.")
        return await read_run(parts, call, path, run_id)

    return dataclasses.replace(build_parts(settings), read_run=read)


def _read_foreign(probe: Probe, path: str, *, signed: bool = False, role: str = "company_admin") -> int:
    stranger = probe.token({"role": role, "company_id": "00000000-0000-4000-8000-0000000000ff"})
    with probe.tenant() as company:
        run, event = probe.replay(company).json()["replay_run_id"], probe.event(company).json()["event_id"]
        wanted = run if "replay" in path else event
        mac = {"X-Transbot-Signature": probe.sign_v2(f"{path}{wanted}".encode(), int(time.time()))} if signed else {}
        return probe.get(f"{path}{wanted}", **probe.as_token(stranger), **mac).status_code


@service(lambda p: _state_of_a_direct_event(p) == 404, "drill/flags/outbox-off-takes-direct-path", ("404", "direct"))
def direct_events_not_found(settings: Settings) -> Parts:
    """An event without an outbox row is not found, though it took the direct path."""
    return altered(settings, "read_event", ("LEFT JOIN LATERAL", "JOIN LATERAL"))


def _state_of_a_direct_event(probe: Probe) -> Any:
    with probe.tenant() as company:
        probe.switch_off(company)
        return _state(probe, probe.event(company).json()["event_id"])["status"]  # of the event, or of the problem


@service(lambda p: _status_when_done(p) == "pending", f"{OUTBOX}/status-of-an-event", "the status")
def status_that_stays(settings: Settings) -> Parts:
    """The status of an event stays `pending` for ever."""
    return altered(settings, "read_event", ("THEN 'processed'", "THEN 'pending'"))


def _status_when_done(probe: Probe) -> Any:
    with probe.tenant() as company:
        event_id = str(probe.event(company).json()["event_id"])
        is_done(probe, event_id)
        return _state(probe, event_id)["status"]


@service(lambda p: _paths_of_one(p) == ["outbox", "direct"], f"{OUTBOX}/same-event-id-once", "two paths")
def duplicate_of_another_path(settings: Settings) -> Parts:
    """The duplicate of an event names the other path, not the one that it took."""
    return altered(settings, "compare_event", ("SELECT\n  path,", "SELECT\n  'direct',"))


@service(
    lambda p: _sent_again(p, "next_attempt_at = now() + interval '1 hour'", "next_attempt_at < now()"),
    f"{OUTBOX}/backs-off",
    "before they were due",
)
def duplicate_is_tried_at_once(settings: Settings) -> Parts:
    """A failing event that is sent again is tried at once: its back-off is skipped."""
    return _anew(settings, "next_attempt_at = now()", "processed_at IS NULL AND dead_at IS NULL")


@service(lambda p: _sent_again(p, "dead_at = now()", "dead_at IS NULL"), f"{OUTBOX}/dead-letter-once", "sent again")
def duplicate_of_the_dead_lives(settings: Settings) -> Parts:
    """A dead event that is sent again is delivered anew, beside its dead letter."""
    return _anew(settings, "dead_at = NULL, attempts = 0, next_attempt_at = now()", "dead_at IS NOT NULL")


def _anew(settings: Settings, changes: str, where: str) -> Parts:
    again = f"UPDATE public.event_outbox SET {changes} WHERE event_id = %(event_id)s::uuid AND {where}"
    return altered(settings, "compare_event", ("SELECT\n  path", f"WITH again AS ({again})\nSELECT\n  path"))


def _sent_again(probe: Probe, state: str, wrong: str) -> bool:
    """Whether a row of the outbox is wrong, after its event was sent again while the row was in that state."""
    with probe.tenant() as company:
        event = str(probe.event(company).json()["event_id"])
        is_done(probe, event)
        row = f"UPDATE event_outbox SET processed_at = NULL, {state} WHERE event_id = %s RETURNING id"
        probe.rows(row, event)
        probe.event(company, event_id=event)
        return bool(probe.value(f"SELECT {wrong} FROM event_outbox WHERE event_id = %s", event))


def _paths_of_one(probe: Probe) -> list[Any]:
    with probe.tenant() as company:
        event_id = str(uuid.uuid4())
        return [probe.event(company, event_id=event_id).json()["path"] for _ in range(2)]


@service(lambda p: _shown_after_a_failure(p) is not None, f"{OUTBOX}/status-of-a-failing-event", "effect_at")
def failure_shown_as_effect(settings: Settings) -> Parts:
    """The state of an event takes a failed attempt for its effect."""
    return altered(settings, "read_event", (" AND t.status = 'completed'", ""))


def _shown_after_a_failure(probe: Probe) -> Any:
    with probe.tenant() as company:
        failing = {"event_type": "drill.witness", "payload": {"drill": {"fail_times": -1}}}
        event = str(probe.event(company, **failing).json()["event_id"])
        tried = "SELECT attempts > 0 FROM event_outbox WHERE event_id = %s"
        probe.within(3, lambda: bool(probe.value(tried, event)))
        return _state(probe, event)["effect_at"]


@service(lambda p: _is_dated_before_its_failure(p), f"{OUTBOX}/status-of-a-failing-event", "effect_at")
def effect_dated_at_the_first_failure(settings: Settings) -> Parts:
    """`effect_at` of an event is the time of its first failure."""
    return altered(settings, "read_event", ("t.updated_at AS effect_at", "t.created_at AS effect_at"))


@service(lambda p: _effect_of_a_replay(p) is None, "drill/dlq/replayed-item-is-resolved", "effect_at")
def effect_of_a_replay_unseen(settings: Settings) -> Parts:
    """The effect that a replay gave a dead event is not shown: its first outbox row alone is looked at."""
    row = "SELECT x.dead_at IS NULL FROM public.event_outbox x WHERE x.event_id = e.id ORDER BY x.id LIMIT 1"
    shown = f"CASE WHEN coalesce(({row}), true) THEN t.updated_at END AS effect_at"
    return altered(settings, "read_event", ("t.updated_at AS effect_at", shown))


def _effect_of_a_replay(probe: Probe) -> Any:
    with probe.tenant() as company:
        event = str(probe.event(company).json()["event_id"])
        is_done(probe, event)
        probe.rows("UPDATE event_outbox SET processed_at = NULL, dead_at = now() WHERE event_id = %s", event)
        return _state(probe, event)["effect_at"]


@service(
    lambda p: _effect_at_of_a_done_event(p) > str(p.value("SELECT now() AT TIME ZONE 'UTC' + interval '1 hour'")),
    f"{OUTBOX}/status-of-an-event",
    "effect_at",
)
def effect_dated_in_another_zone(settings: Settings) -> Parts:
    """`effect_at` is shown in a time zone to the east: it lies hours ahead."""
    return altered(settings, "read_event", ("t.updated_at AS effect_at", "t.updated_at + interval '2 h' AS effect_at"))


@service(lambda p: _effect_moves(p), f"{OUTBOX}/status-of-an-event", "effect_at")
def effect_is_now(settings: Settings) -> Parts:
    """`effect_at` of an event is the time of the GET."""
    asked = "CASE WHEN t.id IS NOT NULL THEN now() END AS effect_at"
    return altered(settings, "read_event", ("t.updated_at AS effect_at", asked))


def _effect_moves(probe: Probe) -> bool:
    with probe.tenant() as company:
        event = str(probe.event(company).json()["event_id"])
        is_done(probe, event)
        return len({_state(probe, event)["effect_at"] for _ in range(2)}) > 1


@service(lambda p: _is_committed_with_its_effect(p), f"{OUTBOX}/status-of-an-event", "committed_at")
def committed_with_its_effect(settings: Settings) -> Parts:
    """`committed_at` becomes the time of the effect: however long an event waited, its lag is 0."""
    moved = "coalesce(t.updated_at, e.created_at) AS committed_at"
    return altered(settings, "read_event", ("e.created_at AS committed_at", moved))


def _is_committed_with_its_effect(probe: Probe) -> bool:
    with probe.tenant() as company:
        event = str(probe.event(company).json()["event_id"])
        is_done(probe, event)
        state = _state(probe, event)
        return bool(state["committed_at"] == state["effect_at"])


def _effect_at_of_a_done_event(probe: Probe) -> str:
    with probe.tenant() as company:
        event = str(probe.event(company).json()["event_id"])
        is_done(probe, event)
        return str(_state(probe, event)["effect_at"]).replace("T", " ")


def _is_dated_before_its_failure(probe: Probe) -> bool:
    with probe.tenant() as company:
        event = str(probe.event(company).json()["event_id"])
        is_done(probe, event)
        probe.rows("UPDATE agent_tasks SET created_at = '2020-01-01' WHERE event_id = %s", event)
        return str(_state(probe, event)["effect_at"]).startswith("2020")


@service(lambda p: _shown_of_a_run(p, "stopped").get("status") == "completed", UNKNOWN_RUN_IS_NOT_FOUND, "stopped")
def stopped_runs_read_as_completed(settings: Settings) -> Parts:
    """GET of a stopped run says that it is completed."""
    ended = "idempotency_key, CASE WHEN completed_at IS NULL THEN status ELSE 'completed' END,"
    return altered(settings, "read_run", ("idempotency_key, status,", ended))


@service(lambda p: _shown_of_a_run(p, "stopped").get("failure_count") == 7, UNKNOWN_RUN_IS_NOT_FOUND, "failure_count")
def what_a_stop_gives_back_reads_as_failed(settings: Settings) -> Parts:
    """GET of a stopped run counts the items given back as failed."""
    failed = "CASE status WHEN 'stopped' THEN target_count - success_count ELSE failure_count END, requested_at"
    return altered(settings, "read_run", ("failure_count, requested_at", failed))


@service(lambda p: _shown_of_a_run(p, "started").get("failure_count") == 0, UNKNOWN_RUN_IS_NOT_FOUND, "success_count")
def what_is_under_way_is_not_counted(settings: Settings) -> Parts:
    """GET of a run under way shows counts of 0 until it has ended."""
    success, failure = (f"CASE status WHEN 'started' THEN 0 ELSE {n}_count END" for n in ("success", "failure"))
    counts = f"{success}, {failure}, requested_at"
    return altered(settings, "read_run", ("success_count, failure_count, requested_at", counts))


def _shown_of_a_run(probe: Probe, status: str) -> dict[str, Any]:
    insert = """INSERT INTO replay_runs (company_id, status, completed_at, target_count, success_count, failure_count)
        SELECT %s, status, CASE WHEN status <> 'started' THEN now() END, 9, 2, 3
        FROM (SELECT %s) s (status) RETURNING id::text"""
    with probe.tenant() as company:
        path = f"/dlq-replay/{probe.value(insert, company, status)}"
        return dict(probe.read(path).json())
