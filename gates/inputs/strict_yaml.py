"""YAML read strictly, with the place of every value: no duplicate keys, no surprising plain words.

PyYAML lets the last of two equal keys win, reads `1e3` as text and `1:30` as ninety. Here a plain scalar is `true`,
`false`, `null`, a decimal number, or text; anchors, tags and merge keys are refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml

from gates.errors import ConfigError
from gates.text import foreign

Scalar = None | bool | int | float | str

_WHOLE = re.compile(r"-?(0|[1-9][0-9]*)\Z")
_REAL = re.compile(r"-?(0|[1-9][0-9]*)\.[0-9]+\Z")
MOST_DEPTH = 32
MOST_QUOTED = 400
MOST_DIGITS = 40
MOST_VALUES = 20_000
"""The most nodes: each takes time, and a rollback waits for them. A rule and a waiver for every check are fewer."""
_UNSEEN = re.compile(r"[\r\v\f\x85\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Ends of a line, and of its direction, that parsers obey and readers do not see: a comment may hide a waiver."""
_UNWRITABLE = re.compile("[\0\ud800-\udfff]")
"""A character that no file name, variable or UTF-8 file can hold."""
_WORDS: dict[str, Scalar] = {"true": True, "false": False, "null": None, "": None}


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands: file, line and column, both from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"

    def error(self, observed: str, allowed: str, do: str) -> ConfigError:
        """The error with its four parts; of a long value it quotes the beginning."""
        return ConfigError(f"{self}: {foreign.text(observed, MOST_QUOTED)}; allowed: {allowed}. {do}")


@dataclass(frozen=True, slots=True)
class YamlNode:
    """One value: a scalar, a list of nodes, or a mapping of name -> (place of the name, node). `plain`: not quoted."""

    place: Place
    value: Scalar | list[YamlNode] | dict[str, tuple[Place, YamlNode]]
    plain: bool = True

    def member(self, name: str) -> YamlNode | None:
        """The member of that name, if this is a mapping that has it."""
        return self.value[name][1] if isinstance(self.value, dict) and name in self.value else None

    def place_of(self, *path: str) -> Place:
        """The place of a member, or of the nearest one around it."""
        node = self
        for name in path:
            node = node.member(name) or node
        return node.place

    def items(self) -> list[YamlNode]:
        return self.value if isinstance(self.value, list) else []

    def as_value(self) -> Any:
        """The value without its places."""
        if isinstance(self.value, dict):
            return {name: member.as_value() for name, (_, member) in self.value.items()}
        return [item.as_value() for item in self.value] if isinstance(self.value, list) else self.value


def unseen(text: str, file: str) -> ConfigError | None:
    """The error for the first end of a line, or of its direction, that editors do not show; None without one."""
    if found := _UNSEEN.search(text):
        before = text[: found.start()].split("\n")
        observed = f"{found.group()!a}, which editors do not show"
        return Place(file, len(before), len(before[-1]) + 1).error(observed, "line feeds", "Remove it")
    return None


def read(text: str, file: str) -> YamlNode:
    """The document as nodes. Raise ConfigError with file, line and column for anything that is not strict YAML."""
    if wrong := unseen(text, file):
        raise wrong
    try:
        root = _Strict(text).get_single_node()
        found = None if root is None else _node(root, file)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(file, mark.line + 1 if mark else 1, mark.column + 1 if mark else 1)
        raise place.error(error.problem or str(error), "plain YAML", "Correct the text there") from None
    except yaml.reader.ReaderError as error:
        before = text[: error.position].split("\n")
        place = Place(file, len(before), len(before[-1]) + 1)
        raise place.error("a character that YAML does not allow", "text", "Remove it") from None
    except (ValueError, ArithmeticError, LookupError, TypeError, RecursionError, MemoryError) as error:  # PyYAML's own
        said = f"it cannot be read ({type(error).__name__})"
        raise Place(file, 1, 1).error(said, "one YAML document", "Correct the text") from None
    if found is None:
        raise Place(file, 1, 1).error("the file is empty", "a mapping", "Begin with `version: 1`")
    return found


class _Strict(yaml.SafeLoader):
    """Composes nodes, and refuses anchors, aliases, tags, deep nesting and large documents."""

    depth = values = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.MarkedYAMLError(problem="an anchor or alias (& or *)", problem_mark=event.start_mark)
        if getattr(event, "tag", None):
            raise yaml.MarkedYAMLError(problem=f"the tag {event.tag}", problem_mark=event.start_mark)
        if self.depth >= MOST_DEPTH:
            problem = f"more than {MOST_DEPTH} values within each other"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        self.values += 1
        if self.values > MOST_VALUES:
            raise yaml.MarkedYAMLError(problem=f"more than {MOST_VALUES} values", problem_mark=event.start_mark)
        if _UNWRITABLE.search(getattr(event, "value", None) or ""):
            raise yaml.MarkedYAMLError(problem="NUL, or half a surrogate pair", problem_mark=event.start_mark)
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


def _node(node: yaml.Node, file: str) -> YamlNode:
    place = _place(node, file)
    if isinstance(node, yaml.ScalarNode):
        if node.style is not None:
            return YamlNode(place, str(node.value), plain=False)
        if len(node.value) > MOST_DIGITS and (_WHOLE.match(node.value) or _REAL.match(node.value)):
            observed = f"a number of {len(node.value)} characters"
            raise place.error(observed, f"at most {MOST_DIGITS}", "Shorten it, or put text in quotes")
        return YamlNode(place, _scalar(node.value))
    if isinstance(node, yaml.SequenceNode):
        return YamlNode(place, [_node(child, file) for child in node.value])
    members: dict[str, tuple[Place, YamlNode]] = {}
    for key, child in node.value:
        where = _place(key, file)
        if not isinstance(key, yaml.ScalarNode) or key.value == "<<":
            raise where.error("a key that is no name", "names", "Write a plain name")
        if key.value in members:
            first = members[key.value][0]
            raise where.error(
                f"{key.value!r} again (first on line {first.line})", "each key once", "Remove one of them"
            )
        members[str(key.value)] = (where, _node(child, file))
    return YamlNode(place, members)


def _place(node: yaml.Node, file: str) -> Place:
    return Place(file, node.start_mark.line + 1, node.start_mark.column + 1)


def _scalar(text: str) -> Scalar:
    if text in _WORDS:
        return _WORDS[text]
    if _WHOLE.match(text):
        return int(text)
    if _REAL.match(text):
        return float(text)
    return text
