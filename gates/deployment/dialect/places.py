"""Where a member of a request travels: path, query or header if `names.http.fields` says so by `place:name`, else body.

Outside a body everything is text. A value that text would turn into another one cannot be sent, and is never sent as
another request. The last functions read and write members of an answer or of claims by a path with dots.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from gates.contract.names import parts_of
from gates.contract.places import BLANK, PLACES, SCALARS, blanks, places_of

OF_A_PATH = "#"
"""Separates a path of the contract from a member that only some deployments have in it. No request line contains it."""
TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s"{}\[\]:,]+|\s+|"', re.DOTALL)
_LITERAL = {"boolean": re.compile(r"true|false"), "integer": re.compile(r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?")}


class AbsentMember(ValueError):  # noqa: N818  -- as AbsentColumn: an observation
    """A body has a member that the deployment lacks, or not in this form, as `names.http.fields` says."""


def pattern_of(path: str) -> str:
    """A pattern for a real path, with anything in its braces."""
    return "[^/?#]+".join(re.escape(part) for part in BLANK.split(path)[::2])


@dataclass(frozen=True, slots=True)
class MemberPlaces:
    """Member -> its name in each place, for those outside the body."""

    path: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    header: Mapping[str, str] = field(default_factory=dict)
    answer: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> MemberPlaces:
        """The places of all spellings of all members; the first of each kind counts."""
        found: dict[str, dict[str, str]] = {place: {} for place in PLACES}
        for member, spellings in places_of(fields).items():
            for place, name in spellings:
                if place in found:
                    found[place].setdefault(member, name)
        return cls(**found)

    def outside(self, real: str) -> frozenset[str]:
        """The members outside the body in a request to this real path."""
        in_path = {m for m, name in self.path.items() if name in blanks(real)}
        return frozenset(in_path | self.query.keys() | self.header.keys())

    def filled(self, real: str, values: Mapping[str, str], nobody: Callable[[str], str]) -> str:
        """The path with its braces filled in; a value that is not given becomes an id that nobody has."""
        member = {name: m for m, name in self.path.items()}

        def value(found: re.Match[str]) -> str:
            ours = member[found[1]]
            return quote(values[ours] if ours in values else nobody(ours), safe="")

        return BLANK.sub(value, real)

    def asked(self, path: str, values: Mapping[str, str]) -> str:
        told = [f"{quote(name, safe='')}={quote(values[m], safe='')}" for m, name in self.query.items() if m in values]
        return path + ("&" if "?" in path else "?") * bool(told) + "&".join(told)

    def headers(self, values: Mapping[str, str]) -> list[tuple[str, str]]:
        found = [(name, values[m]) for m, name in self.header.items() if m in values]
        for name, value in found:
            if value != value.strip() or not value.isprintable():
                raise AbsentMember(f"{value[:40]!r} cannot stand in the header {name}; this check sends it")
        return found


def parted(body: bytes, outside: Iterable[str]) -> tuple[bytes, dict[str, bytes]]:
    """The body without these members, otherwise byte for byte, and their values as JSON. Raise AbsentMember if one
    occurs twice, or is no single value.
    """
    wanted = frozenset(outside)
    if not wanted or not any(f'"{m}"'.encode() in body for m in wanted):
        return body, {}
    tokens: list[bytes] = TOKEN.findall(body)
    kept, values, depth, at = list[bytes](), dict[str, bytes](), 0, 0
    while at < len(tokens):
        token = tokens[at]
        depth += {b"{": 1, b"[": 1, b"}": -1, b"]": -1}.get(token, 0)
        colon = _solid(tokens, at)
        member = text_of(token) if depth == 1 and token[:1] == b'"' and _is(tokens, colon, b":") else ""
        if member not in wanted:
            kept.append(token)
            at += 1
            continue
        value = _solid(tokens, colon)
        if member in values or value >= len(tokens) or tokens[value] in {b"{", b"[", b","}:
            raise AbsentMember(f"{member} is no single value of text where it travels here; this check sends it so")
        values[member] = tokens[value]
        after = _solid(tokens, value)
        if _is(tokens, after, b","):
            at = after + 1
        else:  # the last one: remove the comma before it
            at = value + 1
            while kept and (kept[-1].isspace() or kept[-1] == b","):
                kept.pop()
    return b"".join(kept), values


def folded(body: bytes, inner: frozenset[str]) -> bytes:
    """The body with these members, called `outer.name`, moved into the objects that they name; otherwise unchanged. A
    body that is no object stays: it is refused in any form.
    """
    if not inner or not any(f'"{name}"'.encode() in body for name in inner):
        return body
    tokens: list[bytes] = TOKEN.findall(body)
    start = _solid(tokens, -1)
    if not _is(tokens, start, b"{"):
        return body
    members, depth, first = list[tuple[list[str], bytes]](), 0, start + 1
    for at in range(start, len(tokens)):
        depth += {b"{": 1, b"[": 1, b"}": -1, b"]": -1}.get(tokens[at], 0)
        if (depth == 1 and tokens[at] == b",") or depth == 0:
            key = _solid(tokens, first - 1)
            colon = _solid(tokens, key)
            if not _is(tokens, colon, b":") or tokens[key][:1] != b'"':
                return body
            name, value = text_of(tokens[key]), b"".join(tokens[colon + 1 : at])
            members.append((name.split("."), value) if name in inner else ([], tokens[key] + b":" + value))
            first = at + 1
        if depth == 0:
            return b"".join(tokens[:start]) + _object(members) + b"".join(tokens[at + 1 :])
    return body


def _object(members: list[tuple[list[str], bytes]]) -> bytes:
    """An object of members, each at its path; those without a path are whole, name and value."""
    parts, inside = list[bytes](), dict[str, list[tuple[list[str], bytes]]]()
    for path, value in members:
        if len(path) > 1:
            inside.setdefault(path[0], []).append((path[1:], value))
        else:
            parts.append(b"".join(json.dumps(name).encode() + b":" for name in path) + value)
    parts += [json.dumps(name).encode() + b":" + _object(its) for name, its in inside.items()]
    return b"{" + b",".join(parts) + b"}"


def as_text(member: str, said: bytes, real: bytes) -> str:
    """A JSON value as text. Raise AbsentMember if the text would mean another value, as "10" for a number."""
    kind = SCALARS.get(member, "text")
    is_string = said[:1] == b'"'
    found = text_of(real) if real[:1] == b'"' else real.decode("utf-8", "replace")
    literal = _LITERAL.get(kind)
    is_lost = not is_string if literal is None else found == "null" or (is_string and literal.fullmatch(found))
    if is_lost or not found:
        told = said[:40].decode("utf-8", "replace")
        raise AbsentMember(f"{told} as {member} cannot be said where that is text; this check sends it")
    return found


def text_of(token: bytes) -> str:
    """The text of a JSON string; empty where it is not a string."""
    try:
        return str(json.loads(token))
    except ValueError:
        return ""


def _solid(tokens: list[bytes], at: int) -> int:
    """The position of the next token that is no white space, or the end."""
    while (at := at + 1) < len(tokens) and tokens[at].isspace():
        pass
    return at


def _is(tokens: list[bytes], at: int, token: bytes) -> bool:
    return at < len(tokens) and tokens[at] == token


def without(members: Mapping[str, Any], paths: Collection[str]) -> dict[str, Any]:
    """The members without those at these paths, and without objects that become empty."""
    found = {n: v for n, v in members.items() if n not in paths}
    for outer in {path.partition(".")[0] for path in paths if "." in path} & found.keys():
        inner = [path.partition(".")[2] for path in paths if path.startswith(f"{outer}.")]
        if isinstance(found[outer], Mapping) and not (left := without(found[outer], inner)):
            del found[outer]
        elif isinstance(found[outer], Mapping):
            found[outer] = left
    return found


def last_of(path: str) -> str:
    """The last name of a path to a member, with any separator, without places in a list: `dlq_ids.0`, `ids[0]`."""
    names = [name for name in re.split(r"[./\[\]]", path.strip("#")) if name and not name.isdecimal()]
    return names[-1] if names else path


def found_at(members: Mapping[str, Any], path: str, default: Any = None) -> Any:
    """The value at a path of members, or the default. A null counts as a value."""
    found: Any = members
    for name in parts_of(path):
        if not isinstance(found, Mapping) or name not in found:
            return default
        found = found[name]
    return found


def put(claims: dict[str, Any], path: str, value: Any) -> None:
    """Set the value at a path of members; whatever is on the way and no object is replaced."""
    *outer, last = parts_of(path)
    for name in outer:
        claims[name] = dict(claims[name]) if isinstance(claims.get(name), Mapping) else {}
        claims = claims[name]
    claims[last] = value
