"""How a test starts what must heed interrupts, whatever the shell of the tests ignores."""

import os
import signal
import sys

from gates.stages.suite import LAUNCHER


def launched(*program: str) -> list[str]:
    """The program behind the gate's launcher: it heeds interrupts, and ends with this process."""
    return [sys.executable, "-I", "-S", str(LAUNCHER), str(os.getpid()), str(int(signal.SIGKILL)), "-1", "-1", *program]
