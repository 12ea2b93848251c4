"""The program `gate`. Until its command line is read, an interrupt ends it at once and without a traceback."""

import signal

if (
    signal.getsignal(signal.SIGINT) is signal.default_int_handler
):  # a parent may have set it to be ignored: then leave it
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from gates.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    raise SystemExit(main())
