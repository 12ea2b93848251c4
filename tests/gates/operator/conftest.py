"""A server of the last verdicts."""

import datetime as dt
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gates.operator.serve import Desk, VerdictServer
from tests.gates.operator.served import NOW


@pytest.fixture(params=[""], ids=["open"])
def port(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[int]:
    """A server over the state folder tmp_path, at a port of its own; the parameter is its token."""
    desk = Desk(tmp_path, dt.timedelta(minutes=60), lambda: NOW, request.param)
    with VerdictServer(("127.0.0.1", 0), desk) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()
