"""Puts named pieces of SQL into queries: `{{name}}` is replaced by `fragments/name.sql`, or by a limit."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from gates import disk
from gates.contract.contract import contract

PLACE = re.compile(r"\{\{([a-z_]+)\}\}")
MAX_DEPTH = 5
LIMIT = "limit_"
"""Prefix of a limit of the contract in a query, as in `{{limit_calls}}`; `given` has a deployment's own."""


class FragmentError(ValueError):
    """A fragment is missing or includes itself: what was observed, what is allowed, where, what to do."""


def expand(query: str, folders: Sequence[Path], given: Mapping[str, str] | None = None, depth: int = 0) -> str:
    """The query with its fragments: those in `given`, else of the first folder that has them. Raise FragmentError."""
    if depth > MAX_DEPTH:
        raise FragmentError(f"{folders[0]}: fragments include each other more than {MAX_DEPTH} deep; allowed: no cycle")

    def text(match: re.Match[str]) -> str:
        if given and match.group(1) in given:
            return expand(given[match.group(1)], folders, given, depth + 1)
        limit = contract().limits.get(match.group(1).removeprefix(LIMIT))
        if match.group(1).startswith(LIMIT) and limit:
            return str(limit[0])
        name = f"{match.group(1)}.sql"
        path = next((folder / name for folder in folders if (folder / name).exists()), None)
        if path is None:
            raise FragmentError(f"{folders[0]}: there is no fragment {name}. Add it or correct the name")
        return expand(disk.read_text(path).strip(), folders, given, depth + 1)

    return PLACE.sub(text, query)
