"""A schema compared with the contract: each object present, under another name, different, or absent. Pure."""

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from gates.contract.contract import Contract, Relation
from gates.contract.names import Names
from gates.doctor.comparison.rules import key_trouble, row_security_trouble, wider_key
from gates.doctor.matching.actors import FunctionMatch, RoleMatch, match_functions, match_roles
from gates.doctor.matching.assignment import NONE, assign
from gates.doctor.matching.columns import Confidence, Pin, Pins
from gates.doctor.matching.limit_keys import LimitForm
from gates.doctor.matching.soft_deletes import of_counted_rows
from gates.doctor.matching.states import match_values
from gates.doctor.matching.tables import TableMatch, guessed_tables
from gates.doctor.reading.schema import Schema
from gates.doctor.sqltypes import difference, is_id
from gates.doctor.words import best_likeness, synonyms, words

LEAST_FLAG = 0.78
NOT_THERE = "which is not there"


class Presence(enum.StrEnum):
    """Whether an object of the contract is there."""

    PRESENT = "present"
    RENAMED = "under another name"
    DIFFERS = "differs"
    ABSENT = "absent"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class ComparedObject:
    """One object of the contract. real: its name in the deployment. detail: how it differs, or why it was chosen."""

    kind: str
    name: str
    area: str
    presence: Presence
    real: str = ""
    confidence: Confidence | None = None
    detail: str = ""
    alternatives: tuple[str, ...] = ()
    said: bool = False
    """gate.yaml says it: it is no guess, and nothing is left to do."""
    closed: str = ""
    """Why this login cannot use it although it is there."""

    @property
    def is_settled(self) -> bool:
        """Whether nothing is to be mapped: it is present, or gate.yaml says it, or it follows from that."""
        follows = self.kind in {"key", "row security"} and self.presence is Presence.RENAMED
        said = self.said and self.presence is not Presence.DIFFERS
        return self.presence is Presence.PRESENT or follows or said

    @property
    def usable(self) -> bool:
        """Whether checks can use it, by its own name or by a mapping."""
        return self.presence in {Presence.PRESENT, Presence.RENAMED}


@dataclass(frozen=True, slots=True)
class RowsSeen:
    """What a few rows show, if they could be read; None: unknown. flags: key -> (is on, percentage) of the global rows.
    values: (table, column) -> states in its rows.
    """

    flags: Mapping[str, tuple[bool | None, int | None]] | None = None
    has_pause_row: bool | None = None
    values: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    limit_form: LimitForm | None = None
    """How the keys of the rate limit's rows are written."""
    limits: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    """Limit -> its number in the functions that count calls, and the function that has it."""
    company_form: str = ""
    """The form of a company's id if it is text with one: `acc_{hex}`."""
    own_buckets: bool | None = None
    """Whether the function that decides flags draws tenants by another formula than the contract's."""


NOT_SEEN = RowsSeen()


@dataclass(frozen=True, slots=True)
class Comparison:
    """Every object of the contract that a schema can have, in the contract's order, and the guesses behind it."""

    objects: tuple[ComparedObject, ...]
    tables: Mapping[str, TableMatch]
    functions: Mapping[str, FunctionMatch]
    roles: Mapping[str, RoleMatch]
    values: Mapping[str, Mapping[str, str]]
    """table.column -> value of the contract -> real value, where they differ."""
    unread: Mapping[str, str]
    rows: RowsSeen = NOT_SEEN

    def of(self, kind: str, name: str) -> ComparedObject | None:
        return next((o for o in self.objects if o.kind == kind and o.name == name), None)


