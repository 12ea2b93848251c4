"""What the processes of a session do: a check may wait in vain because others keep the workers busy."""

import mmap

IDLE, DRILLING, WAITING = b"\0", b"\1", b"\2"
"""What a process does: nothing, a check, or a check that only waits for what is late."""
MOST = 256
"""Processes of one session."""


class Crowd:
    """The processes of a session, each at a place of its own. Those that are forked share it."""

    def __init__(self) -> None:
        self._doing = mmap.mmap(-1, MOST)
        self._lost = mmap.mmap(-1, 1)
        self.own = 0
        """The place of this process."""

    def note(self, place: int, doing: bytes) -> None:
        """What the process at this place does from now on."""
        self._doing[place : place + 1] = doing

    def wait(self) -> None:
        """From now on this process only waits."""
        self.note(self.own, WAITING)

    def go_on(self) -> None:
        """From now on this process drills."""
        self.note(self.own, DRILLING)

    def others_drill(self) -> bool:
        """Whether what this process waits for may be late because another one drills."""
        return self._others(DRILLING)

    def others_wait(self) -> bool:
        """Whether what this process waits for may be late because workers are at what another one waits for."""
        return self._others(WAITING)

    def lose(self) -> None:
        """Something never came, though nobody drilled: the workers lose events. No check waits for others any more."""
        self._lost[:] = b"\1"

    def _others(self, doing: bytes) -> bool:
        others = self._doing[: self.own] + self._doing[self.own + 1 :]
        return self._lost[:] == b"\0" and doing in others
