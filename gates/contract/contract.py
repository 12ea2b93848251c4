"""The contract of a deployment as data (contract.yaml): its areas, their checks, and its objects."""

import functools
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gates.contract.scope import OWN, QUEUE, Dropped, Scope
from gates.evidence import CheckSpec
from gates.text.own_data import data_of
from gates.text.patterns import matches

FILE = Path(__file__).with_name("contract.yaml")


@dataclass(frozen=True, slots=True)
class Area:
    """A part of the contract that a deployment may claim; `checks` are ids and patterns of ids."""

    name: str
    title: str
    checks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`name` is the method and the path; body, answer: member -> type; refusals: code -> status."""

    name: str
    area: str
    headers: tuple[str, ...] = ()
    body: Mapping[str, str] = field(default_factory=dict)
    answer: Mapping[str, str] = field(default_factory=dict)
    refusals: Mapping[str, int] = field(default_factory=dict)

    @property
    def method(self) -> str:
        return self.name.partition(" ")[0]

    @property
    def path(self) -> str:
        return self.name.partition(" ")[2]

    def is_at(self, path: str) -> bool:
        """Whether a path of the contract, with whatever id, is this endpoint's."""
        fixed, brace, _ = self.path.partition("{")
        return path.startswith(fixed) if brace else re.split("[?#]", path)[0] == fixed


@dataclass(frozen=True, slots=True)
class Relation:
    """A table or view in `public`.

    columns: name -> type. keys: unique ones. values: column -> its allowed values. nulls: columns of a key whose null
    means everybody: there is at most one such row. nullable: columns that are NULL in a healthy row, so a deployment
    may lack them.
    """

    name: str
    area: str
    columns: Mapping[str, str]
    keys: tuple[tuple[str, ...], ...] = ()
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tenants: bool = False
    is_view: bool = False
    nulls: tuple[str, ...] = ()
    nullable: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class SqlFunction:
    """A function in `public`, with the types of its arguments and of its result."""

    name: str
    area: str
    arguments: tuple[str, ...]
    returns: str


@dataclass(frozen=True, slots=True)
class Contract:
    """The whole contract, by name.

    headers, roles, flags, metrics: name -> area. also: area -> checks of other areas that need it. lacking: what a
    deployment may lack -> checks that do not apply then. presets: name -> the areas it claims.
    """

    areas: Mapping[str, Area]
    also: Mapping[str, tuple[str, ...]]
    lacking: Mapping[str, tuple[str, ...]]
    presets: Mapping[str, tuple[str, ...]]
    endpoints: Mapping[str, Endpoint]
    headers: Mapping[str, str]
    relations: Mapping[str, Relation]
    functions: Mapping[str, SqlFunction]
    roles: Mapping[str, str]
    flags: Mapping[str, str]
    metrics: Mapping[str, str]
    limits: Mapping[str, tuple[int, int, int]]
    """Name -> the contract's value, and the least and the most that a deployment may have."""

    def area_of(self, check: str) -> str:
        """The area of a check: the one that names its id, else one with a matching pattern; empty for a user's own."""
        named = [a.name for a in self.areas.values() if check in a.checks]
        like = [a.name for a in self.areas.values() if matches(check, a.checks)]
        return next(iter((*named, *like)), "")

    def placed(self, spec: CheckSpec) -> CheckSpec:
        """The check with its area, and the other areas that it needs."""
        also = {area for area, checks in self.also.items() if matches(spec.id, checks)}
        own = self.area_of(spec.id)
        return replace(spec, area=own, also=tuple(a for a in self.areas if a in also - {own}))

    def without(self, lacking: Collection[str]) -> tuple[tuple[str, str], ...]:
        """Patterns of the checks that do not apply to a deployment that lacks these, each with the reason."""
        return tuple(
            (check, f"names: in gate.yaml says that there is no {name}, which this check needs")
            for name in lacking
            for check in self.lacking.get(name, ())
        )

    @property
    def claimable(self) -> tuple[str, ...]:
        """The areas that a policy may claim, in their order."""
        return tuple(a for a in self.areas if a != OWN)

    def scope(self, claims: Sequence[str] = (), preset: str = "", dropped: Sequence[Dropped] = ()) -> Scope:
        """The claims in the contract's order; by default those of the preset, or all of a replay service. The areas of
        a queue are another contract: not claiming them leaves nothing out.
        """
        service = tuple(a for a in self.claimable if a != QUEUE)
        wanted = claims or self.presets.get(preset, ()) or service
        claimed = tuple(a for a in self.claimable if a in wanted)
        unclaimed = tuple(a for a in service if a not in claimed)
        return Scope(claimed, unclaimed, preset, dropped=tuple(dropped))


@functools.cache
def contract() -> Contract:
    """The contract, read once."""
    data: dict[str, Any] = data_of(FILE)
    tables = {n: _relation(n, t, is_view=False) for n, t in data["tables"].items()}
    views = {n: _relation(n, t, is_view=True) for n, t in data["views"].items()}
    return Contract(
        areas={n: Area(n, a["title"], tuple(a["checks"])) for n, a in data["areas"].items()},
        also={n: tuple(checks) for n, checks in data["also"].items()},
        lacking={n: tuple(checks) for n, checks in data["lacking"].items()},
        presets={n: tuple(areas) for n, areas in data["presets"].items()},
        endpoints={
            n: Endpoint(n, **{**e, "headers": tuple(e.get("headers", ()))}) for n, e in data["endpoints"].items()
        },
        headers=data["headers"],
        relations=tables | views,
        functions={
            n: SqlFunction(n, f["area"], tuple(f["arguments"]), f["returns"]) for n, f in data["functions"].items()
        },
        roles=data["roles"],
        flags=data["flags"],
        metrics=data["metrics"],
        limits={n: (value, least, most) for n, (value, least, most) in data["limits"].items()},
    )


def _relation(name: str, given: Mapping[str, Any], *, is_view: bool) -> Relation:
    return Relation(
        name,
        given["area"],
        given["columns"],
        tuple(tuple(k) for k in given.get("keys", ())),
        {c: tuple(v) for c, v in given.get("values", {}).items()},
        given.get("tenants", False),
        is_view,
        tuple(given.get("nulls", ())),
        frozenset(given.get("nullable", ())),
    )
