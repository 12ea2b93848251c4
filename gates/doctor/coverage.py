"""How many checks a deployment's objects allow: today, and with a mapping. Derived from the files of the checks.

A SQL check needs the tables, columns and functions of the contract in its text, and the right to read those that are
not in quotes: for the others the catalogue is enough. Any other check needs the objects of its area. Nothing is run, so
the numbers are estimates, and are called so.
"""

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gates.contract.contract import Contract
from gates.contract.scope import OWN, QUEUE
from gates.doctor.comparison.compare import ComparedObject
from gates.evidence import CheckSpec
from gates.stages.suite import ROOT
from gates.text.own_data import data_of

SQL_CHECKS = ROOT / "sql_checks"
_ID = re.compile(r"^-- id: (\S+)", re.MULTILINE)
_COMMENT = re.compile(r"--[^\n]*")
_LITERAL = re.compile(r"'[^']*'")
_FRAGMENT = re.compile(r"\{\{([a-z_]+)\}\}")
_NAME = re.compile(r"[a-z_][a-z0-9_]*")
NEEDED_OVER_HTTP = ("table companies", "endpoint POST /dlq-replay")
"""What every drill needs: tenants of its own, and the endpoint."""
MOST_NESTED = 5
"""Fragments within fragments."""
HTTP_ALONE = frozenset({"identity", "observability"})
NEEDED_KINDS = ("table", "view", "endpoint", "function")


@dataclass(frozen=True, slots=True)
class AreaCoverage:
    """One area: its checks, how many could be judged today, how many with the mapping, what prevents the rest. closed:
    how many more with rights that this login lacks.
    """

    area: str
    title: str
    checks: int
    today: int
    mapped: int
    lacking: tuple[str, ...]
    closed: int = 0

    @property
    def claimable(self) -> bool:
        """Whether its objects are all there, by name or by mapping."""
        return not self.lacking


def coverage(
    objects: Iterable[ComparedObject], contract: Contract, catalogue: Iterable[CheckSpec]
) -> list[AreaCoverage]:
    """One entry per area, in the contract's order."""
    by_name = {f"{o.kind} {o.name}": o for o in objects}
    specs: dict[str, list[CheckSpec]] = {}
    for spec in map(contract.placed, catalogue):
        specs.setdefault(spec.area, []).append(spec)
    texts = texts_of_checks()
    found = []
    for area in contract.areas.values():
        if area.name in {OWN, QUEUE}:
            continue
        needs = [needs_of(spec, contract, by_name, texts) for spec in specs.get(area.name, ())]
        of_sql = [needs_of(s, contract, by_name, texts) for s in specs.get(area.name, ()) if not _is_sent(s)]
        there = [needed for needed in needs if all(by_name[n].usable for n in needed)]
        mapped = [needed for needed in there if not any(reads and by_name[n].closed for n, reads in needed.items())]
        today = [needed for needed in mapped if all(by_name[n].is_settled for n in needed)]
        wanted = _own(area.name, by_name) or _foundation(of_sql, by_name)
        lacking = [n for n in wanted if not by_name[n].usable]
        numbers = len(needs), len(today), len(mapped)
        found.append(AreaCoverage(area.name, area.title, *numbers, tuple(lacking), len(there) - len(mapped)))
    return found


def _own(area: str, by_name: Mapping[str, ComparedObject]) -> list[str]:
    return [n for n, o in by_name.items() if o.area == area and o.kind in NEEDED_KINDS]


def _foundation(needs: Sequence[Mapping[str, bool]], by_name: Mapping[str, ComparedObject]) -> list[str]:
    """What an area without objects of its own needs, if none of its SQL checks has all of it: the least lacking."""
    missing = [[n for n in needed if not by_name[n].usable and by_name[n].kind in NEEDED_KINDS] for needed in needs]
    least = min(map(len, missing), default=0)
    return [*dict.fromkeys(n for lacking in missing if len(lacking) == least for n in lacking)]


def _is_sent(spec: CheckSpec) -> bool:
    """Whether a check sends requests."""
    return spec.id.startswith(("drill/", "load/"))


def needs_of(
    spec: CheckSpec, contract: Contract, by_name: Mapping[str, ComparedObject], texts: Mapping[str, str]
) -> Mapping[str, bool]:
    """The objects that a check needs, as `kind name` -> whether it reads them; else the catalogue is enough."""
    if (text := texts.get(spec.id) or texts.get(spec.id.partition("/")[0])) is not None:
        return _in_text(text, contract, by_name)
    own = [n for area in (spec.area, *spec.also) for n in _own(area, by_name)]
    if spec.id.startswith(("sql/rls/", "sql/writes/")):  # they act as tenants of their own
        return dict.fromkeys(own, True)
    if not _is_sent(spec):
        return {}
    over_http = () if spec.area in HTTP_ALONE else tuple(n for n in NEEDED_OVER_HTTP if n in by_name)
    return dict.fromkeys((*over_http, *own), True)


def _in_text(text: str, contract: Contract, by_name: Mapping[str, ComparedObject]) -> dict[str, bool]:
    names, read = set(_NAME.findall(text)), set(_NAME.findall(_LITERAL.sub("", text)))
    needed = []
    for relation in contract.relations.values():
        if relation.name in names:
            needed.append(f"{'view' if relation.is_view else 'table'} {relation.name}")
            needed += [f"column {relation.name}.{c}" for c in relation.columns if c in names and c not in _ANYWHERE]
    needed += [f"function {f}" for f in by_name if f.startswith("function ") and f[9:].partition("(")[0] in names]
    return {n: n.partition(" ")[2].partition("(")[0] in read for n in needed if n in by_name}


_ANYWHERE = frozenset(
    {"id", "name", "key", "count", "path", "hash", "version", "day", "month", "status", "description"}
)
"""Columns whose names are also SQL keywords: finding them in a text means nothing."""


@functools.cache
def texts_of_checks() -> Mapping[str, str]:
    """The SQL of every shipped spot check and alert rule, by id of its check, with fragments; that of all cohort checks
    together by the name of their stage.
    """
    if not SQL_CHECKS.is_dir():
        return {}
    found = {}
    for path in sorted((SQL_CHECKS / "spot").glob("*.sql")):
        text = path.read_text(encoding="utf-8")
        if named := _ID.search(text):
            found[named[1]] = _bare(text, path.parent / "fragments")
    for path in sorted((SQL_CHECKS / "alerts").glob("*.yaml")):
        found |= _rules(path)
    cohorts = SQL_CHECKS / "cohorts"
    found["cohort"] = "".join(_bare(p.read_text("utf-8"), cohorts / "fragments") for p in sorted(cohorts.glob("*.sql")))
    return found


def _rules(path: Path) -> dict[str, str]:
    data = data_of(path)
    rules = [rule for group in data["groups"] for rule in group["rules"]]
    return {f"alert/{r['alert']}": _bare(str(r["query"]), path.parent / "fragments") for r in rules}


def _bare(text: str, folder: Path) -> str:
    """The text in lower case, with fragments included and comments removed."""

    def fragment(found: re.Match[str]) -> str:
        path = folder / f"{found[1]}.sql"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    for _ in range(MOST_NESTED):
        text = _FRAGMENT.sub(fragment, text)
    return _COMMENT.sub("", text).lower()
