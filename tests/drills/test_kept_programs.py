"""The state machine finds faults; kept programs fail on their fault and pass on the reference."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from drills.statemachine.generation import programs
from drills.statemachine.machine import Wrong
from drills.statemachine.programs import KEPT, RULES, Program, Step, kept, load
from drills.statemachine.search import Counterexample, Plan, search, shrink, write_down
from faults.catalogue import Fault, catalogue
from gates.evidence import Outcome
from gates.stack.stack import Stack
from tests.drills.examination import examine
from tests.faults.installing import installed

REPLAYED = "drill/statemachine/kept-programs"
RANDOM = "drill/statemachine/random-programs"
FOUND = {
    "commits-the-key-first": "idempotency-store/key-commits-first",
    "replays-what-was-discarded": "selection/discarded-replayed",
}
"""The fault that a kept program found, where faults/statemachine.py has none of its name."""


def fault_of(program: str) -> Fault:
    return catalogue()[FOUND.get(program, f"statemachine/{program}")]


@pytest.mark.parametrize("name", [name for name, _ in kept()])
def test_kept_program_finds_its_fault(name: str, reference: Stack, tmp_path: Path) -> None:
    """Each kept program fails on the fault that it once found."""
    with installed(fault_of(name), reference) as variables:
        found = examine(variables, [REPLAYED], tmp_path, "--deep", f"--program={KEPT / name}.json")
    assert found[REPLAYED].outcome is Outcome.FAIL, found[REPLAYED].message


def test_kept_programs_pass_on_the_reference(variables: dict[str, str], tmp_path: Path) -> None:
    """All of them agree with the model on the reference."""
    found = examine(variables, [REPLAYED], tmp_path, "--deep")
    assert found[REPLAYED].outcome is Outcome.PASS, found[REPLAYED].message
    assert len(kept()) >= 8


def test_a_failure_is_found_and_written_small(reference: Stack, tmp_path: Path) -> None:
    """A search by hand finds a defect, writes a small program, and prints seed and command."""
    folder = tmp_path / "failed"
    options = ("--programs=40", "--seed=7", f"--failed-programs={folder}")
    with installed(fault_of("charges-duplicates"), reference) as variables:
        found = examine(variables, [RANDOM], tmp_path, "--deep", *options)
    message = found[RANDOM].message
    assert found[RANDOM].outcome is Outcome.FAIL, message
    (path,) = folder.iterdir()
    assert len(load(path)) <= 6
    assert "of seed 7" in message
    assert f"--program={path}" in message


@dataclass
class Faulty:
    """A service that fails at a `replay` which comes after a `pause` with a number over 3."""

    runs: int = 0

    def __call__(self, program: Program) -> Wrong | None:
        self.runs += 1
        armed = False
        for index, step in enumerate(program):
            armed = armed or (step.rule == "pause" and step.number > 3)
            if armed and step.rule == "replay":
                return Wrong(index, step.rule, "planted")
        return None


def plan(folder: Path, limit_s: float = 60.0) -> Plan:
    return Plan(count=20, seed=1, limit_s=limit_s, shrink_s=60.0, folder=folder)


def test_shrinking_leaves_what_is_needed(tmp_path: Path) -> None:
    """Two steps of a long program are left, and only the number that matters."""
    ran, failure = search(programs(20, 1), Faulty(), plan(tmp_path))
    assert failure is not None
    assert ran == failure.number + 1
    (pause, replay) = failure.program
    assert (pause.rule, replay) == ("pause", Step("replay", 0))
    assert pause.number > 3


def test_shrinking_never_changes_the_failure() -> None:
    """A smaller program that breaks another rule is not taken."""

    def either(program: Program) -> Wrong | None:
        rules = [s.rule for s in program]
        if "emit" in rules:
            return Wrong(rules.index("emit"), "emit", "one")
        return Wrong(0, "discard", "two") if rules else None

    wanted = (Step("pause", 1), Step("emit", 2), Step("resume", 3))
    best, wrong = shrink(wanted, Wrong(1, "emit", "one"), either, 60.0, lambda: 0.0)
    assert (best, wrong.rule) == ((Step("emit", 0),), "emit")


def test_a_late_search_stops(tmp_path: Path) -> None:
    """When the time is up no program is begun, and none is shrunk."""
    ticks = iter(range(1000))
    faulty = Faulty()
    assert search([(Step("emit", 0),)] * 20, faulty, plan(tmp_path, 4.5), lambda: float(next(ticks))) == (4, None)
    assert faulty.runs == 4
    late = iter([0.0, *[99.0] * 100])
    whole = (Step("pause", 9), Step("emit", 0), Step("replay", 0))
    assert shrink(whole, Wrong(2, "replay", ""), faulty, 1.0, lambda: next(late))[0] == whole


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    """A program survives its file, and equal programs share one."""
    program = (Step("emit", 3), Step("replay", 0))
    failure = Counterexample(4, program, Wrong(1, "replay", "x"))
    path = write_down(failure, "why", tmp_path / "deep" / "er")
    assert write_down(failure, "why", tmp_path / "deep" / "er") == path
    assert load(path) == program


def test_unknown_rules_are_refused(tmp_path: Path) -> None:
    """The error names a rule that the machine does not know."""
    path = tmp_path / "x.json"
    path.write_text('{"steps": [{"rule": "explode", "number": 1}]}', encoding="utf-8")
    with pytest.raises(ValueError, match="explode"):
        load(path)


def test_a_seed_gives_its_programs_and_each_has_every_rule() -> None:
    """A seed gives the same programs each time, and every program has every rule."""
    assert programs(5, 3) == programs(5, 3)
    assert programs(5, 3) != programs(5, 4)
    assert all(set(RULES) == {step.rule for step in program} for program in programs(5, 3))
