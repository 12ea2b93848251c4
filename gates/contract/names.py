"""A deployment's names of the contract's objects: `names:` of gate.yaml, as data. An empty mapping means that the
deployment has the contract's own names.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from gates.contract.contract import Relation, contract
from gates.contract.limit_calls import LimitCalls, calls_of, spelled_out
from gates.contract.places import OUTSIDE, places_of
from gates.contract.scope import OwnLimit

ID_KINDS: Mapping[str, str] = {
    "company_id": "company",
    "companies.id": "company",
    "event_id": "event",
    "events.id": "event",
    "replay_run_id": "run",
    "replay_runs.id": "run",
    "dead_letter_queue.id": "item",
}
"""What `ids:` may name -> the kind of id: one kind has one type, in every column."""
ID_TYPES = ("uuid", "text", "bigint", "integer")
DEFAULT_CLAIM = "company_id"
CLAIMS_SETTING = "request.jwt.claims"
BASE_32 = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
UNCLAIMED = "unclaimed"
"""Added to `names:`: the areas that the deployment does not claim."""


@dataclass(frozen=True, slots=True)
class RelationNames:
    """A table or view of the contract and what it is in the deployment.

    `name` empty: the deployment has none. is_empty: it has none and claims nothing that needs it: a query that reads it
    with others finds no row. columns: contract column -> real column. expressions: contract column -> SQL over the row,
    for reading. written: those whose real column can be written, too -> SQL of what it holds for the contract's value
    `{}`. values: contract column -> contract value -> real value. absent: columns that the deployment lacks. also: real
    column -> SQL of its value in each row that the gate inserts. rows: SQL over the row, true for rows that count.
    calls: of the rate limit, if a row is one call, or several: a row of the contract is then a group of real ones, and
    `expressions` are those of a group of one.
    """

    contract: Relation
    schema: str
    name: str
    columns: Mapping[str, str] = field(default_factory=dict)
    expressions: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    absent: frozenset[str] = frozenset()
    also: Mapping[str, str] = field(default_factory=dict)
    is_empty: bool = False
    written: Mapping[str, str] = field(default_factory=dict)
    rows: str = ""
    calls: LimitCalls | None = None

    def is_writable(self, column: str) -> bool:
        """Whether a value of the contract can be stored."""
        return column not in self.absent and (column not in self.expressions or column in self.written)

    def column(self, name: str) -> str:
        return self.columns.get(name, name)

    @property
    def is_plain(self) -> bool:
        """Whether queries can read the relation exactly as the contract describes it."""
        own = (self.schema, self.name) == ("public", self.contract.name)
        return own and not (self.columns or self.expressions or self.values or self.absent or self.also or self.rows)


@dataclass(frozen=True, slots=True)
class FunctionNames:
    """A function of the contract: where it is, and the order of its arguments as positions in the contract's list.
    own_buckets: it draws tenants by a formula of its own, so only its answers tell who is in a rollout.
    """

    schema: str
    name: str
    order: tuple[int, ...]
    own_buckets: bool = False


@dataclass(frozen=True, slots=True)
class MemberNames:
    """The table that maps users to tenants, if the token does not. All names are real ones. users: the tables to whose
    `id` the user refers, the first one first. also: as of RelationNames.
    """

    schema: str
    name: str
    company: str
    user: str
    users: tuple[tuple[str, str], ...] = ()
    also: Mapping[str, str] = field(default_factory=dict)


def parts_of(path: str) -> list[str]:
    """The parts of a path of members divided by dots. A URL, as in a namespaced claim, is one part."""
    return [path] if "://" in path else path.split(".")


def user_of(company: str) -> str:
    """The gate's user who belongs to this tenant only; derived from the tenant's real id."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"replaygate {company}"))


