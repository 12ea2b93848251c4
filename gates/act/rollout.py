"""The flag's steps: decided by pure code, made by compare-and-set in one transaction with the audit row, then read
back. Sees the verdict, never raw evidence. A promotion that cannot be carried out becomes a hold (`Action.holds`).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import psycopg

from gates.act.acting import session
from gates.act.flag import MOST_OVERRIDES, UNREADABLE, FlagState, Order, Tell, audit, look, look_at, rows
from gates.act.insist import AS_MADE, IDLE_IN_TRANSACTION_MS
from gates.act.lookout import Lookout, blocker_of
from gates.act.rollback import not_possible, roll_back
from gates.decision.rules import RolloutPlan
from gates.deployment.identity import is_another, must_be_same, server_of
from gates.deployment.sql.database import Connection
from gates.deployment.sql.failures import in_words
from gates.deployment.sql.sight import sees_every_flag
from gates.text.quantity import with_unit
from gates.verdict import Action, Decision, Verdict

FLAGLESS = "the policy claims a queue alone, so there is no flag to change: the exit code says what to do"
SETTLE_S = 20.0
"""The server ends a session that is idle in a transaction for half of this."""
POLL_S = 0.25


@dataclass(frozen=True, slots=True)
class AuditTrail:
    """What the audit rows say about a flag.

    The percentage of its last step as written there (empty: none); the seconds until its next step is allowed,
    whichever release takes it; whether it was rolled back since the release was judged; whether that is too old;
    whether the step of the verdict handed over has been taken.
    """

    told: str = ""
    baking_s: float | None = None
    rolled_back: bool = False
    too_old: bool = False
    taken: bool = False


def act(
    verdict: Verdict,
    order: Order,
    database_url: str,
    clock: Callable[[], float] = time.monotonic,
    tell: Tell = lambda _text: None,
) -> Action:
    """Carry out the verdict. Never raises for what the database does: that is in the action's result."""
    if verdict.decision is Decision.HOLD:
        now = look_at(database_url, order.plan.flag) if order.seen and database_url else None  # its files may move
        at = (now or order.seen).shown if order.seen else None
        return Action("none", at, at, "nothing_to_do")
    if order.flagless:
        return Action("none", result="nothing_to_do", message=FLAGLESS)
    if verdict.decision is Decision.ROLLBACK:
        return roll_back(database_url, order, clock, tell) if database_url else not_possible(order)
    if not database_url:
        message = "DATABASE_URL is not set, so the flag cannot be changed"
        return Action("none", result="not_possible", message=message, holds=True)
    return promote(database_url, order)


# --- one step up -------------------------------------------------------------------------------------------------


def next_step(now: FlagState | None, order: Order, trail: AuditTrail) -> Action:
    """What a promotion does to the flag as it is. Pure. kind `promote` is a step; any other says why there is none."""
    plan, seen = order.plan, order.seen

    def stop(result: str, message: str, *, holds: bool = True) -> Action:
        at = now.shown if now else None
        return Action("none", at, at, result, message, holds)

    if now is not None and order.enable_at is not None:
        if now.enabled:
            said = f"the flag {plan.flag} is on already, at {now.percent} %"
            return stop("nothing_to_do", said, holds=now.percent != order.enable_at)
        return Action("promote", 0, order.enable_at, "dry_run" if order.dry_run else "done")
    if now is None:
        return stop("off", f"the flag {plan.flag} has no global row that this login sees")
    if seen is None:
        return stop("off", f"the flag {plan.flag} could not be read before the release was judged: run the gate again")
    if trail.rolled_back:
        return stop("changed", f"the flag {plan.flag} was rolled back after it was judged: run the gate again")
    if trail.taken:
        said = f"the step of this verdict was taken before, and {plan.flag} is at {now.shown} %"
        return stop("refused", f"{said}: run the gate again for the next one")
    if trail.too_old:
        said = f"the release was judged more than {order.good_for_min} minutes ago, so {plan.flag} was left as it is"
        return stop("refused", f"{said}: run the gate again")
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
    # Anybody may set a flag up to the first step: a rollout begins there, and no lower step is safer.
    explained = now.percent <= min(plan.steps) or trail.told == str(now.percent)
    if not explained and not order.by_hand:
        return stop("unexplained", _unexplained(now, plan, trail))
    if not explained and not above:  # a person answers for it: only the audit row differs
        return Action("promote", now.percent, now.percent, "dry_run" if order.dry_run else "done")
    if not above:
        return stop("nothing_to_do", f"{plan.flag} is at {now.percent} %, its last step", holds=False)
    against = [o for o in now.overrides if not o.enabled or o.percent < above[0]]
    if against:
        companies = ", ".join(o.company_id for o in against[:3])
        least = "at least " if len(against) == MOST_OVERRIDES else ""
        tenants = least + with_unit(len(against), "tenants")
        return stop("override", f"{tenants} kept below {above[0]} % of {plan.flag} by an override: {companies}")
    if trail.baking_s is not None and trail.baking_s > 0:
        wait = f"{plan.flag} took a step already and bakes: its next one may come in {trail.baking_s:.0f} s"
        return stop("baking", wait, holds=False)
    return Action("promote", now.percent, above[0], "dry_run" if order.dry_run else "done")


