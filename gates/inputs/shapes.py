"""Shapes of configuration values: each reads a node strictly and describes itself as JSON Schema, so both agree."""

import datetime as dt
import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from gates.errors import ConfigError, all_of
from gates.evidence import JsonValue
from gates.inputs.strict_yaml import Place, YamlNode


class Shape(Protocol):
    """What a value must look like."""

    def read(self, node: YamlNode) -> Any: ...
    def schema(self) -> dict[str, JsonValue]: ...


@dataclass(frozen=True, slots=True)
class Text:
    """Visible text; `pattern` must match all of it, and `said` describes it."""

    pattern: str = r"[\s\S]*[^\s\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff][\s\S]*"
    said: str = "text that can be read"

    def read(self, node: YamlNode) -> str:
        if isinstance(node.value, str) and re.fullmatch(self.pattern, node.value):
            return node.value
        quotable = node.plain and not isinstance(node.value, str | list | dict) and node.value is not None
        hint = "Put it in quotes" if quotable else "Correct the value"
        raise node.place.error(f"{shown(node)}", self.said, hint)

    def schema(self) -> dict[str, JsonValue]:
        return {"type": "string", "pattern": f"^(?:{self.pattern})$", "description": self.said}


@dataclass(frozen=True, slots=True)
class Number:
    """A number within bounds, both inclusive; `whole` refuses fractions."""

    least: float
    most: float
    whole: bool = True

    def read(self, node: YamlNode) -> Any:
        value = node.value
        kinds: tuple[type, ...] = (int,) if self.whole else (int, float)
        if isinstance(value, kinds) and not isinstance(value, bool) and self.least <= value <= self.most:  # type: ignore[operator]
            return value
        kind = "a whole number" if self.whole else "a number"
        span = (
            f"{kind} from {self.least:g} to {self.most:g}" if self.least < self.most else f"the number {self.least:g}"
        )
        raise node.place.error(shown(node), span, "Correct the value")

    def schema(self) -> dict[str, JsonValue]:
        return {"type": "integer" if self.whole else "number", "minimum": self.least, "maximum": self.most}


@dataclass(frozen=True, slots=True)
class Boolean:
    """true or false, and no other word."""

    def read(self, node: YamlNode) -> bool:
        if isinstance(node.value, bool):
            return node.value
        raise node.place.error(shown(node), "true or false", "Write one of them, without quotes")

    def schema(self) -> dict[str, JsonValue]:
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words."""

    words: tuple[str, ...]

    def read(self, node: YamlNode) -> str:
        if isinstance(node.value, str) and node.value in self.words:
            return node.value
        raise node.place.error(shown(node), ", ".join(self.words), nearest(str(node.value), self.words))

    def schema(self) -> dict[str, JsonValue]:
        return {"enum": list(self.words)}


@dataclass(frozen=True, slots=True)
class Scalar:
    """Text that is not empty, or a whole number."""

    def read(self, node: YamlNode) -> str | int:
        if isinstance(node.value, str | int) and not isinstance(node.value, bool) and node.value != "":
            return node.value
        raise node.place.error(shown(node), "text or a whole number", "Correct the value")

    def schema(self) -> dict[str, JsonValue]:
        return {"type": ["string", "integer"]}


@dataclass(frozen=True, slots=True)
class Day:
    """A date, YYYY-MM-DD."""

    def read(self, node: YamlNode) -> dt.date:
        try:
            if isinstance(node.value, str) and re.fullmatch(r"\d{4}-\d{2}-\d{2}", node.value):
                return dt.date.fromisoformat(node.value)
        except ValueError:
            pass
        raise node.place.error(shown(node), "a day, YYYY-MM-DD", "Correct the date")

    def schema(self) -> dict[str, JsonValue]:
        return {"type": "string", "format": "date"}


@dataclass(frozen=True, slots=True)
class ListOf:
    item: Shape
    least: int = 0

    def read(self, node: YamlNode) -> tuple[Any, ...]:
        if not isinstance(node.value, list) or len(node.value) < self.least:
            allowed = f"a list of at least {self.least}" if self.least else "a list"
            raise node.place.error(shown(node), allowed, "Add to it" if node.value == [] else "Write it as a list")
        return tuple(all_of(partial(self.item.read, child) for child in node.value))

    def schema(self) -> dict[str, JsonValue]:
        return {"type": "array", "items": self.item.schema(), "minItems": self.least}


class MapMembers(tuple[tuple[YamlNode, str, Any], ...]):
    """What a mapping holds, as (node, name, value), in order."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class MapOf:
    """A mapping from names of one pattern to one shape."""

    item: Shape
    pattern: str = r".+"
    said: str = "a name"

    def read(self, node: YamlNode) -> MapMembers:
        if not isinstance(node.value, dict):
            raise node.place.error(shown(node), "a mapping", "Write `name: value` lines")
        return MapMembers(all_of(partial(self._member, name, *member) for name, member in node.value.items()))

    def _member(self, name: str, place: Place, child: YamlNode) -> tuple[YamlNode, str, Any]:
        if not re.fullmatch(self.pattern, name):
            raise place.error(repr(name), self.said, "Correct the name")
        return child, name, self.item.read(child)

    def schema(self) -> dict[str, JsonValue]:
        return {
            "type": "object",
            "patternProperties": {f"^(?:{self.pattern})$": self.item.schema()},
            "additionalProperties": False,
        }


