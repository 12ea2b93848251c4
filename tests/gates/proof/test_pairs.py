"""Two faults at once: which are drawn, that both are really in, and what counts as seen."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from gates import catalogue
from gates.decision.rules import Policy
from gates.evidence import TargetKind
from gates.proof import last
from gates.proof.fault import Kind, ListedFault, together
from gates.proof.healthy.variants import VARIANTS
from gates.proof.judgement import Cell, FaultFacts, GateRun, Status, judge
from gates.proof.matrix.campaign import examined, scope_of
from gates.proof.matrix.pairs import AT_ONCE, as_trial, at_once, each, pairs
from gates.proof.matrix.short import is_loaded
from gates.proof.proof import EXIT_NOT_PROVED
from gates.proof.prove import Prover
from gates.proof.reports import summary
from gates.proof.request import ProofRequest
from gates.proof.trial import ProofPart
from gates.proof.workbench import programs
from gates.proof.workbench.bench import ProofBench
from gates.verdict import Decision, Effect, Finding, Verdict


def test_pairs_are_drawn_by_the_seed_half_of_them_of_one_area(faults: dict[str, ListedFault]) -> None:
    """The draw depends on the seed alone; half of the pairs share an area; none has a no-op or process fault."""
    known, specs = tuple(faults.values())[::4], catalogue.load()
    drawn = pairs(known, specs, TargetKind.STAGING, 40, "a")
    assert [p.id for p in drawn] == [p.id for p in pairs(known, specs, TargetKind.STAGING, 40, "a")]
    assert [p.id for p in drawn] != [p.id for p in pairs(known, specs, TargetKind.STAGING, 40, "b")]
    kinds = [sorted(m.kind for m in p.members) for p in drawn]
    assert not any(Kind.NONE in k or Kind.PROCESS in k for k in kinds)
    areas = [[{s.id.split("/")[1] for s in specs if m.declares(s.id)} for m in p.members] for p in drawn]
    assert sum(bool(first & second) for first, second in areas) == 20


@pytest.mark.parametrize(
    "names",
    [
        ("authentication/unverified", "budget/nothing-charged"),
        ("idempotency-store/duplicates-audited", "selection/by-id-only"),
        ("outbox/effects-lost", "outbox-failures/failure-is-processed"),
        ("authentication/nothing-is-verified", "schema/rls-off-agent-tasks"),
        ("authentication/nothing-is-verified", "idempotency/keys-are-ignored"),
    ],
    ids=["parts", "statements", "worker", "proxy and sql", "proxies"],
)
def test_both_of_a_pair_are_in(names: tuple[str, str], deployment: ProofBench, faults: dict[str, ListedFault]) -> None:
    """The witness of each fault sees it while the pair is in, and neither does afterwards."""
    both = together(*(faults[n] for n in names))
    deployment.put_in(both)
    assert [deployment.witness(one) for one in both.members] == [True, True]
    deployment.take_out(both)
    assert deployment.witness(both) is False


@pytest.mark.parametrize(
    ("decision", "failed", "ok"),
    [
        (Decision.HOLD, "drill/a/x", True),
        (Decision.ROLLBACK, "drill/b/x", True),
        (Decision.ROLLBACK, "drill/c/x", False),
        (Decision.HOLD, "", False),
        (Decision.PROMOTE, "", False),
    ],
)
def test_a_pair_is_seen_where_either_is_named(decision: Decision, failed: str, *, ok: bool) -> None:
    """A hold or a rollback counts if it names one of the two faults; a failure for another reason does not."""
    one, two = (
        ListedFault(n, "x", Kind.SQL, Decision.ROLLBACK, sql="select", checks=(f"drill/{n}/",), names=(f"name of {n}",))
        for n in "ab"
    )
    findings = (Finding(failed, "fail", "page", Effect.HOLD, "the name of b and the name of a"),) if failed else ()
    green = GateRun(Verdict(Decision.PROMOTE, "all passed"))
    run = GateRun(Verdict(decision, "why", findings=findings))
    facts = FaultFacts(green, False, True, run, True, False, green)
    cell = judge(together(one, two), facts)
    assert as_trial(cell).ok is ok
    assert as_trial(cell).harmful is (decision is Decision.PROMOTE)
    assert (cell.status is Status.KILLED) is ok


def test_pairs_that_cannot_be_in_together_are_replaced_by_the_next_of_the_draw(faults: dict[str, ListedFault]) -> None:
    """Each is replaced by a pair of its own kind (of one area, or of two); all others stay."""
    known, specs = tuple(faults.values())[::4], catalogue.load()
    before = [p.id for p in pairs(known, specs, TargetKind.STAGING, 40, "a")]
    left = {before[3], before[30]}
    after = [p.id for p in pairs(known, specs, TargetKind.STAGING, 40, "a", left)]
    assert [p for p in after if p in before] == [p for p in before if p not in left]
    assert [p in before for p in after] == [n not in {19, 39} for n in range(40)]


def test_the_whole_gate_is_shown_several_at_once(faults: dict[str, ListedFault]) -> None:
    """Faults that do not hide each other share a run that can see them, and each is shown once."""
    every, specs = tuple(f for f in faults.values() if not f.is_noop)[::5], catalogue.load()
    made = at_once(every, specs, TargetKind.STAGING)
    left = {f.id for f in every} - {one.id for several in made for one in several.each}
    assert sum(len(s.each) for s in made) == len(every) - len(left)
    assert all(f.kind is Kind.PROCESS or is_loaded(f, specs) for f in every if f.id in left)
    assert max(len(s.each) for s in made) <= AT_ONCE
    assert len(made) < len(every) / 4
    for several in made:
        way = scope_of(several, specs, TargetKind.STAGING)
        assert all(any(f.declares(s.id) and way.sees(s) for s in specs) for f in several.each)
        assert len({scope_of(f, specs, TargetKind.STAGING).deep for f in several.each}) == 1


def test_of_several_at_once_each_has_a_cell_of_its_own() -> None:
    """Each fault is judged by its own checks and names; the gravest decision of them is due."""
    made = [
        ListedFault(n, "x", Kind.SQL, due, sql="select", checks=(f"drill/{n}/",), names=(f"name of {n}",))
        for n, due in (("a", Decision.HOLD), ("b", Decision.ROLLBACK), ("c", Decision.HOLD))
    ]
    findings = tuple(Finding(f"drill/{n}/x", "fail", "page", Effect.ROLLBACK, f"the name of {n}") for n in "ab")
    green = GateRun(Verdict(Decision.PROMOTE, "all passed"))
    run = GateRun(Verdict(Decision.ROLLBACK, "why", findings=findings))
    cells = each(together(*made), FaultFacts(green, False, True, run, True, False, green))
    assert [c.fault for c in cells] == made
    assert [c.status for c in cells] == [Status.KILLED, Status.KILLED, Status.KILLED_COLLATERAL]
    assert {(c.beside, c.first) for c in cells} == {(2, "")}
    (alone,) = each(together(made[1]), FaultFacts(green, False, True, run, True, False, green))
    assert (alone.beside, alone.first) == (0, "drill/a/x"), "what was named first is told of one that was alone"
    held = dataclasses.replace(run, verdict=Verdict(Decision.HOLD, "why", findings=findings))
    weak = each(together(*made), FaultFacts(green, False, True, held, True, False, green))
    assert not any(c.as_declared for c in weak), "a rollback is due"


def test_what_the_database_does_not_take_was_not_in(deployment: ProofBench, faults: dict[str, ListedFault]) -> None:
    """If the SQL of one fault prevents that of the other, the pair counts as not installed."""
    both = together(faults["data/key-lost-on-the-way"], faults["data/sequence-left-behind"])
    green = GateRun(Verdict(Decision.PROMOTE, "all passed"))
    deployment.renew()
    facts = examined(deployment, both, green, lambda: pytest.fail("it was looked at"))
    deployment.renew()
    cell = judge(both, dataclasses.replace(facts, after=green))
    assert cell.status is Status.NOT_INSTALLED
    assert "UniqueViolation" in cell.reason


@dataclasses.dataclass(frozen=True)
class Way:
    """Shows no pair to a gate: `refused` ones count as not installed, the others as killed."""

    refused: Callable[[int], bool]
    shown: list[str]
    done: Callable[[Cell], None] = lambda _cell: None

    def run(self, due: Sequence[ListedFault]) -> None:
        for fault in due:
            apart = self.refused(len(self.shown))
            self.shown.append(fault.id)
            status, decision = (Status.NOT_INSTALLED, "") if apart else (Status.KILLED, "rollback")
            self.done(Cell(fault, status, "x is taken" if apart else "seen", decision=decision))


class Drawing(Prover):
    """A proof of pairs that starts no deployment."""

    def __init__(self, request: ProofRequest, refused: Callable[[int], bool]) -> None:
        super().__init__(request)
        self.way = Way(refused, [])

    def _short_way(self) -> Any:
        return self.way

    _campaign = _short_way


@pytest.mark.parametrize(
    ("refused", "only", "anew", "pending", "shown"),
    [
        (lambda n: n in {1, 2}, (), 2, 0, 6),
        (lambda n: n in {1, 4}, (), 2, 0, 6),
        (lambda _n: True, (), 8, 4, 12),
        (lambda n: n == 1, ("pairs/*",), 0, 1, 4),
    ],
    ids=["once", "twice", "a machine that takes nothing", "named"],
)
def test_as_many_pairs_as_were_asked_for_are_shown(
    refused: Callable[[int], bool],
    only: tuple[str, ...],
    anew: int,
    pending: int,
    shown: int,
    faults: dict[str, ListedFault],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Drawn pairs that cannot be in are replaced, up to a limit, and listed; named ones are not replaced."""
    monkeypatch.setattr(programs, "list_faults", lambda _environ: tuple(faults.values())[::8])
    policy = Policy(catalogue=catalogue.load(), target=TargetKind.STAGING)
    asked = ProofRequest(tmp_path, policy, suites=(ProofPart.PAIRS,), only=only, sample=4, environ=os.environ)
    prover = Drawing(asked, refused)
    proof = prover.run()
    assert (len(proof.drawn_anew), len(proof.pending), len(prover.way.shown)) == (anew, pending, shown)
    assert len(proof.trials) == 4 - pending
    assert (proof.exit_code == EXIT_NOT_PROVED) is bool(pending)
    assert not set(proof.drawn_anew) & {t.name for t in proof.trials}
    told = "\n".join([*summary.lines(proof), str(last.of_suites(proof.summary()["trials"]))])  # type: ignore[arg-type]
    assert all(told.count(f"{name} (x is taken)") == 2 for name in proof.drawn_anew if proof.trials)


class Late(Prover):
    """A proof whose time is up before it begins."""

    def _is_over(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("suite", "count"),
    [(ProofPart.PAIRS, 3), (ProofPart.MUTANTS, 3), (ProofPart.HEALTHY, sum(not v.lacking() for v in VARIANTS))],
)
def test_what_was_never_begun_is_not_proved(suite: ProofPart, count: int, tmp_path: Path) -> None:
    """Trials for which there was no time are listed as pending, and the proof does not succeed."""
    policy = Policy(catalogue=catalogue.load(), target=TargetKind.STAGING)
    proof = Late(ProofRequest(tmp_path, policy, suites=(suite,), sample=3, minutes=1, environ=os.environ)).run()
    assert len(proof.pending) == count
    assert all(name.startswith(f"{suite}/") for name in proof.pending)
    assert proof.exit_code == EXIT_NOT_PROVED
    assert f"not examined: {proof.pending[0]}" in summary.lines(proof)[-1]