@dataclass(frozen=True, slots=True)
class Names:
    """All names of one deployment. given: the plain values of `names:`, from which the rest is derived."""

    given: Mapping[str, Any] = field(default_factory=dict)
    relations: Mapping[str, RelationNames] = field(default_factory=dict)
    functions: Mapping[str, FunctionNames] = field(default_factory=dict)
    roles: Mapping[str, str | None] = field(default_factory=dict)
    ids: Mapping[str, str] = field(default_factory=dict)
    """Kind of id -> its type, if it is not uuid."""
    id_forms: Mapping[str, str] = field(default_factory=dict)
    """Kind of id -> the form of its text, with `{hex}`, `{uuid}` or `{ulid}`, if it has one."""
    members: MemberNames | None = None

    def __bool__(self) -> bool:
        return bool(self.given)

    @property
    def maps_sql(self) -> bool:
        """Whether statements may need translation."""
        return any(name in self.given for name in ("schema", "ids", "tables", "functions", "roles"))

    @property
    def schemas(self) -> tuple[str, ...]:
        """The schemas with the objects of the contract."""
        found = [r.schema for r in self.relations.values() if r.name]
        return tuple(sorted(set(found))) or ("public",)

    @property
    def tenant_claim(self) -> str:
        """The place of the tenant in the claims, as members divided by dots."""
        return str(self.given.get("tenant_claim", DEFAULT_CLAIM))

    @property
    def names_claim(self) -> bool:
        """Whether the tenant is in the claims; else only the table of members maps a user to a tenant."""
        return self.members is None or "tenant_claim" in self.given

    @property
    def tenant_setting(self) -> str:
        """The session setting that holds only the tenant's id; empty if it is all claims, as JSON."""
        return str(self.given.get("tenant_setting", ""))

    @property
    def own_buckets(self) -> bool:
        """Whether the deployment draws the tenants of a rollout by a formula of its own."""
        return any(f.own_buckets for f in self.functions.values())

    @property
    def flag_keys(self) -> Mapping[str, str]:
        """Key of a flag of the contract -> its real key, if it differs."""
        flags = self.relations.get("feature_flags")
        return flags.values.get("key", {}) if flags is not None else {}

    @property
    def own_tables(self) -> tuple[tuple[str, str, str], ...]:
        """Schema, name and tenant column of tables outside the contract, in the order in which they are cleaned."""
        schema = str(self.given.get("schema", "public"))
        return tuple((*_qualified(name, schema), column) for name, column in self.given.get("own_tables", {}).items())

    @property
    def lacking(self) -> tuple[str, ...]:
        """What the deployment says it lacks: paths, members of bodies, tables and columns, by the contract's names.

        A member outside the body is a text, and occurs once: it lacks `json of NAME`, the type and the rest of JSON.
        """
        http: Mapping[str, Any] = self.given.get("http", {})
        said = [
            name for part in ("paths", "fields", "metrics") for name, real in http.get(part, {}).items() if real is None
        ]
        for member, spelled in places_of(http.get("fields", {})).items():
            places = {place for place, _ in spelled}
            said += [member] * ("answer" in places) + [f"json of {member}"] * bool(OUTSIDE & places)
        signature: Mapping[str, str] = http.get("signature", {})
        said += ["signature without a time"] * ("v2" in signature and "form" not in signature)
        for name, relation in self.relations.items():
            said += [f"{name}.{column}" for column in sorted(relation.absent)]
            said += [f"{name}.hits"] * bool(relation.calls)  # no single row holds them
        return (*said, *(name for name, relation in self.relations.items() if not relation.name))

    def limit(self, name: str) -> int:
        """A limit: the deployment's own, else the contract's."""
        return int(self.given.get("limits", {}).get(name, contract().limits[name][0]))

    @property
    def own_limits(self) -> tuple[OwnLimit, ...]:
        """The deployment's limits that differ from the contract's, in the contract's order."""
        every = (OwnLimit(name, self.limit(name), value) for name, (value, _, _) in contract().limits.items())
        return tuple(one for one in every if one.policy != one.contract)

    @property
    def spoken(self) -> tuple[tuple[str, str], ...]:
        """Words in texts for people -> real names, if these differ.

        These are relations, functions, tenant and key columns, codes, and members between backticks. `events` and
        `companies` are also English words: they mean the tables only between backticks or behind `public.`.
        """
        http: Mapping[str, Any] = self.given.get("http", {})
        real = {n: self.real(n) for n in self.relations if self.real(n) not in {"", f"public.{n}"}}
        found = {f"public.{n}": theirs for n, theirs in real.items()}
        found |= {n: theirs for n, theirs in real.items() if "_" in n}
        found |= {f"`{n}`": f"`{theirs}`" for n, theirs in real.items() if "_" not in n}
        found |= {n: f"{f.schema}.{f.name}" for n, f in self.functions.items()}
        runs = self.relations.get("replay_runs")
        found |= {c: runs.column(c) for c in ("company_id", "idempotency_key") if runs and runs.name}
        found |= {code: real if isinstance(real, str) else str(real[0]) for code, real in http.get("codes", {}).items()}
        told = {m: spelled[0][1] for m, spelled in places_of(http.get("fields", {})).items() if spelled}
        found |= {f"`{member}`": f"`{real}`" for member, real in told.items()}
        return tuple((ours, real) for ours, real in found.items() if real not in {ours, f"public.{ours}"})

    def has_page(self, path: str) -> bool:
        """Whether the deployment has a page for machines: it claims them, or names the path of this one."""
        real = self.given.get("http", {}).get("paths", {}).get(path, "")
        return real is not None and (bool(real) or self.claims("identity"))

    def has(self, relation: str, column: str) -> bool:
        """Whether the deployment has this column of the contract."""
        found = self.relations.get(relation)
        return found is None or (bool(found.name) and column not in found.absent)

    def claims(self, area: str) -> bool:
        """Whether the deployment claims this area of the contract."""
        return area not in self.given.get(UNCLAIMED, ())

    @property
    def takes_events(self) -> bool:
        """Whether the deployment takes events over HTTP."""
        return self.claims("outbox") and "/events" not in self.lacking

    @property
    def shows_runs(self) -> bool:
        """Whether the deployment shows a run over HTTP."""
        return "/dlq-replay/{replay_run_id}" not in self.lacking

    def real(self, relation: str) -> str:
        """The real name of a relation of the contract, `schema.name`; empty if the deployment has none."""
        found = self.relations.get(relation)
        if found is None:
            return f"public.{relation}"
        return f"{found.schema}.{found.name}" if found.name else ""

    @property
    def all_real(self) -> list[str]:
        """The real names of all relations of the contract, `schema.name`."""
        return [self.real(name) for name in contract().relations]

    def id_type(self, kind: str) -> str:
        """The type of the ids of a kind: company, event, run or item."""
        return self.ids.get(kind, "uuid")

    def formed(self, kind: str, made: uuid.UUID) -> str:
        """A UUID as an id of a kind, if such ids are texts with a form."""
        form = self.id_forms.get(kind, "{uuid}")
        ulid = "".join(BASE_32[made.int >> 5 * place & 31] for place in reversed(range(26))) if "{ulid}" in form else ""
        return form.replace("{hex}", made.hex).replace("{uuid}", str(made)).replace("{ulid}", ulid)

    def within(self, unclaimed: Collection[str]) -> Names:
        """The names for a deployment that does not claim these areas."""
        return names_of({**self.given, UNCLAIMED: sorted(unclaimed)}) if unclaimed else self

    @property
    def leaves_rows_out(self) -> bool:
        """Whether some rows do not count."""
        return any(r.rows for r in self.relations.values())

    def with_every_row(self) -> Names:
        """The names with all rows counted: a soft-deleted row still belongs to a tenant."""
        tables = {n: {k: v for k, v in t.items() if k != "rows"} for n, t in self.given.get("tables", {}).items()}
        return names_of({**self.given, "tables": tables})

    def dump(self) -> str:
        """One line of JSON; `load` restores the names."""
        return json.dumps(self.given, separators=(",", ":"), sort_keys=True)


