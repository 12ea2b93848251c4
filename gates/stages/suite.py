"""Runs one pytest suite as a subprocess with a time limit, and follows its growing evidence.

Its process imports and collects, then waits for a signal, so it can be started during the stage before. The user's
environment cannot influence it: options and plugins are not passed on.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from gates import config, disk
from gates.deployment.redaction import hidden, redact_text
from gates.errors import CannotWork
from gates.evidence import CAPABILITIES, CheckSpec, Outcome
from gates.evidence_file import read_on
from gates.stages.context import Context, Progress, StageReport
from gates.stages.watchdog import Watchdog, known_shut
from gates.text import characters

ROOT = Path(__file__).resolve().parent.parent.parent
LAUNCHER = ROOT / "gates" / "stack" / "launch.py"
POLL_S = 0.05
GRACE_S = 5.0
TAIL_CHARACTERS = 4000
TEMPORARY = ".gate-tmp"
"""A name that nobody else uses: the folder is removed with its contents."""
PLUGINS = ("gates.checks.recorder",)
LEFT_OUT = ("-p", "no:cacheprovider", "-p", "no:unraisableexception")
"""pytest's own plugins to switch off: one writes into the repository, the other collects garbage in each process."""

SAID_BY_PYTEST = {2: "it was interrupted", 3: "it had an internal error", 4: "it could not be started that way"}
"""pytest's exit codes; 0 and 1 are results, 5 means that nothing was collected."""


@dataclass(frozen=True, slots=True)
class SuiteRun:
    """One subprocess: what to run, for which checks, for how long."""

    name: str
    folder: str
    expected: Sequence[CheckSpec]
    timeout_s: float
    options: tuple[str, ...] = ()
    http: bool = True
    """Whether it looks at the service, and not only at the database."""
    meanwhile: Callable[[], None] | None = None
    """What this process does when the suite asks for it; the suite's time stands still."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A suite's process, which imports and collects; it looks at the target once `tell` is written to. A byte from
    `called` asks for what is done meanwhile; one more to `tell` says that it is.
    """

    suite: SuiteRun
    process: subprocess.Popen[bytes]
    tell: BinaryIO
    called: BinaryIO
    log: Path


@contextlib.contextmanager
def begun(suite: SuiteRun, context: Context) -> Iterator[Begun]:
    """The suite with its process, which is ended at the end of the block, even if a signal ends the run."""
    folder = ROOT / suite.folder
    if not folder.is_dir():
        raise CannotWork(f"{folder} is not there; allowed: the suite {suite.folder}. Install the package whole")
    log = context.out / "logs" / f"{suite.name}.log"
    disk.folder(log.parent)
    with disk.opened(log, "wb") as output, _temporary(context, suite) as temporary:
        os.fchmod(output.fileno(), 0o600)  # nothing in it is redacted yet
        with _pipe() as (waits, tell), _pipe() as (called, calls):
            ends = (waits.fileno(), calls.fileno())
            process = _start(_command(suite, context, folder, *ends), context, output.fileno(), temporary, ends)
            try:
                yield Begun(suite, process, tell, called, log)
            finally:
                end(process)
                with contextlib.suppress(FileNotFoundError):  # it was removed: nothing is left to redact
                    disk.write(log, characters.log(_text(log, context)))


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[BinaryIO, BinaryIO]]:
    reads, writes = os.pipe()
    with os.fdopen(reads, "rb", buffering=0) as reader, os.fdopen(writes, "wb", buffering=0) as writer:
        yield reader, writer


def _text(log: Path, context: Context) -> str:
    """The output of a suite, without secrets."""
    with disk.opened(log, "rb") as said:
        return redact_text(said.read().decode("utf-8", "replace"), hidden(context.target))


def run(suite: SuiteRun, context: Context) -> StageReport:
    """Start the suite and let it look, as `looked` says."""
    with begun(suite, context) as one:
        return looked(one, context)


