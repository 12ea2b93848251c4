"""The program `gate`. A signal ends it at once, in one line, until its command begins; and without a word after it."""

import atexit
import os
import resource
import signal
import stat
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress

from gates.errors import ENDING_SIGNALS, STAYS, CannotWork, ignore_signals, unbegun

if threading.current_thread() is threading.main_thread():
    for ending in ENDING_SIGNALS:
        if signal.getsignal(ending) in {
            signal.SIG_DFL,
            signal.default_int_handler,
        }:  # if the parent ignores it, so do we
            signal.signal(ending, unbegun)
    atexit.register(ignore_signals)  # what is registered first runs last

if None in (sys.stdin, sys.stdout, sys.stderr):  # closed by the parent: files opened later would get these numbers
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.dup2(nowhere := os.open(os.devnull, os.O_RDWR), number)
            if nowhere != number:
                os.close(nowhere)
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8", closefd=False))

os.environ.pop("PSYCOPG_IMPL", None)  # it may name a driver that is not installed; psycopg finds one by itself
os.environ.pop("SSLKEYLOGFILE", None)  # the keys of our connections are nobody's; no client is made if it is unwritable

with suppress(OSError, ValueError):  # OpenSSL reads its settings at import, and would wait for a pipe for ever
    if stat.S_ISFIFO(os.stat(os.environ.get("OPENSSL_CONF", "")).st_mode):  # noqa: PTH116  -- nothing is imported yet
        sys.stderr.write("gate: OPENSSL_CONF is a pipe; allowed: a regular file. Correct or unset it\n")
        sys.exit(3)

from gates import cli

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code. PYTHONINSPECT would open a prompt at the end and change the exit code,
    so the process restarts without it.
    """
    os.umask(os.umask(0o077) | 0o002)  # with a umask of 0, anybody could write evidence
    with suppress(OSError, ValueError):  # a core file holds every secret. 1: nor does a program get one (core(5))
        most = resource.getrlimit(resource.RLIMIT_CORE)[1]
        resource.setrlimit(resource.RLIMIT_CORE, (min(1, most) if most >= 0 else 1, most))
    if os.environ.pop("PYTHONINSPECT", ""):
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606  -- no shell is wanted
    try:
        return left(cli.main(argv))
    except Exception as error:  # a command tells its own errors: it could not be loaded
        most = resource.getrlimit(resource.RLIMIT_AS)[0]
        if most < 0:
            raise
        said = f"{type(error).__name__} within a limit of {most >> 20} MB of memory"
        sys.stderr.write(f"gate: {said}; allowed: room for the gate and its libraries. Raise ulimit -v\n")
        return CannotWork.exit_code


def left(code: int) -> int:
    """Return the exit code, or exit here if a thread is stuck in a library: a normal shutdown would crash under it.

    All is told by now: a signal changes the exit code no more.
    """
    for number in ENDING_SIGNALS:
        if callable(signal.getsignal(number)):
            signal.signal(number, lambda *_: os._exit(code))
    if any(thread.name == STAYS for thread in threading.enumerate()):
        atexit._run_exitfuncs()  # noqa: SLF001  -- as multiprocessing does
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
