"""Property test of the readers: change any byte of any answer or cell, and nothing crashes and no decision gets better.

Each mutation goes through a run, in process and without sockets: the readers of HTTP and SQL, the judgement of
preflight, short drill, load, alert and spot check, the evidence as a line, decide(). A promote must rest on answers and
cells that an independent reader (recording.is_good) also finds good.
"""

import datetime as dt
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, cast

import pytest
from psycopg.adapt import Transformer
from psycopg.pq import Format

from drills.short_drill import test_short_drill
from gates.checks.observation import Observer
from gates.checks.recorder import judge
from gates.decision.decide import decide
from gates.decision.floor import FLOOR
from gates.decision.rules import Policy
from gates.deployment.http.client import HttpDoor
from gates.deployment.http.limits import unpacked
from gates.deployment.http.wire import parsed
from gates.deployment.requests import Answer, Exchange, Request
from gates.deployment.sql.cells import TOLERANCE
from gates.deployment.target import Target
from gates.evidence import CheckSpec, Evidence, Outcome, Severity, TargetKind, Where, dump_line
from gates.proof.hostile.recording import (
    COMPANY,
    EVENT,
    KEY,
    RELEASE,
    RecordedTable,
    Recording,
    broken,
    healthy,
    is_good,
)
from gates.stages.preflight.endpoints import REACHABLE, reachable, release
from gates.stages.preflight.endpoints import RELEASE as SAYS_RELEASE
from gates.stages.preflight.looks import after, timed
from gates.verdict import Decision
from loadtests.engine.wire import Connection, TransportError, parse_address
from loadtests.thresholds.expectations import ALIVE, EVENT_STATUS, Expectation, accepted_event, replayed, version_of
from sql_checks.rules.file import ALERTS, read_rules
from sql_checks.rules.run import judge_rule
from sql_checks.spotfile import read_spot
from sql_checks.spotrun import judge_spot

MOST_LINE = 600_000
"""The most bytes of one line of evidence."""
MOST_SHOWN = 20

SPLICES = (
    *(b"NaN", b"Infinity", b"-0", b"1e400", b"9" * 5000, b"null", b"true", b'"true"', b"12.5", b"[" * 2000),
    b'"\\ud800"',
    *(b"\x00", b"\xff\xfe", b"\r\n", b"\r\n\r\n", b'"', b"\\", b"{", b"}", b"{}", b'"code":1,', b"x" * 100_000, b""),
    *(b"infinity", b"-infinity", b"0044-03-15 BC", b"20000-01-01 00:00:00+00", b"gzip", b"chunked", b"-1", b"1_0"),
)
"""Texts of a hostile target, written over a random stretch."""

TARGET = Target(TargetKind.STAGING, "http://target.invalid", ("s" * 32,), test_company_id=COMPANY, release=RELEASE)
ASKED = Request("POST", "/dlq-replay")
LOAD = CheckSpec("load/checks/rate", "", "", Severity.PAGE, Where.SELF_CLEANING)
SEEN_ELSEWHERE = [
    p for p in FLOOR if not p.startswith(("preflight/target-reachable", "preflight/release", "drill/proof/"))
]
STANDING = tuple(
    CheckSpec(pattern.replace("*", "any"), "", "", Severity.PAGE, Where.READ_ONLY) for pattern in SEEN_ELSEWHERE
)
"""The rest of the floor, passed: only the mutated answers stand between the gate and a promote."""
EXPECTED: Mapping[str, Expectation] = {
    "healthz": ALIVE,
    "version": version_of(),
    "event": accepted_event(EVENT),
    "event status": EVENT_STATUS,
    "replay": replayed(COMPANY, KEY, refusals=frozenset()),
}
DRILLS: tuple[Callable[[test_short_drill.ShortDrill, Observer], None], ...] = (
    test_short_drill.test_invalid_signature,
    test_short_drill.test_valid_signature,
    test_short_drill.test_admin_token,
    test_short_drill.test_fourth_call,
    test_short_drill.test_duplicate,
    test_short_drill.test_oversized_batch,
    test_short_drill.test_dry_run,
)
LAG = next(rule for rule in read_rules(ALERTS / "outbox.yaml") if rule.name == "outbox-lag")
SPOT = read_spot(ALERTS.parent / "spot" / "0010_replay_runs_unique.sql")


