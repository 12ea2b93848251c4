"""What a stage has done beside it in a thread of its own, until it is over."""

import threading
from collections.abc import Callable

JOIN_S = 15.0


class Companion:
    """A thread that `work` runs in; `work` looks at `over`, and returns soon after it is set."""

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        self.over = threading.Event()
        self._thread = threading.Thread(target=work, name=name, daemon=True)

    def start(self) -> None:
        """Begin the work."""
        self._thread.start()

    def end(self) -> None:
        """Ask the work to end, if it was begun, and wait until it has, or for JOIN_S."""
        self.over.set()
        if self._thread.is_alive():
            self._thread.join(JOIN_S)
