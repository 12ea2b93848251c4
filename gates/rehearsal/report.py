"""What a rehearsal found, as data and as text for a terminal. Pure: the caller prints."""

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from gates.inputs.strict_yaml import Place
from gates.rehearsal.contract_view import ContractView
from gates.rehearsal.locks import LockReview
from gates.rehearsal.obstacles import Obstacle, ObstacleKind, at
from gates.rehearsal.own_sql import OwnFile
from gates.reports.terminal import WIDTH, paint
from gates.text.inert import Terminal

MOST_FOLLOWING, MOST_HAZARDS = 5, 8
RED = dict.fromkeys((ObstacleKind.CAUSE, ObstacleKind.REFUSED), "red")
TINTS = {**RED, ObstacleKind.FOLLOWS: "dim", ObstacleKind.NOT_JUDGED: "yellow"}
WORDS = {
    ObstacleKind.CAUSE: "cannot run",
    ObstacleKind.FOLLOWS: "follows",
    ObstacleKind.REFUSED: "refused",
    ObstacleKind.NOT_JUDGED: "not judged",
}


@dataclass(frozen=True, slots=True)
class SecondRun:
    """A second run of all files: how many statements, how many failed, and the first failure."""

    statements: int
    failed: int
    first: Place | None = None


@dataclass(frozen=True, slots=True)
class RehearsalResult:
    """All results of a rehearsal. `stubs`: extensions and schemas that only a stub replaced."""

    server_version: int
    preset: str
    files: int
    statements: int
    obstacles: tuple[Obstacle, ...]
    stubs: tuple[str, ...] = ()
    bodies: tuple[Obstacle, ...] = ()
    own: tuple[OwnFile, ...] = ()
    contract: ContractView | None = None
    locks: LockReview = field(default_factory=LockReview)
    again: SecondRun | None = None
    notes: tuple[str, ...] = ()
    unfinished: str = ""

    @property
    def exit_code(self) -> int:
        """0 if all runs, everything was judged, and contract objects have no defect; else 10."""
        defects = self.contract is not None and self.contract.defects
        own = any(one.obstacles or one.unjudged or one.breach.seen is False for one in self.own)
        return 10 if self.obstacles or self.bodies or own or defects or self.unfinished else 0

    def to_json(self) -> dict[str, Any]:
        """The same as data; a place is file, line, column."""
        return {
            **{n: getattr(self, n) for n in ("exit_code", "server_version", "preset", "files", "statements")},
            "obstacles": [_obstacle_json(o) for o in self.obstacles],
            "function_bodies": [_obstacle_json(o) for o in self.bodies],
            "sql": [_own_json(one) for one in self.own],
            "contract": self.contract and self.contract.to_json(),
            "locks": {
                "said": self.locks.said,
                "hazards": [{**asdict(h.place), "rule": h.rule, "said": h.said} for h in self.locks.hazards],
            },
            "second_run": self.again and asdict(self.again),
            "stubs": list(self.stubs),
            "notes": list(self.notes),
            "unfinished": self.unfinished,
        }


def _own_json(one: OwnFile) -> dict[str, Any]:
    return {
        "file": one.file,
        "statements": one.statements,
        "obstacles": [_obstacle_json(o) for o in one.obstacles],
        "not_judged": list(one.unjudged),
        "breach_seen": one.breach.seen,
        "breach": one.breach.said,
        "remedy": one.breach.remedy,
        "place": one.breach.place and asdict(one.breach.place),
    }


def _obstacle_json(one: Obstacle) -> dict[str, Any]:
    names = ("kind", "code", "meaning", "remedy", "said", "statement", "caused_by")
    return {**asdict(one.place), **{name: asdict(one)[name] for name in names}}


def rehearsal_text(result: RehearsalResult, *, colour: bool) -> Terminal:
    """One sentence, then each cause with its remedy, followed by its consequences."""
    head = paint(paint(_headline(result), "red" if result.exit_code else "green", on=colour), "bold", on=colour)
    lines: list[str] = ["", head]
    if result.unfinished:
        lines.append(f"  the rehearsal did not end: {result.unfinished}")
    lines += _obstacles(result.obstacles, colour=colour)
    if first := next((o for o in result.obstacles if o.kind is ObstacleKind.CAUSE), None):
        lines.append(f"  a deploy would stop at {at(first.place)}")
    if result.bodies:
        lines.append("  functions and DO blocks whose bodies name what is not there (they fail when that part is run):")
        lines += _obstacles(result.bodies, colour=colour)
    for own in result.own:
        lines += _own(own, colour=colour)
    if result.contract:
        if result.obstacles and result.contract.alike:
            lines.append("  what did not run is missing in this comparison, too:")
        lines += [f"  {line}" for said in result.contract.lines() for line in _indented(said)]
    lines += _locks(result.locks, colour=colour)
    lines += [paint(f"  {line}", "dim", on=colour) for line in _remarks(result)]
    return Terminal.of_lines(lines)


