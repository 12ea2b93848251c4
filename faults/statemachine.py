"""Faults that the state machine of the drill found: each is called as the kept program that finds it."""

from collections.abc import Mapping
from typing import Any

from faults.altered import altered_worker, around
from faults.catalogue import service, worker
from replay_service import idempotency
from replay_service.database import Connection
from replay_service.parts import Parts
from replay_service.problems import Refusal
from replay_service.validation import EventRequest, ReplayRequest
from replay_service.worker.parts import WorkerParts
from replay_service.worker.settings import WorkerSettings

KEPT = ("drill/statemachine/kept-programs",)
Stored = Mapping[str, Any] | None


@service(None, KEPT, ("budget", "charged", "replay"))
@around("begin_run")
async def charges_duplicates(parts: Parts, conn: Connection, request: ReplayRequest, run: idempotency.Run) -> Stored:
    """A repeated request is answered as a duplicate, but charged again."""
    stored = await parts.begin_run(conn, request, run)
    if stored is not None and await parts.reserve_budget(conn, request.company_id) > 0:
        await parts.charge(conn, request.company_id, 1)
    return stored


@service(None, KEPT, ("duplicate", "replay"))
@around("begin_run")
async def refuses_duplicates_of_the_broke(
    parts: Parts, conn: Connection, request: ReplayRequest, run: idempotency.Run
) -> Stored:
    """A repeated request is refused for a spent budget, not answered as a duplicate."""
    stored = await parts.begin_run(conn, request, run)
    if stored is not None and await parts.reserve_budget(conn, request.company_id) <= 0:
        raise Refusal("budget_exhausted", "Spent.")
    return stored


@service(None, KEPT, ("pause", "replay"))
@around("is_paused")
async def looks_at_the_budget_first(parts: Parts, conn: Connection, company: str) -> bool:
    """A paused tenant without budget is refused for the budget, not for the pause."""
    return await parts.preview_budget(conn, company) > 0 and await parts.is_paused(conn, company)


@service(None, KEPT, ("limit", "replay"))
@around("admit")
async def counts_no_calls_of_the_paused(parts: Parts, conn: Connection, company: str, client: str) -> None:
    """The rate limit does not count while a tenant is paused."""
    if not await parts.is_paused(conn, company):
        await parts.admit(conn, company, client)


@service(None, (*KEPT, "drill/outbox/same-event-id-once"), ("event", "emit"))
@around("emit")
async def sends_a_known_event_again(
    parts: Parts, conn: Connection, request: EventRequest, event_id: str
) -> tuple[str, bool]:
    """An event that is sent a second time is put into the outbox a second time, under another id."""
    path, is_duplicate = await parts.emit(conn, request, event_id)
    return (path, is_duplicate) if not is_duplicate else await parts.emit(conn, request, parts.new_id())


@worker(None, KEPT, ("letter", "resolved", "replaying"))
def forgets_the_letters(settings: WorkerSettings) -> WorkerParts:
    """A dead letter is not marked as resolved when its event was delivered."""
    letter = "WHERE d.status = 'replaying' AND d.company_id = h.company_id"
    return altered_worker(settings, ("settle_item", letter, f"{letter} AND false"))
