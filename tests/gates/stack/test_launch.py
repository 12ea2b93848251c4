"""The launcher, which replaces itself with another program."""

import signal
import subprocess
import sys

from tests.launched import launched

ASKED = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"


def test_an_interrupt_is_not_ignored_by_what_is_started_in_the_background() -> None:
    """SIGINT works again, even if the parent ignores it, as for a shell's background jobs."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        words = launched(sys.executable, "-c", ASKED)
        done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=True)
    finally:
        signal.signal(signal.SIGINT, before)
    assert done.stdout.strip() == "True", done.stderr