def _headline(result: RehearsalResult) -> str:
    counts = Counter(o.kind for o in result.obstacles)
    causes, follow = counts[ObstacleKind.CAUSE], counts[ObstacleKind.FOLLOWS]
    refused, unjudged = counts[ObstacleKind.REFUSED], counts[ObstacleKind.NOT_JUDGED]
    of = f"of {_counted(result.statements, 'statement')} in {_counted(result.files, 'file')}"
    parts = [f"{causes} {of} cannot run"] if causes else [f"{of[3:]}"]
    parts += [f"{follow} more follow from them"] * bool(follow)
    parts += [f"{refused} refused"] * bool(refused)
    parts += [f"{unjudged} could not be judged here"] * bool(unjudged)
    parts += [f"{_counted(len(result.bodies), 'mistake')} in function bodies"] * bool(result.bodies)
    said = f"all {_counted(result.statements, 'statement')} in {_counted(result.files, 'file')} run"
    defects = result.contract.defects if result.contract else ()
    parts += [f"{_counted(len(defects), 'defect')} by the contract"] * bool(defects)
    unseen = sum(one.breach.seen is False for one in result.own)
    broken = sum(len(one.obstacles) for one in result.own)
    parts += [f"{_counted(broken, 'statement')} of your own SQL cannot run"] * bool(broken)
    parts += [f"{_counted(unseen, 'file')} of your own SQL would miss a breach"] * bool(unseen)
    if not result.obstacles and not result.unfinished:
        parts[0] = said
    clean = result.exit_code == 0
    server = f"PostgreSQL {result.server_version}" + (f", preset {result.preset}" if result.preset != "none" else "")
    return f"REHEARSAL: {said if clean else '; '.join(parts)} ({server})"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _obstacles(found: Sequence[Obstacle], *, colour: bool) -> Iterator[str]:
    following = [o for o in found if o.kind is ObstacleKind.FOLLOWS]
    for one in found:
        if one.kind is not ObstacleKind.FOLLOWS:
            yield from _one(one, colour=colour)
            behind = [o for o in following if o.caused_by == one.place]
            for other in behind[:MOST_FOLLOWING]:
                yield paint(f"      follows: {at(other.place)}  {other.meaning}", "dim", on=colour)
            if len(behind) > MOST_FOLLOWING:
                yield paint(f"      and {len(behind) - MOST_FOLLOWING} more that follow from it", "dim", on=colour)


def _one(one: Obstacle, *, colour: bool) -> Iterator[str]:
    yield Terminal("  {} {}").format(paint(WORDS[one.kind], TINTS[one.kind], on=colour), at(one.place))
    yield from (f"      {line}" for line in _wrapped(one.meaning))
    yield from (f"      {line}" for line in _wrapped(f"Do: {one.remedy}"))
    yield from (paint(f"      {line}", "dim", on=colour) for line in _wrapped(f"server: {one.code} {one.said}"))


def _own(one: OwnFile, *, colour: bool) -> Iterator[str]:
    run = f"{len(one.obstacles)} of {_counted(one.statements, 'statement')} cannot run"
    said = run if one.obstacles else f"{_counted(one.statements, 'statement')} can run"
    yield f"  {one.file}: {said}"
    yield from _obstacles(one.obstacles, colour=colour)
    yield from (f"      not judged: {line}" for line in one.unjudged)
    tint = "yellow" if one.breach.seen is False else "dim"
    yield from (paint(f"      {line}", tint, on=colour) for line in _wrapped(one.breach.said))
    if one.breach.remedy:
        yield from (f"      {line}" for line in _wrapped(f"Do: {one.breach.remedy}"))


def _indented(text: str) -> list[str]:
    space = " " * (len(text) - len(text.lstrip()))
    return textwrap.wrap(Terminal.escape(text), WIDTH - 2, initial_indent=space, subsequent_indent=space + "  ")


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(Terminal.escape(text), WIDTH - 6) or [""]


def _locks(review: LockReview, *, colour: bool) -> Iterator[str]:
    if review.hazards:
        yield f"  {_counted(len(review.hazards), 'lock hazard')}, as squawk says (for tables that are in use):"
    for one in review.hazards[:MOST_HAZARDS]:
        yield Terminal("    {} {}: {}").format(paint("look at", "yellow", on=colour), at(one.place), one.rule)
    if len(review.hazards) > MOST_HAZARDS:
        yield f"    and {len(review.hazards) - MOST_HAZARDS} more; --json has them all"


def _remarks(result: RehearsalResult) -> Iterator[str]:
    if result.locks.said:
        yield result.locks.said
    if result.again is not None:
        again = result.again
        first = f", the first at {at(again.first)}" if again.first else ""
        yield (
            f"a second run of all files: {again.failed} of {_counted(again.statements, 'statement')} fail{first}"
            if again.failed
            else "a second run of all files: every statement runs again"
        )
    if result.stubs:
        yield f"stubs stood for: {', '.join(result.stubs)}; what only the real ones do was not judged"
    yield from result.notes
