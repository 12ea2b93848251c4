"""Runs `python -m loadtests` on a plan, as the gate does, and reads its result."""

import argparse
import atexit
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from gates.stages import load_options
from gates.stages.load_options import LoadOptions
from loadtests.plan import LoadPlan, dump_plan
from tests.waiting import command_line

ROOT = Path(__file__).resolve().parent.parent.parent
N = TypeVar("N")
R = TypeVar("R")
ENVIRON = {"TRANSBOT_HMAC_SECRET": "a-secret-of-the-tests", "PATH": "/usr/bin:/bin"}
_ASKING = threading.Lock()


def options(*words: str) -> LoadOptions:
    """The options that these arguments of `gate load` give."""
    parser = argparse.ArgumentParser()
    load_options.add_arguments(parser)
    return LoadOptions.given(parser.parse_args(list(words)))


class Load:
    """A load that runs, forked from a process that has imported Locust: of `subprocess.Popen` what the tests need.

    text: a program of the test's own, run in its place.
    """

    def __init__(
        self, words: Sequence[str], folder: Path, environ: Mapping[str, str], *, idle: bool = False, text: str = ""
    ) -> None:
        self._said, self._code = folder / "said", folder / "code"
        files = {"said": str(self._said), "code": str(self._code)}
        asked = {"words": [*words], "environ": {**environ}, "idle": idle, "text": text, **files}
        self.pid = _forked(json.dumps(asked) + "\n")
        try:
            self._end: int | None = os.pidfd_open(self.pid)
        except ProcessLookupError:
            self._end = None
        else:
            weakref.finalize(self, os.close, self._end)  # not before: several threads may ask

    @property
    def returncode(self) -> int:
        return int(self._code.read_text(encoding="ascii")) if self._code.exists() else -signal.SIGKILL

    def poll(self, timeout_s: float = 0.0) -> int | None:
        """The exit code, once it has ended."""
        if self._end is not None and not select.select([self._end], [], [], timeout_s)[0]:
            return None
        return self.returncode

    def communicate(self, timeout: float) -> tuple[str, str]:
        """Wait for its end; what it said on both streams."""
        if self.poll(timeout) is None:
            self.send_signal(signal.SIGKILL)
            raise subprocess.TimeoutExpired("loadtests", timeout)
        return self._said.read_text(encoding="utf-8"), ""

    def send_signal(self, number: signal.Signals) -> None:
        if self._end is not None:
            with contextlib.suppress(ProcessLookupError):  # it has ended
                signal.pidfd_send_signal(self._end, number)


@cache
def _warm() -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.loadtests.warm_load"]
    warm = subprocess.Popen(
        command,
        cwd=ROOT,
        env=ENVIRON,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # of its own share of the processors where Linux groups by session: beside busy workers
    )
    atexit.register(warm.communicate, timeout=10)
    return warm


def _forked(asked: str) -> int:
    with _ASKING:
        warm = _warm()
        assert warm.stdin is not None
        assert warm.stdout is not None
        warm.stdin.write(asked.encode())
        warm.stdin.flush()
        return int(warm.stdout.readline())


def start(plan: LoadPlan, folder: Path, *, idle: bool = False, **environ: str) -> Load:
    """Start a run, with further variables; its result will be in `folder`/out. idle: it takes this machine for idle, as
    what it must find does not depend on that.
    """
    path = folder / "plan.json"
    path.write_text(dump_plan(plan), encoding="utf-8")
    return Load([str(path), str(folder / "out")], folder, ENVIRON | environ, idle=idle)


def finish(process: Load, folder: Path, *, timeout_s: float = 60) -> dict[str, Any]:
    """Wait for a run and return its result."""
    output, _ = process.communicate(timeout=timeout_s)
    assert process.returncode == 0, output
    document: dict[str, Any] = json.loads((folder / "out" / "result.json").read_text(encoding="utf-8"))
    return document


def at_once(names: Iterable[N], run: Callable[[N, Path], R], folder: Path, *, most: int = 3) -> list[tuple[N, R]]:
    """Runs that mostly wait for a target that does not answer, at the same time, each in a folder of its own."""
    folders = {name: folder / str(name) for name in names}
    for own in folders.values():
        own.mkdir()
    with ThreadPoolExecutor(most) as pool:
        return list(zip(folders, pool.map(run, folders, folders.values()), strict=True))


def children_of(process: int, running: str) -> list[int]:
    """The living children whose arguments name that program, whichever thread of the process started them."""
    numbers: list[str] = []
    for one in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            numbers += one.read_text(encoding="ascii").split()
    return [int(number) for number in numbers if running in command_line(number)]


def verdicts(result: dict[str, Any]) -> dict[str, str]:
    return {one["check"]: one["verdict"] for one in result["judgements"]}


def messages(result: dict[str, Any]) -> str:
    return " | ".join(one["message"] for one in result["judgements"])
