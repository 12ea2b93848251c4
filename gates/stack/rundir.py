"""The folder of one run: everything that a stack writes is in it, and nothing else is touched.

Its owner holds a lock on a file in it as long as it lives. The kernel releases the lock when the owner dies, so a
folder whose lock is free is an orphan. (Process numbers do not tell: they are reused, and containers that share a
temporary directory do not share them.)
"""

import fcntl
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from gates.stack import procfs
from gates.stack.account import Account
from gates.stack.errors import StackError

UNFINISHED_PREFIX = ".replaygate-new-"
UNFINISHED_AGE_S = 600.0
"""After so long a folder that never got its lock is an orphan; creating one takes milliseconds."""
LOCK_NAME = "owner.lock"
PROCESSES_NAME = "processes.json"
DATA = Path("pg") / "data"
KILL_TIMEOUT_S = 10.0
REMOVE_TIMEOUT_S = 2.0
"""How often to retry: a process that is ending may write once more, and a folder that is not empty stays."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A folder that this process owns until `remove`."""

    path: Path
    lock_fd: int

    @property
    def logs(self) -> Path:
        return self.path / "log"

    def record(self, processes: Iterable[tuple[str, int]]) -> None:
        """Record (name, process number) of what runs, for whoever must clean up after us."""
        rows = [{"name": n, "pid": p, "start_ticks": procfs.start_ticks(p)} for n, p in processes]
        fresh = self.path / f"{PROCESSES_NAME}.new"
        fresh.write_text(json.dumps(rows), encoding="utf-8")
        fresh.replace(self.path / PROCESSES_NAME)

    def remove(self) -> None:
        """Kill what is recorded and still runs, delete the folder, release the lock."""
        clear(self.path)
        os.close(self.lock_fd)


def prefix() -> str:
    """The prefix of this user's folders; those of other users are not looked at."""
    return f"replaygate-{os.geteuid()}-"


def places(environ: Mapping[str, str], account: Account) -> list[Path]:
    """Temporary directories for a run folder: writable for us, traversable for PostgreSQL's user."""
    names = [environ.get("TMPDIR", ""), "/tmp", "/var/tmp", "/dev/shm"]  # noqa: S108  -- made with mkdtemp, mode 0700
    found = list(dict.fromkeys(Path(n).resolve() for n in names if n))
    return [p for p in found if p.is_dir() and os.access(p, os.W_OK | os.X_OK) and account.can_enter(p)]


def create(places_: Sequence[Path], account: Account) -> RunFolder:
    """A new folder in the first place. It is named only once its lock is held, so no sweep can mistake it."""
    if not places_:
        raise StackError(
            "No temporary directory can be used; allowed: one that this user can write and that the user who runs "
            f"PostgreSQL (uid {account.uid}) can pass through; looked at TMPDIR, /tmp, /var/tmp, /dev/shm. "
            "Set TMPDIR to such a directory"
        )
    fresh = Path(tempfile.mkdtemp(prefix=UNFINISHED_PREFIX, dir=places_[0]))
    lock_fd = os.open(fresh / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    (fresh / "log").mkdir(mode=0o700)
    if account.other:
        fresh.chmod(0o711)  # only our own folder: PostgreSQL's user passes through it to its part
    final = fresh.with_name(prefix() + fresh.name.removeprefix(UNFINISHED_PREFIX))
    fresh.rename(final)
    return RunFolder(final, lock_fd)


def sweep(places_: Iterable[Path]) -> list[Path]:
    """Clean up the folders of this user whose owners are gone. Returns what was removed."""
    return [folder for place in places_ for folder in _ours(place) if clear_orphan(folder)]


def clear_orphan(folder: Path) -> bool:
    """Clean up one folder if its owner is gone. True if it was removed."""
    if folder.name.startswith(UNFINISHED_PREFIX):
        clear(folder)
        return True
    with _lock_of(folder) as taken:
        if taken:
            clear(folder)
        return taken


def clear(folder: Path) -> None:
    """Kill the processes recorded in the folder and the PostgreSQL of its data; delete it all."""
    leftovers = [*_recorded(folder), *procfs.processes_within(folder / DATA, "postgres")]
    procfs.kill_all(leftovers)
    data = folder / DATA
    procfs.wait_until(lambda: not any(procfs.processes_within(data, "postgres")), KILL_TIMEOUT_S)
    release_shared_memory(data)
    procfs.wait_until(lambda: _removed(folder), REMOVE_TIMEOUT_S)


def _removed(folder: Path) -> bool:
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()


def release_shared_memory(data: Path) -> None:
    """Remove the small System V segment that a killed PostgreSQL leaves (line 7 of postmaster.pid: key and id)."""
    with suppress(OSError, ValueError, IndexError):
        key, shm_id = (data / "postmaster.pid").read_text(encoding="utf-8").splitlines()[6].split()
        procfs.wait_until(lambda: procfs.remove_shared_memory(int(key), int(shm_id)), 0.5)


def _ours(place: Path) -> Iterator[Path]:
    """Run folders of this user: real directories that we own, by name."""
    with suppress(OSError):
        for folder in [*place.glob(prefix() + "*"), *place.glob(UNFINISHED_PREFIX + "*")]:
            with suppress(OSError):
                info = folder.lstat()
                young = time.time() - info.st_mtime < UNFINISHED_AGE_S
                if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid():
                    continue
                if folder.name.startswith(UNFINISHED_PREFIX) and young:
                    continue
                yield folder


@contextmanager
def _lock_of(folder: Path) -> Iterator[bool]:
    """Try to take the owner's lock; False if a living owner holds it."""
    try:
        fd = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:  # its clean-up was interrupted
        yield True
        return
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True
    finally:
        os.close(fd)


def _recorded(folder: Path) -> list[int]:
    """Recorded process numbers that are still the stack's: with the recorded start time, and a working directory in
    this folder. Nothing else is ever killed, whatever the record says.
    """
    try:
        rows = json.loads((folder / PROCESSES_NAME).read_text(encoding="utf-8"))
        found = [int(r["pid"]) for r in rows if procfs.is_running(int(r["pid"]), r["start_ticks"])]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [pid for pid in found if procfs.is_within(pid, folder)]
