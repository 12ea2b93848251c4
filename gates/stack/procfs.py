"""Facts about processes and shared memory from the kernel (Linux: /proc). Elsewhere they are unknown."""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")
IPC_RMID = 0


def start_ticks(pid: int) -> int | None:
    """When the process started, in clock ticks since boot; None if it does not exist (a zombie counts as missing)."""
    try:
        text = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, *rest = text.rpartition(")")[2].split()
    return None if state in {"Z", "X"} else int(rest[18])


def is_running(pid: int, ticks: int | None) -> bool:
    """Whether the process that started at `ticks` still runs; a reused process number is another process."""
    found = start_ticks(pid)
    return found is not None and (ticks is None or found == ticks)


def is_within(pid: int, folder: Path) -> bool:
    """Whether the process's working directory is the folder or inside it."""
    try:
        place = (PROC / str(pid) / "cwd").readlink()
    except OSError:
        return False
    return f"{place}/".replace(" (deleted)/", "/").startswith(f"{folder.resolve()}/")


def processes_within(folder: Path, name: str) -> Iterator[int]:
    """Numbers of processes with that program name whose working directory is the folder or inside it."""
    if not PROC.is_dir():
        return
    for entry in PROC.iterdir():
        if entry.name.isdigit() and _name(entry) == name and is_within(int(entry.name), folder):
            yield int(entry.name)


def _name(entry: Path) -> str:
    try:
        return (entry / "comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def kill_all(pids: Iterable[int], signal_number: int = signal.SIGKILL) -> None:
    """Signal each; one that is already gone is no error."""
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal_number)


def wait_until(condition: Callable[[], bool], timeout_s: float, pause_s: float = 0.01) -> bool:
    """Poll the condition until it holds (True) or the time is over (False)."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause_s)
    return True


def remove_shared_memory(key: int, shm_id: int) -> bool:
    """Remove a System V segment if it still has that key and nobody is attached. True if removed."""
    if sys.platform != "linux":
        return False
    try:
        rows = [line.split() for line in (PROC / "sysvipc" / "shm").read_text(encoding="ascii").splitlines()[1:]]
    except OSError:
        return False
    for row in rows:
        same = int(row[1]) == shm_id and int(row[0]) & 0xFFFFFFFF == key & 0xFFFFFFFF
        if same and int(row[6]) == 0:
            return int(ctypes.CDLL(None).shmctl(shm_id, IPC_RMID, None)) == 0
    return False
