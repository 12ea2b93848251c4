"""Reads a thresholds file (k6 options as JavaScript, JSON or YAML) into thresholds and a load shape.

Every error says file:line:column. Unknown and duplicate keys are errors; a typo must not switch a threshold off.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from loadtests.thresholds.language import (
    Expression,
    MetricKey,
    MetricType,
    Threshold,
    ThresholdError,
    ThresholdSet,
    lint,
    parse_duration_ns,
    parse_expression,
    parse_metric_key,
)
from loadtests.thresholds.literal import LiteralError, LiteralNode, Members, read_literal

OPTIONS = ("thresholds", "stages", "vus", "duration")
IGNORED_OPTIONS = ("summaryTrendStats", "tags", "systemTags", "userAgent", "discardResponseBodies", "noUsageReport")
"""Options of k6 that change nothing about the verdict here; reading them leaves a note."""

NS = 1_000_000_000


class ThresholdsFileError(ThresholdError):
    """A thresholds file that cannot be used; the text begins with file:line:column."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Go from the users before to `target` users in `duration_s` seconds, in a straight line."""

    duration_s: float
    target: int


@dataclass(frozen=True, slots=True)
class ThresholdsFile:
    """What a file asks for. `notes` are sentences a person should read: lints and options without effect here."""

    thresholds: ThresholdSet
    stages: tuple[Stage, ...] = ()
    vus: int | None = None
    duration_s: float | None = None
    notes: tuple[str, ...] = field(default=())


def read_thresholds(path: Path, types: Mapping[str, MetricType]) -> ThresholdsFile:
    """Read a file; `.yaml` and `.yml` are YAML, all else JavaScript or JSON. Raise ThresholdsFileError or OSError."""
    return parse_thresholds(path.read_text(encoding="utf-8"), path.name, types)


def parse_thresholds(text: str, name: str, types: Mapping[str, MetricType]) -> ThresholdsFile:
    """Read the text of a thresholds file called `name`. Raise ThresholdsFileError."""
    try:
        root = _read_yaml(text) if name.endswith((".yaml", ".yml")) else read_literal(text)
    except LiteralError as error:
        raise ThresholdsFileError(f"{name}:{error.line}:{error.column}: {error.message}") from error
    return _Builder(name, types).build(root)


