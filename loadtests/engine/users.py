"""The one user class that Locust knows: it performs all scenarios of its load process."""

import gevent
from locust import User, constant, task

from loadtests.engine.executors import PAUSE_S


class LoadUser(User):  # type: ignore[misc]
    """Locust gives every load process one of these; users of the closed model are greenlets of ours (executors.py)."""

    wait_time = constant(0)

    @task  # type: ignore[untyped-decorator]
    def perform(self) -> None:
        """Start the load process; return when Locust stops it."""
        executors = self.environment.load_worker.executors
        executors.start()
        try:
            while self._state != "stopping":
                gevent.sleep(PAUSE_S)
        finally:
            executors.stop()
