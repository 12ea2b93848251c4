"""The drills that run beside each other: what one of them waits for may be late because of the others."""

import mmap

IDLE, DRILLING, WAITING = b"\0", b"\1", b"\2"
"""What a process does: nothing, a check, or a check that only waits for what is late."""
MOST = 256
"""Processes of one session."""


class Crowd:
    """What each process of a session does. Those that are forked share it."""

    def __init__(self) -> None:
        self._doing = mmap.mmap(-1, MOST)
        self._lost = mmap.mmap(-1, 1)
        self.own = 0
        """The place of this process."""

    def note(self, place: int, doing: bytes) -> None:
        """What the process at this place does from now on."""
        self._doing[place : place + 1] = doing

    def is_at_work(self) -> bool:
        """Whether another process drills, so that what this one waits for may only be late. Once something did not come
        though nobody was at work, no check waits for others any more: the workers have lost it.
        """
        self.note(self.own, WAITING)
        return self._doing.find(DRILLING) >= 0 and self._lost[:] == IDLE

    def waits(self) -> bool:
        """Whether another process waits, too: workers may be at what it waits for."""
        others = self._doing[: self.own] + self._doing[self.own + 1 :]
        return WAITING in others and self._lost[:] == IDLE

    def comes(self) -> None:
        """What this process waited for came."""
        self.note(self.own, DRILLING)

    def never_comes(self) -> None:
        """What this process waited for did not come, and no other one drills."""
        self._lost[:] = WAITING