def _unexplained(now: FlagState, plan: RolloutPlan, trail: AuditTrail) -> str:
    back = trail.told if trail.told.strip("0") else min(plan.steps)
    last = f"the last one about it says {trail.told} %" if trail.told else "there is none about it"
    return (
        f"{plan.flag} is on at {now.percent} %, which no audit row explains ({last}): it was changed past the gate. "
        f"Put it back to {back} %, or answer for it: "
        f"gate flags step {plan.flag} --reason WHY goes on from {now.percent} %"
    )


@dataclass(slots=True)
class _Transaction:
    """The progress of a step. step: set when only the commit is left."""

    pid: object = None
    xid: str = ""
    server: str = ""
    step: Action | None = None
    kept_waiting: str = ""


def promote(url: str, order: Order) -> Action:
    """Take one step, if there is one. Never raises for what the database does."""
    transaction = _Transaction()
    try:
        if order.dry_run:
            with session(url, read_only=True) as connection:
                return _said(_next(connection, look(connection, order.plan.flag), order), order)
        with (
            session(url, idle_in_transaction_ms=IDLE_IN_TRANSACTION_MS) as connection,
            connection.transaction() as block,
        ):
            step = _take(connection, url, order, transaction)
            if step.kind != "promote":
                raise psycopg.Rollback(block)
    except UNREADABLE as error:
        if transaction.step is not None:
            return _settled(url, order, transaction, transaction.step, error)
        why = transaction.kept_waiting if isinstance(error, psycopg.errors.LockNotAvailable) else ""
        message = f"the flag {order.plan.flag} could not be changed: {why or in_words(error)}"
        return Action("none", result="failed", message=message, holds=True)
    return _read_back(url, order, step, transaction.server) if step.kind == "promote" else step


def _take(connection: Connection, url: str, order: Order, transaction: _Transaction) -> Action:
    """Make the step and its audit row, or return why there is none; the caller commits."""
    own = rows(connection, "transaction", {})[0]
    transaction.pid, transaction.xid, transaction.server = own["pid"], str(own["xid"]), server_of(connection)
    with Lookout(url, own["pid"]) as lookout:
        try:
            step = _step(connection, order, transaction.server)
        finally:
            transaction.kept_waiting = lookout.blamed
    transaction.step = step if step.kind == "promote" else None
    return step


def _next(connection: Connection, now: FlagState | None, order: Order) -> Action:
    """The step to take. A step by hand, without a preflight, needs a login that sees all tenants' rows."""
    step = next_step(now, order, _trail(connection, order))
    asked = step.kind == "promote" and order.by_hand and order.enable_at is None
    if not asked or sees_every_flag(connection):
        return step
    at, flag = step.from_percent, order.plan.flag
    message = (
        f"row-level security may hide overrides of {flag} from this login. Use one that sees all rows (replay_gate)"
    )
    return Action("none", at, at, "override", message, holds=True)


def _step(connection: Connection, order: Order, server: str) -> Action:
    flag = order.plan.flag
    if rows(connection, "flag_lock", {"flag": flag})[0]["locked"] is not True:
        holders = [str(blocker_of(r)) for r in rows(connection, "flag_lock_holder", {"flag": flag})]
        who = ", ".join(holders) or "a session that has let go of it since"
        state = look(connection, flag)
        at = state.shown if state else None
        return Action("none", at, at, "busy", f"the lock of {flag} is held by {who}", holds=True)
    if order.seen and is_another(server, order.seen.server):
        message = f"the database is another one than was judged, so {flag} was left as it is. See DATABASE_URL"
        return Action("none", result="changed", message=message, holds=True)
    now = look(connection, flag)
    step = _next(connection, now, order)
    if step.kind != "promote" or now is None:
        return step
    others, written = rows(connection, "flag_others", {"flag": flag}), _written(connection)
    statement = "flag_promote" if order.enable_at is None else "flag_enable"
    made = rows(connection, statement, {"flag": flag, "version": now.version, "percent": step.to_percent})
    said = (made[0]["enabled"], made[0]["rollout_percentage"]) if made else None
    if said != (True, step.to_percent):
        return _moved(step, flag, said)
    audit(connection, "flag_promoted", order, 1, {"from": step.from_percent, "to": step.to_percent})
    after = look(connection, flag)  # deferred triggers have run by now
    if after is None or (after.enabled, after.percent) != (True, step.to_percent):
        return _moved(step, flag, (after.enabled, after.percent) if after else None)
    tenants = f"tenants' rows of {flag}"
    moved = "" if _written(connection) - written == 1 else _others_moved(connection, flag, others)
    if moved or after.overrides != now.overrides:
        message = (
            f"the step of {flag} to {step.to_percent} % would have changed {moved or tenants} as well:"
            " a trigger or rule of its table does that, or somebody else in the same moment. Nothing was changed"
        )
        return Action("none", step.from_percent, step.from_percent, "changed", message, holds=True)
    return step


