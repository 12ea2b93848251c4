"""Members of a document by paths such as `options.limit`, sent to or received from a deployment."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from gates.contract.names import parts_of


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
    """The last name of a path to a member, with any separator."""
    return re.split(r"[./]", path.strip("#/."))[-1]


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
