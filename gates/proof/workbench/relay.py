"""A relay for TCP on loopback: forwards bytes unchanged, later if asked, or as a tap on the connection decides."""

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

PIECE = 65_536
START_TIMEOUT_S = 5.0
BACKLOG = 1024
MOST_UNDER_WAY = 64
"""The most pieces that are delayed at a time."""


class Cut(Exception):  # noqa: N818  -- what a tap does to a connection, no error of ours
    """The connection ends here, with a reset to both sides."""


class Tap:
    """One connection through the relay. It forwards what `sent` and `answered` return. Either may wait, and may raise
    Cut. This base class forwards everything.
    """

    async def sent(self, piece: bytes) -> bytes:
        """Bytes of the client."""
        return piece

    async def answered(self, piece: bytes) -> bytes:
        """Bytes of the server."""
        return piece


@dataclass(frozen=True, slots=True)
class RelayOptions:
    """Where to listen, who taps each connection, and how many seconds are added to a round trip: to connecting, and to
    each answer. Pieces of an answer do not wait for each other.
    """

    host: str = "127.0.0.1"
    delay_s: float = 0.0
    tap: Callable[[], Tap] = Tap


class _Relay:
    def __init__(self, base: str, way: RelayOptions) -> None:
        parts = urlsplit(base)
        self._to, self._way = (str(parts.hostname), parts.port), way
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proof-relay", daemon=True)
        self._thread.start()
        started = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, way.host, 0, backlog=BACKLOG), self._loop
        )
        try:
            self._server = started.result(timeout=START_TIMEOUT_S)
        except BaseException:
            self._stop()
            raise
        self.port: int = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until it or the relay ends; asyncio would print a cancelled task as an error."""
        with suppress(asyncio.CancelledError):
            await self._join(reader, writer)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tap = self._way.tap()
        try:
            await asyncio.sleep(self._way.delay_s)
            there, back = await asyncio.open_connection(*self._to)
        except OSError:
            writer.close()
            return
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(reader, back, tap.sent, 0.0))
                both.create_task(self._pump(there, writer, tap.answered, self._way.delay_s))
        except* Cut:
            for end in (writer, back):
                reset(end.get_extra_info("socket"))
                end.transport.abort()
        finally:
            writer.close()
            back.close()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        through: Callable[[bytes], Awaitable[bytes]],
        delay_s: float,
    ) -> None:
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(MOST_UNDER_WAY)
        async with asyncio.TaskGroup() as both:
            both.create_task(_take_in(reader, pieces, delay_s))
            both.create_task(_put_out(writer, pieces, through))

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._server.close)
        self._stop()

    def _stop(self) -> None:
        async def cancel() -> None:
            tasks = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.sleep(0)  # lets the loop close the sockets

        with suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(cancel(), self._loop).result(timeout=START_TIMEOUT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=START_TIMEOUT_S)
        self._loop.close()


async def _take_in(reader: asyncio.StreamReader, pieces: asyncio.Queue[tuple[float, bytes]], delay_s: float) -> None:
    """Note when each piece is due; an empty one is the end."""
    piece = b" "
    while piece:
        try:
            piece = await reader.read(PIECE)
        except OSError:
            piece = b""
        await pieces.put((time.monotonic() + delay_s, piece))


async def _put_out(
    writer: asyncio.StreamWriter,
    pieces: asyncio.Queue[tuple[float, bytes]],
    through: Callable[[bytes], Awaitable[bytes]],
) -> None:
    with suppress(OSError):
        while True:
            due, piece = await pieces.get()
            if (wait_s := due - time.monotonic()) > 0:
                await asyncio.sleep(wait_s)
            if not piece:
                break
            writer.write(await through(piece))
            await writer.drain()
    with suppress(OSError):
        writer.close()


def reset(sock: socket.socket) -> None:
    """Make the socket end with a reset when it is closed, like a firewall that lost its table."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@contextmanager
def relay(base: str, way: RelayOptions) -> Iterator[str]:
    """A relay to the server at `base` (scheme, host, port) for the time of a `with` block; its own base."""
    made = _Relay(base, way)
    try:
        host = f"[{way.host}]" if ":" in way.host else way.host
        yield f"http://{host}:{made.port}"
    finally:
        made.close()
