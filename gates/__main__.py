"""The program `gate`. Until its command line is read, an interrupt ends it at once and without a traceback."""

import atexit
import os
import signal
import stat
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress

if (
    signal.getsignal(signal.SIGINT) is signal.default_int_handler
):  # a parent may have set it to be ignored: then leave it
    signal.signal(signal.SIGINT, signal.SIG_DFL)

if None in (sys.stdin, sys.stdout, sys.stderr):  # a parent closed them: a file opened later would get their numbers
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.dup2(nowhere := os.open(os.devnull, os.O_RDWR), number)
            if nowhere != number:
                os.close(nowhere)
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8", closefd=False))

os.environ.pop("PSYCOPG_IMPL", None)  # it may name a driver that is not installed; psycopg finds one by itself

with suppress(OSError, ValueError):  # OpenSSL opens its settings when it is imported, and waits for a pipe for ever
    if stat.S_ISFIFO(os.stat(os.environ.get("OPENSSL_CONF", "")).st_mode):  # noqa: PTH116  -- nothing is imported yet
        sys.stderr.write("gate: OPENSSL_CONF is a pipe; allowed: a regular file. Correct or unset it\n")
        sys.exit(3)

from gates import cli
from gates.errors import STAYS

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Its exit code. With PYTHONINSPECT Python would ask for more at the end, and end with another: it starts anew."""
    os.umask(os.umask(0o077) | 0o002)  # where a caller set none, anybody could write evidence
    if os.environ.pop("PYTHONINSPECT", ""):
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606  -- no shell is wanted
    return left(cli.main(argv))


def left(code: int) -> int:
    """The exit code. Where a thread stays in a library, tearing that down under it would be a crash: then end here."""
    if any(thread.name == STAYS for thread in threading.enumerate()):
        atexit._run_exitfuncs()  # noqa: SLF001  -- as multiprocessing does
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