def looked(one: Begun, context: Context) -> StageReport:
    """Let the suite look. Whatever happens, every expected check has evidence afterwards, if need be unknown. If the
    target stops answering, or had stopped before, the suite ends, and what it did not see is blocked by that.
    """
    suite = one.suite
    already = len(context.lines())
    follow = _Follower(suite, context)
    shut, code, text = known_shut(context.evidence, http=suite.http), None, ""
    if not shut:
        with Watchdog(context.target, suite.name, http=suite.http) as dog:
            code, text = _ran(one, context, follow, dog)
        shut = dog.shut
        context.write(shut)
    error = shut[0].message if shut else _error(code, suite, text)
    if shut:
        context.block(suite.expected, shut[0], already=already)
    else:
        missed = suite.expected if error else _certain(suite, context)
        context.account_for(missed, error or _ABSENT.format(suite.name), already=already)
    follow(done=True, error=error)
    return StageReport(suite.name, follow.seconds, code if code is not None else -1, error)


def _ran(one: Begun, context: Context, follow: _Follower, dog: Watchdog) -> tuple[int | None, str]:
    """The suite's exit code, None if it was ended, and its output without secrets."""
    _tell(one)
    code = _wait(one, follow, dog)
    end(one.process)
    return code, _text(one.log, context)


@contextlib.contextmanager
def _temporary(context: Context, suite: SuiteRun) -> Iterator[Path]:
    """A folder for the temporary files of a suite. A killed suite removes nothing, so it is removed here, or by the
    next run in the same place.
    """
    place = disk.folder(context.out / TEMPORARY)
    place.chmod(0o700)
    folder = place / suite.name
    shutil.rmtree(folder, ignore_errors=True)
    disk.folder(folder).chmod(0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # another suite's is there
            place.rmdir()


_ABSENT = "the {0} stage ended without it; see logs/{0}.log"


def _certain(suite: SuiteRun, context: Context) -> list[CheckSpec]:
    """The checks that a completed suite must have seen: those that need no capability of the target."""
    return [s for s in suite.expected if not set(s.needs) & {*CAPABILITIES, *context.scope.may_lack}]


def pytest_of(folder: Path, ini: Path) -> tuple[str, ...]:
    """The arguments that start pytest on a suite. Nothing above it is used: no ini file and no conftest.py of the
    project, or of the packages' folder, that the gate is installed in.
    """
    alone = (f"--rootdir={ROOT}", f"--confcutdir={folder}")
    return (sys.executable, "-m", "pytest", str(folder), "-c", str(ini), *alone)


def _command(suite: SuiteRun, context: Context, folder: Path, waits: int, calls: int) -> list[str]:
    ini = context.out / "logs" / "pytest.ini"
    disk.folder(ini.parent)
    disk.write(ini, "[pytest]\n")
    plugins = [word for name in PLUGINS for word in ("-p", name)]
    left_out = context.out / "logs" / "left-out.txt"
    disk.write(left_out, "".join(f"{check}\n" for check in context.left_out))
    allowed = [*(["--deep"] if context.deep else []), *(["--disruptive"] if context.disruptive else [])]
    return [
        *pytest_of(folder, ini),
        *(*plugins, *LEFT_OUT, "-q", "--no-header", "--tb=native", "--color=no"),
        *(
            f"--evidence={context.evidence}",
            f"--run-id={context.run_id}",
            f"--left-out={left_out}",
            f"--when-told={waits}",
            f"--calls={calls}",
        ),
        *allowed,
        *suite.options,
    ]


def _start(
    command: list[str], context: Context, output: int, temporary: Path, ends: tuple[int, int]
) -> subprocess.Popen[bytes]:
    environ = config.environment_of(context.target, context.environ)
    environ |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONUNBUFFERED": "1", "TMPDIR": str(temporary)}
    with_parent = [sys.executable, "-I", "-S", str(LAUNCHER), str(os.getpid()), str(int(signal.SIGKILL)), "-1", "-1"]
    return subprocess.Popen(
        [*with_parent, *command],
        cwd=ROOT,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        pass_fds=ends,
    )


def _wait(one: Begun, follow: _Follower, dog: Watchdog) -> int | None:
    """The exit code, or None if the time ran out, or the watchdog fires. What the suite asks for is done meanwhile."""
    process = one.process
    ending = threading.Thread(target=process.wait, name=f"{process.pid}-ends", daemon=True)  # `wait` with a limit polls
    ending.start()
    while follow.seconds < one.suite.timeout_s and not dog.fired:
        ending.join(POLL_S)
        if not ending.is_alive():
            return process.returncode
        follow()
        if one.suite.meanwhile and select.select([one.called], [], [], 0)[0]:
            one.called.read(1)
            follow.without(one.suite.meanwhile)
            _tell(one)
    return None


def _tell(one: Begun) -> None:
    with contextlib.suppress(BrokenPipeError):  # it failed before the signal, as its exit code says
        one.tell.write(b"1")


def end(process: subprocess.Popen[bytes]) -> None:
    """End the whole process group, gently first, if it still runs. If only its leader was killed, others of the group
    may go on: they would judge data while it is cleaned up.
    """
    for number, patience_s in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, GRACE_S)):
        if process.poll() is not None:
            if process.returncode < 0:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            return
        try:
            os.killpg(process.pid, number)
            process.wait(timeout=patience_s)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