@dataclass(frozen=True, slots=True)
class MutationReport:
    """The result of all mutations: number of each decision, crashes, and decisions that got better."""

    seed: int
    mutations: int
    seconds: float
    decisions: Mapping[str, int]
    crashes: tuple[str, ...]
    better: tuple[str, ...]

    @property
    def holds(self) -> bool:
        return self.mutations > 0 and not self.crashes and not self.better


def mutations(seed: int, count: int) -> MutationReport:
    """Make so many mutations, half of them on a healthy target, the others on targets with a broken promise."""
    chance, began = random.Random(seed), time.monotonic()  # noqa: S311  -- to be repeated, not to be secret
    good = healthy(dt.datetime.now(dt.UTC))
    bad = tuple(broken(good).items())
    decisions: Counter[str] = Counter()
    crashes: list[str] = []
    better: list[str] = []
    for number in range(count):
        name, base = ("healthy", good) if number % 2 else chance.choice(bad)
        heard, what = mutated(base, chance)
        try:
            decision = decided(heard)
        except Exception as error:  # noqa: BLE001  -- what the test looks for
            crashes.append(f"{name}, {what}: {type(error).__name__}: {error}"[:500])
            continue
        decisions[decision.value] += 1
        if decision is Decision.PROMOTE and not is_good(heard, good):
            better.append(f"{name}, {what}"[:500])
    seconds = time.monotonic() - began
    return MutationReport(seed, count, seconds, decisions, tuple(crashes[:MOST_SHOWN]), tuple(better[:MOST_SHOWN]))


def mutated(base: Recording, chance: random.Random) -> tuple[Recording, str]:
    """The recording with one change in one answer or cell, and a description of the change."""
    cells = [(n, r, c) for n, t in base.tables.items() for r, row in enumerate(t.rows) for c in range(len(row))]
    names = sorted(base.answers)
    at = chance.randrange(2 * len(names) + len(cells))
    if at < 2 * len(names):
        name = names[at % len(names)]
        raw = changed(base.answers[name], chance)
        return base.with_answer(name, raw), f"answer {name!r}: {raw[:300]!r}"
    table, row, column = cells[at - 2 * len(names)]
    cell = changed(base.tables[table].rows[row][column] or b"", chance) if chance.randrange(12) else None
    return base.with_cell(table, row, column, cell), f"cell {table}[{row}][{column}]: {(cell or b'NULL')[:300]!r}"


def changed(raw: bytes, chance: random.Random) -> bytes:
    """Mostly another byte somewhere; else a stretch removed, repeated, or replaced by hostile text."""
    start = chance.randrange(len(raw) + 1)
    end = min(len(raw), start + chance.choice((0, 1, 1, 2, 4, 16)))
    match chance.randrange(6):
        case 0:
            return raw[:start] + raw[end:]
        case 1:
            return raw[:end] + raw[start:]
        case 2:
            return raw[:start] + chance.choice(SPLICES) + raw[end:]
        case _:
            return raw[:start] + bytes([chance.randrange(256)]) + raw[start + 1 :]


# --- the way of a run --------------------------------------------------------------------------------------------


def decided(heard: Recording) -> Decision:
    """The decision on the recording; every line of evidence is written and read again on the way."""
    specs: list[CheckSpec] = []
    lines: list[Evidence] = []
    for spec, one in _seen(heard):
        stamped = replace(one, started_at=one.started_at or dt.datetime.now(dt.UTC).isoformat(), release=RELEASE)
        line = dump_line(stamped)
        if len(line.encode()) > MOST_LINE:
            raise OverflowError(f"a line of {len(line)} characters")
        specs.append(spec)
        lines.append(Evidence.from_json(json.loads(line)))
    policy = Policy(tuple(specs), TargetKind.STAGING, RELEASE)
    verdict = decide(lines, policy, dt.datetime.now(dt.UTC))
    verdict.dump().encode()
    return verdict.decision


