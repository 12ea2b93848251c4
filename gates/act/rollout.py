"""The flag's steps: decided purely, done by compare-and-set in one transaction with the audit row, then read back.

Sees the verdict, never raw evidence. A promotion that cannot be carried out becomes a hold (`Action.holds`); a rollback
is retried against a busy lock, because it is the safe direction.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg

from gates.evidence import JsonValue
from gates.rules import RolloutPlan
from gates.target.database import Connection, session, sql
from gates.verdict import Action, Decision, Verdict

SQL = Path(__file__).with_name("sql")
LOCK_PATIENCE_S = 5.0
"""How long a rollback tries to get the lock of a flag that another gate holds."""
POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Override:
    """A tenant's own row of the flag."""

    company_id: str
    enabled: bool
    percent: int


@dataclass(frozen=True, slots=True)
class FlagState:
    """The rows of one flag as they were read; `percent` and `version` are those of the global row."""

    enabled: bool
    percent: int
    version: int
    overrides: tuple[Override, ...] = ()

    @property
    def shown(self) -> int:
        """The rollout as verdict.json shows it: 0 where the flag is off."""
        return self.percent if self.enabled else 0


@dataclass(frozen=True, slots=True)
class Order:
    """What to do about which flag, and what the audit row says about it.

    seen: the flag as it was when the run began, None where it could not be read; same_version: whether it must not have
    been touched at all since then (on a production target; elsewhere our own drills touch it and put it back);
    by_hand: a person asks for the step, and answers for where the flag is found.
    """

    plan: RolloutPlan
    release: str
    actor: str
    reason: str
    seen: FlagState | None = None
    same_version: bool = True
    by_hand: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Trail:
    """What the audit rows tell about a flag: the percentage of its last step as it is written there (empty: there is
    none), and the seconds until it may take its next step, whichever release takes it.
    """

    told: str = ""
    baking_s: float | None = None


def look(connection: Connection, flag: str) -> FlagState | None:
    """The flag now, or None where there is no global row (or none that this login sees)."""
    rows = _rows(connection, "flag_state", {"flag": flag})
    if not rows or rows[0]["company_id"] is not None:
        return None
    first = rows[0]
    return FlagState(
        bool(first["enabled"]),
        int(str(first["rollout_percentage"])),
        int(str(first["version"])),
        tuple(Override(str(r["company_id"]), bool(r["enabled"]), int(str(r["rollout_percentage"]))) for r in rows[1:]),
    )


def look_at(database_url: str, flag: str) -> FlagState | None:
    """`look` over a connection of its own; None, too, where there is no database."""
    if not database_url:
        return None
    try:
        with session(database_url, read_only=True) as connection:
            return look(connection, flag)
    except psycopg.Error:
        return None


def act(verdict: Verdict, order: Order, database_url: str, clock: Callable[[], float] = time.monotonic) -> Action:
    """Carry the verdict out. Never raises for what the database refuses: that is the action's result."""
    if verdict.decision is Decision.HOLD:
        at = order.seen.shown if order.seen else None
        return Action("none", at, at, "nothing_to_do")
    if not database_url:
        message = "DATABASE_URL is not set, so the flag cannot be changed"
        return Action("none", result="not_possible", message=message, holds=True)
    try:
        with session(database_url, read_only=order.dry_run) as connection:
            if verdict.decision is Decision.PROMOTE:
                return promote(connection, order)
            return roll_back(connection, order, clock)
    except psycopg.Error as error:
        return Action(
            "none", result="failed", message=f"the flag could not be changed: {_first_line(error)}", holds=True
        )


# --- one step up -------------------------------------------------------------------------------------------------