def compare(
    schema: Schema,
    contract: Contract,
    pins: Pins | None = None,
    rows: RowsSeen = NOT_SEEN,
    guessed: Mapping[str, TableMatch] | None = None,
    home: str = "",
    names: Names | None = None,
) -> Comparison:
    """Compare.

    pins: what a person has said of some tables. rows: what was read of a few rows, if anything. guessed: the result of
    `guessed_tables` for the same schema, if known. home: as of `match`. names: what gate.yaml says of roles and flags.
    """
    tables = _with_values(guessed_tables(schema, contract, pins, home) if guessed is None else guessed, rows)
    roles = match_roles(schema, contract, tables, names.roles if names else None)
    functions = match_functions(schema, contract, tables.get("feature_flags"), home)
    if "feature_flags" not in tables:  # any application may have functions from a word and an id to a boolean
        functions = {n: f for n, f in functions.items() if f.confidence > Confidence.PERHAPS}
    objects = [o for r in contract.relations.values() for o in _relation(r, tables.get(r.name), pins or {}, schema)]
    objects += _functions(contract, functions, schema)
    objects += _roles(contract, roles, schema)
    objects += _flags(contract, rows, names.flag_keys if names else {})
    objects = [_as_far_as_read(o, schema.unread) for o in objects]
    values = {f"{n}.{c}": v for n, m in tables.items() for c, v in _renamed_values(m).items()}
    return Comparison(tuple(objects), tables, functions, roles, values, schema.unread, rows)


def _as_far_as_read(one: ComparedObject, unread: Mapping[str, str]) -> ComparedObject:
    """Unknown, if unread parts may say the opposite."""
    doubts = {"key": ("keys", Presence.DIFFERS), "row security": ("policies", Presence.PRESENT)}
    part, doubtful = doubts.get(one.kind, ("", Presence.ABSENT))
    for unread_part, presence in (*((t, Presence.ABSENT) for t in ("tables", "further tables")), (part, doubtful)):
        if unread_part in unread and one.presence is presence:
            return replace(one, presence=Presence.UNKNOWN, detail=unread[unread_part])
    return one


def _with_values(found: Mapping[str, TableMatch], rows: RowsSeen) -> dict[str, TableMatch]:
    """The matches, with states from rows if no enum and no CHECK lists them."""
    made = {}
    for name, one in found.items():
        columns = {
            c: replace(
                m, column=replace(m.column, values=rows.values[one.table.qualified, m.column.name], is_listed=False)
            )
            if not m.column.values and (one.table.qualified, m.column.name) in rows.values
            else m
            for c, m in one.columns.items()
        }
        made[name] = replace(one, columns=columns)
    return made


# --- tables and views --------------------------------------------------------------------------------------------


def _relation(relation: Relation, found: TableMatch | None, pins: Pins, schema: Schema) -> Iterator[ComparedObject]:
    kind = "view" if relation.is_view else "table"
    here = partial(ComparedObject, kind, relation.name, relation.area)
    pin = pins.get(relation.name, ...)
    if found is None:
        why = f"gate.yaml says {pin.table}, {NOT_THERE}" if isinstance(pin, Pin) else ""
        said = pin is None
        why = "gate.yaml says so" if said else why or _of_another_kind(relation, schema)
        yield here(Presence.ABSENT, detail=why, said=said)
        for column in relation.columns:
            yield ComparedObject("column", f"{relation.name}.{column}", relation.area, Presence.ABSENT, said=said)
        return
    closed = schema.closed(found.table)
    yield here(
        Presence.PRESENT if found.has_own_name else Presence.RENAMED,
        found.table.qualified,
        Confidence.SURE if found.has_own_name else found.confidence,
        f"{closed}; {found.reason}" if closed else found.reason,
        found.alternatives,
        found.pin is not None,
        closed,
    )
    for column, wanted in relation.columns.items():
        yield _column(relation, found, column, wanted)
    has_calls = bool(found.calls) or bool(found.pin and found.pin.calls)  # many rows per key
    keys = () if has_calls else relation.keys
    parts = [_key(relation, found, key) for key in keys] + [_row_security(found)] * relation.tenants
    if found.table.is_view:
        parts = [replace(p, presence=Presence.UNKNOWN, real="", detail="a view: its tables decide it") for p in parts]
    yield from parts
    for column in relation.values:
        if column in found.columns:
            yield _values(relation, found, column)


def _of_another_kind(relation: Relation, schema: Schema) -> str:
    """A view that has the name of a table of the contract, or the reverse."""
    found = next((t for t in schema.tables if t.name == relation.name and t.is_view != relation.is_view), None)
    kind = "view" if found and found.is_view else "table"
    return f"{found.qualified} is a {kind}: say `is:` in names if it stands for it" if found else ""


