"""The gate's own path, live: killed in each phase, two at once, the flag changed meanwhile.

Each trial runs a real gate, which acts, on a deployment of its own, and judges what it left: the verdict on disk, the
flag, the audit rows, the processes.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gates import record
from gates.errors import CannotWork
from gates.proof.judgement import GateRun
from gates.proof.workbench import programs
from gates.proof.workbench.bench import ProofBench
from gates.proof.workbench.marked import Marked
from gates.stack.postgres import connect
from gates.verdict import Decision, Verdict

PHASES = ("preflight", "data before", "drill", "load", "data after")
"""Phases whose end a run reports on stderr; killed after one, it is killed in the next."""
FLAG = "outbox.enabled"


@dataclass(frozen=True, slots=True)
class Flag:
    """The global row of the flag, and how often it was changed, by the audit rows."""

    enabled: bool
    percent: int
    promoted: int
    rolled_back: int

    def actions_since(self, before: Flag) -> int:
        """How often it was changed since `before`."""
        return self.promoted + self.rolled_back - before.promoted - before.rolled_back


def look_at_flag(bench: ProofBench) -> Flag:
    with connect(bench.stack.info.database_url) as connection:
        row = connection.execute(
            "select f.enabled, f.rollout_percentage, "
            "(select count(*) from public.audit_logs where action = 'flag_promoted'), "
            "(select count(*) from public.audit_logs where action = 'flag_rolled_back') "
            "from public.feature_flags f where f.key = %s and f.company_id is null",
            (FLAG,),
        ).fetchone()
    if row is None:
        raise CannotWork(f"the flag {FLAG} has no global row; allowed: one; in the reference. This is a defect of it")
    return Flag(bool(row[0]), int(str(row[1])), int(str(row[2])), int(str(row[3])))


@dataclass
class Running:
    """A running gate; `processes` finds all that it started."""

    process: subprocess.Popen[str]
    out: Path
    processes: Marked
    started: float
    said: str = ""

    def wait_for(self, phase: str, timeout_s: float = programs.RUN_TIMEOUT_S) -> bool:
        """Read its stderr until the phase has ended; False if the gate ended first or the time ran out."""
        stream = self.process.stderr
        if stream is None:
            return False
        deadline = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(stream, selectors.EVENT_READ)
            while time.monotonic() < deadline:
                if not selector.select(timeout=0.5):
                    continue
                piece = os.read(stream.fileno(), 65_536).decode("utf-8", "replace")
                self.said += piece
                if f" {phase} " in self.said:
                    return True
                if not piece:
                    return False
        return False

    def finish(self) -> GateRun:
        """Wait for its end and read its results."""
        try:
            _, err = self.process.communicate(timeout=programs.RUN_TIMEOUT_S)
            code: int | None = self.process.returncode
        except subprocess.TimeoutExpired:
            programs.end(self.process)
            _, err = self.process.communicate(timeout=programs.GRACE_S)
            code = None
        return programs.read_run(self.out, programs.FinishedProgram(code, "", err, time.monotonic() - self.started))

    def kill(self) -> None:
        """SIGKILL, only to the gate itself."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGKILL)
        self.process.communicate(timeout=programs.GRACE_S)


def start_gate(environ: Mapping[str, str], out: Path, *options: str) -> Running:
    processes = Marked()
    words = programs.gate(("run", "--output", str(out), "--state", str(out / "state"), *options), environ)
    started = time.monotonic()
    return Running(programs.start(words, processes.marked(environ)), out, processes, started)


def verdict_on_disk(out: Path) -> str:
    """The decision that a pipeline would read, or why it cannot."""
    try:
        return str(json.loads((out / record.VERDICT).read_text(encoding="utf-8"))["decision"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{type(error).__name__}: {error}"


def killed(bench: ProofBench, out: Path, phase: str, policy: tuple[str, ...]) -> GateRun:
    """Kill a gate after `phase`. The result is a run with the verdict that the gate left on disk, or with an error."""
    before = look_at_flag(bench)
    gate = start_gate(bench.variables(), out, *policy)
    came = gate.wait_for(phase)
    gate.kill()
    seconds, left, flag = time.monotonic() - gate.started, len(gate.processes.left()), look_at_flag(bench)
    on_disk, actions = verdict_on_disk(out), flag.actions_since(before)
    if not came:
        return GateRun(None, seconds, f"the gate never told the end of {phase!r}: {gate.said[-200:]}")
    if left:
        return GateRun(None, seconds, f"{left} of its processes were left")
    if actions > 1 or not flag.enabled:
        return GateRun(None, seconds, f"the flag was moved {actions} times, and is at {flag}")
    try:
        decision = Decision(on_disk)
    except ValueError:
        return GateRun(None, seconds, f"the verdict on disk cannot be read: {on_disk}")
    said = f"killed after {phase}: the verdict on disk is {on_disk}, the flag was moved {actions} times"
    return GateRun(Verdict(decision, said), seconds)


def two_at_once(bench: ProofBench, out: Path, policy: tuple[str, ...]) -> GateRun:
    """Two gates on one deployment: at most one of them acts, and a gate that says promote did."""
    before = look_at_flag(bench)
    gates = [start_gate(bench.variables(), out / name, *policy) for name in ("first", "second")]
    runs = [gate.finish() for gate in gates]
    flag, seconds = look_at_flag(bench), max(run.seconds for run in runs)
    broken = next((run for run in runs if run.verdict is None), None)
    if broken is not None:
        return broken
    decisions = [run.verdict.decision for run in runs if run.verdict]
    promotes, actions = decisions.count(Decision.PROMOTE), flag.actions_since(before)
    said = f"they said {' and '.join(decisions)}; the flag was moved {actions} times, to {flag.percent} %"
    if actions > 1 or promotes != actions or Decision.ROLLBACK in decisions:
        return GateRun(None, seconds, said)
    return GateRun(Verdict(Decision.PROMOTE if promotes else Decision.HOLD, said), seconds)


def changed_meanwhile(bench: ProofBench, out: Path, statement: str, policy: tuple[str, ...]) -> GateRun:
    """Somebody changes the flag during the gate's last look at the data. The flag must stay so."""
    gate = start_gate(bench.variables(), out, *policy)
    if not gate.wait_for("load"):
        gate.kill()
        return GateRun(None, time.monotonic() - gate.started, f"the gate did not come so far: {gate.said[-200:]}")
    bench.execute(statement)
    left = look_at_flag(bench)
    run, flag = gate.finish(), look_at_flag(bench)
    if run.verdict is not None and (flag.enabled, flag.percent) != (left.enabled, left.percent):
        return GateRun(None, run.seconds, f"the flag was left at {left}, and then moved to {flag}: {run.said}")
    return run