def _error(code: int | None, suite: SuiteRun, text: str) -> str:
    """Why the suite did not see all that it should have; empty if it completed."""
    if code is None:
        limit = f"limit {suite.timeout_s:g} s; a slow target needs a larger timeout_s of the stage in gate.yaml"
        return f"the {suite.name} stage ran out of time before this was seen ({limit})"
    if code in {0, 1}:
        return ""
    if code == 5:
        return f"the {suite.name} stage found no check" if suite.expected else ""
    if code < 0:
        return f"the {suite.name} stage was ended by {signal.strsignal(-code)}; see this machine's memory and its log"
    last = next((line for line in reversed(text.splitlines()) if line.startswith(("E ", "ERROR", "!"))), "").strip()
    return f"the {suite.name} stage broke: {SAID_BY_PYTEST.get(code, f'exit code {code}')} {last[:300]}".rstrip()


class _Follower:
    """Counts outcomes as lines are appended to the evidence file, and reports them."""

    def __init__(self, suite: SuiteRun, context: Context) -> None:
        self._suite, self._context, self._started = suite, context, time.monotonic()
        self._offset = context.evidence.stat().st_size if context.evidence.exists() else 0
        self._counts = dict.fromkeys(Outcome, 0)
        self._own = {spec.id for spec in suite.expected}
        self._before: dict[str, Outcome] = {}
        """Outcomes of checks that must be seen again."""
        self()

    @property
    def seconds(self) -> float:
        """How long the suite has run."""
        return time.monotonic() - self._started

    def without(self, work: Callable[[], None]) -> None:
        """Do what is no work of the suite: its time stands still."""
        began = time.monotonic()
        work()
        self._started += time.monotonic() - began

    def __call__(self, *, done: bool = False, error: str = "") -> None:
        path = self._context.evidence
        if path.exists():
            with disk.opened(path, "rb") as lines:
                lines.seek(self._offset)
                whole, newline, _ = lines.read().rpartition(b"\n")
            self._offset += len(whole) + len(newline)
            for one in read_on(path, whole, self._context.run_id):
                if one.check not in self._own:
                    continue
                if one.round == "before":
                    self._before[one.check] = one.outcome
                elif one.check in self._before:
                    self._counts[self._before.pop(one.check)] -= 1
                self._counts[one.outcome] += 1
        self._context.progress(
            Progress(
                self._suite.name,
                self._counts[Outcome.PASS],
                self._counts[Outcome.FAIL],
                self._counts[Outcome.UNKNOWN],
                len(self._suite.expected),
                self.seconds,
                done,
                error,
            )
        )
