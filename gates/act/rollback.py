"""Rollback: every row of the flag goes off, is read back, and the recovery is proved."""

import difflib
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import psycopg

from gates.act.acting import session
from gates.act.flag import UNREADABLE, FlagState, Order, Tell, cancel_drill_loan, look_at, look_at_global, rows
from gates.act.insist import AS_MADE, Carried, Forced, ReadBack, first_that_works, insist, wait_for_others, went_away
from gates.decision.rules import RolloutPlan
from gates.deployment.dialect.current import current, for_hand
from gates.deployment.identity import must_be_same
from gates.deployment.sql.database import Connection
from gates.deployment.sql.failures import in_words
from gates.deployment.sql.sight import sights
from gates.deployment.tenants.leftovers import of_runs
from gates.deployment.tenants.loans import LiveRow
from gates.errors import NotRolledBack
from gates.evidence import JsonValue
from gates.text.quantity import with_unit
from gates.verdict import SUPERSEDED, Action

POLL_S = 0.1
ASK_S = 3
"""How long to ask the function about companies once all rows are seen to be off."""
MOST_LOOKS = 5
"""How often to ask the function again while another run's drills keep creating companies."""
NOT_THERE = (psycopg.errors.UndefinedFunction, psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn)
"""The error codes that mean that the deployment does not have the function."""
NO_TIME = (psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable)


def by_hand(flag: str) -> str:
    """The checklist's statement, to be run by hand."""
    return for_hand(f"UPDATE public.feature_flags SET enabled = false WHERE key = {quoted(flag)};")


def quoted(text: str) -> str:
    """An SQL literal in printable ASCII, for any text."""
    if text.isascii() and text.isprintable() and "\\" not in text:
        return "'" + text.replace("'", "''") + "'"
    return "E'" + "".join(c if c.isascii() and c.isalnum() else f"\\U{ord(c):08x}" for c in text) + "'"


def not_possible(order: Order) -> Action:
    """The result if there is no database."""
    message = f"DATABASE_URL is not set, so the flag {order.plan.flag} cannot be switched off"
    if order.dry_run:
        return Action("rollback", None, 0, "dry_run", message)
    return Action("none", None, None, "not_possible", message, True, flag="unknown", by_hand=by_hand(order.plan.flag))


def roll_back(url: str, order: Order, clock: Callable[[], float], tell: Tell) -> Action:
    """Switch off every row of the flag, then prove that nothing is left in flight. Never raises: errors are in the
    result.
    """
    try:
        return _shown(url, order) if order.dry_run else _rolled_back(url, order, clock, tell)
    except Exception as error:  # noqa: BLE001  -- no disk, no thread: the flag may be on, and somebody must be told
        return not_carried_out(order, error)
    except BaseException as ended:  # a signal: the run was cancelled
        raise broken_off(order) from ended


def broken_off(order: Order, more: str = "") -> NotRolledBack:
    """The error of a rollback that a signal ended."""
    said = f"the rollback of {order.plan.flag} was broken off: THE FLAG MAY STILL BE ON. Do it again, or run by hand:"
    return NotRolledBack("\n".join(filter(None, (said, by_hand(order.plan.flag), more))))


def not_carried_out(order: Order, error: Exception) -> Action:
    """A rollback that something ended."""
    return _failed(order, Carried(None, 0, 0.0, in_words(error)), None)


def in_doubt(action: Action, flag: str, why: str) -> Action:
    """An action of which it is unknown whether it would change the deployment's own flag. It is never carried out."""
    said = f"whether this is the flag {flag} that users have is not known: {why}"
    check = f"-- in the table that users' flags are in (names: tables: feature_flags of the policy):\n{by_hand(flag)}"
    return replace(
        action,
        result="failed",
        message=f"{action.message}; {said}" if action.message else said,
        holds=True,
        flag="unknown" if action.flag == "off" or not action.flag else action.flag,
        recovery={**action.recovery, "proved": False},
        steps=tuple(replace(s, result="unknown") for s in action.steps),
        by_hand="\n".join(filter(None, (check, action.by_hand.replace(by_hand(flag), "").strip()))),
    )


