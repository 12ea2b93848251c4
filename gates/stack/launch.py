"""Becomes another program: as another user if asked, and so that it dies when the process that started it dies.

Run as `python -I -S launch.py PARENT_PID SIGNAL UID GID PROGRAM ARGUMENTS...`; UID -1 keeps the user. It is a program
of its own, and not a `preexec_fn`, because code between fork and exec can deadlock in a process with threads; and it
sets the signal after the change of user, because that change clears it (prctl(2), PR_SET_PDEATHSIG). An interrupt is
not ignored, whatever started us: a shell lets its background jobs ignore it, and so would all that they start.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
EXIT_CANNOT_EXECUTE = 126


def become(parent: int, death_signal: int, uid: int, gid: int, command: list[str]) -> None:
    """Replace this process by `command`. Returns only if the parent is gone already; raises OSError on failure."""
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if not die_with(parent, death_signal):
        return
    os.umask(0o077)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.execv(command[0], command)  # noqa: S606  -- the point of this program


def die_with(parent: int, death_signal: int) -> bool:
    """Have the kernel signal this process when its parent dies. False if that is dead already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
    return os.getppid() == parent


def main(argv: list[str]) -> int:
    """Exit code 126 with one line on stderr if the program cannot be executed."""
    parent, death_signal, uid, gid = (int(a) for a in argv[1:5])
    try:
        become(parent, death_signal, uid, gid, argv[5:])
    except OSError as error:
        sys.stderr.write(f"cannot execute {argv[5]} as user {uid if uid >= 0 else os.geteuid()}: {error}\n")
    return EXIT_CANNOT_EXECUTE


if __name__ == "__main__":
    sys.exit(main(sys.argv))
