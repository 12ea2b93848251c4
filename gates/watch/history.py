"""The history of the watch: one file, one JSON object per line, appended under a lock and flushed to disk.

A killed writer leaves at most one incomplete line; the next one puts it on a line of its own, and readers count it. Two
watchers take turns: a round is made under one lock, and every write under another.
"""

import contextlib
import dataclasses
import datetime as dt
import itertools
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gates import disk
from gates.errors import CannotWork, ConfigError
from gates.evidence import MOST_NUMBER, Outcome
from gates.text import foreign
from gates.text.quantity import with_unit
from gates.watch.rounds import FORMAT, PARSE_ERRORS, Change, Round
from gates.watch.trends import Before

FILE = "history.ndjson"
KEEP = dt.timedelta(days=14)
LEAST_KEPT = 1000
"""How many rounds stay whatever their age: a clock that jumps by a year must not delete the history."""
MOST_BYTES = 64 * 1024 * 1024
MOST_UNTOLD = 50
EVER = dt.datetime.min.replace(tzinfo=dt.UTC)


@dataclass(frozen=True, slots=True)
class Notified:
    """Up to round `number`, all notifications were sent, or there was nobody to send them to."""

    target: str
    number: int
    at: str
    to: str

    def line(self) -> str:
        return json.dumps({"v": FORMAT, "kind": "told", **dataclasses.asdict(self)}) + "\n"


@dataclass(frozen=True, slots=True)
class History:
    """What could be read.

    rounds: those since the given time. last, good: the last of all, and the last that saw anything. before: the checks
    as they were before `rounds`. untold: changes that were not sent although they should have been (the webhook failed,
    or the watcher was killed). broken: numbers of unreadable lines. others: rounds of other targets, left out. total:
    rounds of this target. dropped: rounds that were removed because they were too old or too many. last_number: the
    last round of any target.
    """

    rounds: tuple[Round, ...] = ()
    last: Round | None = None
    good: Round | None = None
    before: Mapping[str, Before] = field(default_factory=dict)
    untold: tuple[Change, ...] = ()
    broken: tuple[int, ...] = ()
    others: int = 0
    total: int = 0
    dropped: int = 0
    last_number: int = 0

    @property
    def said(self) -> str:
        """What is odd about the file, in words; empty if nothing is."""
        if not self.broken:
            return ""
        shown = ", ".join(map(str, self.broken[:5])) + (" …" if len(self.broken) > 5 else "")
        lines = with_unit(len(self.broken), "lines")
        return f"{lines} of the history cannot be read (line {shown}): cut off or damaged; left out"


def read(path: Path, target: str, since: dt.datetime = EVER) -> History:
    """The rounds of one target; an absent file is empty. Rounds before `since` are only summarised. Raise ConfigError
    on a history of a newer gate, CannotWork on a file that cannot be read.
    """
    reader = _HistoryReader(target, since)
    try:
        with disk.opened(path, "rb") as lines:
            disk.bounded(lines.fileno(), path)
            for number, line in enumerate(lines, 1):
                if line.strip():
                    reader.take(path, number, line.decode("utf-8", "replace"))
    except FileNotFoundError:
        return History()
    except OSError as error:
        raise CannotWork(f"{path}: {error}; allowed: a file that can be read. Correct --history") from error
    return reader.history()


class _HistoryReader:
    """Takes the lines of a history one by one, and keeps only what is asked for."""

    def __init__(self, target: str, since: dt.datetime) -> None:
        self._target, self._since = target, since
        self._rounds: list[Round] = []
        self._last: Round | None = None
        self._good: Round | None = None
        self._before: dict[str, Before] = {}
        self._untold: list[tuple[int, Change]] = []
        self._broken: list[int] = []
        self._others = self._total = self._dropped = self._last_number = 0

    def take(self, path: Path, number: int, line: str) -> None:
        data = _parsed(line)
        if isinstance(data.get("v"), int) and data["v"] > FORMAT:
            said = f"{path}:{number}:1: format {data['v']}; allowed: up to {FORMAT}"
            raise ConfigError(
                f"{said}. Use the gate that wrote it, or another --history; remove a line that is damaged"
            )
        try:
            {"round": self._round, "told": self._told, "dropped": self._removed}[data["kind"]](data)
        except PARSE_ERRORS:
            self._broken.append(number)

    def _round(self, data: dict[str, Any]) -> None:
        if str(data["target"]) != self._target:
            self._last_number = max(self._last_number, _count(data["number"]))
            self._others += 1
            return
        made = Round.from_json(data)
        self._last_number = max(self._last_number, made.number)
        self._total += 1
        self._last = made
        if made.saw_something:
            self._good = made
        self._untold += [(made.number, c) for c in made.changes if c.told]
        if made.started >= self._since:
            self._rounds.append(made)
        else:
            self._sum_up(made)

    def _sum_up(self, made: Round) -> None:
        for check, reading in made.readings.items():
            outcome, old = reading.outcome.value, self._before.get(check)
            since = old.since if old is not None and old.outcome == outcome else made.at
            good = made.at if reading.outcome is Outcome.PASS else old.last_good if old is not None else ""
            self._before[check] = Before(outcome, since, good)

    def _told(self, data: dict[str, Any]) -> None:
        told = _count(data["number"])
        if data["target"] == self._target:
            self._untold = [(number, change) for number, change in self._untold if number > told]

    def _removed(self, data: dict[str, Any]) -> None:
        rounds, number = _count(data["rounds"]), _count(data["number"])
        self._dropped += rounds
        self._last_number = max(self._last_number, number)

    def history(self) -> History:
        return History(
            tuple(self._rounds),
            self._last,
            self._good,
            self._before,
            tuple(change for _, change in self._untold[-MOST_UNTOLD:]),
            tuple(self._broken),
            self._others,
            self._total,
            self._dropped,
            self._last_number,
        )