def load(text: str) -> Names:
    return names_of(json.loads(text))


def names_of(given: Mapping[str, Any]) -> Names:
    """Names from the plain values of `names:`, whose shape was already checked."""
    if not given:
        return Names()
    schema = str(given.get("schema", "public"))
    whole = contract()
    ids = {ID_KINDS[n]: "text" if "{" in t else t for n, t in given.get("ids", {}).items() if t != "uuid"}
    tables = _with_flag_keys(given.get("tables", {}))
    functions = given.get("functions", {})
    return Names(
        given=given,
        relations={
            n: _relation(r, schema, spelled_out(tables.get(n, {}), ids), given.get(UNCLAIMED, ()))
            for n, r in whole.relations.items()
        },
        functions={n: _function(n, schema, f.arguments, functions.get(n, {})) for n, f in whole.functions.items()},
        roles=dict(given.get("roles", {})),
        ids=ids,
        id_forms={ID_KINDS[n]: t for n, t in given.get("ids", {}).items() if "{" in t},
        members=_members(given["members"], schema) if "members" in given else None,
    )


def _members(given: Mapping[str, Any], schema: str) -> MemberNames:
    return MemberNames(
        *_qualified(given["is"], schema),
        given["company"],
        given["user"],
        tuple(_qualified(table, schema) for table in given.get("users", ())),
        given.get("also", {}),
    )


