"""The suite `self`: disturb the gate at any point; it must end in a hold or in exactly one action."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gates import record
from gates.errors import CannotWork
from gates.evidence import TargetKind
from gates.evidence_file import read_lines
from gates.proof.judgement import GateRun
from gates.proof.selfsuite import live
from gates.proof.selfsuite.tampering import HELD, TAMPERINGS, Tampering, tamper
from gates.proof.trial import NOT_PROMOTED, ProofPart, Trial, broken, trial
from gates.proof.workbench import programs
from gates.proof.workbench.bench import TROUBLES, OpenBench, ProofBench
from gates.verdict import Decision

DECIDE_TIMEOUT_S = 60.0
PATH = {"PATH": "/usr/bin:/bin"}
OFF = "update public.feature_flags set enabled = false where key = 'outbox.enabled' and company_id is null"
MOVED = "update public.feature_flags set rollout_percentage = 50 where key = 'outbox.enabled' and company_id is null"
ONE_ACTION = (Decision.HOLD, Decision.PROMOTE)
TALKED_OUT = {"PYTEST_ADDOPTS": "-k nothing_at_all --deselect drills", "PYTEST_PLUGINS": "no_such_plugin"}
NO_LOAD = {"TEST_OUTBOX": "false", "TEST_DLQ": "false", "TEST_AGENTS": "false"}

VIOLATION = "select 'canary' as subject, 'it must fail' as detail, '1' as witness"
CANARIES = {
    "9001_canary_fails": ("the check that always fails", VIOLATION, 1),
    "9002_canary_passes": ("the check that always passes", f"{VIOLATION} where false", 1),
    "9003_canary_sees_nothing": ("the check that sees nothing", f"{VIOLATION} where false", 0),
}
"""A user's own checks: file name, description, number of violations, number of rows seen."""
DUE = {"canary-fails": "fail", "canary-passes": "pass", "canary-sees-nothing": "unknown"}

Act = Callable[[ProofBench, Path], GateRun]


def _killed_after(phase: str) -> str:
    return f"killed-after-{phase.replace(' ', '-')}"


LIVE: tuple[tuple[str, str, tuple[Decision, ...]], ...] = (
    *((_killed_after(phase), f"the gate is killed after {phase}", HELD) for phase in live.PHASES[:-1]),
    (_killed_after(live.PHASES[-1]), f"the gate is killed after {live.PHASES[-1]}", ONE_ACTION),
    ("two-gates", "two gates at once", ONE_ACTION),
    ("flag-off", "the flag is switched off under it", NOT_PROMOTED),
    ("flag-moved", "the flag is moved up under it", HELD),
    ("deselected", "the environment deselects every test", ONE_ACTION),
    ("no-load", "every switch of the load is off", HELD),
    ("canary", "checks that must fail, pass and see nothing", NOT_PROMOTED),
)
"""Trials that need a deployment: name, description, the decisions that are right."""


def names() -> list[tuple[str, tuple[Decision, ...], str]]:
    """Every trial of the suite: name, the right decisions, description."""
    return [(t.name, t.allowed, t.said) for t in TAMPERINGS] + [(n, allowed, said) for n, said, allowed in LIVE]


