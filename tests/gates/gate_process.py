"""`gate` in a process of its own, without the half second of its start: forked from one that has imported it.

What the start itself does (signals, streams that nobody reads, variables that are no text) is shown by real starts.
"""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

from gates.cli import COMMANDS, main
from gates.stages import load_process
from tests.sources import ROOT

MOST_S = 120.0
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(  # pytest: each child imports the program that its parent runs
    ["pytest", __name__, *{command.module for command in COMMANDS.values()}]
)


def gate(
    *words: str, cwd: Path = ROOT, environ: Mapping[str, str] | None = None, load_s: float | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `gate` with nothing of the user's environment; load_s: the seconds of its load, else of its own choice."""
    own = {name: os.environ[name] for name in ("TMPDIR",) if name in os.environ}
    clean = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": str(cwd), **own, **(environ or {})}
    with TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        process = _CONTEXT.Process(target=_become, args=(words, cwd, clean, out, err, load_s))
        process.start()
        # several threads may ask: a start looks at the ends of all children, and an exit code can be read once
        multiprocessing.process._children.discard(process)  # type: ignore[attr-defined]
        process.join(MOST_S)
        code = process.exitcode
        if code is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(words, MOST_S)
        process.close()
        return subprocess.CompletedProcess(words, code, out.read_text("utf-8"), err.read_text("utf-8"))


def _become(
    words: tuple[str, ...], cwd: Path, environ: Mapping[str, str], out: Path, err: Path, load_s: float | None
) -> None:
    for path, number in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), number)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environ)
    if load_s is not None:
        mock.patch.multiple(load_process, QUICK_S=load_s, QUICK_MOST_S=load_s).start()
    sys.exit(main(words))
