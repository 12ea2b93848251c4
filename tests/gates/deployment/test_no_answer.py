"""What is said where no answer came: in our words, the same for one reason, and none of what our own limits cut."""

import itertools
import socket
import threading

import pytest

from gates.deployment.http.client import HttpDoor, NoAnswer
from gates.deployment.http.wire import WireDoor
from gates.deployment.requests import Request
from tests.gates.deployment.test_limits import HEALTH, LENGTH, LIMIT_S, OK, saying
from tests.small_target import accepting

NO_WHOLE = "no whole answer came within the limits of"
"""What an answer without a stated length is, if it had not ended when our own limits did."""
CUT = {
    "silent": ([], NO_WHOLE),
    "ends-by-close": ([OK + b"\r\n", b'{"release": '], NO_WHOLE),
    "head": ([OK + b"X-A: b"], NO_WHOLE),
    "interim": ([b"HTTP/1.1 103 Early Hints\r\n\r\n"], NO_WHOLE),
    "length": ([LENGTH % 20, b"x"], NO_WHOLE),
}


@pytest.mark.parametrize("name", CUT)
def test_an_answer_that_our_own_limits_cut_is_none(name: str) -> None:
    """A body that ends with its connection is not whole because we stopped reading; the words are our own."""
    parts, said = CUT[name]

    def stay(peer: socket.socket, _number: int, closing: threading.Event) -> None:
        peer.recv(65_536)
        for part in parts:
            peer.sendall(part)
        closing.wait(5)

    with accepting(stay) as url, pytest.raises(NoAnswer, match=said):
        WireDoor(url, timeout_s=LIMIT_S).send(HEALTH)


def test_a_connection_that_is_closed_at_once_is_told_in_words() -> None:
    """Nothing, or an interim response alone, is no answer; a parser's states are of no use to a reader."""
    for answer in (b"", b"HTTP/1.1 100 Continue\r\n\r\n"):
        with saying(answer) as url, pytest.raises(NoAnswer, match="closed without an answer"):
            WireDoor(url, timeout_s=LIMIT_S).send(HEALTH)
    with saying(OK + b"\r\n{}") as url:
        assert WireDoor(url, timeout_s=LIMIT_S).send(HEALTH).body == b"{}"


def test_what_both_doors_did_not_get_is_told_alike() -> None:
    """Whichever id was asked for, by whichever door: a report shows what has one reason as one cause."""
    told = set[str]()
    with saying(b"") as url, HttpDoor(url) as door:
        for send, run in itertools.product((door.send, WireDoor(url, timeout_s=LIMIT_S).send), ("1", "2?x=y")):
            with pytest.raises(NoAnswer) as none:
                send(Request("GET", f"/dlq-replay/{run}"))
            told.add(str(none.value))
    assert told == {"GET /dlq-replay/ID: the connection was closed without an answer"}
