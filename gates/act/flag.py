"""Reads the flag, holds the order to change it, and writes the audit row of the change."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psycopg

from gates.act.acting import session
from gates.decision.rules import RolloutPlan
from gates.deployment.dialect.current import current
from gates.deployment.identity import server_of
from gates.deployment.sql.connection import AnswerRows
from gates.deployment.sql.database import Connection, sql
from gates.deployment.tenants.loans import LiveRow
from gates.evidence import JsonValue

SQL = Path(__file__).with_name("sql")
UNREADABLE = (psycopg.Error, ValueError, TypeError, LookupError, MemoryError, RuntimeError, OSError)
"""What reading a row can raise: a refusal of the server, a value that the contract does not allow or too large, or no
thread, file or memory left to ask with.
"""
MOST_OVERRIDES = 1000
"""The most tenants' rows that flag_state.sql reads."""
ENCODINGS = {"SQL_ASCII": "utf-8", **{f"WIN{number}": f"cp{number}" for number in (866, 874, *range(1250, 1259))}}
"""Encoding of a database -> Python's, if that has another name. For unknown encodings texts are written in ASCII."""

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Override:
    """A tenant's own row of the flag."""

    company_id: str
    enabled: bool
    percent: int


@dataclass(frozen=True, slots=True)
class FlagState:
    """The rows of one flag as read; `percent` and `version` are those of the global row.

    overrides: at most MOST_OVERRIDES of them, those with the lowest percentage. server: where they were read, if known
    (`identity.server_of`). at: when they were read, by the server's clock.
    """

    enabled: bool
    percent: int
    version: int
    overrides: tuple[Override, ...] = ()
    server: str = ""
    at: str = field(default="", compare=False)

    @property
    def shown(self) -> int:
        """The rollout as verdict.json shows it: 0 if the flag is off."""
        return self.percent if self.enabled else 0

    def to_json(self) -> dict[str, JsonValue]:
        """The global row. Overrides are only looked at when a step is taken."""
        members = ("enabled", "percent", "version", "server", "at")
        return {name: getattr(self, name) for name in members}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FlagState:
        server, at = (str(data.get(name, "")) for name in ("server", "at"))
        return cls(data["enabled"], data["percent"], data["version"], server=server, at=at)


@dataclass(frozen=True, slots=True)
class Order:
    """The order to change a flag, and what its audit row will say.

    seen: the flag at the start of the run, None if unreadable. same_version: whether it must not have been touched
    since (on production; elsewhere our own drills touch it and restore it). claims: the areas that the target was seen
    to keep, now or before, for the next gate. by_hand: a person orders the step, and answers for the present state of
    the flag. verdict: the id of the run whose verdict was handed over, if any. enable_at: the percentage at which a
    person switches the flag on. flagless: the policy claims only a queue, and no flag. since: when the judgement began,
    by the clock of the audit rows. good_for_min: how long after that a step may be taken, and a step that others took
    meanwhile be switched off; None for ever.
    """

    plan: RolloutPlan
    release: str
    actor: str
    reason: str
    seen: FlagState | None = None
    same_version: bool = True
    by_hand: bool = False
    dry_run: bool = False
    verdict: str = ""
    enable_at: int | None = None
    flagless: bool = False
    claims: tuple[str, ...] = ()
    since: str = ""
    good_for_min: int | None = None


def look(connection: Connection, flag: str) -> FlagState | None:
    """The flag now, with at most MOST_OVERRIDES tenants' rows; None if this login sees no global row. Raise one of
    UNREADABLE if the rows are not what the contract says.
    """
    found = rows(connection, "flag_state", {"flag": flag})
    whole = [row for row in found if row["company_id"] is None]
    if not whole:
        return None
    if len(whole) > 1:
        raise ValueError(f"it has {len(whole)} global rows, and which of them counts is not known: keep one")
    overrides = (
        Override(str(r["company_id"]), bool(r["enabled"]), int(str(r["rollout_percentage"]))) for r in found[1:]
    )
    return _global(found[0], tuple(overrides))


