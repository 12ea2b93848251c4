"""Small servers: for bare connections, and a target with a fixed answer for each path."""

import contextlib
import itertools
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from gates.proof.workbench.servers import Asked, Reply, serve

Answers = Callable[[str], tuple[int, Any]]
"""Path -> status and content: bytes as they are, anything else as JSON."""


def serving(answers: Answers, host: str = "127.0.0.1", port: int = 0) -> AbstractContextManager[str]:
    """A target with a fixed answer for each path."""

    def answer(asked: Asked) -> Reply:
        status, content = answers(asked.path)
        return Reply(status, (), content if isinstance(content, bytes) else json.dumps(content).encode())

    return serve(answer, host, port)


@contextmanager
def accepting(serve: Callable[[socket.socket, int, threading.Event], object]) -> Iterator[str]:
    """A server that gives each connection, its number from 0, and what is set at the end to `serve`, then closes it.

    Eight at once; their threads run before a test may take threads away.
    """
    closing, turn, numbers = threading.Event(), threading.Lock(), itertools.count()

    def work(listener: socket.socket) -> None:
        while not closing.is_set():
            with contextlib.suppress(OSError):  # the client may have gone, and the end shuts the listener
                with turn:
                    peer, number = listener.accept()[0], next(numbers)
                with peer:
                    serve(peer, number, closing)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        for _ in range(8):
            threading.Thread(target=work, args=(listener,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            closing.set()
            listener.shutdown(socket.SHUT_RDWR)  # wakes the accept
