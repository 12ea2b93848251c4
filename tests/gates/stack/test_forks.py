"""Programs of a module are forks of a process that has imported it; to their starter they are like any other child."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from gates.stack import procfs
from gates.stack.service import SOURCE_ROOT
from gates.stack.spawner import Program, Spawner, stop, tail
from tests.waiting import command_line

TOLD = """
import heavy, os, sys
print(sys.argv[1:], os.environ.get("SAID"), os.getcwd(), os.getsid(0) == os.getpid(), "PATH" in os.environ, flush=True)
print("from", heavy.by, "umask", oct(os.umask(0)), sorted(os.listdir("/proc/self/fd"))[:-1], flush=True)
match sys.argv[1]:
    case "sleep": import time; time.sleep(60)
    case "exit": sys.exit(int(sys.argv[2]))
    case "say": sys.exit("what went wrong")
    case "break": 1 / 0
"""
Start = Callable[..., Program]


@pytest.fixture
def forked(tmp_path: Path, spawner: Spawner) -> Start:
    """A program `told` of this folder, which is forked from now on; it gets its words, and variables by name."""
    (tmp_path / "told.py").write_text(TOLD, encoding="utf-8")
    (tmp_path / "heavy.py").write_text("import os\nby = os.getpid()", encoding="utf-8")
    environ = {"PYTHONPATH": f"{tmp_path}:{SOURCE_ROOT}", "PATH": "/usr/bin:/bin", "PYTHONUNBUFFERED": "1"}
    like = Program((), tmp_path, tmp_path / "forks.log", environ)
    spawner.fork_from(like, "told", "heavy")

    def program(*words: str, **more: str) -> Program:
        command = (sys.executable, "-m", "told", *words)
        return Program(command, tmp_path, tmp_path / "log", {"PYTHONPATH": environ["PYTHONPATH"], **more})

    return program


def test_a_fork_gets_what_a_program_gets(forked: Start, spawner: Spawner, tmp_path: Path) -> None:
    """Words, variables and no others, folder, log, a session of its own, a closed umask, and the descriptor of the
    number that was named; and `ps` shows its words and
    variables.
    """
    with (tmp_path / "given").open("w") as given:
        long = "n" + "o" * 900 + "w"
        child = spawner.start(replace(forked("sleep", long, SAID="hello"), fds=(given.fileno(),)))
        assert procfs.wait_until(lambda: "umask" in tail(tmp_path / "log"), 10)
        assert command_line(child.pid).rstrip("\0").split("\0") == ["python", "-m", "told", "sleep", long]
        assert b"SAID=hello" in Path(f"/proc/{child.pid}/environ").read_bytes().split(b"\0")
        assert child.poll() is None
        own = sorted(["0", "1", "2", str(given.fileno())])
    first, second = (tmp_path / "log").read_text(encoding="utf-8").splitlines()
    assert first == f"['sleep', '{long}'] hello {tmp_path} True False"
    assert f"from {child.pid} " not in second
    assert "umask 0o77" in second
    assert all(f"'{number}'" in second for number in own)
    assert second.count("'") // 2 <= len(own) + 1, (
        "it has what its parent holds, besides the pipe that tells of its end"
    )
    assert stop(child, ()) == -signal.SIGKILL


@pytest.mark.parametrize(("words", "code"), [(("exit", "7"), 7), (("exit", "0"), 0), (("say",), 1), (("break",), 1)])
def test_the_end_of_a_fork_is_told(
    forked: Start, spawner: Spawner, tmp_path: Path, words: tuple[str, ...], code: int
) -> None:
    """Its exit code is the one that Python would give, and what it died of is in its log."""
    child = spawner.start(forked(*words))
    assert child.wait(timeout=10) == code == child.poll()
    child.send_signal(signal.SIGKILL)  # it has ended: nobody is signalled
    log = tail(tmp_path / "log")
    assert {"say": "what went wrong", "break": "ZeroDivisionError"}.get(words[0], "") in log


def test_a_wait_for_a_fork_has_a_limit(forked: Start, spawner: Spawner) -> None:
    """As of a Popen."""
    child = spawner.start(forked("sleep"))
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(timeout=0.05)
    child.send_signal(signal.SIGTERM)
    assert child.wait(timeout=10) == -signal.SIGTERM


def test_forks_end_with_their_spawner(forked: Start, spawner: Spawner) -> None:
    """As all that it started."""
    child = spawner.start(forked("sleep"))
    spawner.close()
    assert child.wait(timeout=10) == -signal.SIGKILL


def test_forks_end_with_their_parent(forked: Start, spawner: Spawner) -> None:
    """If it is killed, that is seen as their own end; from then on programs are started one by one."""
    first, second = (spawner.start(forked("sleep")) for _ in range(2))
    stat = Path(f"/proc/{first.pid}/stat").read_text(encoding="utf-8")
    os.kill(int(stat.rpartition(")")[2].split()[1]), signal.SIGKILL)
    assert first.wait(timeout=10) == second.wait(timeout=10) == -signal.SIGKILL
    assert spawner.start(forked("exit", "3")).wait(timeout=10) == 3


def test_other_sources_are_not_forked(forked: Start, spawner: Spawner, tmp_path: Path) -> None:
    """A program that finds its modules elsewhere imports them from there."""
    other = tmp_path / "other"
    other.mkdir()
    for name in ("told.py", "heavy.py"):
        (other / name).write_bytes((tmp_path / name).read_bytes())
    own = forked("exit", "5")
    path = f"{other}:{own.environ['PYTHONPATH']}"
    child = spawner.start(replace(own, environ={"PYTHONPATH": path}, cwd=other))
    assert child.wait(timeout=10) == 5
    assert f"from {child.pid} " in tail(tmp_path / "log")
