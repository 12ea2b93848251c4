"""Reads foreign values: text, numbers and documents chosen by a target, a database or a server.

They are read with `json_value`, `number`, `whole` and `count`, and written with `plain`. Nothing here raises on any
value, and the results are safe: text of bounded length without NUL and lone surrogates, finite numbers, documents of
bounded depth and size. Standard library only, so that evidence can use it.
"""

import json
import math
import re
import reprlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]

MOST_TEXT = 4_000
"""The most characters of one written text. A cut text ends with its full length."""
MOST_DEPTH = 16
MOST_PARTS, MOST_TEXTS = 20_000, 1_000_000
"""The most members and items of one written value, and the most characters of its texts and names together: no value
alone may make a file of evidence too large to be read again.
"""
MOST_DEPTH_READ = 64
"""The deepest nesting of a document that is read: the contract allows no more in requests, either."""
MOST_MARKS_READ = 300_000
"""The most commas, colons and brackets of a document that is read, which bound its memory: the largest /openapi.json in
use have a third of it.
"""
MOST_MARKS_OWN = 3_000_000
"""The same for a document written by a gate, two hundred times the largest: somebody else may have replaced it."""
MOST_BITS = 64
"""Larger whole numbers fit no column and no counter of the contract; Python refuses to print the longest."""

_UNSAFE = re.compile("[\x00\ud800-\udfff]")

_BEFORE_CUT: list[Callable[[str], str]] = [str]
BEYOND_CUT = 4_000
"""How many characters behind a cut are searched for what must not be cut in two."""


def before_cut(change: Callable[[str], str]) -> None:
    """Apply `change` to every text before it is cut: what it would find must not be cut in two first."""
    _BEFORE_CUT[:] = [change]


def text(value: object, most: int = MOST_TEXT) -> str:
    """The value as text of at most `most` characters; NUL and lone surrogates are escaped."""
    if isinstance(value, bytes | bytearray | memoryview):
        value = bytes(value).decode("utf-8", "replace")
    elif isinstance(value, int) and value.bit_length() > MOST_BITS:
        return f"a whole number of {value.bit_length()} bits"
    elif not isinstance(value, str):
        value = _said(value)
    is_long, kept = len(value) > most, value
    if is_long:
        kept = _BEFORE_CUT[0](value[: most + BEYOND_CUT])[: most + 1]
    safe = _UNSAFE.sub(lambda found: f"\\u{ord(found.group()):04x}", kept)
    if len(safe) <= most and not is_long:
        return safe
    mark = f"… [{len(value)} characters in all]"
    return safe[: max(0, most - len(mark))] + mark