def next_step(now: FlagState | None, order: Order, trail: Trail) -> Action:
    """What a promotion does to the flag as it is now. Pure.

    kind `promote` is a step to take; anything else says why there is none.
    """
    plan, seen = order.plan, order.seen

    def stop(result: str, message: str, *, holds: bool = True) -> Action:
        at = now.shown if now else None
        return Action("none", at, at, result, message, holds)

    if now is None or seen is None:
        return stop("off", f"the flag {plan.flag} has no global row that this login sees")
    if not now.enabled:
        return stop("off", f"the flag {plan.flag} is off, and the gate never switches on what it did not see on")
    if (now.enabled, now.percent) != (seen.enabled, seen.percent):
        before = f"{seen.percent} %" if seen.enabled else "off"
        return stop("changed", f"the flag {plan.flag} was changed from {before} to {now.percent} % while the gate ran")
    if order.same_version and now.version != seen.version:
        return stop("changed", f"the flag {plan.flag} was changed while the gate ran (version {now.version})")
    if now.percent <= 0:
        return stop("off", f"the flag {plan.flag} is on for nobody (0 %): switch on its first step by hand")
    above = [step for step in plan.steps if step > now.percent]
    explained = _explained(now, plan, trail)
    if not explained and not order.by_hand:
        return stop("unexplained", _unexplained(now, plan, trail))
    if not explained and not above:  # a person answers for it: the audit row says so, and nothing else changes
        return Action("promote", now.percent, now.percent, "dry_run" if order.dry_run else "done")
    if not above:
        return stop("nothing_to_do", f"{plan.flag} is at {now.percent} %, its last step", holds=False)
    against = [o for o in now.overrides if not o.enabled or o.percent < above[0]]
    if against:
        companies = ", ".join(o.company_id for o in against[:3])
        return stop("override", f"{len(against)} tenant(s) have {plan.flag} otherwise by an override: {companies}")
    if trail.baking_s is not None and trail.baking_s > 0:
        wait = f"{plan.flag} took a step already and bakes: its next one may come in {trail.baking_s:.0f} s"
        return stop("baking", wait, holds=False)
    return Action("promote", now.percent, above[0], "dry_run" if order.dry_run else "done")


def _explained(now: FlagState, plan: RolloutPlan, trail: Trail) -> bool:
    """Whether the flag is where its last audit row put it. At its first step or below it may be by anybody's hand: a
    rollout begins there, and nobody can have put it back to less harm than that.
    """
    return now.percent <= min(plan.steps) or trail.told == str(now.percent)


def _unexplained(now: FlagState, plan: RolloutPlan, trail: Trail) -> str:
    back = trail.told if trail.told.strip("0") else min(plan.steps)
    last = f"the last one about it says {trail.told} %" if trail.told else "there is none about it"
    return (
        f"{plan.flag} is on at {now.percent} %, which no audit row explains ({last}): it was changed past the gate. "
        f"Put it back to {back} %, or answer for it: "
        f"gate flags step {plan.flag} --reason WHY goes on from {now.percent} %"
    )


def promote(connection: Connection, order: Order) -> Action:
    """Take one step, if there is one to take."""
    flag = order.plan.flag
    if order.dry_run:
        return _said(next_step(look(connection, flag), order, _trail(connection, order)), order)
    with connection.transaction():
        if not _locked(connection, flag):
            state = look(connection, flag)
            at = state.shown if state else None
            return Action("none", at, at, "busy", f"another gate is acting on {flag}", holds=True)
        now = look(connection, flag)
        step = next_step(now, order, _trail(connection, order))
        if step.kind != "promote" or now is None:
            return step
        values = {"flag": flag, "version": now.version, "percent": step.to_percent}
        if not _rows(connection, "flag_promote", values):
            message = f"the flag {flag} was changed in the moment of the step"
            return Action("none", step.from_percent, step.from_percent, "changed", message, holds=True)
        details: dict[str, JsonValue] = {"from": step.from_percent, "to": step.to_percent}
        _audit(connection, "flag_promoted", order, 1, details)
    after = look(connection, flag)
    if after is None or not after.enabled or after.percent != step.to_percent:
        return replace(step, result="changed", holds=True, message=f"{flag} reads back as {after}, not as it was set")
    return _said(step, order)


def _said(step: Action, order: Order) -> Action:
    if step.kind != "promote":
        return step
    if step.from_percent == step.to_percent:
        return replace(step, message=f"{order.plan.flag} is at {step.to_percent} %, which is on record now")
    verb = "would go" if order.dry_run else "went"
    return replace(step, message=f"{order.plan.flag} {verb} from {step.from_percent} % to {step.to_percent} %")


def _trail(connection: Connection, order: Order) -> Trail:
    values = {"flag": order.plan.flag, "bake_s": order.plan.bake_minutes * 60}
    row = _rows(connection, "flag_trail", values)[0]
    left = row["baking_s"]
    return Trail(str(row["told"] or ""), None if left is None else float(str(left)))


# --- all the way down --------------------------------------------------------------------------------------------


