"""Faults of a pause where it meets something else: force, a dry run, a run under way, an event that is sent again."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from psycopg.types.json import Jsonb

from faults.altered import altered, altered_worker, around
from faults.catalogue import service, worker
from faults.outbox import LATER, is_done, put
from faults.probe import Probe
from faults.requests import REQUEST, remembering
from replay_service.database import QUERIES, Connection
from replay_service.exchange import Call, Reply
from replay_service.parts import Parts
from replay_service.problems import Refusal
from replay_service.settings import Settings
from replay_service.validation import EventRequest, ReplayRequest
from replay_service.worker.parts import WorkerParts
from replay_service.worker.settings import WorkerSettings

FLEET = "drill/pause/fleet"
_NOT_PAUSED = "INSERT INTO agent_controls (company_id, agents_paused) VALUES (%s, false)"
_OWN = b"SELECT FROM public.agent_controls WHERE agents_paused AND company_id = %s::uuid"
_ANEW = b"""INSERT INTO public.event_outbox (event_id, company_id, event_type, aggregate_key, payload)
    SELECT id, company_id, event_type, aggregate_key, payload FROM public.events
    WHERE id = %s::uuid AND path = 'direct' AND public.is_company_paused(company_id)"""


@contextmanager
def _fleet_paused(probe: Probe) -> Iterator[None]:
    everybody = "UPDATE agent_controls SET agents_paused = %s WHERE company_id IS NULL"
    probe.rows(everybody, True)
    try:
        yield
    finally:
        probe.rows(everybody, False)


def _own_row_for(settings: Settings, chosen: Callable[[ReplayRequest], bool]) -> Parts:
    """The service that checks only the tenant's own row for these requests."""
    release = remembering(settings)

    async def twin(conn: Connection, company_id: str) -> bool:
        request = REQUEST.get()
        if request is None or not chosen(request):
            return await release.is_paused(conn, company_id)
        return await (await conn.execute(_OWN, (company_id,))).fetchone() is not None

    return dataclasses.replace(release, is_paused=twin)


def _answered(probe: Probe, **fields: Any) -> int:
    """The status of a replay while everybody is paused."""
    with probe.tenant() as company, _fleet_paused(probe):
        return probe.replay(company, **fields).status_code


@service(lambda p: _answered(p, force=True) == 200, FLEET, "force", production=False)
def forced_while_everybody_is(settings: Settings) -> Parts:
    """A forced replay checks only its tenant's pause, not the global one."""
    return _own_row_for(settings, lambda request: request.force)


@service(lambda p: _answered(p, dry_run=True) == 200, FLEET, "dry_run", production=False)
def dry_run_while_everybody_is(settings: Settings) -> Parts:
    """A dry run checks only its tenant's pause, not the global one."""
    return _own_row_for(settings, lambda request: request.dry_run)


@worker(None, "drill/pause/events-go-to-the-outbox", "of a paused tenant")
def what_asks_an_agent_is_not_held(settings: WorkerSettings) -> WorkerParts:
    """Events that ask an agent for something are not held by a pause: only the statement for the others asks for it."""
    return altered_worker(settings, ("claim_events", " AND NOT public.is_company_paused(t.company_id)", ""))


@worker(lambda p: _goes_on(p), FLEET, "delivered while the fleet was paused", production=False)
def runs_go_on_while_everybody_is(settings: WorkerSettings) -> WorkerParts:
    """A global pause does not stop running replays: they check only their tenant's pause."""
    own = "EXISTS (SELECT FROM public.agent_controls a WHERE a.agents_paused AND a.company_id = r.company_id)"
    return _runs_ask(settings, own)


def _runs_ask(settings: WorkerSettings, paused: str) -> WorkerParts:
    """The worker whose runs are held by this alone."""
    asked = "public.is_company_paused(r.company_id)"
    due, on = "WHERE w.is_due AND ", "w.company_id NOT IN (SELECT t.company_id FROM tenants t WHERE NOT t.is_on)"
    return altered_worker(
        settings,
        ("drain_lane", f"{due}{on}", f"{due}(w.is_replay OR {on})"),
        ("claim_events", f"{due}{on}", f"{due}(w.replay_run_id IS NOT NULL OR {on})"),
        ("lock_runs", asked, paused),
        ("claim_items", asked, paused),
    )


@worker(lambda p: _goes_on_forced(p), "drill/pause/stops-a-running-replay", "after the pause")
def forced_runs_go_on(settings: WorkerSettings) -> WorkerParts:
    """A pause does not stop a running replay that was forced."""
    started = "l.action = 'dlq_replay_started' AND l.metadata ->> 'replay_run_id' = r.id::text"
    forced = f"EXISTS (SELECT FROM public.audit_logs l WHERE {started} AND l.metadata @> '{{\"force\": true}}')"
    return _runs_ask(settings, f"(public.is_company_paused(r.company_id) AND NOT {forced})")


def _goes_on_forced(probe: Probe) -> bool:
    """Whether what is left of a forced run is done in a pause."""
    with probe.tenant() as company:
        probe.letters(company, 20, event_type="drill.slow", payload=Jsonb({"drill": {"delay_ms": 800}}))
        run = probe.replay(company, force=True).json()["replay_run_id"]
        probe.pause(company)
        return probe.settled(run)


