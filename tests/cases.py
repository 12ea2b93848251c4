"""Cases of a test as text in a file, each below a line of `--!` that says what is to be seen of it."""

import json
from pathlib import Path
from typing import Any


def cases(path: Path) -> list[tuple[list[str], str]]:
    """Of each case what stands between the bars of its line, and its text."""
    parts = [part.partition("\n") for part in path.read_text(encoding="utf-8").split("--! ")[1:]]
    return [([word.strip() for word in said.split("|")], text.strip()) for said, _, text in parts]


def rewritten(path: Path, group: str) -> list[tuple[str, Any, str, Any]]:
    """The statements below `GROUP`, or `GROUP | PARAMETERS | PARAMETERS SENT` with what each becomes."""
    found = []
    for (name, *parameters), text in cases(path):
        lines = text.replace("\n  ", " ").splitlines()  # a line that is indented goes on with the one above it
        given, sent = map(json.loads, parameters or ("null", "null"))
        pairs = zip(lines[::2], lines[1::2], strict=True)
        found += [(ours, given, theirs.removeprefix("=> "), sent) for ours, theirs in pairs if name == group]
    return found


def rows(table: str) -> list[list[str]]:
    """The lines of a table, each cut at its bars."""
    return [[cell.strip() for cell in line.split("|")] for line in table.strip().splitlines()]
