"""Writes text to a stream. A reader that goes away (`gate run | head -1`) changes nothing, one that stops reading
messages delays nothing, and one that never reads a result does not block the gate for ever.
"""

import contextlib
import errno
import os
import select
from typing import TextIO

from gates.text.characters import without_commands
from gates.text.inert import Terminal

CHATTER_S = 5.0
"""Seconds that a reader may take for a part of a message: a stopped terminal (Ctrl-S) must not delay a rollback."""
RESULT_S = 600.0
"""Seconds for a part of a result: a person who reads page by page takes time, and what was done is on disk."""
LOST = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
"""Errors of the medium."""
PART = 400
"""Characters, of at most 4096 bytes even as escapes: what a pipe with room takes at once."""


def put(stream: TextIO, text: str) -> OSError | None:
    """Write and flush. If that fails, or nobody reads a part for RESULT_S, drop the rest and all later text.

    Returns why it is lost: a full disk. A reader that went away wanted no more.
    """
    return _written(stream, text, RESULT_S)


def chat(stream: TextIO, text: str) -> None:
    """`put` for text that may be lost: a reader that takes nothing for CHATTER_S counts as gone."""
    _written(stream, text, CHATTER_S)


def _written(stream: TextIO, text: str, patience_s: float) -> OSError | None:
    for start in range(0, len(text), PART):
        try:
            if not _has_room(stream, patience_s):
                _turn_away(stream)
            stream.write(text[start : start + PART])
            stream.flush()
        except (OSError, ValueError) as error:
            _turn_away(stream)
            return error if isinstance(error, OSError) and error.errno in LOST else None
    return None


def _has_room(stream: TextIO, patience_s: float) -> bool:
    room = select.poll()
    try:
        room.register(stream.fileno(), select.POLLOUT)
    except (OSError, ValueError):  # it is no file
        return True
    return bool(room.poll(patience_s * 1000))


def _turn_away(stream: TextIO) -> None:
    """Redirect the stream to /dev/null, so that nothing fails again, not even at the end of the process."""
    with contextlib.suppress(OSError, ValueError):  # it is no file
        number = stream.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        if nowhere != number:
            os.dup2(nowhere, number)
            os.close(nowhere)


def shown(text: str) -> str:
    """The text of a terminal without CI commands."""
    return without_commands(str(Terminal.escape(text.removesuffix("\n")) + Terminal("\n")))