def _shown(url: str, order: Order) -> Action:
    """What a rollback would do. Raise one of UNREADABLE if that is unknown."""
    flag = order.plan.flag
    with session(url, read_only=True) as connection:
        before = _before(connection, flag)
        if rows(connection, "flag_left", {"flag": flag})[0]["rows"] == 0:
            unseen = _failed(order, Carried(None, 0, 0.0, _unseen(connection, flag)), None)
            return replace(unseen, by_hand="")  # a dry run asks for nothing to be done by hand
    return Action("rollback", before.shown if before else None, 0, "dry_run", f"{flag} would be switched off")


def _rolled_back(url: str, order: Order, clock: Callable[[], float], tell: Tell) -> Action:
    flag, decided = order.plan.flag, clock()
    change, befores = _switch_off(order)
    for last in (False, True):
        carried = insist(url, change, order, clock, tell)
        at = next((b.shown for b in befores if b is not None), None)
        if not carried.done:
            return _failed(order, carried, at)
        recovery, lost = prove_recovery(url, order.plan, decided, clock(), clock, carried.server)
        if last or not (recovery.get("on_somewhere") and (lost or _was_lost(url, flag, befores))):
            break
        tell(f"a failover, or whoever restored the database, lost the change: {flag} is switched off again")
    if recovery.get("on_somewhere"):
        again = replace(carried, done=False, why="it was switched off and is on again: somebody switches it on")
        return _failed(order, again, at, recovery)
    if lost and "unread" in recovery:
        gone = replace(carried, done=None, why="it was switched off, and then the database went away: see its failover")
        return _failed(order, gone, at, recovery)
    said = "; ".join([f"{flag} was off already", *carried.notes])
    if not carried.rows:
        return Action("none", at, at, "nothing_to_do", said, recovery=recovery, flag="off")
    said = "; ".join([f"{flag} was switched off in {recovery['decision_to_off_s']} s", *carried.notes])
    return Action("rollback", at, 0, "done", said, recovery=recovery, flag="off")


class _Superseded(Exception):  # noqa: N818  -- an observation about the flag
    """Others stepped the flag after a judgement that is out of date: what was judged may not be what is on."""


def _if_it_stands(connection: Connection, order: Order) -> None:
    """Raise _Superseded if the gate stood still until others went on. What cannot be read stops no rollback."""
    if not order.since or order.good_for_min is None:
        return
    try:
        with connection.transaction():
            given = {"flag": order.plan.flag, "since": order.since, "good_for_min": order.good_for_min}
            too_late = rows(connection, "order_too_old", given)[0]["too_old"] is True
            stepped = too_late and rows(connection, "flag_stepped", given)[0]["stepped"] is True
    except psycopg.Error:
        if connection.closed:
            raise
        return
    if stepped:
        late = f"the release was judged more than {order.good_for_min} minutes ago, and the flag took a step since"
        raise _Superseded(f"{late}, maybe of another release: it was left as it is")


def _switch_off(order: Order) -> tuple[Forced, list[FlagState | None]]:
    """Make the change. Returns its result, and the flag as it was before each try."""
    flag = order.plan.flag
    befores: list[FlagState | None] = []

    def carry(connection: Connection) -> Mapping[str, JsonValue]:
        wait_for_others(connection, "flag_held", {"flag": flag})
        _if_it_stands(connection, order)
        befores.append(_before(connection, flag))
        changed = first_that_works(connection, ("flag_off", "flag_off_least"), {"flag": flag})
        changed += cancel_drill_loan(connection, LiveRow(flag))
        before = befores[-1]
        return {"from": before.shown if before else None, "to": 0, "rows": changed}

    def read_back(connection: Connection, _xid: str) -> ReadBack:
        return read_flag(connection, flag)

    return Forced(f"switch off {flag}", "flag_rolled_back", carry, read_back), befores


def _was_lost(url: str, flag: str, befores: list[FlagState | None]) -> bool:
    """Whether the flag is on at its old version: switching it on again would have raised the version."""
    was, now = next((b for b in befores if b is not None), None), look_at(url, flag)
    return was is not None and now is not None and was.enabled and (now.enabled, now.version) == (True, was.version)


