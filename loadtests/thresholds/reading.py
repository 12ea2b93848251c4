"""Reads nodes of a file (JavaScript, JSON or YAML) into values, and says file:line:column where that fails."""

import difflib
import re
from collections.abc import Iterable

import yaml

from loadtests.thresholds.language import ThresholdError, parse_duration_ns
from loadtests.thresholds.literal import LiteralError, LiteralNode, Members, read_literal

NS = 1_000_000_000
LONGEST_S = 604_800.0
"""A week."""


class ThresholdsFileError(ThresholdError):
    """A file that cannot be used; the text begins with file:line:column."""


def read_nodes(text: str, name: str) -> LiteralNode:
    """The nodes of a text; `.yaml` and `.yml` are YAML, all else JavaScript or JSON. Raise ThresholdsFileError."""
    try:
        return _read_yaml(text) if name.endswith((".yaml", ".yml")) else read_literal(text)
    except LiteralError as error:
        raise ThresholdsFileError(f"{name}:{error.line}:{error.column}: {error.message}") from error


class Reader:
    """Turns nodes into values, with the file's name for its messages."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.notes: list[str] = []

    def error(self, node: LiteralNode, message: str) -> ThresholdsFileError:
        return ThresholdsFileError(f"{self.name}:{node.line}:{node.column}: {message}")

    def note(self, node: LiteralNode, message: str) -> None:
        self.notes.append(f"{self.name}:{node.line}: {message}")

    def members(self, node: LiteralNode, what: str) -> dict[str, tuple[LiteralNode, LiteralNode]]:
        if not isinstance(node.value, Members):
            raise self.error(node, f"{what} must be an object of keys and values")
        return node.value.items

    def given(self, node: LiteralNode, what: str, known: Iterable[str]) -> dict[str, LiteralNode]:
        """The members that are not null, of which only some may be there."""
        found = {}
        for key, (at, value) in self.members(node, what).items():
            self.known(at, key, known)
            if value.value is not None:
                found[key] = value
        return found

    def known(self, at: LiteralNode, key: str, allowed: Iterable[str]) -> None:
        names = list(allowed)
        if key not in names:
            raise self.error(at, f"unknown key {key!r}; {nearest(key, names)}")

    def boolean(self, node: LiteralNode) -> bool:
        if not isinstance(node.value, bool):
            raise self.error(node, "true or false was expected")
        return node.value

    def text(self, node: LiteralNode) -> str:
        if not isinstance(node.value, str):
            raise self.error(node, "a text was expected")
        return node.value

    def listed(self, node: LiteralNode, example: str) -> list[LiteralNode]:
        if not isinstance(node.value, list):
            raise self.error(node, f"a list was expected, as in {example}")
        return node.value

    def whole(self, node: LiteralNode, least: int = 0) -> int:
        """A whole number, also one in quotes, as k6 reads both."""
        number = node.value
        if isinstance(number, str) and _QUOTED_NUMBER.fullmatch(number):
            number = float(number)
        if isinstance(number, float) and least <= number < 2**53 and number.is_integer():
            return int(number)
        raise self.error(node, f"a whole number of {least} or more was expected")

    def duration_ns(self, node: LiteralNode) -> int:
        if isinstance(node.value, bool) or not isinstance(node.value, str | int | float):
            raise self.error(node, "a duration was expected: milliseconds, or text like 10s")
        try:
            return parse_duration_ns(node.value)
        except ThresholdError as error:
            raise self.error(node, str(error)) from error

    def seconds(self, node: LiteralNode, least: float = 0.0) -> float:
        """A duration that something is to take: at most a week."""
        found = self.duration_ns(node) / NS
        if not least <= found <= LONGEST_S:
            raise self.error(node, f"a duration of {least:g} s to a week was expected, not {found:g} s")
        return found


_QUOTED_NUMBER = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)
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


def nearest(word: str, words: Iterable[str]) -> str:
    return f"the nearest known one is {difflib.get_close_matches(word, list(words), n=1, cutoff=0.0)[0]!r}"
