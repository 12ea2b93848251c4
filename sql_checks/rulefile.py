"""Reads alert rules: YAML in the manner of Prometheus rule files, with SQL for the expression.

A query gives rows `subject, value, samples, newest, witness[, draining][, bad]`: one row with subject `all` for the
fleet, and one for each tenant where that matters. `{{name}}` in a query is replaced by `fragments/name.sql`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gates.contract.fragments import FragmentError, expand
from gates.evidence import CheckSpec, Severity, Where
from gates.inputs.shapes import nearest
from sql_checks.strictyaml import read_yaml

HERE = Path(__file__).parent
ALERTS = HERE / "alerts"
SPAN = re.compile(r"^(\d+) ?(s|m|h|d|seconds?|minutes?|hours?|days?)$")
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
REQUIRED = ("alert", "claim", "cost", "unit", "window", "range", "min_samples", "for", "covers", "runbook", "query")
OPTIONAL = ("above", "below", "min_samples_tenant", "stale_after", "allowed_bad", "samples_window")
ORDER = (Severity.PAGE, Severity.WARN, Severity.INVESTIGATE)


class RuleFileError(ValueError):
    """A rule file cannot be used: what was observed, what is allowed, where, what to do."""


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
    """A URL, or a path from the folder of the rule with the section after `#`."""
    query: str
    source: str
    path: Path
    allowed_bad: float | None = None
    samples_window: str = ""


def read_rules(path: Path, stage: str = "alert", expanded: Callable[[Path, str], str] | None = None) -> list[AlertRule]:
    """All rules of one file. stage: begins their ids; expanded: puts fragments into a query. Raise RuleFileError."""
    try:
        data = read_yaml(path)
    except ValueError as error:
        raise RuleFileError(str(error)) from error
    groups = data.get("groups") if isinstance(data, dict) else None
    if not isinstance(groups, list) or set(data) != {"groups"}:
        raise RuleFileError(f"{path}: the file holds no list `groups`; allowed: `groups: [{{name, rules}}]`")
    rules: list[AlertRule] = []
    for group in groups:
        _keys(path, "group", group, ("name", "rules"), ())
        read = [_rule(path, str(group["name"]), one, expanded or _expanded) for one in group["rules"]]
        rules += [replace(rule, spec=replace(rule.spec, id=f"{stage}/{rule.name}")) for rule in read]
    names = [r.name for r in rules]
    for name in names:
        if names.count(name) > 1:
            raise RuleFileError(f"{path}: the alert {name!r} is there twice; allowed: once. Rename one")
    return rules


def read_all_rules(folder: Path = ALERTS) -> list[AlertRule]:
    """The rules of a folder, by file and place. Raise RuleFileError."""
    return [rule for path in sorted(folder.glob("*.yaml")) for rule in read_rules(path)]


def _keys(path: Path, what: str, data: Any, required: tuple[str, ...], optional: tuple[str, ...]) -> None:
    if not isinstance(data, dict):
        raise RuleFileError(f"{path}: a {what} is {type(data).__name__}; allowed: a mapping")
    name = data.get("alert") or data.get("name") or "?"
    for key in data:
        if key not in required + optional:
            told = f"unknown key {key!r}; allowed: {', '.join(required + optional)}"
            raise RuleFileError(f"{path}: {what} {name}: {told}. {nearest(str(key), required + optional)}")
    missing = [k for k in required if k not in data]
    if missing:
        raise RuleFileError(f"{path}: {what} {name} lacks {', '.join(missing)}. Add it")


def _rule(path: Path, group: str, data: Mapping[str, Any], expanded: Callable[[Path, str], str]) -> AlertRule:
    _keys(path, "rule", data, REQUIRED, OPTIONAL)
    name = str(data["alert"])
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise RuleFileError(f"{path}: the alert is named {name!r}; allowed: kebab-case")
    if ("above" in data) == ("below" in data):
        raise RuleFileError(f"{path}: rule {name}: exactly one of `above` and `below` is needed")
    limits = _limits(path, name, data.get("above", data.get("below")), above="above" in data)
    low, high = _range(path, name, data["range"])
    minimum = int(data["min_samples"])
    if minimum < 1:
        raise RuleFileError(f"{path}: rule {name}: min_samples is {minimum}; allowed: at least 1")
    spec = CheckSpec(
        id=f"alert/{name}",
        claim=str(data["claim"]),
        cost=str(data["cost"]),
        severity=limits[0][0],
        where=Where.READ_ONLY,
        needs=("database",),
        covers=tuple(str(c) for c in data["covers"]),
    )
    return AlertRule(
        spec=spec,
        name=name,
        group=group,
        unit=str(data["unit"]),
        window=str(data["window"]),
        above="above" in data,
        limits=limits,
        low=low,
        high=high,
        min_samples=minimum,
        min_samples_tenant=int(data.get("min_samples_tenant", minimum)),
        stale_after_s=span_s(path, str(data["stale_after"])) if "stale_after" in data else None,
        for_s=span_s(path, str(data["for"])),
        runbook=str(data["runbook"]),
        query=expanded(path, str(data["query"]).strip()),
        source=str(data["query"]).strip(),
        path=path,
        allowed_bad=_share(path, name, data["allowed_bad"]) if "allowed_bad" in data else None,
        samples_window=str(data.get("samples_window", "")),
    )


def _limits(path: Path, name: str, data: Any, *, above: bool) -> tuple[tuple[Severity, float], ...]:
    if not isinstance(data, dict) or not data or not set(data) <= {s.value for s in Severity}:
        raise RuleFileError(f"{path}: rule {name}: limits are {data!r}; allowed: page, warn, investigate with numbers")
    limits = tuple((s, float(data[s.value])) for s in ORDER if s.value in data)
    numbers = [n for _, n in limits]
    if numbers != sorted(numbers, reverse=above):
        raise RuleFileError(f"{path}: rule {name}: a milder limit lies beyond a worse one: {data!r}. Swap them")
    return limits


def _range(path: Path, name: str, data: Any) -> tuple[float, float]:
    if not isinstance(data, list) or len(data) != 2 or not float(data[0]) < float(data[1]):
        raise RuleFileError(f"{path}: rule {name}: range is {data!r}; allowed: [lowest, highest] possible value")
    return float(data[0]), float(data[1])


def _share(path: Path, name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise RuleFileError(f"{path}: rule {name}: allowed_bad is {value!r}; allowed: a share between 0 and 1")
    return float(value)


def span_s(path: Path, text: str) -> int:
    """Seconds of `10 minutes` or `2m`."""
    match = SPAN.match(text)
    if not match:
        raise RuleFileError(f"{path}: {text!r} is no length of time; allowed: 30s, 2m, 10 minutes, 1 day")
    return int(match.group(1)) * SECONDS[match.group(2)[0]]


def _expanded(path: Path, query: str) -> str:
    try:
        return expand(query, (path.parent / "fragments", ALERTS / "fragments"))
    except FragmentError as error:
        raise RuleFileError(str(error)) from error
