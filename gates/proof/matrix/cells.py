"""The known cells, kept on disk one per line: an interrupted proof continues from them."""

import dataclasses
import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gates.evidence import CheckSpec
from gates.proof.fault import ListedFault
from gates.proof.judgement import Cell, Status
from gates.proof.kept import taken_up
from gates.proof.matrix.short import is_shown

CELLS = "cells.ndjson"


class Matrix:
    """The cells of these faults; lanes may add to it. `key`: of the code and policy; cells of others do not count."""

    def __init__(self, folder: Path, faults: Sequence[ListedFault], key: Mapping[str, str], *, resume: bool) -> None:
        self.faults = tuple(faults)
        self._path, self._lock = folder / CELLS, threading.Lock()
        self._found: dict[tuple[str, bool], Cell] = {}
        known = {f.id: f for f in faults}
        for row in taken_up(self._path, key, resume=resume):
            if row["fault"] in known:
                self._note(_cell(known[row["fault"]], row))

    def add(self, cell: Cell) -> None:
        with self._lock:
            self._note(cell)
            with self._path.open("a", encoding="utf-8") as out:
                row = {**dataclasses.asdict(cell), "fault": cell.fault.id}
                out.write(json.dumps(row, ensure_ascii=False) + "\n")

    def _note(self, cell: Cell) -> None:
        self._found[cell.fault.id, cell.short] = cell

    @property
    def cells(self) -> tuple[Cell, ...]:
        """One per fault: the whole gate's result if there is one, else the short way's."""
        either = (self._found.get((f.id, False)) or self._found.get((f.id, True)) for f in self.faults)
        return tuple(c for c in either if c is not None)

    @property
    def compared(self) -> tuple[tuple[Cell, Cell], ...]:
        """The results of the short way and of the whole gate on the same fault."""
        both = ((self._found.get((f.id, True)), self._found.get((f.id, False))) for f in self.faults)
        return tuple((short, whole) for short, whole in both if short and whole)

    @property
    def pending(self) -> list[ListedFault]:
        """Those without a cell."""
        done = {c.fault.id for c in self.cells}
        return [f for f in self.faults if f.id not in done]

    @property
    def left(self) -> list[ListedFault]:
        """Those not yet shown to the whole gate."""
        return [f for f in self.faults if (f.id, False) not in self._found]

    def unseen(self, catalogue: Sequence[CheckSpec]) -> list[ListedFault]:
        """Those that the short way can show, and has not shown yet."""
        return [f for f in self.pending if f.is_noop or is_shown(f, catalogue)]

    def for_the_gate(self, seed: str, share: int) -> list[ListedFault]:
        """The faults that the whole gate still has to see. These are what the short way cannot show, what it did not
        see killed, one in `share` of all, drawn by the seed, and with them the no-ops.
        """
        drawn = {f.id for f in draw(self.faults, len(self.faults) // share, seed)}
        due = [f for f in self.left if not f.is_noop and (f.id in drawn or self.is_odd(f))]
        return [f for f in self.left if f.is_noop and (due or self.is_odd(f))] + due

    def is_odd(self, fault: ListedFault) -> bool:
        """Whether the short way did not see it killed."""
        short = self._found.get((fault.id, True))
        return short is None or not short.as_declared


def draw(faults: Sequence[ListedFault], count: int, seed: str) -> list[ListedFault]:
    """The given number of faults, at random; the same seed draws the same."""
    return sorted(faults, key=lambda f: hashlib.sha256(f"{seed} {f.id}".encode()).digest())[:count]


def _cell(fault: ListedFault, row: Mapping[str, Any]) -> Cell:
    tuples = {name: tuple(row[name]) for name in ("killers", "failed")}
    return Cell(**{**row, **tuples, "fault": fault, "status": Status(row["status"])})