def look_at_global(connection: Connection, flag: str) -> FlagState | None:
    """`look` without the tenants' rows, which may be too many to read."""
    found = rows(connection, "flag_global", {"flag": flag})
    return _global(found[0]) if found else None


def _global(row: Mapping[str, object], overrides: tuple[Override, ...] = ()) -> FlagState:
    if without := [name for name in ("rollout_percentage", "version") if row[name] is None]:
        raise ValueError(f"its global row has no value for {' and '.join(without)} (NULL): set one")
    percent, version = int(str(row["rollout_percentage"])), int(str(row["version"]))
    return FlagState(bool(row["enabled"]), percent, version, overrides)


def look_at(database_url: str, flag: str) -> FlagState | None:
    """`look` over a new connection. Also None if there is no database or it cannot be read."""
    if not database_url:
        return None
    try:
        with session(database_url, read_only=True) as connection:
            at = str(rows(connection, "now", {})[0]["at"])
            found = look(connection, flag)
            return replace(found, server=server_of(connection), at=at) if found else None
    except UNREADABLE:
        return None


def rows(connection: Connection, name: str, values: Mapping[str, object]) -> list[dict[str, object]]:
    """The result rows of `sql/<name>.sql`."""
    cursor = connection.execute(sql(SQL / f"{name}.sql").encode(), values)
    return cursor.fetchall() if cursor.description else AnswerRows()


def count(connection: Connection, name: str, values: Mapping[str, object]) -> int:
    """How many rows `sql/<name>.sql` changed, as the server or the statement itself counts them."""
    cursor = connection.execute(sql(SQL / f"{name}.sql").encode(), values)
    return sum(row["changed"] is True for row in cursor) if cursor.description else cursor.rowcount


def cancel_drill_loan(connection: Connection, switch: LiveRow) -> int:
    """Returns 1 if a drill has set this row: it is off or paused already, and now stays so.

    Call it after the row is written: a drill that was about to set the row has set it by then. A drill that was about
    to restore it is noticed when the row is read back. An error here stops no rollback.
    """
    try:
        with connection.transaction():
            return count(connection, "drill_overruled", {"record": switch.record})
    except psycopg.Error:
        if connection.closed:
            raise
        return 0


def audit(
    connection: Connection, action: str, order: Order, target_count: int, details: Mapping[str, JsonValue]
) -> None:
    """Append the audit row. Raise psycopg.Error if it is not there afterwards: a trigger may swallow or alter it."""
    metadata = {"key": order.plan.flag, "release": order.release, "reason": order.reason, **details}
    metadata |= {"verdict": order.verdict} if order.verdict else {}
    metadata |= {"claims": list(order.claims)} if order.claims else {}
    told = {name: fitting(connection, one) if isinstance(one, str) else one for name, one in metadata.items()}
    values = {
        "action": action,
        "actor": fitting(connection, order.actor),
        "metadata": json.dumps(told, ensure_ascii=False),
    }
    made = rows(connection, "audit_append", {**values, "target_count": target_count, "success_count": target_count})
    connection.execute("set constraints all immediate")  # run deferred constraints and triggers now, not at the commit
    kept = json.dumps({name: told[name] for name in ("key", "to") if name in told}, ensure_ascii=False)
    if not made or not rows(connection, "audit_read", {"id": made[0]["id"], "action": action, "kept": kept}):
        table = current().real("audit_logs")
        raise psycopg.DataError(f"the row was not in {table} after it was written: a trigger or rule keeps it out")


def fitting(connection: Connection, text: str) -> str:
    """The text, with escapes for what this database or connection cannot encode: no audit text may stop a change."""
    server, ours = connection.info.parameter_status("server_encoding") or "", connection.info.encoding
    for encoding in (ENCODINGS.get(server, server), "utf-8" if ours == "ascii" else ours):  # as the driver sends it
        try:
            text = text.encode(encoding, "backslashreplace").decode(encoding)
        except LookupError:
            text = text.encode("ascii", "backslashreplace").decode("ascii")
    return text.replace("\0", "\\0")
