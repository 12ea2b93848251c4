"""Answers with a Content-Encoding, which the gate never asks for: read, ignored, or no answer, as clients do."""

import gzip
import zlib
from contextlib import AbstractContextManager

import pytest

from gates.deployment.http.client import HttpDoor, NoAnswer
from gates.deployment.http.wire import WireDoor
from gates.deployment.requests import Request
from gates.proof.workbench.servers import Reply, serve

VERSION = Request("GET", "/version")
BODY = b'{"release":"r1"}'
PACKED = zlib.compress(BODY)
HEADLESS = PACKED[2:-4]
MEMBERS = gzip.compress(BODY[:5], mtime=0) + gzip.compress(BODY[5:], mtime=0)


def saying(encoding: str, body: bytes) -> AbstractContextManager[str]:
    """A server whose every answer has this encoding, in word, and this body."""
    return serve(lambda _asked: Reply(200, (("Content-Encoding", encoding),), body))


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        *(("gzip", PACKED), ("deflate", PACKED), ("X-GZIP", PACKED), ("gzip, deflate", zlib.compress(PACKED))),
        *(("deflate", HEADLESS), ("gzip", MEMBERS), ("gzip, gzip", gzip.compress(MEMBERS, mtime=0))),
        *(("utf-8", BODY), ("identity", BODY), ("", BODY)),
    ],
)
def test_what_clients_can_read_is_read(encoding: str, body: bytes) -> None:
    """Packed answers are read although none was asked for, and an encoding that nobody knows is no matter."""
    with saying(encoding, body) as url, HttpDoor(url) as kept:
        for door in (kept, WireDoor(url)):
            assert door.send(VERSION).body == BODY


@pytest.mark.parametrize(
    ("encoding", "body", "said"),
    [
        ("deflate", PACKED[:-6], "was cut off"),
        ("gzip", BODY, "cannot be unpacked"),
        ("gzip", HEADLESS, "cannot be unpacked"),
        ("gzip", gzip.compress(BODY, mtime=0) + b"<html>", "behind 36 bytes that can"),
        ("deflate", HEADLESS + b"<html>", "behind 18 bytes that can"),
        ("gzip", gzip.compress(b"", mtime=0) * 201, "more than 200 members"),
        ("br", BODY, "allowed: none"),
        ("gzip, br", BODY, "allowed: none"),
        ("gzip," * 9, PACKED, "allowed: none"),
    ],
)
def test_an_answer_that_no_client_can_unpack_is_none(encoding: str, body: bytes, said: str) -> None:
    """Its bytes are not read all the same: a client that obeys the header has an error instead."""
    with saying(encoding, body) as url, HttpDoor(url) as kept:
        for door in (kept, WireDoor(url)):
            with pytest.raises(NoAnswer, match=said):
                door.send(VERSION)


def test_an_empty_body_has_nothing_to_unpack() -> None:
    """Some servers name an encoding of each answer, whether it has a body or not."""
    with saying("gzip", b"") as url:
        assert WireDoor(url).send(VERSION).body == b""
