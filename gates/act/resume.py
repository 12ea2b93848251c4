"""The way back from an emergency, step by step: the pause ends, then the flag is on again at its first step.

A step that cannot be carried out ends it. Every pause of an emergency since the last resume ends. A pause for another
reason, or one that is older than the emergency with its words, is somebody else's, and stays.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from gates.act.flag import Order, Tell, count, rows
from gates.act.insist import Forced, ReadBack, insist
from gates.act.rollout import promote
from gates.deployment.database import Connection
from gates.deployment.dialect.current import current
from gates.evidence import JsonValue
from gates.verdict import Action, StepOutcome

UNPAUSE = "end the pause of the emergency"


def resume(url: str, order: Order, clock: Callable[[], float], tell: Tell) -> Action:
    """Both steps; done only where each was read back."""
    first = min(order.plan.steps)
    on = replace(order, enable_at=first)
    if order.dry_run:
        return replace(promote(url, on), kind="resume")
    carried = insist(url, _unpause(), order, clock, tell)
    said = f"{carried.rows} row(s), in {carried.seconds:.3f} s" if carried.done else carried.why
    result = {True: "done", False: "failed", None: "unknown"}[carried.done]
    steps = [StepOutcome(UNPAUSE, result, "; ".join([said, *carried.notes]))]
    if result != "done":
        message = f"{UNPAUSE}: {said}; {order.plan.flag} was left as it is"
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
        return ReadBack(False, f"{seen['left_paused']} row(s) read back as paused")
    if seen["others"]:
        why = "everybody is paused for another reason than the emergency's: whoever did that must end it"
        return ReadBack(False, why, final=True)
    return ReadBack(True)