@dataclass(frozen=True, slots=True)
class Fields:
    """A mapping with known members. Reads to a dict of the members that are there; `needed` ones must be."""

    members: Mapping[str, tuple[Shape, str]]
    needed: tuple[str, ...] = ()

    def read(self, node: YamlNode) -> dict[str, Any]:
        if not isinstance(node.value, dict):
            raise node.place.error(shown(node), "a mapping", f"Its members are: {', '.join(self.members)}")
        members = (partial(self._member, name, *member) for name, member in node.value.items())
        return dict(all_of(members, self._missing(node, node.value)))

    def _missing(self, node: YamlNode, given: Mapping[str, object]) -> Iterator[ConfigError]:
        missing = [repr(name) for name in self.needed if name not in given]
        if missing:
            said = f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
            yield node.place.error(said, f"a mapping with {', '.join(self.needed)}", "Add what is missing")

    def _member(self, name: str, place: Place, child: YamlNode) -> tuple[str, Any]:
        if name not in self.members:
            raise place.error(f"the unknown key {name!r}", ", ".join(self.members), nearest(name, self.members))
        return name, self.members[name][0].read(child)

    def schema(self) -> dict[str, JsonValue]:
        members: dict[str, JsonValue] = {
            name: {**shape.schema(), "description": said} for name, (shape, said) in self.members.items()
        }
        return {"type": "object", "properties": members, "required": list(self.needed), "additionalProperties": False}


@dataclass(frozen=True, slots=True)
class Anything:
    """A mapping that another reader parses: it stays a node."""

    def read(self, node: YamlNode) -> YamlNode:
        if isinstance(node.value, dict):
            return node
        raise node.place.error(shown(node), "a mapping", "Write `name: value` lines")

    def schema(self) -> dict[str, JsonValue]:
        return {"type": "object"}


@dataclass(frozen=True, slots=True)
class OneOf:
    """A value of one of several forms, told apart by what is written: a mapping, a list, nothing, or a plain value."""

    scalar: Shape | None = None
    mapping: Shape | None = None
    listing: Shape | None = None
    nothing: bool = False

    def read(self, node: YamlNode) -> Any:
        if node.value is None and self.nothing:
            return None
        meant = self.scalar
        if isinstance(node.value, dict):
            meant = self.mapping or meant
        elif isinstance(node.value, list):
            meant = self.listing or meant
        shape = meant or self.mapping or self.listing
        if shape is None:
            raise node.place.error(shown(node), "nothing", "Leave it empty")
        return shape.read(node)

    def schema(self) -> dict[str, JsonValue]:
        forms: list[JsonValue] = [s.schema() for s in (self.scalar, self.mapping, self.listing) if s is not None]
        return {"anyOf": [*forms, {"type": "null"}] if self.nothing else forms}


def nearest(word: str, words: Mapping[str, Any] | tuple[str, ...]) -> str:
    """What to do about a wrong word: the most similar right one, if there is one."""
    close = difflib.get_close_matches(word, list(words), 1, 0.5)
    return f"Did you mean {close[0]!r}?" if close else "Remove or correct it"


def nearest_id(word: str, ids: tuple[str, ...]) -> str:
    """`nearest`, but for a word that is part of several ids, their pattern."""
    having = [i for i in ids if word in i]
    return f"Did you mean '*{word}*'?" if word and len(having) > 1 else nearest(word, tuple(having) or ids)


def shown(node: YamlNode) -> str:
    """A value as an error message shows it."""
    if isinstance(node.value, dict):
        return "a mapping"
    if isinstance(node.value, list):
        return f"a list of {len(node.value)}" if node.value else "an empty list"
    return "nothing" if node.value is None else repr(node.value)
