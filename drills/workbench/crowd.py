"""Shared state of the drill processes: a check may be waiting only because others keep the workers busy."""

import mmap

IDLE, DRILLING, WAITING = b"\0", b"\1", b"\2"
"""The state of a process: no check, a check at work, or a check that waits past its deadline."""
MOST = 256
"""The most processes of one session."""


class Crowd:
    """The state of each process of a session, by its place, in memory that forked processes share."""

    def __init__(self) -> None:
        self._doing = mmap.mmap(-1, MOST)
        self._lost = mmap.mmap(-1, 1)
        self.own = 0
        """The place of this process."""

    def note(self, place: int, doing: bytes) -> None:
        """Set the state of the process at this place."""
        self._doing[place : place + 1] = doing

    def wait(self) -> None:
        """Note that this process waits past its deadline."""
        self.note(self.own, WAITING)

    def go_on(self) -> None:
        """Note that this process is at work."""
        self.note(self.own, DRILLING)

    def others_drill(self) -> bool:
        """Whether another process is at work, so that what this one waits for may be late."""
        return self._others(DRILLING)

    def others_wait(self) -> bool:
        """Whether another process waits past its deadline, so that workers may be busy with its events."""
        return self._others(WAITING)

    def lose(self) -> None:
        """Something never came though no other check was at work: workers lose events. Make no more allowances."""
        self._lost[:] = b"\1"

    def _others(self, doing: bytes) -> bool:
        others = self._doing[: self.own] + self._doing[self.own + 1 :]
        return self._lost[:] == b"\0" and doing in others
