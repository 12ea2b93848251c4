"""Writes text to a stream. A reader who goes away (`gate run | head -1`) changes nothing, one who stops reading chatter
keeps nothing waiting, and one who never reads a result does not keep the gate for ever.
"""

import contextlib
import os
import select
from typing import TextIO

from gates.text.characters import without_commands
from gates.text.inert import Terminal

CHATTER_S = 5.0
"""Seconds that a reader may take for a part of it: a terminal that is stopped (Ctrl-S) keeps no rollback away."""
RESULT_S = 600.0
"""Of a result: a person who reads page by page takes time, and what was done is on disk."""
PART = 400
"""Characters, of at most 4096 bytes, also as escapes: what a pipe that has room takes at once."""


def put(stream: TextIO, text: str) -> None:
    """Write and flush. Where that is no longer possible, or nobody takes a part for RESULT_S, the rest of this text and
    all later text to the stream goes nowhere.
    """
    _written(stream, text, RESULT_S)


def chat(stream: TextIO, text: str) -> None:
    """As `put`, of text that may be lost: a reader who takes nothing for CHATTER_S has gone away."""
    _written(stream, text, CHATTER_S)


def _written(stream: TextIO, text: str, patience_s: float) -> None:
    for start in range(0, len(text), PART):
        try:
            if not _has_room(stream, patience_s):
                _turn_away(stream)
            stream.write(text[start : start + PART])
            stream.flush()
        except (OSError, ValueError):
            _turn_away(stream)
            return


def _has_room(stream: TextIO, patience_s: float) -> bool:
    room = select.poll()
    try:
        room.register(stream.fileno(), select.POLLOUT)
    except (OSError, ValueError):  # it is no file
        return True
    return bool(room.poll(patience_s * 1000))


def _turn_away(stream: TextIO) -> None:
    """Let the stream end in /dev/null, so that nothing fails again, at the end of the process neither."""
    with contextlib.suppress(OSError, ValueError):  # it is no file
        number = stream.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        if nowhere != number:
            os.dup2(nowhere, number)
            os.close(nowhere)


def shown(text: str) -> str:
    """The text of a terminal without a command to the pipeline."""
    return without_commands(str(Terminal.escape(text.removesuffix("\n")) + Terminal("\n")))
