"""Variables from a dotenv file, read strictly: nothing is skipped, nothing is expanded."""

import io
import os
import stat
from collections.abc import Callable
from pathlib import Path

from dotenv.parser import parse_stream

from gates import disk
from gates.errors import ConfigError, of_file
from gates.inputs.strict_yaml import unseen

MOST_BYTES = 1_000_000


def read(path: Path, warn: Callable[[str], None]) -> dict[str, str]:
    """Name -> value. Raise ConfigError for a file that is unreadable or writable by others, or for a wrong line. warn:
    called if others may read the file, which may hold secrets.
    """
    try:
        with disk.regular(path) as file:  # mode and text come from the same open file, even if it is replaced
            mode = os.fstat(file.fileno()).st_mode
            disk.bounded(file.fileno(), path, MOST_BYTES)
            text = disk.decoded(file.read(MOST_BYTES), path)
    except OSError as error:
        raise ConfigError(f"{path}:1:1: {of_file(error)}; allowed: a readable text file. Correct --env-file") from None
    if wrong := unseen(text, str(path)):
        raise wrong
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(
            f"{path}:1:1: others may write it ({stat.filemode(mode)}), and so choose the target; allowed: its owner"
            f" alone. chmod 600 {path}"
        )
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        warn(f"{path}: others may read it ({stat.filemode(mode)}), and it may hold secrets. chmod 600 {path}")
    found: dict[str, str] = {}
    for line in parse_stream(io.StringIO(text)):
        place = f"{path}:{line.original.line}:1"
        if line.error or (line.key is not None and line.value is None):
            raise ConfigError(f"{place}: no assignment; allowed: NAME=value, comments with #. Correct the line")
        if "=" in (line.key or "") or "\0" in (line.key or "") + (line.value or ""):
            raise ConfigError(f"{place}: no variable can hold it; allowed: a name without =, no NUL. Correct the line")
        if line.key in found:
            raise ConfigError(f"{place}: {line.key} a second time; allowed: once. Remove one")
        if line.key is not None:
            found[line.key] = line.value or ""
    return found
