"""The diagnosis as text for a terminal, and as JSON. Pure."""

import json
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from gates.contract.contract import Contract
from gates.doctor.comparison.compare import ComparedObject, Presence
from gates.doctor.diagnosis import Diagnosis
from gates.evidence import JsonValue
from gates.reports.terminal import WIDTH, cell, paint, table
from gates.text.foreign import plain
from gates.text.inert import Terminal

MARKS = dict(zip(Presence, "✓~!✗?", strict=True))
FOLDED = {"column", "key", "row security", "values", "body member", "answer member", "refusal"}
"""Kinds of which only missing or different ones are listed; the rest is counted."""
_SPLIT = re.compile(r"[.(]")
MOST_DEFECTS = 20
FOLLOWING = {"key", "row security"}
MOST_ALIKE = 4
"""How many objects of one parent in one state are named; more are counted."""


def as_json(found: Diagnosis, *, complete: bool) -> str:
    """One object: objects, defects, coverage, presets, remarks. complete: nothing is left to map or to mend."""
    data: dict[str, JsonValue] = {
        "tables": found.tables,
        "complete": complete,
        "objects": [_object_json(o) for o in found.objects],
        "defects": [plain(asdict(d)) for d in found.defects],
        "areas": [plain({**asdict(a), "claimable": a.claimable}) for a in found.coverage],
        "presets": [plain(asdict(p)) for p in found.presets],
        "remarks": [*found.remarks, *found.unjudged],
    }
    return json.dumps(data, ensure_ascii=False) + "\n"


def _object_json(one: ComparedObject) -> JsonValue:
    shown = {
        "kind": one.kind,
        "name": one.name,
        "area": one.area,
        "presence": one.presence.value,
        "real": one.real,
        "confidence": one.confidence.word if one.confidence else "",
        "detail": one.detail,
        "alternatives": [*one.alternatives],
    }
    return plain({k: v for k, v in shown.items() if v})


def as_text(found: Diagnosis, contract: Contract, *, colour: bool, whole: bool) -> Terminal:
    """Headline, table, defects, numbers. whole: also what is present, line by line."""
    parts = [
        _headline(found, contract, colour=colour),
        _objects(found.objects, whole=whole),
        _defects(found, colour=colour),
        _coverage(found),
        Terminal.of_lines([*(f"  {r}" for r in found.remarks), *_next(found)]),
    ]
    return Terminal("\n").join(p for p in parts if p)


def _next(found: Diagnosis) -> list[str]:
    guessed = sum(o.usable and not o.is_settled for o in found.objects)
    if not found.is_any_of_it or not (guessed or found.presets):
        return []
    return [
        "",
        "next: `gate doctor --write` drafts gate.yaml for review, with a comment on every guess (docs/adopt.md)",
    ]


def _headline(found: Diagnosis, contract: Contract, *, colour: bool) -> Terminal:
    wanted = sum(not r.is_view for r in contract.relations.values())
    counts = Counter(o.presence for o in found.objects)
    lines: list[Terminal | str] = []
    if found.schema.tables or found.schema.database:
        if not found.looks_like_it and (found.presets or found.unjudged):
            lines.append(f"database {found.schema.database} has no table of the contract's own")
        elif not found.looks_like_it:
            lines.append(
                f"nothing here looks like the contract: 0 of {wanted} tables among the {len(found.schema.tables)} of"
                f" database {found.schema.database}. Is DATABASE_URL right? A queue of your own can be judged"
                " through a view (docs/presets.md)"
            )
        else:
            lines.append(f"{found.tables} of {wanted} tables of the contract are in database {found.schema.database}")
    lines += [f"this looks like {p.title}: {p.reason}. See `contract: {{preset: {p.name}}}`" for p in found.presets]
    lines += found.unjudged
    said = ", ".join(f"{counts[p]} {p.value}" for p in Presence if counts[p])
    if said:
        lines.append(Terminal("{}: {}").format(paint("objects of the contract", "bold", on=colour), said))
    return Terminal.of_lines(lines)


