"""Trials: which decisions are right, what counts as harm, and that an error of the harness is no result."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gates.evidence import TargetKind
from gates.proof import degenerate
from gates.proof.healthy.variants import VARIANTS
from gates.proof.judgement import GateRun
from gates.proof.selfsuite import suite as selfsuite
from gates.proof.trial import NOT_PROMOTED, ProofPart, Trial, trial
from gates.proof.trials import NEVER_ROLLED_BACK, Trials
from gates.proof.workbench import programs
from gates.proof.workbench.bench import ProofBench
from gates.stack.errors import StackError
from gates.verdict import Decision, Effect, Exempt, Finding, Verdict


@pytest.mark.parametrize(
    ("suite", "allowed", "decision", "ok", "harmful"),
    [
        (ProofPart.HEALTHY, NEVER_ROLLED_BACK, Decision.PROMOTE, True, False),
        (ProofPart.HEALTHY, NEVER_ROLLED_BACK, Decision.HOLD, True, False),
        (ProofPart.HEALTHY, NEVER_ROLLED_BACK, Decision.ROLLBACK, False, True),
        (ProofPart.HEALTHY, NEVER_ROLLED_BACK, None, False, False),
        (ProofPart.DEGENERATE, NOT_PROMOTED, Decision.HOLD, True, False),
        (ProofPart.DEGENERATE, NOT_PROMOTED, Decision.PROMOTE, False, True),
        (ProofPart.SELF, (Decision.HOLD,), Decision.ROLLBACK, False, False),
        (ProofPart.SELF, (Decision.HOLD,), Decision.PROMOTE, False, True),
        (ProofPart.SELF, (Decision.HOLD,), None, False, False),
    ],
)
def test_a_trial_is_right_only_with_a_decision_that_is_allowed(
    suite: ProofPart, allowed: tuple[Decision, ...], decision: Decision | None, ok: bool, harmful: bool
) -> None:
    """No verdict is never right; harm is a healthy target rolled back, or a wrong promote."""
    one = trial(suite, "x", "said", allowed, GateRun(Verdict(decision, "why") if decision else None))
    assert (one.ok, one.harmful) == (ok, harmful)


def test_what_did_not_pass_includes_what_was_not_applicable() -> None:
    """A check that is not applicable has not passed on the degenerate server."""
    found = Finding("drill/a", "unknown", "page", Effect.HOLD)
    verdict = Verdict(Decision.HOLD, "why", findings=(found,), not_applicable=(Exempt("drill/b", "no agent"),))
    assert trial(ProofPart.DEGENERATE, "x", "", NOT_PROMOTED, GateRun(verdict)).unpassed == ("drill/a", "drill/b")


def test_every_trial_has_a_name_of_its_own() -> None:
    """Names are unique and fit for `--only` and for folders."""
    for names in (
        [v.name for v in VARIANTS],
        [*(s.name for s in degenerate.SERVERS), *(t.name for t in degenerate.TWINS)],
        [name for name, _, _ in selfsuite.names()],
    ):
        assert len(set(names)) == len(names)
        assert all(name == name.lower() and "/" not in name and "@" not in name for name in names)


def test_a_stack_that_does_not_come_up_is_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every trial is reported with the error, and none counts as right or harmful."""

    @contextmanager
    def broken(kind: TargetKind, **_options: Any) -> Iterator[ProofBench]:
        if kind in TargetKind:
            raise StackError("no room")
        yield never_made

    def never(*_words: object, **_more: object) -> GateRun:
        raise AssertionError("no gate may be run")

    monkeypatch.setattr(programs, "gate_run", never)
    kept: list[Trial] = []
    never_made = ProofBench.__new__(ProofBench)
    trials = Trials(broken, tmp_path, lambda _name: True, kept.append)
    trials.healthy_targets(VARIANTS[:3])
    trials.degenerate_targets()
    assert len(kept) == 3 + len(degenerate.SERVERS) + len(degenerate.TWINS)
    assert not any(t.ok or t.harmful for t in kept)
    assert {t.reason for t in kept} == {"StackError: no room"}


def test_healthy_runs_are_of_the_kinds_asked_for(tmp_path: Path) -> None:
    """Five runs take the two kinds in turn, and repeated runs are numbered."""

    @contextmanager
    def broken(kind: TargetKind, **_options: Any) -> Iterator[ProofBench]:
        raise StackError(f"no room for {kind}")
        yield

    kept: list[Trial] = []
    plain = [v for v in VARIANTS if not v.fills_the_machine][:2]
    Trials(broken, tmp_path, lambda _name: True, kept.append, healthy_runs=5).healthy_targets(plain)
    first, second = (v.name for v in plain)
    assert [t.name for t in kept] == [first, second, f"{first}@2", f"{second}@2", f"{first}@3"]
