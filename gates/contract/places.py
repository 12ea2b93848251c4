"""Where `names.http.fields` puts a member of a request: `place:name`, and braces in `names.http.paths`."""

import re
from collections.abc import Mapping
from typing import Any

from gates.contract.contract import contract

PLACES = ("path", "query", "header", "answer")
"""`answer`: no request has the member."""
OUTSIDE = frozenset({"path", "query", "header"})
BODY = "body"
SCALARS = {
    m: kind
    for e in contract().endpoints.values()
    for m, kind in e.body.items()
    if kind not in {"list of uuid", "object"}
}
"""Member of a body that can travel as text -> its type."""
BLANK = re.compile(r"\{([^{}]+)\}")


def place_of(spelling: str) -> tuple[str, str]:
    """The place and the name in it from the value of a member in `names.http.fields`."""
    place, colon, name = spelling.partition(":")
    return (place, name) if colon and place in PLACES else (BODY, spelling)


def places_of(fields: Mapping[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """Member -> the place and the name of each of its spellings, in order; none if there is no such member."""
    spelled = {m: [said] if isinstance(said, str) else said or [] for m, said in fields.items()}
    return {m: [place_of(one) for one in said] for m, said in spelled.items()}


def blanks(path: str) -> list[str]:
    """The names in braces of a path."""
    return BLANK.findall(path)
