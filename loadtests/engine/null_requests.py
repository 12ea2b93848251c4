"""Null requests: requests to a server that does nothing, by the client that loads the target.

Their latency is what this machine, this event loop and this client add to every other latency. They run through the
whole load. Each is timed from the moment it was due, so a stalled event loop shows, as in the open model.
"""

import math
import socket
import subprocess
import sys
import time
from pathlib import Path

import gevent

from loadtests.engine.samples import Samples
from loadtests.engine.sinks import Sink
from loadtests.engine.wire import Address, Connection, TransportError, request_bytes
from loadtests.judgement.starvation import LATENESS, NULL

EVERY_S = 0.05
START_S = 10.0
SERVER = Path(__file__).with_name("null_server.py")


class NullRequests:
    """Twenty null requests a second, from `start` to the end of the process. The server ends with its connection."""

    def __init__(self, samples: Samples) -> None:
        self._null: Sink = samples.sink(NULL)
        self._late: Sink = samples.sink(LATENESS)
        self._due = math.inf
        self._asking: gevent.Greenlet | None = None

    def start(self) -> None:
        """Start the server and the requests; return after the first answer, or after ten seconds without one.

        From then on a missing answer counts. Raise OSError where no server can be started.
        """
        with socket.create_server(("127.0.0.1", 0)) as door:
            command = [sys.executable, "-I", "-S", str(SERVER), str(door.fileno())]
            nowhere = subprocess.DEVNULL  # not our stdout: its reader would wait for the server's end, too
            subprocess.Popen(command, pass_fds=[door.fileno()], stdin=nowhere, stdout=nowhere, stderr=nowhere)
            address = Address("127.0.0.1", door.getsockname()[1], tls=False, prefix="")
        connection, data = Connection(address), request_bytes(address, "GET", "/", [])
        first = gevent.spawn(_ask, connection, data)
        first.join(timeout=START_S)
        self._due = time.perf_counter() + EVERY_S
        self._asking = gevent.spawn(self._ask_for_ever, first, connection, data)

    def stop(self) -> None:
        """Send no more; the server ends."""
        if self._asking is not None:
            self._asking.kill()

    def settle(self) -> None:
        """Count requests without an answer by their age, also where the server is gone."""
        now = time.perf_counter()
        while self._due < now:
            self._null.add((now - self._due) * 1000.0)
            self._due += EVERY_S

    def _ask_for_ever(self, first: gevent.Greenlet, connection: Connection, data: bytes) -> None:
        try:
            is_there = first.get()
            while is_there:
                due = self._due
                gevent.sleep(max(0.0, due - time.perf_counter()))
                began = time.perf_counter()
                is_there = _ask(connection, data)
                if is_there and self._due == due:  # else it was settled meanwhile
                    self._late.add((began - due) * 1000.0)
                    self._null.add((connection.ended - due) * 1000.0)
                    self._due += EVERY_S
        finally:
            connection.close()


def _ask(connection: Connection, data: bytes) -> bool:
    try:
        return connection.exchange(data, timeout_s=3600.0) == 204
    except TransportError:
        return False
