"""JSON as the contract wants it: nothing is guessed, nothing is silently dropped.

Refused beside malformed text: a byte order mark, invalid UTF-8, duplicate keys, NaN and Infinity, U+0000,
lone surrogates, nesting over 64, and numbers that PostgreSQL or a double cannot hold.
"""

import json
import math
import re
from typing import Any

MAX_NESTING = 64
MAX_NUMBER_CHARS = 400
"""Longer literals are refused: Python's limit is 4,300 digits of an integer, PostgreSQL's 131,072 of a numeric."""

_BOM = b"\xef\xbb\xbf"
_STRUCTURE = re.compile(r'["\\\[\]{}]')
_BAD_TEXT = re.compile("[\x00\ud800-\udfff]")


class JsonRefused(ValueError):  # noqa: N818 - named after what happened to the text
    """The text is not acceptable JSON; the message says why and quotes nothing of it."""


def parse(raw: bytes) -> Any:
    """The value of the JSON text. Integers stay int; `10.0` and `1e1` are float. Raise JsonRefused."""
    if raw.startswith(_BOM):
        raise JsonRefused("must not start with a byte order mark")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise JsonRefused("must be valid UTF-8") from None
    _check_nesting(text)
    try:
        value = _DECODER.decode(text)
    except JsonRefused:
        raise
    except ValueError:
        raise JsonRefused("must be valid JSON") from None
    # Only an escape can still bring these characters in.
    if "\\u" in text:
        _check_strings(value)
    return value


def _check_nesting(text: str) -> None:
    """Refuse nesting over the limit before the parser recurses into it; linear in the length of the text."""
    if text.count("[") + text.count("{") <= MAX_NESTING:
        return
    depth, in_string, escaped_at = 0, False, -1
    for match in _STRUCTURE.finditer(text):
        char, at = match.group(), match.start()
        if in_string:
            if at == escaped_at:
                continue
            if char == "\\":
                escaped_at = at + 1
            elif char == '"':
                in_string = False
        elif char == '"':
            in_string = True
        elif char in "[{":
            depth += 1
            if depth > MAX_NESTING:
                raise JsonRefused(f"must not be nested deeper than {MAX_NESTING}")
        elif char in "]}":
            depth -= 1


def _check_strings(value: Any) -> None:
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            if _BAD_TEXT.search(item):
                raise JsonRefused("must not contain U+0000 or lone surrogates")
        elif isinstance(item, dict):
            pending += item.keys()
            pending += item.values()
        elif isinstance(item, list):
            pending += item


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise JsonRefused("must not repeat a key")
    return found


def _constant(_name: str) -> Any:
    raise JsonRefused("must not contain NaN or Infinity")


def _integer(literal: str) -> int:
    if len(literal) > MAX_NUMBER_CHARS:
        raise JsonRefused("must not contain a number of that length")
    return int(literal)


def _real(literal: str) -> float:
    value = float(literal)
    if len(literal) > MAX_NUMBER_CHARS or math.isinf(value):
        raise JsonRefused("must not contain a number of that size")
    exponent = literal.lower().partition("e")[2]
    if exponent and (len(exponent) > 5 or abs(int(exponent)) > MAX_NUMBER_CHARS):
        raise JsonRefused("must not contain a number of that size")
    return value


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_constant, parse_int=_integer, parse_float=_real, strict=True
)
