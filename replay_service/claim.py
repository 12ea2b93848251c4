"""Which dead letters a replay takes, and how they move to the outbox."""

from collections.abc import Sequence
from dataclasses import dataclass

from replay_service.database import QUERIES, Connection, fetch_rows, run
from replay_service.validation import ReplayRequest


@dataclass(frozen=True, slots=True)
class Selection:
    """Ids of dead letters: taken, unknown or foreign, and not eligible. The last two only for ids asked for."""

    items: tuple[str, ...]
    not_found: tuple[str, ...] = ()
    ineligible: tuple[str, ...] = ()


async def pick(conn: Connection, request: ReplayRequest, limit: int) -> tuple[str, ...]:
    """Up to `limit` eligible items, oldest first. A run locks them and skips what others have locked. A dry run locks
    nothing, so that no run skips its items.
    """
    text = QUERIES["pick_items" if request.dlq_ids is None else "pick_items_by_id"]
    asked = {
        "company_id": request.company_id,
        "force": request.force,
        "error_type": request.error_type,
        "limit": limit,
        "dlq_ids": list(request.dlq_ids or ()),
    }
    cursor = await conn.execute(without_lock(text) if request.dry_run else text, asked)
    return tuple(row[0] for row in await cursor.fetchall())


def without_lock(text: bytes) -> bytes:
    """The same statement without its lock."""
    return text.replace(b"\n  FOR UPDATE SKIP LOCKED", b"")


async def describe(conn: Connection, request: ReplayRequest, items: Sequence[str], limit: int) -> Selection:
    """Sort the ids that were asked for. Eligible ones beyond `limit` are in no list: they may be asked for again."""
    if request.dlq_ids is None:
        return Selection(tuple(items))
    rows = await fetch_rows(
        conn,
        "describe_items",
        company_id=request.company_id,
        force=request.force,
        error_type=request.error_type,
        dlq_ids=list(request.dlq_ids),
    )
    eligible: dict[str, bool] = {row[0]: row[1] for row in rows}
    was_cut = len(items) >= limit
    left = [i for i in request.dlq_ids if i not in items]
    return Selection(
        tuple(items),
        tuple(i for i in left if i not in eligible),
        # an eligible item that was not taken although there was room is held by another run
        tuple(i for i in left if i in eligible and not (was_cut and eligible[i])),
    )


async def move(conn: Connection, run_id: str, items: Sequence[str]) -> None:
    """Write an outbox row for each picked item; the insert wakes the workers once, at commit."""
    if items:
        await run(conn, "move_items", run_id=run_id, ids=list(items))
