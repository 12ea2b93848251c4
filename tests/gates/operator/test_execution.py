"""How a command ends: a limit of the machine is not an internal error."""

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
        ("OSError(28, 'No space left on device')", 4, " MB free in /tmp (TMPDIR); "),
        ("RuntimeError('a set changed size')", 1, "internal error (RuntimeError); please report the lines above"),
    ],
)
def test_what_the_machine_does_not_give_is_no_internal_error(error: str, code: int, said: str) -> None:
    """Without memory, threads or disk space it exits with 4 and no traceback; any other error is an internal one."""
    words = [sys.executable, "-c", PROGRAM.format(error=error)]
    environ = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (code, code == 1)
    assert said in done.stderr


UNLOADED = """
import resource, sys
from gates import cli
from gates.__main__ import main

def load(_argv):
    raise SystemError("error return without exception set")

cli.main = load
resource.setrlimit(resource.RLIMIT_AS, ({most}, -1))
sys.exit(main())
"""


@pytest.mark.parametrize(("most", "code"), [(2**32, 4), (-1, 1)])
def test_a_command_that_finds_no_memory_to_be_loaded_says_so(most: int, code: int) -> None:
    """Libraries that find no memory at their import raise anything; without a limit of memory it is a bug."""
    words = [sys.executable, "-c", UNLOADED.format(most=most)]
    environ = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "within a limit of 4096 MB of memory" in done.stderr) == (code, code == 4), done.stderr
    assert ("Traceback" in done.stderr) is (code == 1)


SIGNALLED = """
import signal, sys
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)

class Raises:
    def __del__(self):
        signal.raise_signal({number})

    def find_spec(self, name, *_):
        if name in {{"importlib.metadata", "gates.cli"}}:  # both take long; the first of them raises
            signal.raise_signal({number})

{first}
from gates import __main__, cli

cli.main = lambda _argv: 20
code = __main__.main(["rollback"])
{last}
sys.exit(code)
"""


@pytest.mark.parametrize("number", [2, 15, 1])
def test_a_signal_before_the_command_begins_is_told_and_one_after_it_changes_nothing(number: int) -> None:
    """Loading takes a second on slow machines: whoever cancels a rollback then must know that nothing happened."""
    environ = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    loading = "sys.modules.pop('importlib.metadata', None); sys.meta_path.insert(0, Raises())"
    for first, last, code, said in (
        (loading, "", 128 + number, "before it began; nothing was done, and no flag was changed"),
        ("", f"signal.raise_signal({number})", 20, ""),
        ("", "late = Raises()", 20, ""),  # taken apart with its module
    ):
        words = [sys.executable, "-c", SIGNALLED.format(first=first, last=last, number=number)]
        done = subprocess.run(words, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, said in done.stderr, done.stderr.count("\n")) == (code, True, bool(said)), done.stderr


CANCELLED = """
import signal, sys, threading
from gates import past_decisions
from gates.act import operations
from gates.cli import main
from gates.verdict import Action

def remember(*_):
    if threading.current_thread() is threading.main_thread():
        signal.raise_signal(signal.SIGTERM)

past_decisions.remember = remember
operations.act_by_hand = lambda *_: Action("none", result="failed", flag="on", by_hand="UPDATE this;")
sys.exit(main(["rollback", "--reason", "why"]))
"""


def test_a_signal_after_a_rollback_that_failed_is_no_excuse() -> None:
    """A signal while the history is written changes neither exit code 21 nor the SQL to run."""
    environ = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "DATABASE_URL": "postgresql://u:p@127.0.0.1:9/x"}
    words = [sys.executable, "-c", CANCELLED]
    done = subprocess.run(words, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 21
    assert "THE FLAG IS STILL ON" in done.stderr
    assert "UPDATE this;" in done.stderr


BROKEN_OFF = """
import argparse, signal, sys
from contextlib import ExitStack
from gates.errors import NotRolledBack
from gates.operator import execution

execution.TOGETHER_S = 0.0

def carry_out(_options, _console):
    with ExitStack() as under_way:
        under_way.callback(signal.raise_signal, signal.SIGTERM)
        try:
            signal.raise_signal(signal.SIGHUP)
        except BaseException as ended:
            raise NotRolledBack("THE FLAG MAY STILL BE ON: UPDATE this;") from ended

for number in (signal.SIGHUP, signal.SIGTERM):
    signal.signal(number, signal.SIG_DFL)
sys.exit(execution.execute(carry_out, argparse.Namespace(command="emergency", quiet=False, env_file=None)))
"""


def test_a_second_signal_is_no_excuse_for_a_rollback_that_was_broken_off() -> None:
    """A second signal changes neither exit code 21 nor the SQL to run."""
    environ = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", BROKEN_OFF]
    done = subprocess.run(words, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 21, done.stderr
    assert "UPDATE this;" in done.stderr
