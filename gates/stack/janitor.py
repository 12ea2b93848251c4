"""A small process beside the stack that cleans up if the stack is killed: its folder, its processes, its database.

It waits at the end of a pipe. The kernel closes the pipe however the stack dies; after the word "done" there is nothing
to do. If the janitor is killed too, the sweep of the next stack removes the folder.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from gates.stack import rundir
from gates.stack.service import SOURCE_ROOT

if TYPE_CHECKING:
    from gates.stack.roles import Guest  # loads the database driver, which the janitor almost never needs

DONE = "done"
END_TIMEOUT_S = 10.0
LOCK_TIMEOUT_S = 5.0


class Janitor:
    """The stack's end of the pipe."""

    def __init__(self, run: rundir.RunFolder) -> None:
        self._process = subprocess.Popen(
            (sys.executable, "-m", "gates.stack.janitor"),
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join([str(SOURCE_ROOT), *filter(None, sys.path)])},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._tell({"folder": str(run.path)})

    def watch(self, guest: Guest) -> None:
        """Also drop this if we are killed."""
        self._tell({"guest": [guest.server_url, guest.database, guest.run, list(guest.missing)]})

    def dismiss(self) -> None:
        """All is cleaned up; wait until the janitor has ended."""
        try:
            self._process.communicate(json.dumps(DONE).encode(), END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(timeout=END_TIMEOUT_S)

    def _tell(self, word: object) -> None:
        pipe = cast("IO[bytes]", self._process.stdin)
        with suppress(BrokenPipeError):  # it was killed; the sweep of the next start replaces it
            pipe.write(json.dumps(word).encode() + b"\n")
            pipe.flush()


def listen(lines: IO[str]) -> tuple[Path | None, Guest | None]:
    """Read to the end of the pipe: what is left to clean up (nothing, if "done" was the last word)."""
    folder, guest = None, None
    for line in lines:
        word = json.loads(line)
        if word == DONE:
            return None, None
        if "folder" in word:
            folder = Path(word["folder"])
        if "guest" in word:
            from gates.stack.roles import Guest  # noqa: PLC0415  -- see above

            url, database, run, missing = word["guest"]
            guest = Guest(url, database, run, tuple(missing))
    return folder, guest


def main() -> int:
    """Exit code 0 if all was cleaned up."""
    folder, guest = listen(sys.stdin)
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while folder and folder.exists() and not rundir.clear_orphan(folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    if guest:
        guest.drop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
