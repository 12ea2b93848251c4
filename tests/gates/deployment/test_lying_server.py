"""Whatever a false server answers, the SQL door raises a database error and keeps little in memory."""

import contextlib
import resource
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import psycopg
import pytest

from gates.deployment.sql import connection
from gates.deployment.sql.database import execute, session
from tests.small_target import accepting
from tests.sources import ROOT

Lie = Callable[[socket.socket], None]

TEXT, INT4, TEXTS = 25, 23, 1009


def message(kind: bytes, body: bytes = b"") -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


def table(columns: dict[bytes, int], *cells: bytes) -> bytes:
    """A row description and one row."""
    names = b"".join(n + b"\0" + struct.pack("!ihihih", 0, 0, oid, -1, -1, 0) for n, oid in columns.items())
    row = b"".join(struct.pack("!i", len(cell)) + cell for cell in cells)
    count = struct.pack("!h", len(cells))
    return message(b"T", count + names) + message(b"D", count + row)


PARSED, READY = message(b"1") + message(b"2"), message(b"C", b"SELECT 1\0") + message(b"Z", b"I")
ROW = message(b"D", struct.pack("!hi", 1, 100_000) + b"x" * 100_000)
NOTICE = message(b"A", struct.pack("!i", 1) + b"channel\0" + b"x" * 7000 + b"\0")
SCRAM = struct.pack("!i", 10) + b"SCRAM-SHA-256\0\0"


def sends(data: bytes) -> Lie:
    return lambda client: client.sendall(PARSED + data + READY)


def endless(first: bytes, again: bytes) -> Lie:
    def lie(client: socket.socket) -> None:
        client.sendall(PARSED + first)
        while True:
            client.sendall(again * 10)

    return lie


def read(client: socket.socket, until: bytes = b"S") -> bytes:
    """The body of the next message of this kind; earlier ones are skipped."""
    while True:
        kind = client.recv(1)
        (length,) = struct.unpack("!i", client.recv(4, socket.MSG_WAITALL))
        body = client.recv(length - 4, socket.MSG_WAITALL)
        if kind == until:
            return body


@contextlib.contextmanager
def server(lie: Lie, encoding: bytes = b"UTF8", *, hard: bool = False) -> Iterator[str]:
    """A server that lies from its second statement on. hard: its login asks for a proof that takes an hour."""

    def serve(client: socket.socket) -> None:
        with contextlib.suppress(OSError, struct.error):
            (length,) = struct.unpack("!i", client.recv(4, socket.MSG_WAITALL))
            client.recv(length - 4, socket.MSG_WAITALL)
            if hard:
                client.sendall(message(b"R", SCRAM))
                nonce = read(client, b"p").partition(b"r=")[2]
                told = b"r=" + nonce + b"xx,s=QUJDRA==,i=2147483647"
                client.sendall(message(b"R", struct.pack("!i", 11) + told))
                client.recv(1)
                return
            names = [
                message(b"S", name + b"\0" + encoding + b"\0") for name in (b"client_encoding", b"server_encoding")
            ]
            started = message(b"R", struct.pack("!i", 0)) + b"".join(names) + message(b"K", struct.pack("!ii", 42, 1))
            client.sendall(started + message(b"Z", b"I"))
            read(client)
            settings = b'{"pg_catalog,pg_temp",postgres,hex,1,UTC,on,on,off,10s,2s,1min}'
            shape = {b"pid": INT4, b"fires": TEXT, b"whole_limit": TEXT, b"found": TEXTS}
            sends(table(shape, b"42", b"origin", b"0", settings))(client)
            read(client)
            lie(client)
            client.recv(1)

    with accepting(lambda client, _number, _over: serve(client)) as url:
        yield f"postgresql://u:p@{urlsplit(url).netloc}/x?sslmode=disable&gssencmode=disable"


@pytest.mark.parametrize(
    ("lie", "said"),
    [
        pytest.param(sends(table({b"seen": INT4}, b"many")), "not of its type", id="a number that is none"),
        pytest.param(sends(table({b"other": TEXT}, b"x")), "no column seen", id="another column"),
        pytest.param(sends(table({b"seen": TEXT}, b"x").partition(b"D")[0]), "sent: 1; .* came: 0", id="lost row"),
        pytest.param(sends(table({b"seen": TEXT}, b"x") + ROW), "sent: 1; .* came: 2", id="doubled row"),
        pytest.param(sends(b""), "no row", id="neither a row nor what it is made of"),
        pytest.param(endless(table({b"seen": TEXT}, b"x"), ROW), "at most", id="rows without an end"),
        pytest.param(endless(b"", NOTICE), "at most", id="notifications without an end"),
    ],
)
def test_a_lie_is_an_error_of_the_database(lie: Lie, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A false answer raises psycopg.Error, and an endless one does not fill memory."""
    monkeypatch.setattr(connection, "MOST_ANSWER", 32 * 1024 * 1024)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with server(lie) as url, session(url) as opened, pytest.raises(psycopg.Error, match=said):
        execute(opened, "select 1 as seen")[0]["seen"]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000


def test_an_encoding_whose_name_is_no_text_is_an_error_of_the_database() -> None:
    """An unreadable encoding name raises psycopg.Error."""
    with server(sends(b""), encoding=b"\xff\xfe") as url, pytest.raises(psycopg.Error), session(url):
        pass


LEAVES = """
import sys
from gates.__main__ import left
from gates.deployment.sql.connection import Answering
try:
    Answering.within(0.5, sys.argv[1])
except Exception as error:
    print(type(error).__name__)
sys.exit(left(10))
"""


def test_a_proof_that_takes_an_hour_changes_no_exit_code() -> None:
    """A thread that hangs in libpq does not crash the exit of the process."""
    with server(sends(b""), hard=True) as url:
        for _ in range(3):
            run = [sys.executable, "-c", LEAVES, url]
            done = subprocess.run(run, check=False, cwd=ROOT, capture_output=True, text=True, timeout=60)
            assert (done.returncode, done.stdout, done.stderr) == (10, "ConnectionTimeout\n", "")