def _column(relation: Relation, found: TableMatch, column: str, wanted: str) -> ComparedObject:
    name, pin = f"{relation.name}.{column}", found.pin
    here = partial(ComparedObject, "column", name, relation.area)
    seen = found.columns.get(column)
    if pin and column in pin.expressions:
        return here(Presence.RENAMED, "an expression", said=True)
    if found.calls:
        shown = ", ".join(found.calls.values())
        return here(Presence.RENAMED, shown, found.confidence, "one call each")
    if seen is None:
        why = f"gate.yaml says {pin.columns[column]}, {NOT_THERE}" if pin and column in pin.columns else ""
        said = bool(pin and column in pin.absent)
        return here(Presence.ABSENT, detail=why, said=said)
    real = seen.column
    same = real.name == column
    trouble = difference(wanted, real.type, is_id=is_id(column, wanted), values=bool(real.values))
    if column in relation.nulls and real.not_null and not found.table.is_view:
        trouble = "NOT NULL, and a null means everybody: there can be no global row"
    presence = Presence.DIFFERS if trouble else Presence.PRESENT if same else Presence.RENAMED
    return here(
        presence,
        real.name if not same or trouble else "",
        Confidence.SURE if same else min(seen.confidence, found.confidence),
        trouble or ("" if same else seen.reason),
        seen.alternatives,
        said=bool(pin and column in pin.columns),
    )


def _key(relation: Relation, found: TableMatch, key: Sequence[str]) -> ComparedObject:
    name = f"{relation.name}({', '.join(key)})"
    here = partial(ComparedObject, "key", name, relation.area)
    real = [found.columns[c].column.name for c in key if c in found.columns]
    if len(real) < len(key):
        return here(Presence.ABSENT, detail="a column of it is absent")
    nullable = {
        found.columns[c].column.name for c in key if c in relation.nulls and not found.columns[c].column.not_null
    }
    said = key_trouble(of_counted_rows(found), real, nullable)
    wider = wider_key(found.table, real) if said else ()
    if said and (len({*real}) < len(key) or (wider and not _is_sure(found, key))):
        shown = f"{', '.join(real)} may be a part of it: unique is ({', '.join(wider)})" if wider else "mapped twice"
        return here(Presence.UNKNOWN, detail=shown)
    shown = "" if real == [*key] else ", ".join(real)
    presence = Presence.DIFFERS if said else Presence.RENAMED if shown else Presence.PRESENT
    return here(presence, shown, detail=said)


def _is_sure(found: TableMatch, columns: Sequence[str]) -> bool:
    """Whether a table and these of its columns are no guess."""
    known = found.has_own_name or found.pin is not None
    said = found.pin.columns if found.pin else {}
    return known and all(c in said or found.columns[c].column.name == c for c in columns)


def _row_security(found: TableMatch) -> ComparedObject:
    relation, said = found.relation, row_security_trouble(found.table)
    here = partial(ComparedObject, "row security", relation.name, relation.area)
    if said and "company_id" in relation.nulls and not _has_tenant(found):
        return here(Presence.UNKNOWN, detail="no tenant's rows: it has no tenant")
    shown = "" if found.has_own_name else found.table.qualified
    presence = Presence.DIFFERS if said else Presence.RENAMED if shown else Presence.PRESENT
    return here(presence, shown, detail=said)


def _has_tenant(found: TableMatch) -> bool:
    """Whether rows say to which tenant they belong."""
    return "company_id" in found.columns or bool(found.pin and "company_id" in found.pin.expressions)


def _values(relation: Relation, found: TableMatch, column: str) -> ComparedObject:
    name, wanted, real = f"{relation.name}.{column}", relation.values[column], found.columns[column].column.values
    here = partial(ComparedObject, "values", name, relation.area)
    if not real:
        return here(Presence.UNKNOWN, detail="no enum, CHECK or row says which values there are")
    paired = match_values(wanted, real, synonyms())
    lacking = [w for w in wanted if w not in paired]
    renamed = {w: r for w, r in paired.items() if w != r}
    is_partial = relation.area == "audit" or not found.columns[column].column.is_listed
    if (is_partial and paired) or not lacking:
        presence = Presence.RENAMED if renamed else Presence.PRESENT
        said = "; ".join(f"{w} is {r}" for w, r in renamed.items())
        return here(presence, "", Confidence.LIKELY if renamed else None, said)
    return here(Presence.DIFFERS, detail=f"nothing stands for {', '.join(lacking)} among {', '.join(real[:8])}")


