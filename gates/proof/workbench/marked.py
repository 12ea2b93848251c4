"""The processes that one gate starts, found by a mark in their environment."""

import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from gates.stack.procfs import kill_all, wait_until

MARK = "REPLAYGATE_PROOF_RUN"
LEFTOVER_TIMEOUT_S = 15.0
POLL_S = 0.1


class Marked:
    """The processes of one gate, and their children."""

    def __init__(self) -> None:
        self._mark = uuid.uuid4().hex
        self._known: dict[tuple[int, str], bool] = {}

    def marked(self, environ: Mapping[str, str]) -> dict[str, str]:
        """The environment for the gate, with the mark."""
        return {**environ, MARK: self._mark}

    def alive(self) -> list[int]:
        """Those that run now."""
        return [pid for pid in (int(p.name) for p in Path("/proc").glob("[0-9]*")) if self._is_ours(pid)]

    def left(self, waits: Callable[[], object] = lambda: False) -> list[int]:
        """Those still running some seconds after the gate ended, which are then killed. `waits`: whether to keep
        waiting without running processes, as for files that are not gone yet.
        """
        wait_until(lambda: not (self.alive() or waits()), LEFTOVER_TIMEOUT_S, POLL_S)
        alive = self.alive()
        kill_all(alive)
        return alive

    def _is_ours(self, pid: int) -> bool:
        try:
            folder = Path(f"/proc/{pid}")
            state = (folder / "stat").read_text().rpartition(")")[2].split()
            key = (pid, state[19])
            if key not in self._known or not self._known[key]:  # a child gets its environment at exec
                self._known[key] = f"{MARK}={self._mark}".encode() in (folder / "environ").read_bytes().split(b"\0")
            return self._known[key] and state[0] != "Z"
        except OSError:
            return False
