"""The control door lists, signals and restarts processes; every mistake gets an answer, and the door stays open."""

import signal
import socket
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gates.deployment.control import Control, ControlError, open_socket
from gates.stack import procfs
from gates.stack.control import Door, answer
from gates.stack.errors import StackError
from gates.stack.postgres import Postgres
from gates.stack.service import SOURCE_ROOT, Supervised
from gates.stack.spawner import Program, Spawner
from tests.waiting import until

SLEEP = ("/bin/sleep", "60")


class FakeStack:
    """Two processes and a service that is always ready."""

    def __init__(self, folder: Path, spawner: Spawner) -> None:
        program = Program(SLEEP, folder, folder / "log", {"PATH": "/usr/bin:/bin"})
        self.processes = [Supervised(name, program, spawner) for name in ("service-0", "worker-0")]
        self.noted = 0

    def wait_ready(self, timeout_s: float) -> None:
        if any(p.pid is None for p in self.processes):
            raise ValueError(f"not ready in {timeout_s}")

    def note_processes(self) -> None:
        self.noted += 1


@pytest.fixture
def stack(tmp_path: Path, spawner: Spawner) -> Iterator[FakeStack]:
    stack = FakeStack(tmp_path, spawner)
    for process in stack.processes:
        process.start()
    yield stack
    for process in stack.processes:
        process.stop()


@pytest.fixture
def control(stack: FakeStack, tmp_path: Path) -> Iterator[Control]:
    folder = tmp_path / ("deep" * 40)  # longer than a socket's path may be
    folder.mkdir()
    door = Door(folder, stack)
    yield Control(str(door.path))
    door.close()


def test_a_killed_process_is_seen_and_mended(control: Control, stack: FakeStack) -> None:
    """Kill returns when the process is gone; mend starts it again and waits until all is ready."""
    before = control.processes()
    assert [p.name for p in before] == ["service-0", "worker-0"]
    control.kill("worker-0")
    assert [(p.pid is None, p.exit_code) for p in control.processes()] == [(False, None), (True, -9)]
    with pytest.raises(ControlError, match="not ready"):
        control.wait_ready(1)
    control.mend()
    after = control.processes()
    assert after[0] == before[0]
    assert after[1].pid not in {None, before[1].pid}
    assert stack.noted == 1


def test_a_frozen_process_goes_on_after_mend(control: Control, stack: FakeStack) -> None:
    """Freeze stops a process without ending it; mend thaws it."""
    control.freeze("service-0")
    stat_file = Path(f"/proc/{stack.processes[0].pid}/stat")

    def is_stopped() -> bool:
        return stat_file.read_text().rpartition(")")[2].split()[0] == "T"

    assert procfs.wait_until(is_stopped, 5)
    control.mend()
    assert procfs.wait_until(lambda: not is_stopped(), 5)


def test_restart_gives_a_new_process(control: Control) -> None:
    """After a restart the process has another number."""
    before = control.processes()[1].pid
    control.restart("worker-0")
    assert control.processes()[1].pid not in {None, before}


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"nonsense",
        b"[]",
        b'{"do": "explode"}',
        b'{"do": "signal", "name": "nobody", "signal": "SIGKILL"}',
        b'{"do": "signal", "name": "worker-0", "signal": "SIGNAL"}',
        b'{"do": "restart"}',
        b'{"do": "restart", "name": "worker-0", "clock_s": "early"}',
        b'{"do": "restart", "name": "worker-0", "clock_s": NaN}',
        b'{"do": "restart", "name": "worker-0", "clock_s": 1e9}',
        b'{"do": "restart", "name": "worker-0", "clock_s": 600}',  # /bin/sleep is no module of Python's
    ],
)
def test_nonsense_is_an_error_answer(stack: FakeStack, line: bytes) -> None:
    """The answer says what was wrong, and no process is touched."""
    pids = [p.pid for p in stack.processes]
    reply = answer(stack, line)
    assert reply["ok"] is False
    assert reply["error"]
    assert [p.pid for p in stack.processes] == pids


def test_a_silent_client_does_not_keep_the_door(stack: FakeStack, tmp_path: Path) -> None:
    """After a client that hangs up the next one is served."""
    door = Door(tmp_path, stack)
    with open_socket(tmp_path) as (sock, place):
        sock.connect(f"{place}/{door.path.name}")
        sock.shutdown(socket.SHUT_RDWR)
    assert len(Control(str(door.path)).processes()) == 2
    door.close()


