"""Writes text to a stream. A reader who goes away (`gate run | head -1`) changes nothing."""

from __future__ import annotations

import contextlib
import os
from typing import TextIO

from gates.text.characters import without_commands
from gates.text.inert import Terminal


def put(stream: TextIO | None, text: str) -> None:
    """Write and flush. Where that is no longer possible, this text and all later text to the stream goes nowhere."""
    if stream is None:
        return
    try:
        stream.write(text)
        stream.flush()
    except (OSError, ValueError):
        _turn_away(stream)


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
