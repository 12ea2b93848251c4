"""Background work of a stage: a thread that ends with it."""

import threading
from collections.abc import Callable

JOIN_S = 15.0


class Companion:
    """A thread that runs `work`, which watches `over` and returns soon after it is set."""

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        self.over = threading.Event()
        self._thread = threading.Thread(target=work, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """Ask the work to end, if it was started, and wait for it, at most JOIN_S."""
        self.over.set()
        if self._thread.is_alive():
            self._thread.join(JOIN_S)
