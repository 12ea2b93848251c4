"""`python -m gates.proof.matrix.warm`: pytest with all checks collected once, and a fork for each look at a target.
Reads a line of JSON for each look (`checks`, `environ`, `options`, `log`, `timeout_s`), answers pytest's exit code.
"""

import contextlib
import gc
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest

from gates.checks.recorder import spec_of
from gates.stages.suite import LEFT_OUT, ROOT

SUITES = ("drills", "sql_checks")
ALONE = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
PLACES = (f"--rootdir={ROOT}", f"--confcutdir={ROOT}")
WORDS = (*PLACES, "-q", "--no-header", "--tb=native", "--color=no", "-pgates.checks.recorder", *LEFT_OUT)


class Places:
    """A pytest plugin that records where each check is."""

    def __init__(self) -> None:
        self.files: dict[str, Path] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        self.files |= {spec.id: item.path for item in items if (spec := spec_of(item))}


def main(ini: str) -> int:
    """Answer until there are no more questions."""
    places, words = Places(), ("-c", ini, *WORDS)
    os.environ.update({**ALONE, "GATE_TARGET": "reference"})
    with contextlib.redirect_stdout(sys.stderr):
        code = pytest.main([*(str(ROOT / s) for s in SUITES), *words, "--collect-only", "--deep"], [places])
    del os.environ["GATE_TARGET"]
    if code != 0:
        return int(code)
    gc.freeze()
    for line in sys.stdin:
        sys.stdout.write(json.dumps({"code": looked(json.loads(line), places.files, words)}) + "\n")
        sys.stdout.flush()
    return 0


def looked(asked: Mapping[str, Any], files: Mapping[str, Path], words: Sequence[str]) -> int:
    """Look in a forked process with a time limit; returns its exit code, negative for a signal."""
    child = os.fork()
    if child == 0:
        _look(asked, files, words)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _look(asked: Mapping[str, Any], files: Mapping[str, Path], words: Sequence[str]) -> NoReturn:
    code = 3
    try:
        signal.alarm(int(asked["timeout_s"]))
        log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        for stream in (1, 2):
            os.dup2(log, stream)
        os.environ.clear()
        os.environ.update({**asked["environ"], **ALONE})
        where = sorted({str(files[check]) for check in asked["checks"]})
        only = [f"--only={check}" for check in asked["checks"]]
        code = int(pytest.main([*where, *words, *only, *asked["options"]]))
        sys.stdout.flush()
    finally:  # the fork must not continue as its parent
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
