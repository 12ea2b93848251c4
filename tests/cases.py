"""Reads test cases from a text file, each below a `--!` line with its expected results."""

import json
from pathlib import Path
from typing import Any


def cases(path: Path) -> list[tuple[list[str], str]]:
    """The fields of each case's line, which bars separate, and its text."""
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
