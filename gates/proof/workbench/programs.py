"""The programs that a proof runs, each with a limit: the catalogue of faults, its witnesses, and the gate itself."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gates import config, record
from gates.errors import CannotWork
from gates.evidence import TargetKind
from gates.evidence_file import read_lines
from gates.proof.fault import ListedFault, read_list
from gates.proof.judgement import GateRun
from gates.stack import extra
from gates.stack.errors import StackError
from gates.stack.stack import Cancelled
from gates.stages.suite import LAUNCHER, ROOT
from gates.verdict import Action, Counts, Decision, Effect, Finding, Verdict

LIST_TIMEOUT_S = 30.0
RUN_TIMEOUT_S = 600.0
GRACE_S = 15.0
PROMPT_S = 3.0
"""How long programs may take to end if the proof itself is ended."""
TAIL_CHARACTERS = 600

_CALLED_OFF, _STARTING = threading.Event(), threading.Lock()
_STARTED: weakref.WeakSet[subprocess.Popen[str]] = weakref.WeakSet()


def is_called_off() -> bool:
    return _CALLED_OFF.is_set()


def go_on() -> None:
    """Allow programs to be started."""
    _CALLED_OFF.clear()


def call_off() -> None:
    """End every program, and let none start: whoever waits for one, or would start one, gets Cancelled."""
    with _STARTING:
        _CALLED_OFF.set()
        living = [one for one in _STARTED if one.poll() is None]
    for number in (signal.SIGTERM, signal.SIGKILL):
        for one in living:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(one.pid, number)
        until = time.monotonic() + PROMPT_S
        while any(one.poll() is None for one in living) and time.monotonic() < until:
            time.sleep(0.02)
        living = [one for one in living if one.poll() is None]


def insist() -> None:
    """Raise Cancelled if programs were called off."""
    if is_called_off():
        raise Cancelled


@dataclass(frozen=True, slots=True)
class FinishedProgram:
    """A program that has ended: its exit code (None: killed at its limit), stdout, stderr."""

    code: int | None
    out: str
    err: str
    seconds: float = 0.0

    @property
    def tail(self) -> str:
        """The end of stderr, for a message."""
        return self.err[-TAIL_CHARACTERS:].strip()


def clean(environ: Mapping[str, str], variables: Mapping[str, str]) -> dict[str, str]:
    """The environment of a child: the user's without variables of any target, and these."""
    plain = config.plain(environ)
    kept = {k: v for k, v in plain.items() if k not in config.VARIABLES and not k.startswith(("PG", "GITHUB_"))}
    return {**kept, **variables}


def run(words: Sequence[str], environ: Mapping[str, str], timeout_s: float, cwd: Path = ROOT) -> FinishedProgram:
    """Run a program to its end, or kill it and all it started at the limit. It also dies with us."""
    started = time.monotonic()
    process = start(words, environ, cwd)
    try:
        out, err = process.communicate(timeout=timeout_s)
        code: int | None = process.returncode
    except subprocess.TimeoutExpired:
        end(process)
        out, err = process.communicate(timeout=GRACE_S)
        code = None
    except BaseException:
        end(process, patience_s=PROMPT_S)
        raise
    insist()
    return FinishedProgram(code, out, err, time.monotonic() - started)


def start(words: Sequence[str], environ: Mapping[str, str], cwd: Path = ROOT, **pipes: Any) -> subprocess.Popen[str]:
    """Start a program in a session of its own, with pipes; it dies with us. Raise Cancelled if called off."""
    me = (str(os.getpid()), str(int(signal.SIGTERM)), "-1", "-1")
    with _STARTING:
        insist()
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(LAUNCHER), *me, *words],
            cwd=cwd,
            env=dict(environ),
            text=True,
            errors="replace",
            start_new_session=True,
            **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **pipes},
        )
        _STARTED.add(process)
    return process


def end(process: subprocess.Popen[str], gently: signal.Signals = signal.SIGTERM, patience_s: float = GRACE_S) -> None:
    """End a program and its process group, gently first."""
    for number in (gently, signal.SIGKILL):
        if process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, number)
            process.wait(timeout=patience_s)


def last_words(process: subprocess.Popen[str], timeout_s: float) -> tuple[str, list[str]]:
    """The stderr of a program that was told to end, and how it ended if that was wrong."""
    try:
        _, err = process.communicate(timeout=timeout_s)
        late: list[str] = []
    except subprocess.TimeoutExpired:
        end(process)
        _, err = process.communicate(timeout=GRACE_S)
        late = [f"it, or a child that holds its output, did not end within {timeout_s:.0f} s"]
    return err, [*late, *[f"it wrote a traceback: {err[-300:]}"] * ("Traceback" in err)]


