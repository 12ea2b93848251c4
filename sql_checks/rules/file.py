"""Reads alert rules: YAML in the manner of Prometheus rule files, with SQL for the expression.

A query gives rows `subject, value, samples, newest, witness[, draining][, bad[, groups, bad_groups]]`: one row with
subject `all` for the fleet, and one for each tenant where that matters. `{{name}}` in a query is replaced by
`fragments/name.sql`. Where a rule names no window it looks at what is so now, and needs one sample at least.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gates import disk
from gates.contract.fragments import FragmentError, expand
from gates.errors import ConfigError
from gates.evidence import CheckSpec, Severity, Where
from gates.inputs.shapes import Anything, Fields, ListOf, Number, Shape, Text
from gates.inputs.strict_yaml import Place, YamlNode, read

HERE = Path(__file__).parent.parent
ALERTS = HERE / "alerts"
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
ORDER = (Severity.PAGE, Severity.WARN, Severity.INVESTIGATE)

SPAN = Text(r"\d+ ?(?:s|m|h|d|seconds?|minutes?|hours?|days?)", "30s, 2m, 10 minutes, 1 day")
VALUE = Number(-math.inf, math.inf, whole=False)
COUNT = Number(1, 10**9)
LIMITS = Fields({s.value: (VALUE, "") for s in ORDER})
NEEDED: dict[str, Shape] = {
    "alert": Text(r"[a-z0-9]+(?:-[a-z0-9]+)*", "a name in kebab-case"),
    "claim": Text(),
    "cost": Text(),
    "unit": Text(),
    "range": ListOf(VALUE, 2),
    "for": SPAN,
    "query": Text(),
}
OPTIONAL: dict[str, Shape] = {
    "above": LIMITS,
    "below": LIMITS,
    "covers": ListOf(Text()),
    "runbook": Text(),
    "window": Text(),
    "min_samples": COUNT,
    "min_samples_tenant": COUNT,
    "stale_after": SPAN,
    "allowed_bad": Number(1e-9, 1 - 1e-9, whole=False),
    "samples_window": Text(),
}
RULE = Fields({name: (shape, "") for name, shape in {**NEEDED, **OPTIONAL}.items()}, tuple(NEEDED))
GROUP = Fields({"name": (Text(), ""), "rules": (ListOf(Anything()), "")}, ("name", "rules"))
FILE = Fields({"groups": (ListOf(GROUP), "")}, ("groups",))


def within(word: str, window: str) -> str:
    """`over 10 minutes`, or `now` for a rule without a window."""
    return window if window == "now" else f"{word} {window}"


@dataclass(frozen=True, slots=True)
class AlertRule:
    """One alert rule. `limits` run from the worst severity to the mildest; a value on a limit does not break it.

    `query` is the source with its fragments put in; `allowed_bad`: the share of samples that may be beyond the paging
    limit, for a rule whose query counts them (column `bad`); `samples_window`: what the samples are counted in, where
    that is shorter than the window.
    """

    spec: CheckSpec
    name: str
    group: str
    unit: str
    window: str
    above: bool
    limits: tuple[tuple[Severity, float], ...]
    low: float
    high: float
    min_samples: int
    min_samples_tenant: int
    stale_after_s: int | None
    for_s: int
    runbook: str
    """A URL, or a path from the folder of the rule with the section after `#`; else the section of its name."""
    query: str
    source: str
    place: Place
    """Where the rule stands in its file."""
    allowed_bad: float | None = None
    samples_window: str = ""

    @property
    def limits_text(self) -> str:
        """The limits for readers: `page > 5 %, warn > 2 %`."""
        sign = ">" if self.above else "<"
        return ", ".join(f"{severity} {sign} {limit:g} {self.unit}" for severity, limit in self.limits)


def read_rules(path: Path, stage: str = "alert", expanded: Callable[[str], str] | None = None) -> list[AlertRule]:
    """All rules of one file. stage: begins their ids; expanded: puts fragments into a query. Raise ConfigError."""
    folders = (path.parent / "fragments", ALERTS / "fragments")
    put_in = expanded or (lambda query: expand(query, folders))
    data = FILE.read(read(disk.read_text(path), str(path)))
    rules = [_rule(node, group["name"], stage, put_in) for group in data["groups"] for node in group["rules"]]
    for name, times in Counter(r.name for r in rules).items():
        if times > 1:
            place = next(r.place for r in reversed(rules) if r.name == name)
            raise place.error(f"the alert {name!r} again", "each name once", "Rename one")
    return rules


def read_all_rules(folder: Path = ALERTS) -> list[AlertRule]:
    """The rules of a folder, by file and place. Raise ConfigError."""
    return [rule for path in sorted(folder.glob("*.yaml")) for rule in read_rules(path)]


def _rule(node: YamlNode, group: str, stage: str, expanded: Callable[[str], str]) -> AlertRule:
    data: dict[str, Any] = RULE.read(node)
    above = "above" in data
    if above == ("below" in data):
        raise node.place.error("both or neither of `above` and `below`", "one of them", "Keep the one that is meant")
    limits = _limits(node, "above" if above else "below", data)
    min_samples = data.get("min_samples", 1)
    low, high = data["range"][0], data["range"][-1]
    if len(data["range"]) != 2 or not low < high:
        raise _at(node, "range").error(f"{list(data['range'])}", "[lowest, highest] possible value", "Correct it")
    spec = CheckSpec(
        id=f"{stage}/{data['alert']}",
        claim=data["claim"],
        cost=data["cost"],
        severity=limits[0][0],
        where=Where.READ_ONLY,
        needs=("database",),
        covers=data.get("covers", ()),
    )
    try:
        query = expanded(data["query"].strip())
    except FragmentError as error:
        raise ConfigError(f"{_at(node, 'query')}: {error}") from error
    return AlertRule(
        spec=spec,
        name=data["alert"],
        group=group,
        unit=data["unit"],
        window=data.get("window", "now"),
        above=above,
        limits=limits,
        low=float(low),
        high=float(high),
        min_samples=min_samples,
        min_samples_tenant=data.get("min_samples_tenant", min_samples),
        stale_after_s=_seconds(data["stale_after"]) if "stale_after" in data else None,
        for_s=_seconds(data["for"]),
        runbook=data.get("runbook", f"runbooks.md#{data['alert']}"),
        query=query,
        source=data["query"].strip(),
        place=node.place,
        allowed_bad=data.get("allowed_bad"),
        samples_window=data.get("samples_window", ""),
    )


def _at(node: YamlNode, name: str) -> Place:
    member = node.member(name)
    return member.place if member else node.place


def _limits(node: YamlNode, name: str, data: Mapping[str, Any]) -> tuple[tuple[Severity, float], ...]:
    limits = tuple((s, float(data[name][s.value])) for s in ORDER if s.value in data[name])
    numbers = [n for _, n in limits]
    if not limits:
        raise _at(node, name).error("no limit", "page, warn, investigate with numbers", "Add one")
    if numbers != sorted(numbers, reverse=name == "above"):
        raise _at(node, name).error("a milder limit beyond a worse one", "page as the farthest", "Swap them")
    return limits


def _seconds(span: str) -> int:
    """Seconds of `10 minutes` or `2m`."""
    number, unit = re.fullmatch(r"(\d+) ?(.).*", span).groups()  # type: ignore[union-attr]  # SPAN holds
    return int(number) * SECONDS[unit]