def _goes_on(probe: Probe) -> bool:
    with probe.tenant() as company:
        put(probe, company, aggregate_key="k", next_attempt_at=probe.value(LATER))
        probe.letters(company, 1, aggregate_key="k")
        run = probe.replay(company).json()["replay_run_id"]
        with _fleet_paused(probe):
            probe.rows("UPDATE event_outbox SET aggregate_key = NULL WHERE company_id = %s", company)
            return probe.settled(run, 4)


@service(lambda p: _path_with_own_row(p) == "direct", FLEET, "direct", production=False)
def own_row_sends_events_direct(settings: Settings) -> Parts:
    """While everybody is paused, events of a tenant whose own row says no, and whose outbox is off, go the
    direct path.
    """
    first = """coalesce((SELECT agents_paused FROM public.agent_controls WHERE company_id = %(company_id)s::uuid
        OR company_id IS NULL ORDER BY company_id NULLS LAST LIMIT 1), false)"""
    return altered(settings, "emit_event", ("public.is_company_paused(%(company_id)s::uuid)", first))


def _path_with_own_row(probe: Probe) -> str:
    with probe.tenant() as company:
        probe.switch_off(company)
        probe.rows(_NOT_PAUSED, company)
        with _fleet_paused(probe):
            return str(probe.event(company).json()["path"])


@service(lambda p: _is_in_the_outbox(p), "drill/flags/sent-again-on-the-other-path", "outbox rows")
@around("emit")
async def sent_again_during_a_pause(
    release: Parts, conn: Connection, request: EventRequest, event_id: str
) -> tuple[str, bool]:
    """A direct-path event that is sent again while its tenant is paused is written to the outbox, too."""
    path, is_known = await release.emit(conn, request, event_id)
    if is_known:
        await conn.execute(_ANEW, (event_id,))
    return path, is_known


@service(lambda p: _is_done_while_held(p), "drill/flags/sent-again-on-the-other-path", "held")
@around("emit")
async def held_events_are_done_when_sent_again(
    release: Parts, conn: Connection, request: EventRequest, event_id: str
) -> tuple[str, bool]:
    """A held event that is sent again while its tenant's outbox is off takes the direct path, too."""
    path, is_known = await release.emit(conn, request, event_id)
    row = await (await conn.execute(QUERIES["event_path"], {"company_id": request.company_id})).fetchone()
    if is_known and row and row[0] == "direct":
        await conn.execute(_DONE, (request.company_id, event_id))
    return path, is_known


_DONE = b"""INSERT INTO public.agent_tasks (company_id, agent_name, event_id, status)
    VALUES (%s, 'direct', %s, 'completed') ON CONFLICT DO NOTHING"""


def _is_done_while_held(probe: Probe) -> bool:
    with probe.tenant() as company:
        probe.pause(company)
        event = str(probe.event(company).json()["event_id"])
        probe.switch_off(company)
        probe.rows("DELETE FROM agent_controls WHERE company_id = %s", company)
        probe.event(company, event_id=event)
        return bool(probe.rows("SELECT 1 FROM agent_tasks WHERE event_id = %s", event))


def _is_in_the_outbox(probe: Probe) -> bool:
    with probe.tenant() as company:
        probe.switch_off(company)
        event = str(probe.event(company).json()["event_id"])
        is_done(probe, event)
        probe.pause(company)
        probe.event(company, event_id=event)
        return bool(probe.rows("SELECT 1 FROM event_outbox WHERE event_id = %s", event))


@worker(lambda p: _is_freed(p), "drill/pause/stops-a-running-replay", "its items are replaying")
def letters_of_old_runs_are_freed(settings: WorkerSettings) -> WorkerParts:
    """A job takes the letters of a run that began a quarter of an hour ago for stuck: they are pending again, and are
    replayed a second time, though what is held of the run is delivered after the pause.
    """
    old = "d.replay_run_id = r.id AND d.status = 'replaying' AND r.requested_at < now() - interval '15 minutes'"
    freed = f"UPDATE public.dead_letter_queue d SET status = 'pending' FROM public.replay_runs r WHERE {old}"
    looks = "SELECT t.lane\n"
    return altered_worker(settings, ("lanes_with_rows", looks, f"WITH freed AS ({freed}) {looks}"))


def _is_freed(probe: Probe) -> bool:
    with probe.tenant() as company:
        put(probe, company, aggregate_key="k", next_attempt_at=probe.value(LATER))
        probe.letters(company, 1, aggregate_key="k")
        probe.replay(company)
        probe.rows("UPDATE replay_runs SET requested_at = now() - interval '1 hour' WHERE company_id = %s", company)
        state = "SELECT status FROM dead_letter_queue WHERE company_id = %s"
        return probe.within(3, lambda: probe.value(state, company) == "pending")


@service(lambda p: _told_of_others(p), "drill/pause/touches-only-its-tenant", "tells of another")
@around("replay")
async def reasons_of_all(release: Parts, parts: Parts, call: Call) -> Reply:
    """The refusal by a pause tells why, and tells every paused tenant the reasons of all others, too."""
    try:
        return await release.replay(parts, call)
    except Refusal as refusal:
        if refusal.code == "agents_paused":
            async with parts.database.connection() as conn:
                found = await conn.execute(b"SELECT pause_reason FROM public.agent_controls WHERE agents_paused")
                refusal.members["reasons"] = [reason for (reason,) in await found.fetchall()]
        raise


def _told_of_others(probe: Probe) -> bool:
    with probe.tenant() as one, probe.tenant() as other:
        for company in (one, other):
            probe.pause(company)
            probe.rows("UPDATE agent_controls SET pause_reason = company_id::text WHERE company_id = %s", company)
        return one in probe.replay(other).text
