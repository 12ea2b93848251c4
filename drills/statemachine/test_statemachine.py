"""Random programs: no order of steps makes the service break its contract. Programs that once failed are replayed."""

from collections import Counter
from pathlib import Path

from drills.statemachine.machine import COMPLETED, IDLE, INDETERMINATE, Machine, Wrong
from drills.statemachine.programs import LEAST_TIMES, RULES, Program, dump, kept, load
from drills.statemachine.search import Counterexample, Plan, search, write_down
from drills.workbench.checks import SQL
from drills.workbench.scene import Scene
from gates.checks.recorder import check
from gates.deployment.redaction import hidden, redact_text
from gates.evidence import Where

NEEDED = ("drill/authentication/signed-accepted", "drill/outbox/delivered-once")
AGAIN = "pytest drills/statemachine --deep --only=drill/statemachine/kept-programs --program={path}"


class Runner:
    """Runs programs on fresh tenants, and counts what became of their steps."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self.done: Counter[tuple[str, str]] = Counter()

    def __call__(self, program: Program) -> Wrong | None:
        try:
            Machine(self._scene, self.done).run(program)
        except Wrong as wrong:
            return wrong
        self._scene.seen.count(len(program))
        return None

    def completed(self, rule: str) -> int:
        """How often a rule did something, or was refused as was due."""
        return sum(self.done[rule, outcome] for outcome in COMPLETED)

    def table(self) -> dict[str, str]:
        """What became of each rule's steps, for the evidence."""
        outcomes = (*COMPLETED, IDLE, INDETERMINATE)
        return {rule: ", ".join(f"{self.done[rule, o]} {o}" for o in outcomes if self.done[rule, o]) for rule in RULES}


def _report(scene: Scene, failure: Counterexample, plan: Plan) -> None:
    """Write the program down and fail."""
    why = redact_text(str(failure.wrong), hidden(scene.target))
    scene.seen.witness = dump(failure.program, why)
    path = write_down(failure, why, plan.folder)
    raise AssertionError(
        f"program {failure.number} of seed {plan.seed}, here of {len(failure.program)} steps: {why}. It is in {path};"
        f" run it again: {AGAIN.format(path=path)}; it is replayed in each run once it is in drills/statemachine/kept"
    )


@check(
    "drill/statemachine/random-programs",
    needs=SQL,
    after=NEEDED,
    covers=("L04", "L15", "K18", "G01", "D01", "E03"),
    where=Where.STAGING,
    phase="last",
    deep=True,
)
def test_random_programs(scene: Scene, plan: Plan) -> None:
    """No program of emits, replays, retries, pauses, budgets, discards and hostile requests breaks the contract.

    Defects often lie between two features that were each tested alone.
    """
    from drills.statemachine.generation import programs  # hypothesis is loaded for this check alone

    runner = Runner(scene)
    ran, failure = search(programs(plan.count, plan.seed), runner, plan)
    scene.seen.details["seed"], scene.seen.details["programs"] = plan.seed, ran
    scene.seen.details["steps"] = {**runner.table()}
    if failure is not None:
        _report(scene, failure, plan)
    seldom = {rule: runner.completed(rule) for rule in RULES if runner.completed(rule) < LEAST_TIMES}
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
def test_kept_programs(scene: Scene, given: list[Path]) -> None:
    """Every program that once failed passes.

    A known defect came back.
    """
    found = [(path.stem, load(path)) for path in given] or kept()
    scene.seen.require(found, "no kept programs were found")
    runner = Runner(scene)
    for name, program in found:
        wrong = runner(program)
        if wrong is not None:
            scene.seen.witness = dump(program, str(wrong))
            raise AssertionError(f"{name}: {wrong}") from wrong
    scene.seen.control(f"{len(found)} kept programs agreed with the model")
