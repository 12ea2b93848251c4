"""Building blocks of the draft of gate.yaml: values, comments and guesses on a line of YAML. Pure."""

import re
from collections.abc import Iterable, Iterator, Sequence

from gates.doctor.comparison.compare import ComparedObject
from gates.text import characters

MOST_COMMENT = 150
_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*")
_WORDS_OF_YAML = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})

Lines = Iterator[str]


def titled(title: str, lines: Sequence[str]) -> list[str]:
    """The title of a mapping, unless all of its lines are comments: a title alone is no mapping."""
    return [title] if any(not line.lstrip().startswith("#") for line in lines) else []


def scalar(text: str) -> str:
    """A value of YAML on one line, whatever it holds."""
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS_OF_YAML:
        return text
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    """A character within double quotes; anything but plain ASCII is escaped, so that it is visible."""
    if " " <= character <= "~":
        return f"\\{character}" if character in '"\\' else character
    point = ord(character)
    return f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"


def comment(*parts: str) -> str:
    """A comment at the end of a line; nothing in it ends the line."""
    said = characters.one_line(characters.line("; ".join(p for p in parts if p)), MOST_COMMENT)
    return f"  # {said}" if said else ""


def guess(one: ComparedObject) -> str:
    """How sure a guess is, why, and what else it could be."""
    sure = one.confidence.word if one.confidence else ""
    return comment(f"{sure}: {one.detail}" if one.detail else sure, alternatives(one.alternatives))


def alternatives(others: Iterable[str]) -> str:
    """What else a guess could be."""
    listed = [*others]
    return f"or {', '.join(listed)}" if listed else ""