def list_faults(environ: Mapping[str, str]) -> tuple[ListedFault, ...]:
    """The catalogue. Raise StackError if the reference is not installed, CannotWork if nothing answers."""
    extra.insist()
    done = run((sys.executable, "-m", "faults", "list"), clean(environ, {}), LIST_TIMEOUT_S)
    if done.code != 0:
        raise CannotWork(
            f"`python -m faults list` ended with {done.code}: {done.tail}; allowed: 0 within {LIST_TIMEOUT_S:.0f} s. "
            "Run it by hand to see more"
        )
    return read_list(done.out)


def known_faults(environ: Mapping[str, str]) -> tuple[ListedFault, ...] | None:
    """The catalogue; None if the reference, whose faults they are, is not installed."""
    return None if extra.lacking() else list_faults(environ)


def must_succeed(words: Sequence[str], environ: Mapping[str, str]) -> None:
    """Run a program that must succeed. Raise StackError with its output if it does not."""
    done = run(words, environ, RUN_TIMEOUT_S)
    if done.code != 0:
        raise StackError(f"{' '.join(words)}: exit code {done.code}; allowed: 0. It says: {done.tail}")


def gate(words: Sequence[str], environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """The command line of the gate. Disturbances are allowed on staging: the deployment is the proof's own."""
    staging = (environ or {}).get("GATE_TARGET") == TargetKind.STAGING
    daring = ("--disruptive",) if staging and words[0] in {"run", "drill"} else ()
    return (sys.executable, "-m", "gates", *words, *daring)


def gate_run(environ: Mapping[str, str], out: Path, *options: str, under: Sequence[str] = ()) -> GateRun:
    """Run the whole gate as a user does, after the words `under`. Its verdict counts only if the exit code agrees."""
    before = (shutil.which(under[0]) or under[0], *under[1:]) if under else ()
    output, state = _places(out)
    done = run((*before, *gate(("run", *output, *state, *options), environ)), environ, RUN_TIMEOUT_S)
    return read_run(out, done)


def _places(out: Path) -> tuple[tuple[str, str], tuple[str, str]]:
    """Where a gate writes, and where it remembers: nothing of another proved deployment may be there."""
    shutil.rmtree(out, ignore_errors=True)
    return ("--output", str(out)), ("--state", str(out / "state"))


def stage_run(stage: str, environ: Mapping[str, str], out: Path, *options: str) -> GateRun:
    """Run one stage of the gate: `drill`, `sql`, `alerts` or `load`. Its verdict is on stdout alone."""
    output, state = _places(out)
    places = (*output, *state) if stage == "sql" else output  # the others remember nothing
    done = run(gate((stage, "--json", *places, *options), environ), environ, RUN_TIMEOUT_S)
    try:
        verdict = read_verdict(json.loads(done.out))
    except (ValueError, TypeError, KeyError) as error:
        return GateRun(None, done.seconds, f"exit code {done.code}, {type(error).__name__}: {done.tail}")
    return _with_costs(verdict, out, done)


def read_verdict(data: Mapping[str, Any]) -> Verdict:
    """The parts of a printed verdict that a proof uses. Raise KeyError, TypeError or ValueError for anything else."""
    counts = data["counts"]
    return Verdict(
        Decision(data["decision"]) if "stage" not in data else _stage_decision(data),
        data["reason"],
        release=data["release"],
        target=data["target"],
        policy_digest=data["policy_digest"],
        counts=Counts(counts["pass"], counts["fail"], counts["unknown"], counts["not_applicable"]),
        findings=tuple(map(Finding.from_json, data["findings"])),
        action=Action.from_json(data["action"]),
    )


def _stage_decision(data: Mapping[str, Any]) -> Decision:
    """The decision that the checks of a stage would lead to: a stage itself always holds."""
    if any(f["effect"] == Effect.ROLLBACK for f in data["findings"]):
        return Decision.ROLLBACK
    return Decision.PROMOTE if data["stage"]["result"] == "passed" else Decision.HOLD


def read_run(out: Path, done: FinishedProgram, *, unfinished: bool = False) -> GateRun:
    """What a gate left in its folder; `unfinished`: whether it may be the hold of an unfinished run."""
    try:
        verdict = record.recompute(out)
    except (CannotWork, OSError) as error:
        return GateRun(None, done.seconds, f"exit code {done.code}, {error}: {done.tail}")
    if verdict.reason.startswith(record.UNFINISHED) and not unfinished:
        return GateRun(None, done.seconds, f"the gate did not finish: exit code {done.code}: {done.tail}")
    return _with_costs(verdict, out, done)


def _with_costs(verdict: Verdict, out: Path, done: FinishedProgram) -> GateRun:
    if error := _disagreement(verdict, done):
        return GateRun(None, done.seconds, error)
    costs = tuple((e.check, e.duration_ms / 1000, e.samples) for e in read_lines(out / record.EVIDENCE))
    return GateRun(verdict, done.seconds, "", costs)


def _disagreement(verdict: Verdict, done: FinishedProgram) -> str:
    if done.code is None:
        return "the gate did not end within its limit"
    if done.code != verdict.exit_code:
        return f"exit code {done.code}, but the verdict on disk says {verdict.decision}: {done.tail}"
    return ""
