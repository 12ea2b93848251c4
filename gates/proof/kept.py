"""The trials that are known so far, kept on disk one a line: a proof that was ended goes on where it stopped."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gates.proof.trial import ProofPart, Trial

TRIALS = "trials.ndjson"


class KeptTrials:
    """Trials by their id. `key` names the code and policy that are proved: trials of others do not count."""

    def __init__(self, folder: Path, key: Mapping[str, str], *, resume: bool) -> None:
        self._path = folder / TRIALS
        self._found = {one.id: one for one in map(_trial, taken_up(self._path, key, resume=resume))}

    def __contains__(self, name: str) -> bool:
        return name in self._found

    def is_right(self, name: str) -> bool:
        """Whether it was made, and came out as it must."""
        return name in self._found and self._found[name].ok

    @property
    def all(self) -> tuple[Trial, ...]:
        """In the order in which they were made."""
        return tuple(self._found.values())

    def add(self, one: Trial) -> None:
        """Note a trial, and write it down. One that could not be carried out is made anew by the next proof."""
        self._found[one.id] = one
        if one.decision:
            with self._path.open("a", encoding="utf-8") as out:
                out.write(json.dumps(dataclasses.asdict(one), ensure_ascii=False) + "\n")


def taken_up(path: Path, key: Mapping[str, str], *, resume: bool) -> list[Any]:
    """The rows of a file whose first line is this key, where an earlier proof is to go on; else the file is begun anew,
    and there are none.
    """
    lines = path.read_bytes().splitlines(keepends=True) if resume and path.exists() else []
    whole = [json.loads(line) for line in lines if line.endswith(b"\n")]  # a kill may have cut the last one
    if whole and whole[0] == dict(key):
        path.write_bytes(b"".join(lines[: len(whole)]))
        return whole[1:]
    path.write_text(json.dumps(dict(key)) + "\n", encoding="utf-8")
    return []


def seconds_of(proof: Path, source: str) -> float:
    """What the proof in this file took, where it is of this code and can be read; a proof that goes on adds to it."""
    try:
        found = json.loads(proof.read_text(encoding="utf-8"))
        return float(found["seconds"]) if found["source"] == source else 0.0
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return 0.0


def _trial(row: Mapping[str, Any]) -> Trial:
    tuples = {name: tuple(row[name]) for name in ("allowed", "unpassed")}
    return Trial(**{**row, **tuples, "suite": ProofPart(row["suite"])})