@dataclass(frozen=True, slots=True)
class SelfSuite:
    """What the suite needs; see Trials."""

    open_bench: OpenBench
    out: Path
    wants: Callable[[str], bool]
    done: Callable[[Trial], None]
    policy: tuple[str, ...] = ()

    def run(self) -> None:
        """Run tampered evidence first, then what needs a deployment."""
        asked = [t for t in TAMPERINGS if self._asked(t.name)]
        live_ones = [(name, said, allowed, act) for name, said, allowed, act in self._live() if self._asked(name)]
        if not asked and not live_ones:
            return
        base = self.out / ProofPart.SELF.value / "green"
        with self.open_bench(TargetKind.STAGING) as bench:
            green = programs.gate_run(bench.variables(), base, "--dry-run", *self.policy)
            if not green.is_green:
                said = "a green run, to begin with"
                self.done(broken(ProofPart.SELF, "green", said, (Decision.PROMOTE,), green.said))
                return
        for one in asked:
            self.done(self._tampered(one, base))
        for name, said, allowed, act in live_ones:
            self.done(self._carry_out(name, said, allowed, act))

    def _asked(self, name: str) -> bool:
        return self.wants(f"{ProofPart.SELF}/{name}")

    def _tampered(self, one: Tampering, base: Path) -> Trial:
        """`gate decide` on a tampered copy of the green run."""
        folder = self._folder(one.name)
        lines = [e.to_json() for e in read_lines(base / record.EVIDENCE)]
        run = json.loads((base / record.RUN).read_text(encoding="utf-8"))
        changed, run = tamper(one, lines, run)
        record.write_run(folder, run)
        if changed is not None:
            (folder / record.EVIDENCE).write_bytes(changed)
        done = programs.run(programs.gate(("decide", str(folder))), PATH, DECIDE_TIMEOUT_S)
        return trial(ProofPart.SELF, one.name, one.said, one.allowed, programs.read_run(folder, done, unfinished=True))

    def _carry_out(
        self, name: str, said: str, allowed: tuple[Decision, ...], act: Callable[[ProofBench, Path], GateRun]
    ) -> Trial:
        try:
            with self.open_bench(TargetKind.STAGING) as bench:
                return trial(ProofPart.SELF, name, said, allowed, act(bench, self._folder(name)))
        except (*TROUBLES, CannotWork) as error:
            return broken(ProofPart.SELF, name, said, allowed, error)

    def _folder(self, name: str) -> Path:
        folder = self.out / ProofPart.SELF.value / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def _live(self) -> Iterator[tuple[str, str, tuple[Decision, ...], Act]]:
        """Name, description, the right decisions, and the function that runs it."""
        acts: dict[str, Act] = {
            "two-gates": lambda b, o: live.two_at_once(b, o, self.policy),
            "flag-off": lambda b, o: live.changed_meanwhile(b, o, OFF, self.policy),
            "flag-moved": lambda b, o: live.changed_meanwhile(b, o, MOVED, self.policy),
            "deselected": self._talked_out,
            "no-load": lambda b, o: programs.gate_run({**b.variables(), **NO_LOAD}, o, "--dry-run", *self.policy),
            "canary": self._canary,
        }
        acts |= {_killed_after(phase): partial(self._killed, phase) for phase in live.PHASES}
        for name, said, allowed in LIVE:
            yield name, said, allowed, acts[name]

    def _killed(self, phase: str, bench: ProofBench, out: Path) -> GateRun:
        """Killed in a folder that holds an older promote."""
        shutil.copytree(self.out / ProofPart.SELF.value / "green", out, dirs_exist_ok=True)
        return live.killed(bench, out, phase, self.policy)

    def _talked_out(self, bench: ProofBench, out: Path) -> GateRun:
        """A promote must rest on as many passed checks as the green run."""
        run = programs.gate_run({**bench.variables(), **TALKED_OUT}, out, "--dry-run", *self.policy)
        green = record.recompute(self.out / ProofPart.SELF.value / "green")
        if run.verdict and run.is_green and run.verdict.counts.passed < green.counts.passed:
            return GateRun(
                None, run.seconds, f"promoted on {run.verdict.counts.passed} of {green.counts.passed} checks"
            )
        return run

    def _canary(self, bench: ProofBench, out: Path) -> GateRun:
        """Three user's own checks, through the pipeline of every check."""
        folder = out / "checks"
        folder.mkdir()
        for name, (said, violations, seen) in CANARIES.items():
            check = name[5:].replace("_", "-")
            head = f"-- id: sql/spot/{check}\n-- claim: This is {said}.\n-- cost: Nothing.\n-- severity: warn\n"
            counted = f"\n-- seen:\nselect {seen} as seen;\n"
            (folder / f"{name}.sql").write_text(f"{head}{violations};\n{counted}", encoding="utf-8")
        policy = out / "gate.yaml"
        policy.write_text("version: 1\nsql: {spot_folders: [checks]}\n", encoding="utf-8")
        run = programs.stage_run("sql", bench.variables(), out / "run", "--policy", str(policy))
        lines = read_lines(out / "run" / record.EVIDENCE)
        found = {c: next((str(e.outcome) for e in lines if e.check == f"sql/spot/{c}"), "absent") for c in DUE}
        if found != DUE:
            return GateRun(None, run.seconds, f"the canaries came to {found}; due: {DUE}")
        return run
