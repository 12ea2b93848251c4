"""Step 7: one effect per (idempotency key, company); losers get the stored answer or a refusal, at once."""

from dataclasses import dataclass
from typing import Any

import psycopg

from replay_service.database import Connection, fetch_row, run
from replay_service.problems import Refusal
from replay_service.validation import ReplayRequest


@dataclass(frozen=True, slots=True)
class Run:
    """The run that this request starts."""

    run_id: str
    key: str
    actor: str
    request_id: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a request that started a run: status, items moved, items charged, the JSON text of the answer."""

    status: str
    target_count: int
    budget_charged: int
    response: str


async def begin(conn: Connection, request: ReplayRequest, started: Run) -> dict[str, Any] | None:
    """Claim the key in the open transaction: None where it is new, else the stored answer.

    Raise Refusal `in_progress` or `idempotency_key_reused`. A rollback, however it comes, leaves no key behind.
    """
    scope = {"idempotency_key": started.key, "company_id": request.company_id}
    try:
        taken = await fetch_row(
            conn,
            "take_key",
            run_id=started.run_id,
            actor=started.actor,
            payload_hash=request.payload_hash,
            request_id=started.request_id,
            **scope,
        )
    except psycopg.errors.LockNotAvailable:
        raise _in_progress() from None
    is_free, is_first = taken or (False, False)
    if not is_free:
        raise _in_progress()
    if is_first:
        return None
    row = await fetch_row(conn, "find_run", **scope)
    if row is None:
        raise _in_progress()
    run_id, payload_hash, response, status, target_count = row
    if payload_hash != request.payload_hash:
        raise Refusal("idempotency_key_reused", "This idempotency key belongs to a request with another payload.")
    if response is not None:
        return dict(response)
    # another producer wrote this run: answer from its row
    return {"status": status, "replay_run_id": run_id, "target_count": target_count}


async def finish(conn: Connection, started: Run, outcome: Outcome) -> None:
    """Store the answer in the transaction of the effect."""
    await run(
        conn,
        "finish_request",
        run_id=started.run_id,
        status=outcome.status,
        target_count=outcome.target_count,
        budget_charged=outcome.budget_charged,
        response=outcome.response,
    )


def _in_progress() -> Refusal:
    return Refusal(
        "in_progress", "A request with this idempotency key is running. Ask again.", headers={"retry-after": "1"}
    )
