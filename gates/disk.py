"""Safe reads and writes in folders that others may write to.

Reads accept only regular files of a bounded size: a pipe, a device or an endless file never blocks us. Writes never
follow a link below the folder that the caller named; that folder itself, and a file that is read, may be links.
"""

import errno
import fcntl
import os
import secrets
import shutil
import stat
import time
from pathlib import Path
from typing import IO, Any

MOST_BYTES = 256 * 1024 * 1024
"""Far more than the evidence of the largest run."""
LOCK_S = 30.0
"""How long to wait for a lock, whose holder may be stopped."""
POLL_S = 0.005
_FRESH = ".new"


def read(path: Path, most: int = MOST_BYTES, *, end: int = 0) -> bytes:
    """The contents of a regular file of at most `most` bytes; with `end`, only its last `end` bytes, whatever its size.
    Raise OSError for anything else.
    """
    with regular(path) as file:
        found = os.fstat(file.fileno())
        if end:
            file.seek(max(0, found.st_size - end))
            return file.read(end)
        bounded(file.fileno(), path, most)
        return file.read(found.st_size)  # not `most`: `read` allocates all that it is asked for


def regular(path: Path) -> IO[bytes]:
    """Open a regular file, or a link to one, like `path.open("rb")`. Raise OSError for anything else."""
    return open(path, "rb", opener=_regular)


def bounded(file: int, path: Path, most: int = MOST_BYTES) -> None:
    """Raise OSError if an open file has more than `most` bytes."""
    if os.fstat(file).st_size > most:
        raise OSError(errno.EFBIG, f"it has more than {most} bytes", str(path))


def read_text(path: Path, most: int = MOST_BYTES) -> str:
    """`read` as `decoded` text."""
    return decoded(read(path, most), path)


def decoded(raw: bytes, path: Path) -> str:
    """UTF-8 text with newlines as line ends; a carriage return alone stays. Raise OSError for other bytes."""
    try:
        return raw.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise OSError(errno.EILSEQ, f"it is no UTF-8 from byte {error.start} on", str(path)) from None


def missing(path: Path) -> bool:
    """Whether nothing is there, surely. Raise OSError where a link on the way, or the path itself, leads to nothing, to
    itself or through a file: what was there may be out of sight only.
    """
    try:
        path.lstat()
    except FileNotFoundError:
        for folder in path.parents:
            if folder.is_symlink():
                folder.stat()
        return True
    path.stat()
    return False


def is_endless(path: str) -> bool:
    """Whether a library that opens or reads this path may block for ever: a pipe or a device, except /dev/null."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):
        return False
    return path != os.devnull and (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode))


def write(path: Path, text: str | bytes, *, durable: bool = False, mode: int = 0o666) -> None:
    """Replace a file atomically: readers see the old contents or the new. durable: even after a power cut."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}{_FRESH}")
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as out:
            out.write(text.encode("utf-8") if isinstance(text, str) else text)
            if durable:
                out.flush()
                os.fsync(out.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    if durable:
        place = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(place)
        finally:
            os.close(place)


def opened(path: Path, mode: str, buffering: int = -1) -> IO[Any]:
    """Open a regular file that is not a link, like `path.open(mode)`, in UTF-8. Raise OSError for anything else."""
    encoding = None if "b" in mode else "utf-8"
    return open(path, mode, buffering, encoding=encoding, opener=_direct)


def append(path: Path, text: str) -> None:
    """Append to a file, link or device that the caller named. Raise OSError for a pipe without a reader."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o666), "w", encoding="utf-8") as out:
        out.write(text)


def _direct(path: str, flags: int) -> int:
    return _regular(path, flags | os.O_NOFOLLOW)


def _regular(path: str, flags: int) -> int:
    file = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    if stat.S_ISREG(os.fstat(file).st_mode):
        return file
    os.close(file)
    raise OSError(errno.EINVAL, "it is no regular file", os.fspath(path))


def lock(file: int, path: Path, *, within_s: float = LOCK_S) -> None:
    """Lock an open file or folder for as long as it is open. Raise BlockingIOError if another process keeps the lock
    for all of the given seconds.
    """
    deadline = time.monotonic() + within_s
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                said = f"it was locked by another process for {within_s:.0f} s"
                raise BlockingIOError(errno.EWOULDBLOCK, said, str(path)) from None
            time.sleep(POLL_S)
        else:
            return


def folder(path: Path) -> Path:
    """Make a folder below one that the caller named, in place of a link if there is one."""
    if path.is_symlink():
        path.unlink()
    path.mkdir(parents=True, exist_ok=True)
    return path


def emptied(path: Path, mark: str) -> None:
    """Make a folder, and remove what an earlier use of it left, save the file `mark`: it shows that the folder is ours.
    Raise OSError for a folder that has other things and no such file: it belongs to somebody else.
    """
    left = [one for one in folder(path).iterdir() if one.name != mark]
    if left and not (path / mark).is_file():
        raise OSError(errno.ENOTEMPTY, f"it is no folder of a gate, and has {left[0].name}", str(path))
    for one in left:
        if one.is_dir() and not one.is_symlink():
            shutil.rmtree(one, ignore_errors=True)
        else:
            one.unlink(missing_ok=True)


def clear(place: Path, names: tuple[str, ...]) -> None:
    """Remove temporary files that killed writers left in a folder, and links that have one of these names."""
    for left in place.glob(f".*.{'[0-9a-f]' * 16}{_FRESH}"):
        left.unlink(missing_ok=True)
    for path in (place / name for name in names):
        if path.is_symlink():
            path.unlink()