def roll_back(connection: Connection, order: Order, clock: Callable[[], float] = time.monotonic) -> Action:
    """Switch off every row of the flag, then prove that nothing is left in flight."""
    flag, decided = order.plan.flag, clock()
    before = look(connection, flag)
    at = before.shown if before else None
    if order.dry_run:
        return Action("rollback", at, 0, "dry_run", f"{flag} would be switched off")
    while (changed := _switch_off(connection, order, at)) is None:
        if clock() - decided > LOCK_PATIENCE_S:
            return Action("none", at, at, "busy", f"another gate is acting on {flag}", holds=True)
        time.sleep(POLL_S)
    recovery = prove_recovery(connection, order.plan, decided, clock)
    if not changed:
        return Action("none", at, at, "nothing_to_do", f"{flag} was off already", recovery=recovery)
    proved = recovery.get("on_somewhere") is False
    message = f"{flag} was switched off in {recovery['decision_to_off_s']} s"
    return Action("rollback", at, 0, "done" if proved else "failed", message, recovery=recovery)


def _switch_off(connection: Connection, order: Order, at: int | None) -> int | None:
    """Rows switched off, with their audit row; None where somebody else holds the flag."""
    flag = order.plan.flag
    try:
        with connection.transaction():
            if not _locked(connection, flag):
                return None
            rows = _rows(connection, "flag_rollback", {"flag": flag})
            if rows:
                _audit(connection, "flag_rolled_back", order, len(rows), {"from": at, "to": 0, "rows": len(rows)})
            return len(rows)
    except psycopg.errors.LockNotAvailable:
        return None


def prove_recovery(
    connection: Connection, plan: RolloutPlan, decided: float, clock: Callable[[], float]
) -> dict[str, JsonValue]:
    """Wait until nothing is in flight, for at most the plan's time; what is held and what is half done, counted."""
    off_s = clock() - decided
    while True:
        row = _rows(connection, "recovery", {"flag": plan.flag})[0]
        drained = row["in_flight"] == 0
        if drained or clock() - decided > plan.drain_timeout_s:
            break
        time.sleep(POLL_S)
    return {
        "decision_to_off_s": round(off_s, 3),
        "decision_to_drained_s": round(clock() - decided, 3) if drained else None,
        "in_flight": int(str(row["in_flight"])),
        "held": int(str(row["held"])),
        "half_replayed": int(str(row["half_replayed"])),
        "on_somewhere": bool(row["on_somewhere"]),
        "proved": bool(drained and not row["on_somewhere"] and row["half_replayed"] == 0),
    }


def emergency(connection: Connection, order: Order, clock: Callable[[], float] = time.monotonic) -> Action:
    """The checklist's instant rollback: flag off, agents paused, replay limits cleared; each with its audit row.

    Each is a transaction of its own, the flag first: what cannot be done does not undo what could.
    """
    if order.dry_run:
        done = roll_back(connection, order, clock)
        return replace(done, kind="emergency", message=f"{done.message}, agents paused, replay limits cleared")
    action = roll_back(connection, order, clock)
    counts: dict[str, JsonValue] = {}
    for name, audited, values in (
        ("agents_pause", "agents_paused", {"reason": order.reason}),
        ("rate_limits_clear", "rate_limits_cleared", {}),
    ):
        with connection.transaction():
            rows = _rows(connection, name, values)
            _audit(connection, audited, order, len(rows), {"rows": len(rows)})
        counts[audited] = len(rows)
    said = f"{counts['agents_paused']} pause row(s) set, {counts['rate_limits_cleared']} limit(s) cleared"
    message = f"{action.message}; {said}"
    result = action.result if action.result in {"busy", "failed"} else "done"
    return replace(action, kind="emergency", result=result, message=message, recovery={**action.recovery, **counts})


# --- SQL ---------------------------------------------------------------------------------------------------------


def _rows(connection: Connection, name: str, values: Mapping[str, object]) -> list[dict[str, object]]:
    return connection.execute(sql(SQL / f"{name}.sql").encode(), values).fetchall()


def _locked(connection: Connection, flag: str) -> bool:
    return _rows(connection, "flag_lock", {"flag": flag})[0]["locked"] is True


def _audit(connection: Connection, action: str, order: Order, count: int, details: Mapping[str, JsonValue]) -> None:
    metadata = {"key": order.plan.flag, "release": order.release, "reason": order.reason, **details}
    values = {"action": action, "actor": order.actor, "target_count": count, "success_count": count}
    _rows(connection, "audit_append", {**values, "metadata": json.dumps(metadata)})


def _first_line(error: psycopg.Error) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