def _with_flag_keys(tables: Mapping[str, Any]) -> Mapping[str, Any]:
    """The tables, with the real flag keys in the view of the flags as in the table, unless given."""
    table, view = tables.get("feature_flags", {}), tables.get("feature_flags_status", {})
    keys = table.get("values", {}).get("key")
    if not keys or view.get("absent") is True:
        return tables
    return {**tables, "feature_flags_status": {**view, "values": {"key": keys, **view.get("values", {})}}}


def _relation(relation: Relation, schema: str, given: Mapping[str, Any], unclaimed: Collection[str]) -> RelationNames:
    if given.get("absent") is True:
        return RelationNames(relation, schema, "", is_empty=relation.area in unclaimed)
    real_schema, name = _qualified(given.get("is", relation.name), schema)
    columns = given.get("columns", {})
    return RelationNames(
        relation,
        real_schema,
        name,
        {c: r for c, r in columns.items() if isinstance(r, str) and r != c}
        | {c: r["is"] for c, r in columns.items() if not isinstance(r, str) and "is" in r},
        {c: r["sql"] for c, r in columns.items() if not isinstance(r, str)},
        given.get("values", {}),
        frozenset(given.get("absent", ())),
        given.get("also", {}),
        written={c: r["write"] for c, r in columns.items() if not isinstance(r, str) and "write" in r},
        rows=str(given.get("rows", "")),
        calls=calls_of(given["calls"]) if "calls" in given else None,
    )


def _function(name: str, schema: str, arguments: tuple[str, ...], given: Mapping[str, Any]) -> FunctionNames:
    real_schema, real = _qualified(given.get("is", name), schema)
    wanted = given.get("arguments")
    names = ARGUMENTS[name]
    order = tuple(names.index(a) for a in wanted) if wanted else tuple(range(len(arguments)))
    return FunctionNames(real_schema, real, order, given.get("bucket") == "own")


ARGUMENTS: Mapping[str, tuple[str, ...]] = {"is_feature_enabled": ("key", "company")}
"""The names of the contract's arguments, in its order."""


def _qualified(name: str, schema: str) -> tuple[str, str]:
    first, dot, last = name.partition(".")
    return (first, last) if dot else (schema, name)