def _parsed(line: str) -> dict[str, Any]:
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _count(value: object) -> int:
    """A number in a history. Raise ValueError for anything else."""
    if type(value) is not int or not 0 <= value <= MOST_NUMBER:
        raise ValueError(f"{foreign.text(value, 40)} is no number of rounds")
    return value


def _counted(data: Mapping[str, Any], name: str) -> int:
    """A number of a line that is being removed; 0 if it is missing or invalid."""
    try:
        return _count(data.get(name))
    except ValueError:
        return 0


def append(path: Path, line: str) -> None:
    """Add one complete line, on disk. Raise CannotWork if it cannot be written."""
    try:
        with _locked(path, "write"), disk.opened(path, "a+b") as out:
            if out.seek(0, os.SEEK_END):
                out.seek(-1, os.SEEK_END)
                if out.read(1) != b"\n":  # a writer was killed here: its incomplete line stays separate
                    line = "\n" + line
            out.write(line.encode())
            out.flush()
            os.fsync(out.fileno())
    except OSError as error:
        raise CannotWork(
            f"{path}: {error}; allowed: a file that can be written. Make room, or correct --history"
        ) from error


def tidy(
    path: Path, now: dt.datetime, keep: dt.timedelta = KEEP, most_bytes: int = MOST_BYTES, least: int = LEAST_KEPT
) -> int:
    """Remove rounds older than `keep`, and, if the file exceeds `most_bytes`, the oldest beyond half of that.

    Always keeps the newest `least` rounds, and the last round even if it is large: it holds the open incidents. Returns
    how many rounds were removed.
    """
    if not _has_old(path, now - keep, most_bytes):
        return 0
    with _locked(path, "write"):
        lines = [line for line in disk.read(path).split(b"\n") if line.strip()]
        size = sum(len(line) + 1 for line in lines)
        left = most_bytes // 2 if size > most_bytes else size
        kept: list[bytes] = []
        gone: list[dict[str, Any]] = []
        stays = 0
        for line in reversed(lines):
            data = _parsed(line.decode("utf-8", "replace"))
            left -= len(line) + 1
            old = stays >= least and _older(data, now - keep)
            if stays and (left < 0 or old or data.get("kind") == "dropped"):
                gone.append(data)
            else:
                kept.append(line)
                stays += data.get("kind") == "round"
        rounds = sum(1 if d.get("kind") == "round" else 0 for d in gone)
        if not rounds:
            return 0
        before = sum(_counted(d, "rounds") for d in gone if d.get("kind") == "dropped")
        highest = max(_counted(d, "number") for d in gone)
        note = {"v": FORMAT, "kind": "dropped", "rounds": before + rounds, "number": highest}
        _replace(path, [json.dumps(note).encode(), *reversed(kept)])
        return rounds


def _has_old(path: Path, than: dt.datetime, most_bytes: int) -> bool:
    """Whether there may be something to remove, judged by the size and the first lines."""
    try:
        with disk.opened(path, "rb") as lines:
            first = [_parsed(line.decode("utf-8", "replace")) for line in itertools.islice(lines, 3)]
    except FileNotFoundError:
        return False
    return path.stat().st_size > most_bytes or any(_older(one, than) for one in first)


def _older(data: dict[str, Any], than: dt.datetime) -> bool:
    try:
        return dt.datetime.fromisoformat(str(data["at"])) < than
    except (KeyError, ValueError, TypeError):
        return False


def _replace(path: Path, lines: list[bytes]) -> None:
    disk.write(path, b"\n".join(lines) + b"\n", durable=True)


@contextlib.contextmanager
def turn(path: Path) -> Iterator[bool]:
    """Whether this watcher may make a round now: no other one is making one on this history."""
    with contextlib.ExitStack() as held:
        mine = True
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(_locked(path, "round", wait=False))
        except BlockingIOError:
            mine = False
        except OSError as error:
            said = f"{path}: {error}; allowed: a folder that can be written"
            raise CannotWork(f"{said}. Correct --history, or state in gate.yaml") from error
        yield mine


@contextlib.contextmanager
def _locked(path: Path, what: str, *, wait: bool = True) -> Iterator[None]:
    """A lock on a file beside the history, since `tidy` replaces the history itself. It ends with the process. Raise
    BlockingIOError if another process has it.
    """
    beside = path.with_name(f".{path.name}.{what}")
    with disk.opened(beside, "a") as lock:
        disk.lock(lock.fileno(), beside, within_s=disk.LOCK_S if wait else 0.0)
        yield