def test_only_the_owner_may_open_the_door(stack: FakeStack, tmp_path: Path) -> None:
    """The socket has mode 0600."""
    door = Door(tmp_path, stack)
    assert stat.S_IMODE(door.path.stat().st_mode) == 0o600
    door.close()


def test_without_a_stack_the_client_says_so(tmp_path: Path) -> None:
    """A missing socket raises ControlError, not OSError."""
    with pytest.raises(ControlError, match="did not answer 'list'"):
        Control(str(tmp_path / "control.sock")).processes()


def test_what_a_drill_has_found_stands(tmp_path: Path) -> None:
    """A finding is not replaced by the error of a stack that cannot be mended; without one, that error is told."""
    nobody = str(tmp_path / "control")
    with pytest.raises(AssertionError, match="not ready"), Control(nobody):
        raise AssertionError("it is not ready again")
    with pytest.raises(ControlError), Control(nobody):
        pass


def test_stop_of_a_frozen_process_ends_it(stack: FakeStack) -> None:
    """A frozen process still ends at SIGTERM, because stop thaws it first."""
    process = stack.processes[0]
    process.signal(signal.SIGSTOP)
    process.terminate()
    process.stop()
    assert process.exit_code == -signal.SIGTERM


def test_a_process_is_started_with_more_and_is_what_it_was_again(tmp_path: Path, spawner: Spawner) -> None:
    """New arguments and variables last through restarts, until a restart gives none."""
    shown = tmp_path / "shown"
    script = 'printf "%s\\n" "$FAULT:$*" >> "$0"; exec sleep 60'
    command = ("/bin/sh", "-c", script, str(shown), "own")
    process = Supervised("service-0", Program(command, tmp_path, tmp_path / "log", {"PATH": "/usr/bin:/bin"}), spawner)
    process.restart_as(("more",), {"FAULT": "on"})
    _wait_for_lines(shown, 1)
    process.restart()
    _wait_for_lines(shown, 2)
    process.restart_as((), {})
    _wait_for_lines(shown, 3)
    pid = process.pid
    process.restart_as((), {})
    assert process.pid == pid, "it is already what it should be"
    process.stop()
    assert shown.read_text().splitlines() == ["on:own more", "on:own more", ":own"]


TELLS_TIME = "import sys, time; open(sys.argv[1], 'a').write(f'{time.time()}\\n'); time.sleep(60)"


def test_a_wrong_clock_lasts_until_it_is_mended(tmp_path: Path, spawner: Spawner) -> None:
    """A process started with its clock wrong is listed with it, and has the right one again after mend."""
    shown = tmp_path / "shown"
    (tmp_path / "tells_time.py").write_text(TELLS_TIME, encoding="utf-8")
    environ = {"PYTHONPATH": f"{SOURCE_ROOT}:{tmp_path}", "PATH": "/usr/bin:/bin"}
    command = (sys.executable, "-m", "tells_time", str(shown))
    stack = FakeStack(tmp_path, spawner)
    worker = Supervised("worker-0", Program(command, tmp_path, tmp_path / "log", environ), spawner)
    stack.processes = [worker]
    door = Door(tmp_path, stack)
    control = Control(str(door.path))
    control.restart("worker-0", clock_s=-600)
    _wait_for_lines(shown, 1)
    assert [p.clock_s for p in control.processes()] == [-600]
    control.mend()
    _wait_for_lines(shown, 2)
    assert [p.clock_s for p in control.processes()] == [0]
    door.close()
    worker.stop()
    off = [float(line) - time.time() for line in shown.read_text().splitlines()]
    assert [round(s / 60) for s in off] == [-10, 0]


def test_the_databases_clock_cannot_be_wrong(postgres: Postgres) -> None:
    """The other clocks are compared with PostgreSQL's, so a skew of it is refused."""
    with pytest.raises(StackError, match="the machine's clock"):
        postgres.restart(600)
    assert (postgres.clock_s, postgres.pid is not None) == (0, True)


def _wait_for_lines(path: Path, count: int) -> None:
    until(lambda: path.exists() and len(path.read_text().splitlines()) >= count, what=f"{count} lines in {path.name}")
