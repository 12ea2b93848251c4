"""The checklist's instant rollback: flag off, agents paused, replay limits cleared; each with its audit row. All three
are tried at the same time on separate connections, whatever becomes of the others.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psycopg

from gates.act.flag import Order, Tell, cancel_drill_loan, count, fitting, rows
from gates.act.insist import TRANSIENT, Carried, Forced, ReadBack, first_that_works, insist, wait_for_others
from gates.act.rollback import broken_off, not_carried_out, roll_back
from gates.act.rollout import promote
from gates.deployment.dialect.current import current, for_hand
from gates.deployment.sql.database import Connection
from gates.deployment.tenants.loans import LiveRow
from gates.errors import NotRolledBack
from gates.evidence import JsonValue
from gates.text.quantity import with_unit
from gates.verdict import PAUSE, Action, StepOutcome

CLEARING_MS = 60_000
"""There may be a row for each tenant and address."""
BY_HAND = {
    PAUSE: "UPDATE public.agent_controls SET agents_paused = true;",
    "clear the replay limits": "DELETE FROM public.edge_rate_limits WHERE key LIKE 'replay:%';",
}


def emergency(url: str, order: Order, clock: Callable[[], float], tell: Tell) -> Action:
    """Do all three; the result is done only if each was read back."""
    if order.dry_run:
        shown = roll_back(url, order, clock, tell)
        more = ", agents paused, replay limits cleared" if shown.result == "dry_run" else ""
        return replace(shown, kind="emergency", message=shown.message + more)
    try:
        return _all_three(url, order, clock, tell)
    except NotRolledBack:
        raise
    except Exception as error:  # noqa: BLE001  -- as in a rollback
        action = not_carried_out(order, error)
        by_hand = "\n".join(filter(None, (action.by_hand, _others_by_hand())))
        return replace(action, kind="emergency", by_hand=by_hand)


def _others_by_hand() -> str:
    return "\n".join(filter(None, map(for_hand, BY_HAND.values())))


def _all_three(url: str, order: Order, clock: Callable[[], float], tell: Tell) -> Action:
    with ThreadPoolExecutor(3) as pool:
        off = pool.submit(roll_back, url, order, clock, tell)
        others = [(change, pool.submit(insist, url, change, order, clock, tell)) for change in (pause(order), clear())]
        try:
            action = off.result()
            carried = [(change, future.result()) for change, future in others]
        except BaseException as ended:  # a signal: let the running steps finish, which may take a while
            error = broken_off(order, _others_by_hand())
            tell(str(error))
            raise error from ended
    steps = (_flag_step(order, action), *(_step(change, done) for change, done in carried))
    failed = [s for s in steps if s.result != "done"]
    counts: dict[str, JsonValue] = {change.audited: done.rows for change, done in carried}
    return replace(
        action,
        kind="emergency",
        result="failed" if failed else "done",
        holds=bool(failed),
        message="; ".join(f"{s.name}: {s.message}" for s in steps),
        recovery={**action.recovery, **counts},
        by_hand="\n".join(filter(None, (action.by_hand, *(for_hand(BY_HAND.get(s.name, "")) for s in failed)))),
        steps=steps,
    )


def _flag_step(order: Order, action: Action) -> StepOutcome:
    result = {"off": "done", "on": "failed"}.get(action.flag, "unknown")
    return StepOutcome(f"switch off {order.plan.flag}", result, action.message)


def _step(change: Forced, carried: Carried) -> StepOutcome:
    result = {True: "done", False: "failed", None: "unknown"}[carried.done]
    said = f"{with_unit(carried.rows, 'rows')}, in {carried.seconds:.3f} s" if carried.done else carried.why
    return StepOutcome(change.words, result, "; ".join([said, *carried.notes]))


def pause(order: Order) -> Forced:
    """Pause all agents. The row for everybody is created if it is missing."""

    def carry(connection: Connection) -> Mapping[str, JsonValue]:
        wait_for_others(connection, "pause_held", {})
        changed = first_that_works(connection, ("pause", "pause_least"), {"reason": fitting(connection, order.reason)})
        changed += cancel_drill_loan(connection, LiveRow())
        at = str(rows(connection, "now", {})[0]["at"])  # by this text `resume` tells our pause from an older one
        return {"rows": changed + _made(connection), "paused_at": at}

    return Forced(PAUSE, "agents_paused", carry, _read_pause, audit_nothing=True)


def _made(connection: Connection) -> int:
    """Returns 1 if the row for everybody was missing and could be created. The read-back judges the result."""
    try:
        with connection.transaction():
            return count(connection, "pause_missing", {})
    except TRANSIENT:
        raise
    except psycopg.Error:
        return 0


def _read_pause(connection: Connection, _xid: str) -> ReadBack:
    seen = rows(connection, "pause_left", {})[0]
    if seen["rows"] == 0:
        why = (
            f"{current().real('agent_controls')} has no row for everybody that this login sees, and it could make none"
        )
        return ReadBack(None, f"{why}: insert one, or use a login that sees all rows (replay_gate)", final=True)
    if seen["left_on"] != 0:
        return ReadBack(False, f"{seen['left_on']} of {with_unit(seen['rows'], 'rows')} read back as not paused")
    try:
        everybody = rows(connection, "pause_everybody", {})[0]["paused"]
    except psycopg.errors.UndefinedColumn:  # the deployment pauses everybody, not tenants
        return ReadBack(True)
    why = "the row for everybody (company_id null) is missing, or this login does not see it"
    return ReadBack(True) if everybody else ReadBack(False, why)


def clear() -> Forced:
    """Clear the replay limits."""

    def carry(connection: Connection) -> Mapping[str, JsonValue]:
        return {"rows": count(connection, "rate_limits_clear", {})}

    words = "clear the replay limits"
    return Forced(words, "rate_limits_cleared", carry, _read_limits, True, CLEARING_MS)


def _read_limits(connection: Connection, xid: str) -> ReadBack:
    if rows(connection, "rate_limits_seen", {})[0]["blind"]:
        table = current().real("edge_rate_limits")
        return ReadBack(None, f"row-level security shows this login no row of {table}", final=True)
    if not xid:
        return ReadBack(None)
    left = rows(connection, "rate_limits_left", {"xid": xid})[0]["left_on"]
    return ReadBack(True) if left == 0 else ReadBack(False, f"still there: {with_unit(left, 'rows')}")


UNPAUSE = "end the pause of the emergency"


def resume(url: str, order: Order, clock: Callable[[], float], tell: Tell) -> Action:
    """Recover from an emergency: end the pause, then switch the flag on at its first step; done only if each was read
    back.

    A failed step ends it. Every pause of an emergency since the last resume ends. A pause with another reason, or one
    from before the emergency, belongs to somebody else and stays.
    """
    first = min(order.plan.steps)
    on = replace(order, enable_at=first)
    if order.dry_run:
        return replace(promote(url, on), kind="resume")
    change = _unpause()
    carried = insist(url, change, order, clock, tell)
    steps = [_step(change, carried)]
    if not carried.done:
        message = f"{UNPAUSE}: {carried.why}; {order.plan.flag} was left as it is"
        return Action("resume", result="failed", message=message, holds=True, steps=tuple(steps))
    action = promote(url, on)
    stands = action.to_percent == first and action.result in {"done", "nothing_to_do"}
    steps.append(
        StepOutcome(f"switch on {order.plan.flag} at {first} %", "done" if stands else "failed", action.message)
    )
    message = "; ".join(f"{s.name}: {s.message}" for s in steps)
    return replace(action, kind="resume", message=message, steps=tuple(steps), holds=not stands)


def _unpause() -> Forced:
    def carry(connection: Connection) -> Mapping[str, JsonValue]:
        return {"rows": count(connection, "resume", {})}

    return Forced(UNPAUSE, "agents_resumed", carry, _read_back)


def _read_back(connection: Connection, _xid: str) -> ReadBack:
    seen = rows(connection, "resume_left", {})[0]
    if not seen["rows"]:
        return ReadBack(None, f"{current().real('agent_controls')} has no row that this login sees", final=True)
    if not seen["emergencies"]:
        why = "no audit row (agents_paused) tells of an emergency: whoever paused the agents must end that"
        return ReadBack(False, why, final=True)
    if seen["left_paused"]:
        return ReadBack(False, f"read back as paused: {with_unit(seen['left_paused'], 'rows')}")
    if seen["others"]:
        why = "everybody is paused for another reason than the emergency's: whoever did that must end it"
        return ReadBack(False, why, final=True)
    return ReadBack(True)
