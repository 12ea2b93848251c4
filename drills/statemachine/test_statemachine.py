"""Random programs: no order of steps makes the service break its contract. Programs that once failed are replayed."""

from __future__ import annotations

import time
from collections import Counter

from drills.scene import Scene
from drills.statemachine.machine import Machine, Wrong
from drills.statemachine.programs import LEAST_TIMES, RULES, Program, dump, kept
from gates.evidence import Where
from gates.recorder import check

SQL = ("database",)
NEEDED = ("drill/authentication/signed-accepted", "drill/outbox/delivered-once")
PROGRAMS = 40
BUDGET_S = 12.0
"""A machine that is too slow for all programs runs fewer; each rule must still have been completed."""


def _run(scene: Scene, done: Counter[str], program: Program, name: str) -> None:
    try:
        Machine(scene, done).run(program)
    except Wrong as wrong:
        scene.seen.witness = dump(program, str(wrong))
        raise AssertionError(
            f"{name}: {wrong}. Keep the program of the witness in drills/statemachine/kept, it is replayed from then on"
        ) from wrong
    scene.seen.count(len(program))


@check(
    "drill/statemachine/random-programs",
    needs=SQL,
    after=NEEDED,
    covers=("L04", "L15", "K18", "G01", "D01", "E03"),
    where=Where.STAGING,
    phase="last",
    deep=True,
)
def test_random_programs(scene: Scene) -> None:
    """No program of emits, replays, retries, pauses, budgets, discards and hostile requests breaks the contract.

    The defects that nobody thought of live between two features, each of which was tested alone.
    """
    from drills.statemachine.generation import programs  # hypothesis is loaded for this check alone

    done: Counter[str] = Counter()
    started = time.monotonic()
    for number, program in enumerate(programs(PROGRAMS)):
        if time.monotonic() - started > BUDGET_S:
            break
        _run(scene, done, program, f"program {number}")
    seldom = {r: done[r] for r in RULES if done[r] < LEAST_TIMES}
    scene.seen.details["completed"] = {r: done[r] for r in (*RULES, "indeterminate")}
    scene.seen.require(not seldom, f"rules were completed fewer than {LEAST_TIMES} times: {seldom}")
    scene.seen.control("each rule was completed and agreed with the model")


@check(
    "drill/statemachine/kept-programs",
    needs=SQL,
    after=NEEDED,
    covers=("L04", "L15"),
    where=Where.STAGING,
    phase="last",
    deep=True,
)
def test_kept_programs(scene: Scene) -> None:
    """Every program that once failed passes.

    A defect that came back is the cheapest one to find, and the most embarrassing one to miss.
    """
    found = kept()
    scene.seen.require(found, "no kept programs were found")
    for name, program in found:
        _run(scene, Counter(), program, name)
    scene.seen.control(f"{len(found)} kept programs agreed with the model")
