"""Child processes die with their parent, outlive the thread that asked for them, and ignore the terminal's Ctrl-C."""

import os
import subprocess
import sys
import threading
from pathlib import Path

from gates.stack import procfs
from gates.stack.forks import StartedProgram
from gates.stack.spawner import LAUNCHER, Program, Spawner, stop, tail
from tests.waiting import command_line

SLEEP = (sys.executable, "-S", "-c", "import time; time.sleep(60)")


def program(tmp_path: Path, *command: str) -> Program:
    return Program(command or SLEEP, tmp_path, tmp_path / "log", {"PATH": "/usr/bin:/bin"})


def test_a_child_outlives_the_thread_that_asked_for_it(tmp_path: Path, spawner: Spawner) -> None:
    """The spawner's own thread starts it."""
    started: list[StartedProgram] = []
    asking = threading.Thread(target=lambda: started.append(spawner.start(program(tmp_path))))
    asking.start()
    asking.join(timeout=10)
    assert not procfs.wait_until(lambda: started[0].poll() is not None, 0.3)
    assert stop(started[0], ()) == -9


def test_a_child_dies_when_the_spawner_closes(tmp_path: Path) -> None:
    """A child that was not ended dies with the spawner's thread."""
    spawner = Spawner()
    child = spawner.start(program(tmp_path))
    assert procfs.wait_until(lambda: "sleep" in command_line(child.pid), 5)
    assert procfs.wait_until(lambda: "launch" not in command_line(child.pid), 5)
    spawner.close()
    assert child.wait(timeout=10) == -9


def test_a_child_has_a_session_of_its_own(tmp_path: Path, spawner: Spawner) -> None:
    """Ctrl-C reaches our process group only."""
    child = spawner.start(program(tmp_path))
    assert os.getsid(child.pid) == child.pid
    stop(child, ())


def test_a_program_that_cannot_be_executed_says_so_in_its_log(tmp_path: Path, spawner: Spawner) -> None:
    """The launcher exits with 126, and one line names the program."""
    child = spawner.start(program(tmp_path, "/does/not/exist"))
    assert child.wait(timeout=10) == 126
    assert "cannot execute /does/not/exist" in tail(tmp_path / "log")


def test_a_launcher_whose_parent_is_gone_starts_nothing(tmp_path: Path) -> None:
    """If the parent died first, the program never starts."""
    mark = tmp_path / "mark"
    other = "1" if os.getpid() != 1 else "2"
    command = [sys.executable, "-I", "-S", str(LAUNCHER), other, "9", "-1", "-1", "/usr/bin/touch", str(mark)]
    assert subprocess.run(command, timeout=10, check=False).returncode == 126
    assert not mark.exists()


def test_the_tail_of_a_missing_log_is_no_error(tmp_path: Path) -> None:
    """An error message can be made without a log."""
    assert "no log" in tail(tmp_path / "none")
