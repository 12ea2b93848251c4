"""evidence.ndjson: one line per check. Lines are chained by digests, so every change shows.

`after` of a line is the sha256 of the line before (of nothing, for the first). A writer locks the file while it reads
the last line and appends. run.json ends the chain with the last digest and the number of lines. Each line names its
run. Nothing is dropped on reading: a line that is unreadable, of another run or out of order becomes an unknown
`evidence/line-N`, which holds.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from gates import disk
from gates.errors import CannotWork
from gates.evidence import UNREADABLE, Evidence, JsonValue, Outcome
from gates.text import foreign
from gates.text.characters import log

AFTER, RUN = "after", "run"
NOTHING = hashlib.sha256(b"").hexdigest()
BLOCK = 65_536
MOST_BYTES, MOST_LINES = 32 * 1024 * 1024, 20_000
"""Far more than a complete run, which writes half a megabyte in a thousand lines. A file of more bytes is an error. All
that follows after so many lines is read as one broken line.
"""
SHOWN = 200
"""How much of a parser's message a finding shows. The line itself is never quoted: it may hold anything."""


class Unwritten(CannotWork):
    """Evidence that could not be written to disk. It still counts: harm in it still rolls back."""

    def __init__(self, message: str, evidence: tuple[Evidence, ...]) -> None:
        super().__init__(message)
        self.evidence = evidence


@dataclass(frozen=True, slots=True)
class ChainEnd:
    """The end of evidence.ndjson at the decision: number of lines, sha256 of the last one, and run id (empty: any)."""

    lines: int = 0
    digest: str = NOTHING
    run: str = ""

    def to_json(self) -> dict[str, JsonValue]:
        return {"lines": self.lines, "digest": self.digest, "run": self.run}


@dataclass(frozen=True, slots=True)
class EvidenceLog:
    """A file as read: its evidence (with an unknown for each defect), its end, and whether it had no defect."""

    evidence: tuple[Evidence, ...]
    end: ChainEnd
    whole: bool


# --- writing -----------------------------------------------------------------------------------------------------


def write_lines(path: Path, evidence: Sequence[Evidence], run: str = "") -> None:
    """Append evidence, each line whole or not at all. Raise Unwritten if the file cannot take it. run: the id of the
    run. Concurrent writers take turns. A half-written line of a killed writer becomes a line of its own.
    """
    try:
        with disk.opened(path, "a+b") as opened:
            file = opened.fileno()
            disk.lock(file, path)
            for one in evidence:
                _append(file, {**({RUN: run} if run else {}), **one.to_json()})
    except OSError as error:
        said = f"{error}; allowed: {path}, which takes every line of evidence. See to its disk"
        raise Unwritten(said, (*evidence,)) from error


def _append(file: int, members: Mapping[str, JsonValue]) -> None:
    last, torn = _last_line(file)
    line = (b"\n" if torn else b"") + linked(members, _digest(last)) + b"\n"
    size = os.fstat(file).st_size
    written = 0
    try:
        while written < len(line):
            written += os.write(file, line[written:])
    except OSError:
        os.ftruncate(file, size)
        raise


def _last_line(file: int) -> tuple[bytes, bool]:
    """The last line without its newline, and whether that newline is missing."""
    size, block = os.fstat(file).st_size, BLOCK
    while True:
        start = max(0, size - block)
        tail = os.pread(file, size - start, start)
        _, newline, last = tail.removesuffix(b"\n").rpartition(b"\n")
        if newline or not start:
            return last, bool(size) and not tail.endswith(b"\n")
        block *= 4


