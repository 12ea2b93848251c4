"""Which user runs PostgreSQL, and what that user can reach. PostgreSQL refuses to run as root."""

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

OVERFLOW_ID = 65534
"""The kernel's own id of `nobody` (proc_sys_kernel(5), overflowuid), for systems without a user of that name."""


@dataclass(frozen=True, slots=True)
class Account:
    """A user and group id; `other` if they are not those of this process."""

    uid: int
    gid: int
    other: bool

    def can_read_tree(self, folder: Path) -> bool:
        """Whether this user can reach the folder and read all in it (by mode bits; access lists are ignored)."""
        if not self.other:
            return os.access(folder, os.R_OK | os.X_OK)
        if not self.can_enter(folder):
            return False
        return all(
            self._can_read(Path(top) / name) for top, folders, files in os.walk(folder) for name in folders + files
        )

    def can_enter(self, folder: Path) -> bool:
        """Whether this user can traverse the folder and everything above it."""
        if not self.other:
            return os.access(folder, os.X_OK)
        real = folder.resolve()
        return all(self._bits(p) & stat.S_IXOTH for p in (real, *real.parents))

    def _can_read(self, path: Path) -> bool:
        try:
            mode = path.stat().st_mode
        except OSError:  # a dangling link hinders nobody
            return True
        wanted = stat.S_IROTH | (stat.S_IXOTH if stat.S_ISDIR(mode) else 0)
        return self._bits(path) & wanted == wanted

    def _bits(self, path: Path) -> int:
        """The mode bits of this user, shifted to the place of `others`."""
        info = path.stat()
        if info.st_uid == self.uid:
            return (info.st_mode >> 6) & 0o7
        if info.st_gid == self.gid:
            return (info.st_mode >> 3) & 0o7
        return info.st_mode & 0o7


def postgres_account() -> Account:
    """The user of this process; for root `nobody`, who exists everywhere and owns nothing. No user is created."""
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid(), other=False)
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        return Account(OVERFLOW_ID, OVERFLOW_ID, other=True)
    return Account(entry.pw_uid, entry.pw_gid, other=True)