def _written(connection: Connection) -> int:
    """A count that grows with each row of the flags that this transaction writes, and not with those of others."""
    return int(str(rows(connection, "flag_written", {})[0]["written"]))


def _others_moved(connection: Connection, flag: str, others: list[dict[str, object]]) -> str:
    """Which rows but the step's own are not as they were before; empty if all are."""
    now = rows(connection, "flag_others", {"flag": flag})
    moved = {str(r["key"] or "") for r in (*others, *now) if r not in others or r not in now}
    named = sorted(moved - {"", flag})
    if flag in moved:
        return f"tenants' rows of {flag}"
    return f"the flag {named[0]}" if named else "other rows" if moved else ""


def _moved(step: Action, flag: str, stood: tuple[object, object] | None) -> Action:
    """Why there is no step if the flag is not where the step put it (enabled or percentage)."""
    message = f"the flag {flag} was changed in the moment of the step"
    if stood is not None:
        now = f"stood at {stood[1]} %" if stood[0] else "was off"
        message = f"{flag} was set to {step.to_percent} % and {now}: a trigger or rule of its table did that"
    return Action("none", step.from_percent, step.from_percent, "changed", message, holds=True)


def _settled(url: str, order: Order, transaction: _Transaction, step: Action, error: BaseException) -> Action:
    """The commit was refused, or its answer was lost: ask a new connection whether it was committed."""
    refused = isinstance(error, psycopg.Error) and error.diag.severity_nonlocalized == "ERROR"
    ended = f"the server refused the commit of the step ({in_words(error)})"
    flag, lost = order.plan.flag, ended if refused else "the connection was lost at the commit of the step"
    status = _status(url, transaction)
    if status == "committed":
        done = _read_back(url, order, step, transaction.server)
        return replace(done, message=f"{done.message}; {lost}, which went through")
    if status == "aborted":
        at = step.from_percent
        said = f"{lost}, which did not go through: {flag} was left at {at} %"
        return Action("none", at, at, "failed", said, holds=True)
    said = f"{lost}, and whether it went through is not known ({status}): see gate flags and the audit rows"
    return replace(step, to_percent=None, result="unknown", message=said, holds=True)


def _status(url: str, transaction: _Transaction) -> str:
    """Committed or aborted, or another word if that could not be found out in time."""
    until, status = time.monotonic() + SETTLE_S, "it was not asked"
    while time.monotonic() < until:
        try:
            with session(url) as connection:
                must_be_same(connection, transaction.server, AS_MADE)
                status = str(rows(connection, "transaction_status", {"xid": transaction.xid})[0]["status"])
                if status in {"committed", "aborted"}:
                    return status
                rows(connection, "end_session", {"pid": transaction.pid})
        except UNREADABLE as error:
            status = in_words(error)
        time.sleep(POLL_S)
    return status


def _read_back(url: str, order: Order, step: Action, server: str) -> Action:
    """The step, after a new connection has read it back."""
    flag = order.plan.flag
    try:
        after = _told(url, flag, server)
    except UNREADABLE as error:
        said = f"{flag} was set to {step.to_percent} %, which could not be read back: {in_words(error)}"
        return replace(step, to_percent=None, result="unknown", message=said, holds=True)
    if after is None or not after.enabled or after.percent != step.to_percent:
        stood = "gone" if after is None else f"at {after.percent} %" if after.enabled else "off"
        said = (
            f"{flag} was set to {step.to_percent} %, and a moment later it was {stood}: see who changes it (gate flags)"
        )
        return replace(step, to_percent=after.shown if after else None, result="changed", message=said, holds=True)
    return _said(step, order)


def _told(url: str, flag: str, server: str) -> FlagState | None:
    """The flag as a new connection to this database sees it; a lost connection is retried. Raise the last error."""
    until = time.monotonic() + SETTLE_S
    while True:
        try:
            with session(url, read_only=True) as connection:
                must_be_same(connection, server, AS_MADE)
                return look(connection, flag)
        except UNREADABLE:
            if time.monotonic() >= until:
                raise
        time.sleep(POLL_S)


def _said(step: Action, order: Order) -> Action:
    if step.kind != "promote":
        return step
    if step.from_percent == step.to_percent:
        return replace(step, message=f"{order.plan.flag} is at {step.to_percent} %, which is on record now")
    if order.enable_at is not None:
        verb = "would be switched on" if order.dry_run else "was switched on"
        return replace(step, message=f"{order.plan.flag} {verb} at {step.to_percent} %")
    verb = "would go" if order.dry_run else "went"
    return replace(step, message=f"{order.plan.flag} {verb} from {step.from_percent} % to {step.to_percent} %")


def _trail(connection: Connection, order: Order) -> AuditTrail:
    values = {"flag": order.plan.flag, "bake_s": order.plan.bake_minutes * 60, "since": order.since or None}
    values |= {"good_for_min": order.good_for_min, "verdict": order.verdict or None}
    row = rows(connection, "flag_trail", values)[0]
    left = row["baking_s"]
    return AuditTrail(
        str(row["told"] or ""),
        None if left is None else float(str(left)),
        row["rolled_back"] is True,
        row["too_old"] is True,
        row["taken"] is True,
    )
