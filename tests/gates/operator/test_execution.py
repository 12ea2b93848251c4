"""How a command ends: no limit of the machine is an error in the program."""

import subprocess
import sys

import pytest

from tests.sources import ROOT

PROGRAM = """
import argparse, sys
from gates.operator.execution import execute

def carry_out(_options, _console):
    raise {error}

sys.exit(execute(carry_out, argparse.Namespace(command="run", quiet=False, env_file=None)))
"""


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        ("MemoryError()", 4, "gate run: there is no memory; allowed: memory and threads. Raise their limits"),
        ("""RuntimeError("can't start new thread")""", 4, "allowed: memory and threads. Raise their limits"),
        ("OSError(28, 'No space left on device')", 4, "allowed: files that can be read and written"),
        ("RuntimeError('a set changed size')", 1, "internal error (RuntimeError); please report the lines above"),
    ],
)
def test_what_the_machine_does_not_give_is_no_internal_error(error: str, code: int, said: str) -> None:
    """Without memory or threads the gate cannot work, and says which limits to raise, without a traceback."""
    words = [sys.executable, "-c", PROGRAM.format(error=error)]
    environ = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (code, code == 1)
    assert said in done.stderr