def _seen(heard: Recording) -> Iterator[tuple[CheckSpec, Evidence]]:
    told = {name: _answer(raw) for name, raw in heard.answers.items()}
    asked = {"GET": "healthz", "POST": "unsigned"}
    door = cast("HttpDoor", SimpleNamespace(send=lambda request: _given(told[asked[request.method]])))
    there = timed(REACHABLE, TARGET, lambda: reachable(TARGET, door))
    yield REACHABLE, there
    version = told["version"]
    said = [version.json() if version is not None and version.status == 200 else {}]
    yield SAYS_RELEASE, after([there], SAYS_RELEASE, TARGET, lambda: release(TARGET, said))
    for drill in DRILLS:
        spec: CheckSpec = drill.pytestmark[0].args[0]  # type: ignore[attr-defined]
        yield spec, _observed(spec, lambda seen, d=drill: d(_Scenario(COMPANY, fresh=True, told=told), seen))  # type: ignore[misc]
    wrong = [name for name, due in EXPECTED.items() if not due.holds(*_loaded(heard.answers[name]))]
    outcome = Outcome.FAIL if wrong else Outcome.PASS
    yield LOAD, Evidence(LOAD.id, outcome, ", ".join(wrong), len(wrong), 0, samples=len(EXPECTED))
    for check in STANDING:
        yield check, Evidence(check.id, Outcome.PASS, samples=1)
    session: Any = _Session(heard.tables)
    yield LAG.spec, _observed(LAG.spec, lambda seen: judge_rule(LAG, session, seen))
    yield SPOT.spec, _observed(SPOT.spec, lambda seen: judge_spot(SPOT, session, seen))


def _observed(spec: CheckSpec, check: Callable[[Observer], None]) -> Evidence:
    """What the recorder makes of a check."""
    seen = Observer(TARGET)
    error: BaseException | None = None
    try:
        check(seen)
    except (Exception, pytest.fail.Exception, pytest.skip.Exception) as raised:  # noqa: BLE001  -- as pytest does
        error = raised
    outcome, message = judge(error, seen)
    return seen.evidence_of(spec, outcome, message, "", 1.0)


class _Scenario(test_short_drill.ShortDrill):
    """The short drill on given answers. An answer that is None makes the checks that need it unknown."""

    def __init__(self, company: str, *, fresh: bool, told: Mapping[str, Answer | None]) -> None:
        super().__init__(company, fresh)
        self.exchanges = {n: Exchange(ASKED, a) for n, a in told.items() if a is not None}


@lru_cache(maxsize=256)  # all but one answer of a run are unchanged
def _answer(raw: bytes) -> Answer | None:
    """The answer as the HTTP client reads it; None if it is unreadable."""
    try:
        status, headers, body = parsed(raw)
        encoding = ",".join(v for k, v in headers if k == "content-encoding")
        return Answer(status, headers, unpacked(body, encoding), 1.0)
    except Exception as error:
        if type(error).__module__.startswith(("h11", "gates.deployment.http.limits")):
            return None
        raise


def _given(answer: Answer | None) -> Answer:
    if answer is None:
        raise OSError("no answer")
    return answer


NOWHERE = parse_address("http://recorded.test")


class _Told(Connection):
    """The load's own reader, fed with bytes."""

    __slots__ = ("_left",)

    def __init__(self, raw: bytes) -> None:
        self._left, self._address = raw, NOWHERE
        self._sock = self._tls = self._reader = self._writer = None
        self.timed_out, self.body, self.received, self.status = False, b"", 0, 0

    def _more(self) -> bytes:
        data, self._left = self._left[:4096], self._left[4096:]
        self.received += len(data)
        return data


@lru_cache(maxsize=256)
def _loaded(raw: bytes) -> tuple[int, bytes]:
    """Status and body as the load reads them; 0 for no answer."""
    reader = _Told(raw)
    try:
        return reader._read_response(reader._receive(), head=False), reader.body  # noqa: SLF001  -- the reader itself
    except (TransportError, ValueError):
        return 0, b""


class _Cursor:
    """The rows of a table, converted like those of the real connection, when they are fetched."""

    def __init__(self, table: RecordedTable) -> None:
        self._table = table
        self.description = [SimpleNamespace(name=name) for name, _ in table.columns]

    def fetchall(self) -> list[dict[str, object]]:
        loader = Transformer(TOLERANCE)
        loader.set_loader_types([oid for _, oid in self._table.columns], Format.TEXT)
        names = [name for name, _ in self._table.columns]
        return [dict(zip(names, loader.load_sequence(row), strict=True)) for row in self._table.rows]

    def fetchone(self) -> dict[str, object] | None:
        return next(iter(self.fetchall()), None)

    def fetchmany(self, _most: int) -> list[dict[str, object]]:
        return self.fetchall()


class _Session:
    """The session of the SQL suites on recorded tables."""

    blindness, crowded = "", ()

    def __init__(self, tables: Mapping[str, RecordedTable]) -> None:
        self._tables = tables

    def ask(self, *statements: str) -> list[_Cursor]:
        names = {LAG.query: "lag", SPOT.violations: "violations", SPOT.seen: "seen"}
        return [_Cursor(self._tables[names.get(text, "clock")]) for text in statements]