def _renamed_values(found: TableMatch) -> dict[str, dict[str, str]]:
    made = {}
    for column, wanted in found.relation.values.items():
        real = found.columns[column].column.values if column in found.columns else ()
        renamed = {w: r for w, r in match_values(wanted, real, synonyms()).items() if w != r} if real else {}
        if renamed:
            made[column] = renamed
    return made


# --- functions, roles, flags -------------------------------------------------------------------------------------


def _unless(unread: str) -> Presence:
    return Presence.UNKNOWN if unread else Presence.ABSENT


def _functions(contract: Contract, found: Mapping[str, FunctionMatch], schema: Schema) -> Iterator[ComparedObject]:
    for wanted in contract.functions.values():
        one = found.get(wanted.name)
        name = f"{wanted.name}({', '.join(wanted.arguments)})"
        here = partial(ComparedObject, "function", name, wanted.area)
        if one is None:
            why = schema.unread.get("functions", "")
            yield here(_unless(why), detail=why)
            continue
        presence, said = (Presence.PRESENT, "") if one.is_own else (Presence.RENAMED, one.reason)
        closed = "" if one.function.callable else "this login may not call it"
        said = "; ".join(s for s in (closed, said) if s)
        real, others = one.function.qualified, one.alternatives
        yield here(presence, real, one.confidence, said, others, closed=closed)


def _roles(contract: Contract, found: Mapping[str, RoleMatch], schema: Schema) -> Iterator[ComparedObject]:
    for name, area in contract.roles.items():
        one = found.get(name)
        here = partial(ComparedObject, "role", name, area)
        if one is None:
            why = schema.unread.get("roles", "")
            yield here(_unless(why), detail=why)
            continue
        said = ", ".join(
            ["is a superuser"] * one.role.superuser + ["passes over row-level security (BYPASSRLS)"] * one.role.bypasses
        )
        same = one.role.name == name
        presence = Presence.DIFFERS if said else Presence.PRESENT if same else Presence.RENAMED
        yield here(
            presence,
            "" if same else one.role.name,
            one.confidence,
            said or ("" if same else one.reason),
            one.alternatives,
        )


def _flags(contract: Contract, rows: RowsSeen, said: Mapping[str, str]) -> Iterator[ComparedObject]:
    """said: key of the contract -> real key, as gate.yaml has them."""
    open_keys = [k for k in rows.flags or () if k not in said.values()]
    named = _named_flags([k for k in contract.flags if k not in said], open_keys)
    for key, area in contract.flags.items():
        here = partial(ComparedObject, "flag", key, area)
        if rows.flags is None:
            yield here(Presence.UNKNOWN, said.get(key, ""), detail="the rows of the flags could not be read")
        elif key in said:
            there = said[key] in rows.flags
            presence = Presence.RENAMED if there else Presence.ABSENT
            why = "gate.yaml says so" if there else f"there is no global row of {said[key]}"
            yield here(presence, said[key], Confidence.SURE, why, said=there)
        elif key in rows.flags:
            yield here(Presence.PRESENT, detail=_flag_said(rows.flags[key]))
        else:
            near, score = named.get(key, ("", 0.0))
            if near:
                confidence = Confidence.LIKELY if score >= 0.9 else Confidence.PERHAPS
                yield here(Presence.RENAMED, near, confidence, "a key of like words")
            else:
                yield here(Presence.ABSENT, detail="there is no global row of this key")


def _named_flags(wanted: Sequence[str], keys: Sequence[str]) -> dict[str, tuple[str, float]]:
    """Flag of the contract -> the most similar remaining key, and how similar it is."""
    others = [k for k in keys if k not in wanted]
    known = synonyms()
    scores = [[best_likeness(known.spellings("flags", w), words(k)) for k in others] for w in wanted]
    found = assign(scores, LEAST_FLAG)
    return {w: (others[p], row[p]) for w, row, p in zip(wanted, scores, found, strict=True) if p != NONE}


def _flag_said(state: tuple[bool | None, int | None]) -> str:
    on, percentage = state
    return "" if on is None or percentage is None else f"{'on' if on else 'off'} at {percentage} %"