def _objects(objects: Sequence[ComparedObject], *, whole: bool) -> Terminal:
    rows: list[list[object]] = []
    for one in _folded(objects, whole=whole):
        sure = one.confidence.word if one.confidence and one.presence is Presence.RENAMED else ""
        state = f"{MARKS[one.presence]} {one.presence.value}"
        rows.append([state, one.kind, cell(one.name), cell(one.real), sure, _short(one)])
    return Terminal("") if not rows else table(rows, ("state", "object", "of the contract", "here", "sure", "why"))


def _short(one: ComparedObject) -> Terminal:
    also = f"; or {', '.join(one.alternatives)}" if one.alternatives else ""
    return cell(f"{one.detail}{also}")


def _folded(objects: Sequence[ComparedObject], *, whole: bool) -> Iterable[ComparedObject]:
    """Every object, but only a few members of one parent in one state; the others are counted on one line. Consequences
    of a line above are left out: columns of a missing table, keys of a renamed one.
    """
    if whole:
        yield from objects
        return
    missing = {o.name for o in objects if o.kind in {"table", "view"} and o.presence is Presence.ABSENT}
    groups: dict[tuple[str, str, Presence], list[ComparedObject]] = {}
    for one in objects:
        key = (one.kind, _parent(one) if one.kind in FOLDED else one.name, one.presence)
        groups.setdefault(key, []).append(one)
    for (kind, parent, presence), members in groups.items():
        follows = kind in FOLLOWING and presence is Presence.RENAMED
        if kind not in FOLDED or presence is Presence.DIFFERS:
            yield from members
        elif presence is Presence.PRESENT or follows or (kind == "column" and parent in missing):
            continue
        elif presence is not Presence.RENAMED and (len(members) > MOST_ALIKE or presence is Presence.UNKNOWN):
            counted = f"{parent}: {len(members)} of them"
            yield ComparedObject(kind, counted, members[0].area, presence, detail=members[0].detail)
        else:
            yield from members


def _parent(one: ComparedObject) -> str:
    """What the object is a part of: a table, or an endpoint."""
    in_table = one.kind in {"column", "key", "values", "row security"}
    return _SPLIT.split(one.name)[0] if in_table else one.name.rpartition(" ")[0]


def _defects(found: Diagnosis, *, colour: bool) -> Terminal:
    if not found.defects:
        return Terminal.of_lines(["no defect was seen"] if found.reached else [])
    lines: list[Terminal | str] = [
        paint("defects, the most harmful first; what stands on a guess behind the others", "bold", on=colour)
    ]
    for number, one in enumerate(found.defects[:MOST_DEFECTS], 1):
        tint = "red" if one.harm >= 70 else "yellow"
        lines.append(Terminal("{:>3}. {}: {}").format(number, paint(one.subject, tint, on=colour), one.seen))
        said = (one.condition, one.cost, one.remedy)
        lines += [f"     {line}" for part in said for line in textwrap.wrap(part, WIDTH - 6)]
    if len(found.defects) > MOST_DEFECTS:
        lines.append(f"  … and {len(found.defects) - MOST_DEFECTS} more (--json has all)")
    return Terminal.of_lines(lines)


def _coverage(found: Diagnosis) -> Terminal:
    rows: list[list[object]] = [
        [a.area, a.checks, a.today, a.mapped, cell(", ".join(a.lacking[:3]) + " …" * (len(a.lacking) > 3))]
        for a in found.coverage
    ]
    if not rows:
        return Terminal("")
    total, today, mapped = (sum(getattr(a, n) for a in found.coverage) for n in ("checks", "today", "mapped"))
    rows.append(["all", total, today, mapped, ""])
    lines = [
        "what the gate could judge here, in checks; estimated from the objects that their SQL and their area need",
        *table(rows, ("area", "checks", "today", "with a mapping", "lacking")).splitlines(),
    ]
    if closed := sum(a.closed for a in found.coverage):
        lines.append(f"{closed} more need rights that this login has not: `gate doctor --grants` prints the script")
    return Terminal.of_lines(lines)
