"""Looks for a program that fails, makes it small, and writes it down with the way to run it again."""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from drills.statemachine.machine import Wrong
from drills.statemachine.programs import Program, Step, dump
from gates import disk

Run = Callable[[Program], Wrong | None]
"""Runs a program from scratch: what was wrong, None where nothing was."""

PROGRAMS = 40
GATE_S = 12.0
"""A gate on a slow machine runs fewer programs; each rule must still have been completed."""
BY_HAND_S_EACH = 5.0
SHRINK_S, SHRINK_BY_HAND_S = 10.0, 120.0


@dataclass(frozen=True, slots=True)
class Plan:
    """The number of programs, their seed, limits (s) of the search and of shrinking a failure, where to write it."""

    count: int
    seed: int
    limit_s: float
    shrink_s: float
    folder: Path


@dataclass(frozen=True, slots=True)
class Counterexample:
    """A program that fails, as small as was found; `number` is its place among those of the seed."""

    number: int
    program: Program
    wrong: Wrong


def search(
    programs: Sequence[Program], run: Run, plan: Plan, clock: Callable[[], float] = time.monotonic
) -> tuple[int, Counterexample | None]:
    """Run programs until one fails or the time is over: how many were run, and the failure, already made small."""
    started = clock()
    for number, program in enumerate(programs):
        if clock() - started > plan.limit_s:
            return number, None
        wrong = run(program)
        if wrong is not None:
            return number + 1, Counterexample(number, *shrink(program, wrong, run, plan.shrink_s, clock))
    return len(programs), None


def shrink(
    program: Program, wrong: Wrong, run: Run, limit_s: float, clock: Callable[[], float]
) -> tuple[Program, Wrong]:
    """The smallest program found in `limit_s` that still fails in the same rule: what comes after the step that failed
    is left out, then halves, quarters... of the steps, then numbers become 0. (Delta debugging, Zeller 1999.)
    """
    deadline = clock() + limit_s
    best, why = program[: wrong.step + 1], wrong
    if len(best) < len(program):
        found = run(best)
        best, why = (best, found) if found is not None and found.rule == wrong.rule else (program, wrong)

    def is_late() -> bool:
        return clock() > deadline

    def still_fails(smaller: Program) -> bool:
        nonlocal best, why
        found = run(smaller)
        if found is None or found.rule != why.rule:
            return False
        best, why = smaller, found
        return True

    size = len(best) // 2
    while size and not is_late():
        start, removed = 0, False
        while start < len(best) and not is_late():
            if still_fails(best[:start] + best[start + size :]):
                removed = True
            else:
                start += size
        size = size if removed and size == 1 else size // 2
    for index in range(len(best)):
        if best[index].number and not is_late():
            still_fails((*best[:index], Step(best[index].rule, 0), *best[index + 1 :]))
    return best, why


def write_down(failure: Counterexample, why: str, folder: Path) -> Path:
    """Write a failed program to a new file in the folder; returns its path."""
    text = dump(failure.program, why)
    disk.folder(folder)
    digest = hashlib.sha256(repr(failure.program).encode()).hexdigest()[:8]
    path = folder / f"{failure.wrong.rule.replace('_', '-')}-{digest}.json"
    disk.write(path, text)
    return path