class _Builder:
    """Turns nodes into values, with the file's name for its messages."""

    def __init__(self, name: str, types: Mapping[str, MetricType]) -> None:
        self.name = name
        self.types = types
        self.notes: list[str] = []

    def error(self, node: LiteralNode, message: str) -> ThresholdsFileError:
        return ThresholdsFileError(f"{self.name}:{node.line}:{node.column}: {message}")

    def build(self, root: LiteralNode) -> ThresholdsFile:
        options = self.members(root, "the file")
        if not options or not any(key in {*OPTIONS, *IGNORED_OPTIONS} for key in options):
            thresholds = self.thresholds(root)
            return ThresholdsFile(thresholds, notes=tuple(self.notes))
        for key, (at, _) in options.items():
            self.known(at, key, (*OPTIONS, *IGNORED_OPTIONS))
            if key in IGNORED_OPTIONS:
                self.notes.append(f"{self.name}:{at.line}: option {key!r} has no effect here")
        if "thresholds" not in options:
            raise self.error(root, "there is no thresholds block; without a threshold nothing can be judged")
        return ThresholdsFile(
            thresholds=self.thresholds(options["thresholds"][1]),
            stages=self.stages(options["stages"][1]) if "stages" in options else (),
            vus=self.whole(options["vus"][1]) if "vus" in options else None,
            duration_s=self.duration(options["duration"][1]) / NS if "duration" in options else None,
            notes=tuple(self.notes),
        )

    def members(self, node: LiteralNode, what: str) -> dict[str, tuple[LiteralNode, LiteralNode]]:
        if not isinstance(node.value, Members):
            raise self.error(node, f"{what} must be an object of keys and values")
        return node.value.items

    def known(self, at: LiteralNode, key: str, allowed: Iterable[str]) -> None:
        names = list(allowed)
        if key not in names:
            raise self.error(at, f"unknown key {key!r}; {_nearest(key, names)}")

    def thresholds(self, node: LiteralNode) -> ThresholdSet:
        found: dict[MetricKey, tuple[Threshold, ...]] = {}
        for source, (at, value) in self.members(node, "thresholds").items():
            key = self.metric(at, source)
            if not isinstance(value.value, list):
                raise self.error(value, f"the thresholds of {source!r} must be a list, as in ['p(95)<2500']")
            if key in found:
                self.notes.append(f"{self.name}:{at.line}: {source!r} names {key} again; both lists count")
            found[key] = (*found.get(key, ()), *(self.threshold(key, one) for one in value.value))
        if not any(found.values()):
            raise self.error(node, "there is no threshold; without one nothing can be judged")
        return ThresholdSet(found)

    def metric(self, at: LiteralNode, source: str) -> MetricKey:
        try:
            key = parse_metric_key(source)
        except ThresholdError as error:
            raise self.error(at, str(error)) from error
        if key.name not in self.types:
            raise self.error(at, f"metric {key.name!r} does not exist; {_nearest(key.name, self.types)}")
        return key

    def threshold(self, key: MetricKey, node: LiteralNode) -> Threshold:
        if isinstance(node.value, str):
            return self.checked(key, Threshold(self.expression(key, node)), node)
        members = self.members(node, "a threshold (if it is not a string)")
        by_name = {name.lower(): pair for name, pair in members.items()}
        for name, (at, _) in members.items():
            if name.lower() not in {"threshold", "abortonfail", "delayaborteval"}:
                self.known(at, name, ("threshold", "abortOnFail", "delayAbortEval"))
        if "threshold" not in by_name:
            raise self.error(node, "the member 'threshold' is missing; it holds the expression")
        delay = by_name.get("delayaborteval")
        return self.checked(
            key,
            Threshold(
                self.expression(key, by_name["threshold"][1]),
                abort_on_fail="abortonfail" in by_name and self.boolean(by_name["abortonfail"][1]),
                delay_abort_ns=self.duration(delay[1]) if delay and delay[1].value is not None else None,
            ),
            node,
        )

    def checked(self, key: MetricKey, threshold: Threshold, node: LiteralNode) -> Threshold:
        try:
            ThresholdSet({key: (threshold,)}).validate(self.types)
        except ThresholdError as error:
            raise self.error(node, str(error)) from error
        self.notes += [f"{self.name}:{node.line}:{node.column}: {note}" for note in lint(key, threshold)]
        return threshold

    def expression(self, key: MetricKey, node: LiteralNode) -> Expression:
        if not isinstance(node.value, str):
            raise self.error(node, f"a threshold of {key} must be a string, as in 'p(95)<2500'")
        try:
            return parse_expression(node.value)
        except ThresholdError as error:
            raise self.error(node, str(error)) from error

    def boolean(self, node: LiteralNode) -> bool:
        if not isinstance(node.value, bool):
            raise self.error(node, "true or false was expected")
        return node.value

    def whole(self, node: LiteralNode) -> int:
        number = node.value
        if isinstance(number, bool) or not isinstance(number, int | float) or number != int(number) or number < 0:
            raise self.error(node, "a whole number, zero or more, was expected")
        return int(number)

    def duration(self, node: LiteralNode) -> int:
        if isinstance(node.value, bool) or not isinstance(node.value, str | int | float):
            raise self.error(node, "a duration was expected: milliseconds, or text like 10s")
        try:
            return parse_duration_ns(node.value)
        except ThresholdError as error:
            raise self.error(node, str(error)) from error

    def stages(self, node: LiteralNode) -> tuple[Stage, ...]:
        if not isinstance(node.value, list):
            raise self.error(node, "stages must be a list, as in [{duration: '30s', target: 10}]")
        return tuple(self.stage(one) for one in node.value)

    def stage(self, node: LiteralNode) -> Stage:
        members = self.members(node, "a stage")
        for name, (at, _) in members.items():
            self.known(at, name, ("duration", "target"))
        if len(members) < 2:
            raise self.error(node, "a stage needs both 'duration' and 'target'")
        return Stage(self.duration(members["duration"][1]) / NS, self.whole(members["target"][1]))


_PLAIN_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?", re.ASCII)


def _read_yaml(text: str) -> LiteralNode:
    """The same nodes from YAML. All but true, false, null and plain decimals are strings; aliases are refused."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise LiteralError(
            f"no valid YAML: {error.problem}", mark.line + 1 if mark else 1, mark.column + 1 if mark else 1
        ) from error
    except yaml.YAMLError as error:
        raise LiteralError(f"no valid YAML: {error}", 1, 1) from error
    if root is None:
        raise LiteralError("the file is empty; without a threshold nothing can be judged", 1, 1)
    return _from_yaml(root, set())


def _from_yaml(node: yaml.Node, seen: set[int]) -> LiteralNode:
    line, column = node.start_mark.line + 1, node.start_mark.column + 1
    if id(node) in seen:
        raise LiteralError("anchors and aliases are not read; write the value out", line, column)
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        members = Members()
        for key_node, value_node in node.value:
            key = LiteralNode(str(key_node.value), key_node.start_mark.line + 1, key_node.start_mark.column + 1)
            if str(key.value) in members.items:
                first = members.items[str(key.value)][0]
                raise LiteralError(
                    f"key {key.value!r} is given twice (first on line {first.line}); keep one", key.line, key.column
                )
            members.items[str(key.value)] = (key, _from_yaml(value_node, seen))
        return LiteralNode(members, line, column)
    if isinstance(node, yaml.SequenceNode):
        return LiteralNode([_from_yaml(one, seen) for one in node.value], line, column)
    plain = isinstance(node, yaml.ScalarNode) and node.style is None
    return LiteralNode(_yaml_scalar(str(node.value), plain=plain), line, column)


def _yaml_scalar(text: str, *, plain: bool) -> bool | float | str | None:
    if plain and text in {"true", "false"}:
        return text == "true"
    if plain and text in {"null", "~", ""}:
        return None
    return float(text) if plain and _PLAIN_NUMBER.fullmatch(text) else text


def _nearest(word: str, words: Iterable[str]) -> str:
    return f"the nearest known one is {difflib.get_close_matches(word, list(words), n=1, cutoff=0.0)[0]!r}"
