"""The only waits of tests: until a condition holds, or where a pause is what is tested.

Also what a test asks of processes that may end while it asks.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gates.stack.procfs import wait_until

POLL_S = 0.02


def until(condition: Callable[[], object], timeout_s: float = 10.0, what: str = "", every_s: float = POLL_S) -> None:
    """Poll until the condition holds; fail when it does not in time."""
    if not wait_until(lambda: bool(condition()), timeout_s, every_s):
        pytest.fail(f"not within {timeout_s} s: {what or condition}")


def pause(seconds: float) -> None:
    """Sleep where that is part of the test: a slow answer, a random moment before a kill."""
    time.sleep(seconds)


def command_line(pid: int | str) -> str:
    """The arguments of a process, each followed by a NUL; empty for one that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on the machine gives this process no thread."""

    def none(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none)