def linked(members: Mapping[str, JsonValue], after: str) -> bytes:
    """The bytes, without newline, of a line after the one with digest `after`; nothing obeys them when printed."""
    text = json.dumps({AFTER: after, **members}, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return log(text).encode()


def chained(lines: Iterable[Mapping[str, JsonValue]]) -> bytes:
    """The contents of an evidence file with these lines, chained again."""
    text, after = bytearray(), NOTHING
    for members in lines:
        line = linked({k: v for k, v in members.items() if k != AFTER}, after)
        text += line + b"\n"
        after = _digest(line)
    return bytes(text)


def rewritten(text: bytes, change: Callable[[Evidence], Evidence], change_rest: Callable[[bytes], bytes]) -> bytes:
    """The contents of a file with each evidence changed, and chained again. Lines that were defective stay so."""
    whole, lines, last = read_bytes(text).whole, list[bytes](), NOTHING
    for line in _split(text):
        try:
            members = _members(line)
            after, run = str(members.pop(AFTER, "")), {RUN: members.pop(RUN)} if RUN in members else {}
            new = linked({**run, **change(Evidence.from_json(members)).to_json()}, last if whole else after)
        except _MALFORMED:
            new = change_rest(line)
        lines.append(new)
        last = _digest(new)
    return b"\n".join(lines) + (b"\n" if text.endswith(b"\n") else b"")


# --- reading -----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def _parsed(_path: Path, _run: str) -> list[tuple[bytes, tuple[Evidence, ...]]]:
    """The complete lines that this process read last, and the evidence of each; both are replaced together."""
    return [(b"", ())]


@lru_cache(maxsize=8)
def _ever_read(_path: Path, _run: str) -> dict[bytes, Evidence]:
    """Every complete line that this process has read from a file, with its evidence."""
    return {}


def read_on(path: Path, text: bytes, run: str = "", *, after: int = 0) -> list[Evidence]:
    """`parse` of complete lines just read from the file; `vanished` later checks that they are still there."""
    found = [*parse(text, run, after=after)]
    _ever_read(path, run).update(zip(_split(text), found, strict=True))
    return found


def vanished(path: Path, text: bytes, run: str = "") -> list[Evidence]:
    """The evidence of lines that this process read before and that are gone: the file was cut or overwritten."""
    there = {*_split(text)}
    return [one for line, one in _ever_read(path, run).items() if line not in there]


def read_lines(path: Path, run: str = "") -> list[Evidence]:
    """The evidence of a file that may still grow, one item per line; none if the file is absent. A run reads it
    repeatedly, so lines that are unchanged since are not parsed again.
    """
    text = b"" if disk.missing(path) else disk.read(path, MOST_BYTES)
    whole, last = text[: text.rfind(b"\n") + 1], _parsed(path, run)
    before, seen = last[0] if whole.startswith(last[0][0]) else (b"", ())
    seen = (*seen, *read_on(path, whole[len(before) :], run, after=len(seen)))
    last[0] = whole, seen
    return [*seen, *parse(text[len(whole) :], run, after=len(seen))]


def parse(text: bytes, run: str = "", *, after: int = 0) -> Iterator[Evidence]:
    """The evidence of each line. A line that is unreadable or of another run is an unknown, which holds. after: how
    many lines of the file come before the text.
    """
    return (_entry(number, line, run)[1] for number, line in enumerate(_split(text), after + 1))


def check_in(line: bytes) -> bytes:
    """The id of the check in a line, without parsing it; empty if the line was not written by a gate."""
    return line.partition(b'"check":"')[2].partition(b'"')[0]


def read_log(path: Path, end: ChainEnd | None = None, run: str = "") -> EvidenceLog:
    """The evidence of a complete file.

    Checks that every line is of the run and follows the one before, and that the last one is `end`, which also names
    the run. Each defect is an unknown after the evidence. Raise OSError if the file cannot be read.
    """
    return read_bytes(b"" if disk.missing(path) else disk.read(path, MOST_BYTES), end, run)


def read_bytes(text: bytes, end: ChainEnd | None = None, run: str = "") -> EvidenceLog:
    """`read_log` of the contents of a file."""
    lines, run = _split(text), end.run if end is not None else run
    seen = [_entry(number, line, run) for number, line in enumerate(lines, 1)]
    troubles = [_trouble(len(lines), "is cut off: its end is missing")] if text and not text.endswith(b"\n") else []
    after = NOTHING
    for number, (told, _) in enumerate(seen, 1):
        if told not in {after, None}:
            troubles.append(
                _trouble(number, "does not follow the line before it: one was changed, lost, added or moved")
            )
        after = _digest(lines[number - 1])
    found = ChainEnd(len(lines), after, run)
    if end is not None and end != found:
        said = f"is the last of {found.lines}; the run ended its evidence with {end.lines} lines, and another last one"
        troubles.append(_trouble(found.lines, said))
    whole = not troubles and not any(one.check.startswith(UNREADABLE) for _, one in seen)
    return EvidenceLog((*(one for _, one in seen), *troubles), found, whole)


_MALFORMED = (ValueError, TypeError, KeyError, AttributeError)


def _split(text: bytes) -> list[bytes]:
    lines = text.split(b"\n", MOST_LINES)
    return lines if lines[-1] else lines[:-1]


def _members(line: bytes) -> dict[str, JsonValue]:
    """The members of a line. Raise TypeError if it is no object, or names a member twice."""
    found = foreign.json_value(line, foreign.MOST_MARKS_OWN)
    if not isinstance(found, dict):
        raise TypeError("it is no JSON object")
    return found


def _entry(number: int, line: bytes, run: str) -> tuple[str | None, Evidence]:
    """The digest of the line before, as this line states it (None if unreadable), and the evidence."""
    try:
        members = _members(line)
        after, named = str(members.pop(AFTER, "")), str(members.pop(RUN, ""))
        if run and named != run:
            return after, _trouble(number, f"is of another run ({foreign.text(named, 40) or 'it names none'})")
        return after, Evidence.from_json(members)
    except _MALFORMED as error:
        return None, _trouble(number, f"cannot be read: {foreign.text(error, SHOWN)}")


def _digest(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


def _trouble(number: int, said: str) -> Evidence:
    message = f"evidence line {number} {said}. Run the gate again, and see who else writes to its folder"
    return Evidence(f"{UNREADABLE}line-{number}", Outcome.UNKNOWN, message)