def _before(connection: Connection, flag: str) -> FlagState | None:
    """The flag before the rollback, for the report. An unreadable flag stops no rollback."""
    try:
        with connection.transaction():
            return look_at_global(connection, flag)
    except UNREADABLE:
        if connection.closed:
            raise
        return None


def _failed(order: Order, carried: Carried, at: int | None, recovery: dict[str, JsonValue] | None = None) -> Action:
    flag, is_late = order.plan.flag, isinstance(carried.error, _Superseded)
    unblock = f"SELECT pg_catalog.pg_terminate_backend({carried.blocker}); -- the session in the way\n"
    still = "is still on" if carried.done is False else "may still be on"
    said = "; ".join([f"{flag} {still}: {carried.why}", *carried.notes])
    return Action(
        "none",
        at,
        at,
        SUPERSEDED if is_late else "failed",
        said,
        holds=True,
        recovery=recovery or {},
        flag="on" if carried.done is False else "unknown",
        by_hand="" if is_late else (unblock if carried.blocker else "") + by_hand(flag),
    )


# --- read back ---------------------------------------------------------------------------------------------------


def read_flag(connection: Connection, flag: str) -> ReadBack:
    """Whether the flag is off for everybody. Raise one of UNREADABLE if that is unknown.

    All its rows that this login sees must be off. If it sees all rows, that is enough unless the function that service
    and worker use says otherwise. If it does not, the function must say off for every company.
    """
    found, left_on = _left(connection, flag)
    if not found:
        return ReadBack(None, _unseen(connection, flag), final=True)
    if left_on:
        return ReadBack(False, f"{left_on} of {with_unit(found, 'rows')} read back as not off")
    seen_whole = [s for s in sights(connection, every=False) if s.sure]
    if any(s.is_flags for s in seen_whole):
        return _asked(connection, flag)
    return _asked_for_all(connection, flag, any(s.is_companies for s in seen_whole))


def _left(connection: Connection, flag: str) -> tuple[int, int]:
    """How many rows of the flag this login sees, and how many of them are not off. Drill companies of a running gate do
    not count: they come and go during the rollback, and nobody uses them.
    """
    seen = rows(connection, "flag_left", {"flag": flag})[0]
    found, left_on = int(str(seen["rows"])), int(str(seen["left_on"]))
    if not left_on:
        return found, 0
    try:
        with connection.transaction():
            left = rows(connection, "flag_left_of_runs", {"flag": flag})[0]
    except psycopg.Error:
        if connection.closed:
            raise
        return found, left_on
    named = left["named"] if isinstance(left["named"], list) else []
    return found, int(str(left["left_on"])) - len(of_runs(named))


def _asked(connection: Connection, flag: str) -> ReadBack:
    """All rows are seen and off: ask the function about some companies, as many as time allows."""
    try:
        if company := _on_for(connection, "flag_on_for_some", flag):
            return _is_on_for(company, "it does not follow the rows")
    except NOT_THERE as error:
        _nothing_to_ask(error)
    try:
        with connection.transaction():
            rows(connection, "statement_limit", {"limit": f"{ASK_S}s"})
            if company := _on_for(connection, "flag_on_for", flag):
                return _is_on_for(company, "it does not follow the rows")
    except NO_TIME:
        pass
    except NOT_THERE as error:
        _nothing_to_ask(error)
    return ReadBack(True)


def _nothing_to_ask(error: psycopg.Error) -> None:
    """Raise the error if the function exists but something that it needs is missing: then it did not answer."""
    if error.diag.context:
        raise error


def _asked_for_all(connection: Connection, flag: str, whole: bool) -> ReadBack:
    """Some rows may be hidden from this login: only the function's answer for every company counts."""
    hidden = "row-level security may hide rows of the flag from this login"
    login = "Use a login that sees all rows (replay_gate)"
    if not whole:
        return ReadBack(None, f"{hidden}, and companies, too. {login}", final=True)
    try:
        company = _on_for(connection, "flag_on_for", flag)
    except psycopg.Error as error:
        said = f"{hidden}, and is_feature_enabled did not answer for every company: {in_words(error)}. {login}"
        return ReadBack(None, said, final=isinstance(error, NOT_THERE) and not error.diag.context)
    return _is_on_for(company, "row-level security hides rows from this login") if company else ReadBack(True)


