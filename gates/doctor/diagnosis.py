"""Everything that `gate doctor` finds about one target: looks at HTTP and SQL, compares, and rates. Read-only."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import psycopg

from gates import catalogue
from gates.contract.contract import Contract
from gates.contract.names import Names
from gates.deployment.requests import claims_of
from gates.deployment.sql.database import connect
from gates.deployment.target import Target
from gates.doctor.comparison.compare import NOT_SEEN, ComparedObject, Comparison, Presence, RowsSeen, compare
from gates.doctor.comparison.http import HttpComparison, compare_http
from gates.doctor.comparison.members import called_by
from gates.doctor.coverage import AreaCoverage, coverage
from gates.doctor.defects import Defect, defects
from gates.doctor.matching.actors import match_functions, role_in
from gates.doctor.matching.presets import FUNCTIONS, SUPABASE, FoundPreset, libraries_of
from gates.doctor.matching.tables import TableMatch, guessed_tables
from gates.doctor.reading.catalogue import read_schema
from gates.doctor.reading.schema import Schema
from gates.doctor.reading.surface import Surface, look_at
from gates.doctor.rows_reading import read_rows
from gates.doctor.said import home_said, pins_of, settled
from gates.errors import first_line
from gates.text.foreign import text

STATEMENT_TIMEOUT_MS, ANSWER_LIMIT_S = 4_000, 5.0
"""A stalled server costs the second limit, once; a slow catalogue costs what `read_schema` allows."""
MOST_SCHEMAS = 6
WORTH_MENDING = 40
"""Defects of less harm are advice: a superuser's login, say, does not prevent a judgement."""


@dataclass(frozen=True, slots=True)
class DatabaseView:
    """What the database showed. unreached: why it showed nothing."""

    schema: Schema = field(default_factory=Schema)
    rows: RowsSeen = NOT_SEEN
    guessed: Mapping[str, TableMatch] = field(default_factory=dict)
    unreached: str = ""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """objects: every object of the contract. remarks: what could not be seen, and why."""

    objects: tuple[ComparedObject, ...]
    defects: tuple[Defect, ...]
    coverage: tuple[AreaCoverage, ...]
    presets: tuple[FoundPreset, ...]
    comparison: Comparison
    schema: Schema
    http: HttpComparison | None
    remarks: tuple[str, ...]
    reached: bool
    is_whole: bool = True
    """Whether each given address answered, and all that was asked over HTTP in time."""
    key: str = ""
    """The variable with the key of Supabase's gateway that was used."""
    admin_role: tuple[str, str] = ("", "")
    """Where ADMIN_JWT has its role, in terms of `names: token: role`, and the role."""
    unjudged: tuple[str, ...] = ()
    """Known libraries here for which the gate has no preset."""

    @property
    def tables(self) -> int:
        """How many tables of the contract there are, under any name."""
        return sum(not m.relation.is_view for m in self.comparison.tables.values())

    @property
    def looks_like_it(self) -> bool:
        """Whether any table is likely one of the contract."""
        return any(m.is_likely for m in self.comparison.tables.values())

    @property
    def is_any_of_it(self) -> bool:
        """Whether a table, an endpoint or a known queue was seen."""
        shown = (o for o in self.objects if o.kind == "endpoint" and o.usable)
        return self.looks_like_it or any(p.name != SUPABASE for p in self.presets) or any(shown)

    def within(self, claims: Collection[str]) -> Diagnosis:
        """The diagnosis of the claimed areas; a remark says what was left out."""
        left_out = dict.fromkeys(a.area for a in self.coverage if a.area not in claims)
        if not left_out:
            return self
        said = f"not claimed, and not shown: {', '.join(left_out)} (--all shows them)"
        return replace(
            self,
            objects=tuple(o for o in self.objects if o.area in claims),
            coverage=tuple(a for a in self.coverage if a.area in claims),
            remarks=(*self.remarks, said),
        )

    def is_complete(self, claims: Collection[str]) -> bool:
        """Whether every given address answered all that it was asked, all visible objects of the claimed areas are
        there, by their own name or as gate.yaml says, and no defect is worth mending.
        """
        seen = [o for o in self.objects if o.presence is not Presence.UNKNOWN and o.area in claims]
        mended = all(d.harm < WORTH_MENDING for d in self.defects)
        return self.is_whole and bool(seen) and mended and all(o.is_settled and not o.closed for o in seen)


def view_database(url: str, contract: Contract, names: Names) -> DatabaseView:
    """Read the schema and a few rows. Never raises for what the database does."""
    home = home_said(names)
    try:
        with contextlib.closing(connect(url, read_only=True, statement_timeout_ms=STATEMENT_TIMEOUT_MS)) as connection:
            connection.answer_limit_s = ANSWER_LIMIT_S
            schema = read_schema(connection, contract)
            guessed = guessed_tables(schema, contract, pins_of(names), home)
            functions = match_functions(schema, contract, guessed.get("feature_flags"), home)
            seen = {n: m for n, m in guessed.items() if not schema.closed(m.table)}
            return DatabaseView(schema, read_rows(connection, seen, functions.get("is_feature_enabled")), guessed)
    except psycopg.Error as error:
        return DatabaseView(unreached=text(first_line(error), 300))