def _said(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001  -- a value that has no text must not end the gate
        return f"<{type(value).__name__}>"


def number(value: object) -> float | None:
    """The value, or its text, as a finite number; None for anything else."""
    if value is None or isinstance(value, bool):
        return None
    try:
        found = float(value if isinstance(value, int | float) else _said(value))
    except (ValueError, OverflowError, TypeError):
        return None
    return found if math.isfinite(found) else None


def whole(value: object) -> int | None:
    """The whole number of a value, within 64 bits; None for anything else: 12.5, text, true, NaN."""
    is_whole = isinstance(value, int) and not isinstance(value, bool) and value.bit_length() <= MOST_BITS
    return int(value) if is_whole else None  # type: ignore[call-overload]


def count(value: object) -> int:
    """The count of a value, in any spelling of a whole number within 64 bits; 0 for anything else."""
    said = text(value, 30)
    return int(said) if said.isascii() and said.isdecimal() and int(said).bit_length() <= MOST_BITS else 0


class _Beyond(Exception):  # noqa: N818  -- a limit was reached; never leaves this module
    """The value is deeper or larger than the limits."""


def plain(
    value: object, change: Callable[[str], str] = str, change_name: Callable[[str], str] | None = None
) -> JsonValue:
    """The value as bounded JSON; a value beyond the limits becomes its first characters.

    `change` is applied to text, `change_name` to names of members. plain(plain(x)) == plain(x): a value in memory
    equals the value read back from disk.
    """
    if value is None or isinstance(value, str | int | float):  # most values: no walk needed
        return _scalar(value, change)
    parts, characters = MOST_PARTS, MOST_TEXTS

    def counted(written: JsonValue) -> JsonValue:
        nonlocal characters
        characters -= len(written) if isinstance(written, str) else 0
        if characters < 0:
            raise _Beyond
        return written

    def walk(one: object, depth: int) -> JsonValue:
        nonlocal parts
        parts -= 1
        if parts < 0 or depth > MOST_DEPTH:
            raise _Beyond
        if isinstance(one, Mapping):
            return {str(counted(text((change_name or change)(_said(k))))): walk(v, depth + 1) for k, v in one.items()}
        if isinstance(one, list | tuple | set | frozenset):
            return [walk(v, depth + 1) for v in one]
        return counted(_scalar(one, change))

    try:
        return walk(value, 0)
    except (_Beyond, RecursionError):
        return text(f"too large to keep whole: {change(_beginning(value))}")


def _scalar(value: object, change: Callable[[str], str]) -> JsonValue:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, int) and value.bit_length() <= MOST_BITS:
        return value
    return text(change(value if isinstance(value, str) else text(value)))


def _beginning(value: object) -> str:
    shown = reprlib.Repr()
    shown.maxlevel, shown.maxdict, shown.maxlist, shown.maxstring, shown.maxother = 4, 20, 20, 400, 400
    try:
        return shown.repr(value)
    except Exception:  # noqa: BLE001  -- as in _said
        return f"<{type(value).__name__}>"


def json_value(body: bytes | str, most_marks: int = MOST_MARKS_READ) -> JsonValue:
    """The JSON document (RFC 8259), made safe; None if the text is not JSON, repeats a member's name, or has too many
    marks. A number beyond a double or 64 bits becomes its text, so that nothing compares it as a number.
    """
    try:
        source = body.decode("utf-8-sig") if isinstance(body, bytes) else body
        if sum(map(source.count, ",:[{")) > most_marks:
            return None
        found: JsonValue = _DECODER.decode(source)
    except (ValueError, RecursionError):
        return None
    if _is_deep(found):
        return None
    return _unescaped(found) if "\\u" in source else found


def json_object(body: bytes | str) -> dict[str, Any]:
    """The document as an object; empty if it is not one."""
    found = json_value(body)
    return found if isinstance(found, dict) else {}


def _is_deep(document: JsonValue) -> bool:
    level = [document]
    for _ in range(MOST_DEPTH_READ + 1):
        level = [part for one in level if isinstance(one, list | dict) for part in _parts(one)]
        if not level:
            return False
    return True


def _parts(one: list[JsonValue] | dict[str, JsonValue]) -> Iterable[JsonValue]:
    return one.values() if isinstance(one, dict) else one


def _no_twins(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("two members of one name")
    return members


def _whole_or_text(digits: str) -> int | str:
    return int(digits) if len(digits) <= 20 and int(digits).bit_length() <= MOST_BITS else text(digits)


def _real_or_text(digits: str) -> float | str:
    found = float(digits)
    return found if math.isfinite(found) else text(digits)


def _no_constant(name: str) -> JsonValue:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_no_twins, parse_int=_whole_or_text, parse_float=_real_or_text, parse_constant=_no_constant
)


def _unescaped(value: JsonValue) -> JsonValue:
    """The value without NUL and lone surrogates, which a document can contain as escapes."""
    if isinstance(value, str):
        return text(value, len(value) + 6 * len(_UNSAFE.findall(value)))
    if isinstance(value, list):
        return [_unescaped(one) for one in value]
    if isinstance(value, dict):
        return {str(_unescaped(name)): _unescaped(one) for name, one in value.items()}
    return value