def _on_for(connection: Connection, name: str, flag: str) -> str:
    """A company for which the function says on, other than drill companies of a run; empty if there is none."""
    spared: set[str] = set()
    for _ in range(MOST_LOOKS):
        found = rows(connection, name, {"flag": flag, "spared": [*spared]})
        drilled = of_runs(found)
        others = [str(row["id"]) for row in found if row["id"] not in drilled]
        if not found or others:
            return next(iter(others), "")
        spared |= drilled
    return spared.pop()


def _is_on_for(company: str, why: str) -> ReadBack:
    said = f"every row that this login sees is off, but is_feature_enabled says on for company {company}"
    return ReadBack(False, f"{said}: {why}")


def _unseen(connection: Connection, flag: str) -> str:
    """Why no row is seen: the key does not exist, or the login may not see it."""
    said = f"this login sees no row of a flag {flag!r}"
    try:
        found = rows(connection, "flag_keys", {})[0]
    except UNREADABLE as error:
        return f"{said} ({in_words(error)})"
    keys = [str(k) for k in found["keys"]] if isinstance(found["keys"], list) else []
    if not keys:
        blind = "row-level security hides them from it: use a login that sees all rows (replay_gate)"
        empty = f"{current().real('feature_flags')} is empty"
        return f"{said}, nor of any other: {blind if found['hidden'] else empty}"
    hidden = ", or row-level security hides it from this login" if found["hidden"] else ""
    near = difflib.get_close_matches(flag, keys, 3, 0.5) or sorted(keys)[:10]
    return f"{said}: the key may be mistyped{hidden}. It sees {', '.join(map(repr, near))}"


def prove_recovery(
    url: str, plan: RolloutPlan, decided: float, off: float, clock: Callable[[], float], server: str
) -> tuple[dict[str, JsonValue], bool]:
    """What is proved of the recovery, and whether the database went away meanwhile.

    After a failover the change may be missing. It is then looked for again within the patience of a rollback. Anything
    else that cannot be read is reported as not proved, and undoes nothing.
    """
    proof: dict[str, JsonValue] = {"decision_to_off_s": round(off - decided, 3)}
    until = None  # the wait for an answer that never came does not count
    while True:
        try:
            with session(url, read_only=True) as connection:
                must_be_same(connection, server, AS_MADE)
                return proof | _proved(connection, plan, decided, off, clock), until is not None
        except UNREADABLE as error:
            if until is None and went_away(error):
                until = clock() + plan.rollback_patience_s
            if until is None or not went_away(error) or clock() > until:
                return {**proof, "unread": in_words(error), "proved": False}, until is not None
        time.sleep(POLL_S)


def _proved(
    connection: Connection, plan: RolloutPlan, decided: float, off: float, clock: Callable[[], float]
) -> dict[str, JsonValue]:
    """Wait until nothing is in flight, for at most the plan's time; count what is held and half done.

    Then watch the flag until it has been off for `settle_s`: somebody, or the service itself, may switch it on again.
    Finally read it in full.
    """
    while True:
        row = _counted(connection, plan.flag)
        drained = row.get("in_flight") == 0
        if drained or "unread" in row or clock() - decided > plan.drain_timeout_s:
            break
        time.sleep(POLL_S)
    drained_s = round(clock() - decided, 3) if drained else None
    while clock() - off < plan.settle_s and not _left(connection, plan.flag)[1]:
        time.sleep(POLL_S)
    still_off = read_flag(connection, plan.flag).done
    whole = bool(drained and still_off and row.get("half_replayed") == 0)
    seen: dict[str, JsonValue] = {"watched_s": round(clock() - off, 3), "decision_to_drained_s": drained_s}
    return {**seen, **row, "on_somewhere": still_off is False, "proved": whole}


def _counted(connection: Connection, flag: str) -> dict[str, JsonValue]:
    try:
        row = rows(connection, "recovery", {"flag": flag})[0]
        return {name: int(str(row[name])) for name in ("in_flight", "held", "half_replayed")}
    except psycopg.Error as error:
        if connection.closed:
            raise
        return {"unread": in_words(error)}