def diagnose(
    target: Target, contract: Contract, names: Names, rollout_flag: str, key: str = "", admin_jwt: str = ""
) -> Diagnosis:
    """Look at all given addresses at the same time. names: what gate.yaml says already. key: as of Diagnosis.
    admin_jwt: a token, of which only the claims are read.
    """
    with ThreadPoolExecutor(1) as pool:
        surface = pool.submit(look_at, target, contract, FUNCTIONS if key else "") if target.base_url else None
        view = view_database(target.database_url, contract, names) if target.database_url else None
        seen = surface.result() if surface else None
    found = judge(view, seen, contract, names, rollout_flag)
    return replace(found, key=key, admin_role=role_in(claims_of(admin_jwt)))


def judge(
    view: DatabaseView | None, surface: Surface | None, contract: Contract, names: Names, rollout_flag: str
) -> Diagnosis:
    """What the views show. None: that address was not given. Pure except for the shipped catalogue."""
    schema = view.schema if view else Schema()
    rows = view.rows if view else NOT_SEEN
    comparison = compare(schema, contract, pins_of(names), rows, view.guessed if view else {}, home_said(names), names)
    paths = names.given.get("http", {}).get("paths", {})
    called = called_by({f"{n}.{c}": m.column.name for n, t in comparison.tables.items() for c, m in t.columns.items()})
    http = compare_http(surface, contract, paths, called) if surface else None
    unseen = "DATABASE_URL is not set" if view is None else view.unreached
    objects = [*(_unseen(comparison.objects, unseen) if unseen else comparison.objects)]
    missing = compare_http(Surface(unreached="BASE_URL is not set"), contract)
    objects += http.objects if http else _unseen(missing.objects, "BASE_URL is not set")
    objects = settled(objects, names, schema)
    libraries = libraries_of(schema)
    return Diagnosis(
        tuple(objects),
        tuple(defects(schema, comparison, contract, rows, http, rollout_flag, names.claims)),
        tuple(coverage(objects, contract, catalogue.load())),
        tuple(found for found in libraries if found.is_judged),
        comparison,
        schema,
        http,
        (*_remarks(view, surface), *_copies(comparison)),
        any(door is not None and not door.unreached for door in (view, surface)),
        all(door is None or not door.unreached for door in (view, surface)) and not (surface and surface.late),
        unjudged=tuple(_unjudged(libraries)),
    )


def _unseen(objects: Sequence[ComparedObject], why: str) -> list[ComparedObject]:
    return [ComparedObject(o.kind, o.name, o.area, Presence.UNKNOWN, detail=why) for o in objects]


def _unjudged(libraries: Sequence[FoundPreset]) -> Iterator[str]:
    for found in libraries:
        if not found.is_judged:
            yield (
                f"{found.title} is here: {found.reason}. The gate has no preset of it and judges none of its jobs;"
                " through a view it can judge them all (docs/presets.md, a queue of your own)"
            )


def _copies(comparison: Comparison) -> Iterator[str]:
    """Which schemas have the same tables, and which of them was looked at."""
    found = [m for m in comparison.tables.values() if m.copies]
    schemas = sorted({s for m in found for s in m.copies})
    if schemas:
        home = Counter(m.table.schema for m in found).most_common(1)[0][0]
        more = f" and {len(schemas) - MOST_SCHEMAS} more" if len(schemas) > MOST_SCHEMAS else ""
        yield (
            f"{len(schemas)} schemas have the same tables: {', '.join(schemas[:MOST_SCHEMAS])}{more}. {home} was looked"
            " at; `names: {schema: NAME}` in gate.yaml says which it is"
        )


def _remarks(view: DatabaseView | None, surface: Surface | None) -> list[str]:
    said = []
    if view is None:
        said.append(
            "DATABASE_URL is not set: tables, functions, roles and flags are unknown. Set it, to any login at all"
        )
    elif view.unreached:
        said.append(f"the database cannot be reached: {view.unreached}. Check that it runs and DATABASE_URL is right")
    else:
        said += [f"{part}: {why}" for part, why in view.schema.unread.items()]
    if surface is None:
        said.append(
            "BASE_URL is not set: endpoints, headers and answers are unknown. Set it to where the functions live"
        )
    elif surface.unreached:
        said.append(f"nothing answers at BASE_URL: {surface.unreached}. Check that it runs and BASE_URL is right")
    elif surface.late:
        said.append("some questions over HTTP had no answer within the time; what hangs on them is unknown")
    if surface and not surface.unreached and surface.document is None:
        said.append("there is no OpenAPI document: members of bodies, answers and codes are unknown")
    return said
