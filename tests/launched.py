"""Starts programs that handle interrupts, even where the shell of the tests ignores them."""

import os
import signal
import sys

from gates.stages.suite import LAUNCHER


def launched(*program: str) -> list[str]:
    """Start the program by the gate's launcher: it handles interrupts, and ends with this process."""
    return [sys.executable, "-I", "-S", str(LAUNCHER), str(os.getpid()), str(int(signal.SIGKILL)), "-1", "-1", *program]
