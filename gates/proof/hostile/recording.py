"""One healthy target as bytes: its answers to the preflight, the short drill and the load, and its SQL cells.

Each answer names the members on which the gate's judgement rests. `is_good` reads them with code that shares nothing
with the gate's readers, so an error in those readers shows.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

RELEASE = "r1"
COMPANY = "00000000-0000-4000-8000-000000000001"
RUN = "11111111-1111-4111-8111-111111111111"
EVENT = "22222222-2222-4222-8222-222222222222"
KEY = "key-1"
INT8, TEXT, TIMESTAMPTZ, NUMERIC = 20, 25, 1184, 1700
MOST_LAG_S, LEAST_SAMPLES = 2.0, 20
_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
"""The end of a head; a line may end with its line feed alone (RFC 9112, section 2.2)."""
_LENGTH = re.compile(rb"(?i)\ncontent-length: *([0-9]{1,9})")
_STATUS = re.compile(rb"HTTP/[0-9]\.[0-9] ([0-9]{3})(?:[ \r]|\Z)")


@dataclass(frozen=True, slots=True)
class RecordedTable:
    """The rows of one query, as a server sends them: columns with their types, cells as text (None: NULL)."""

    columns: tuple[tuple[str, int], ...]
    rows: tuple[tuple[bytes | None, ...], ...]


@dataclass(frozen=True, slots=True)
class Recording:
    """The recorded target: raw answers by exchange, tables by query."""

    answers: Mapping[str, bytes]
    tables: Mapping[str, RecordedTable]

    def with_answer(self, name: str, raw: bytes) -> Recording:
        return replace(self, answers={**self.answers, name: raw})

    def with_cell(self, name: str, row: int, column: int, cell: bytes | None) -> Recording:
        table = self.tables[name]
        rows = [list(r) for r in table.rows]
        rows[row][column] = cell
        changed = replace(table, rows=tuple(tuple(r) for r in rows))
        return replace(self, tables={**self.tables, name: changed})


def answer(status: int, body: Mapping[str, Any], *headers: str) -> bytes:
    text = json.dumps(body, separators=(",", ":")).encode()
    lines = [f"HTTP/1.1 {status} X", "Content-Type: application/json", *headers, f"Content-Length: {len(text)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + text


def _run(status: str, **more: Any) -> dict[str, Any]:
    return {
        "status": status, "replay_run_id": RUN, "idempotency_key": KEY, "company_id": COMPANY, "dry_run": False,
        "duplicate": False, "target_count": 0, "items": [], **more,
    }  # fmt: skip


RESTS_ON: Mapping[str, tuple[str, ...]] = {
    "healthz": (),
    "version": ("release",),
    "unsigned": (),
    "forged": (),
    "bad token": (),
    "oversized": ("code",),
    "largest": (),
    "signed": ("status", "replay_run_id"),
    "token": ("duplicate", "replay_run_id"),
    "dry": ("status", "dry_run", "replay_run_id"),
    "fourth": ("code",),
    "event": ("event_id", "path"),
    "event status": (),
    "replay": ("status", "company_id", "idempotency_key", "items"),
}
"""Exchange -> the members of its answer, besides its status, that a promote rests on."""


def healthy(now: dt.datetime) -> Recording:
    """A target that keeps every promise examined here."""
    dry = _run("dry_run", replay_run_id=None, dry_run=True)
    answers = {
        "healthz": answer(200, {"status": "ok"}),
        "version": answer(200, {"release": RELEASE, "commit": "c", "schema_version": 7, "drill_agent": True}),
        "unsigned": answer(401, {"code": "unauthenticated", "status": 401}),
        "forged": answer(401, {"code": "unauthenticated", "status": 401}),
        "bad token": answer(401, {"code": "unauthenticated", "status": 401}),
        "oversized": answer(400, {"code": "batch_too_large", "status": 400}),
        "largest": answer(403, {"code": "forbidden", "status": 403}),
        "signed": answer(200, _run("completed")),
        "token": answer(200, _run("completed", duplicate=True), "Idempotent-Replayed: true"),
        "dry": answer(200, dry),
        "fourth": answer(429, {"code": "rate_limited", "status": 429}, "Retry-After: 123"),
        "event": answer(202, {"event_id": EVENT, "path": "outbox", "duplicate": False}),
        "event status": answer(200, {"status": "delivered", "committed_at": now.isoformat(), "effect_at": None}),
        "replay": answer(200, _run("completed")),
    }
    newest, clock = (str(at).encode() for at in (now - dt.timedelta(seconds=5), now))
    numbers = (("value", NUMERIC), ("samples", INT8), ("newest", TIMESTAMPTZ))
    lag = (("subject", TEXT), *numbers, ("witness", TEXT), ("bad", INT8))
    tables = {
        "clock": RecordedTable((("now", TIMESTAMPTZ),), ((clock,),)),
        "lag": RecordedTable(lag, ((b"all", b"0.8125", b"512", newest, b"the slowest of 512", b"0"),)),
        "violations": RecordedTable((("subject", TEXT), ("detail", TEXT), ("witness", TEXT)), ()),
        "seen": RecordedTable((("seen", INT8),), ((b"3",),)),
    }
    return Recording(answers, tables)


def broken(good: Recording) -> dict[str, Recording]:
    """The same target with one broken promise each: none of them may ever be promoted."""
    fields = ((b"x", b"a row that must not be", b"{}"),)
    violated = replace(good.tables["violations"], rows=fields)
    return {
        "another release": good.with_answer("version", answer(200, {"release": "r2"})),
        "a forged signature is taken": good.with_answer("forged", answer(200, _run("completed"))),
        "no limit": good.with_answer("fourth", answer(200, _run("dry_run"))),
        "no idempotency": good.with_answer("token", answer(200, _run("completed"))),
        "a dry run that is none": good.with_answer("dry", answer(200, _run("completed"))),
        "a lag of nine seconds": good.with_cell("lag", 0, 1, b"9.25"),
        "a violation": replace(good, tables={**good.tables, "violations": violated}),
        "events are refused": good.with_answer("event", answer(500, {"code": "internal"})),
    }


def is_good(heard: Recording, good: Recording) -> bool:
    """Whether the recording supports a promote, read by independent code."""
    same = all(
        _said(heard.answers[name], RESTS_ON[name]) == _said(raw, RESTS_ON[name]) for name, raw in good.answers.items()
    )
    (lag,) = heard.tables["lag"].rows
    # the driver's own reader of times ignores what is between their numbers
    is_timed = lag[3] is None or re.match(rb"(?s)[0-9]{4}.[0-9]{2}.[0-9]{2}.", lag[3]) is not None
    numbers = [re.fullmatch(rb"\s*[0-9_]*\.?[0-9_]+\.?([eE][-+]?[0-9]+)?\s*", cell or b"") for cell in (lag[1], lag[2])]
    if not same or not is_timed or not all(numbers) or lag[0] != b"all" or heard.tables["violations"].rows:
        return False
    seen = heard.tables["seen"].rows[0][0] or b""
    value, samples = (
        float((cell or b"nan").replace(b"_", b"")) for cell in (lag[1], lag[2])
    )  # Decimal skips them, too
    return value <= MOST_LAG_S and samples >= LEAST_SAMPLES and seen.strip(b" 0") != b""


def _said(raw: bytes, members: tuple[str, ...]) -> object:
    head, _, body = _BLANK_LINE.sub(b"\r\n\r\n", raw, count=1).partition(b"\r\n\r\n")
    length = _LENGTH.search(head)
    body = body[: int(length[1])] if length else body  # what follows is not part of the answer
    status = _STATUS.match(head)
    if status is None:
        return None
    if not members:
        return int(status[1])
    pairs: list[tuple[str, Any]] = []
    try:
        document = json.loads(body.decode("utf-8"), object_pairs_hook=lambda found: found)
    except (ValueError, RecursionError):
        return None
    if isinstance(document, list):
        pairs = [pair for pair in document if isinstance(pair, tuple)]
    names = [name for name, _ in pairs]
    return int(status[1]), [json.dumps(dict(pairs).get(m)) if names.count(m) == 1 else None for m in members]
