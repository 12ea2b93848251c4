"""The known trials, kept on disk one per line: an interrupted proof continues from them."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gates.proof.trial import ProofPart, Trial

TRIALS = "trials.ndjson"


class KeptTrials:
    """Trials by their id. `key` identifies the proved code and policy: trials of others do not count."""

    def __init__(self, folder: Path, key: Mapping[str, str], *, resume: bool) -> None:
        self._path = folder / TRIALS
        self._found = {one.id: one for one in map(_trial, taken_up(self._path, key, resume=resume))}

    def __contains__(self, name: str) -> bool:
        return name in self._found

    def is_right(self, name: str) -> bool:
        """Whether it was made and had the right result."""
        return name in self._found and self._found[name].ok

    @property
    def all(self) -> tuple[Trial, ...]:
        """All trials, in the order in which they were made."""
        return tuple(self._found.values())

    def add(self, one: Trial) -> None:
        """Add a trial, on disk. One that could not be carried out is repeated by the next proof."""
        self._found[one.id] = one
        if one.decision:
            with self._path.open("a", encoding="utf-8") as out:
                out.write(json.dumps(dataclasses.asdict(one), ensure_ascii=False) + "\n")


def taken_up(path: Path, key: Mapping[str, str], *, resume: bool) -> list[Any]:
    """The rows of a file whose first line is this key, to continue an earlier proof; else start the file anew."""
    lines = path.read_bytes().splitlines(keepends=True) if resume and path.exists() else []
    whole = [json.loads(line) for line in lines if line.endswith(b"\n")]  # a kill may have cut the last one
    if whole and whole[0] == dict(key):
        path.write_bytes(b"".join(lines[: len(whole)]))
        return whole[1:]
    path.write_text(json.dumps(dict(key)) + "\n", encoding="utf-8")
    return []


def _trial(row: Mapping[str, Any]) -> Trial:
    tuples = {name: tuple(row[name]) for name in ("allowed", "unpassed")}
    return Trial(**{**row, **tuples, "suite": ProofPart(row["suite"])})
