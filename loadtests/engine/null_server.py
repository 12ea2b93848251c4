"""A server that does nothing: 204 to every request of one connection, and an end with it.

`python null_server.py FD`: FD is a listening socket. It is a process of its own: in the process that
sends, it would share the event loop and the lock that it measures. Standard library only; started with -I -S.
"""

import contextlib
import socket
import sys


def main(descriptor: int) -> None:
    """Serve the first connection until its client goes away."""
    with socket.socket(fileno=descriptor) as door:
        connection, _ = door.accept()
    with connection, contextlib.suppress(ConnectionError):
        while connection.recv(65_536):
            connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")


if __name__ == "__main__":
    main(int(sys.argv[1]))
