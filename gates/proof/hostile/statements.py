"""A tap on PostgreSQL's protocol that attacks at one statement, on any connection."""

import asyncio
import enum
import re
import struct
import threading
from dataclasses import dataclass, field

from gates.proof.workbench.relay import Cut, Tap

SSL_REQUEST, GSS_REQUEST = 80877103, 80877104
LATE_S = 3.0
HOLD_TIMEOUT_S = 60.0


class Blow(enum.StrEnum):
    """What happens at a statement. `value` is its name in the ids of trials."""

    NONE = "none"
    CUT_BEFORE = "cut-before"
    CUT_AFTER = "cut-after"
    SILENCE = "silence"
    ANSWER_LOST = "answer-lost"
    LATE = "late"
    HOLD = "hold"


SAID = {
    Blow.CUT_BEFORE: "reset before the statement reaches the server",
    Blow.CUT_AFTER: "reset after the server carried the statement out, before its answer arrives",
    Blow.SILENCE: "nothing passes any more, either way",
    Blow.ANSWER_LOST: "statements arrive, answers do not",
    Blow.LATE: f"the answer comes {LATE_S:.0f} s late",
}


@dataclass
class Strike:
    """Where to attack, and what was seen. at: the number of the statement, from 0, over all connections. stays: the
    same happens on all later connections. each_later_s: the delay of every answer.
    """

    blow: Blow = Blow.NONE
    at: int = 0
    stays: bool = False
    each_later_s: float = 0.0
    seen: list[str] = field(default_factory=list)
    struck: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)
    """For a hold: the statement waits until this is set."""

    def tap(self) -> Tap:
        return _Statements(self)


class _Statements(Tap):
    """Collects what the client sends up to each Sync or Query, which is one statement, and forwards it whole."""

    def __init__(self, strike: Strike) -> None:
        self._strike = strike
        self._buffer = b""
        self._started = False
        self._blow = strike.blow if strike.stays and strike.struck.is_set() else Blow.NONE

    async def sent(self, piece: bytes) -> bytes:
        self._buffer += piece
        out = b""
        while statement := self._next():
            out += await self._pass(statement)
        return out

    async def answered(self, piece: bytes) -> bytes:
        match self._blow:
            case Blow.CUT_AFTER:
                raise Cut
            case Blow.SILENCE | Blow.ANSWER_LOST:
                return b""
            case Blow.LATE:
                self._blow = Blow.NONE
                await asyncio.sleep(LATE_S)
        await asyncio.sleep(self._strike.each_later_s)
        return piece

    async def _pass(self, statement: bytes) -> bytes:
        if self._blow is Blow.SILENCE:
            return b""
        if self._blow in {Blow.CUT_BEFORE, Blow.CUT_AFTER}:
            raise Cut
        if statement[:1] not in {b"Q", b"P", b"B"}:
            return statement
        strike = self._strike
        number = len(strike.seen)
        strike.seen.append(_text(statement))
        if number != strike.at or strike.blow is Blow.NONE:
            return statement
        strike.struck.set()
        if strike.blow is Blow.HOLD:
            await asyncio.to_thread(strike.go_on.wait, HOLD_TIMEOUT_S)
            return statement
        self._blow = strike.blow
        if self._blow is Blow.CUT_BEFORE:
            raise Cut
        return b"" if self._blow is Blow.SILENCE else statement

    def _next(self) -> bytes:
        """The next whole unit of the protocol that has arrived, or nothing."""
        position = 0
        while True:
            head = 0 if not self._started else 1
            if len(self._buffer) < position + head + 4:
                return b""
            (length,) = struct.unpack_from("!i", self._buffer, position + head)
            end = position + head + length
            if len(self._buffer) < end:
                return b""
            kind = self._buffer[position : position + 1] if head else b""
            if not head:
                (code,) = struct.unpack_from("!i", self._buffer, 4)
                self._started = code not in {SSL_REQUEST, GSS_REQUEST}
            position = end
            if kind in {b"", b"Q", b"S", b"p", b"X", b"F"}:  # everything else waits for its Sync
                unit, self._buffer = self._buffer[:position], self._buffer[position:]
                return unit


def _text(statement: bytes) -> str:
    """Its SQL, for people."""
    printable = re.sub(rb"[^ -~]+", b" ", statement[5:]).decode("ascii")
    return " ".join(printable.split())[:120]
