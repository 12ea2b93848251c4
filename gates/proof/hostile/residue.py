"""What a gate must not leave behind: processes, temporary files, secrets in its output; and its limit of memory."""

import base64
import json
import os
import tempfile
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Self
from urllib.parse import quote

from gates.proof.workbench.marked import Marked

SAMPLE_S = 0.25
MOST_MEMORY_MB = 1024
PAGE_KB = os.sysconf("SC_PAGE_SIZE") // 1024


class Residue:
    """Watches the processes of one gate, which has a temporary folder of its own."""

    def __init__(self) -> None:
        self._gate, self._stop = Marked(), threading.Event()
        self._folder = tempfile.TemporaryDirectory(prefix="proof-", ignore_cleanup_errors=True)
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.peak_mb = 0.0

    def marked(self, environ: Mapping[str, str]) -> dict[str, str]:
        return {**self._gate.marked(environ), "TMPDIR": self._folder.name}

    def left(self) -> list[str]:
        """What is left some seconds after the gate ended; remaining processes are killed. Also whether it used too much
        memory.
        """
        alive = self._gate.left(self._files)
        found = [f"{len(alive)} of its processes are left"] if alive else []
        found += [f"temporary files are left: {', '.join(files[:5])}"] if (files := self._files()) else []
        if self.peak_mb > MOST_MEMORY_MB:
            found.append(f"its processes took {self.peak_mb:.0f} MB; allowed: {MOST_MEMORY_MB} MB")
        return found

    def _files(self) -> list[str]:
        return [str(p.relative_to(self._folder.name)) for p in Path(self._folder.name).rglob("*") if p.is_file()]

    def _watch(self) -> None:
        while not self._stop.wait(SAMPLE_S):
            self.peak_mb = max(self.peak_mb, sum(map(_resident_mb, self._gate.alive())))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join(timeout=5.0)
        self._folder.cleanup()


def _resident_mb(pid: int) -> float:
    """The private resident memory of a process: pages shared with others are not counted."""
    try:
        resident, shared = (int(n) for n in Path(f"/proc/{pid}/statm").read_text().split()[1:3])
    except (OSError, ValueError):
        return 0.0
    return (resident - shared) * PAGE_KB / 1024


def spellings(secret: str) -> set[bytes]:
    """The forms in which a secret could be in a file."""
    raw = secret.encode()
    return {
        raw,
        json.dumps(secret)[1:-1].encode(),
        quote(secret, safe="").encode(),
        base64.b64encode(raw).rstrip(b"="),
        base64.urlsafe_b64encode(raw).rstrip(b"="),
        raw.hex().encode(),
        raw.hex().upper().encode(),
    }


def leaks(folder: Path, texts: Iterable[str], secrets: Mapping[str, str]) -> list[str]:
    """Each secret in a file under `folder` or in one of the texts. secrets: by name."""
    found = []
    forms = {name: spellings(secret) for name, secret in secrets.items() if secret}
    files = {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
    for place, data in (*files.items(), *(("what it printed", text.encode()) for text in texts)):
        found += [f"{name} stands in {place}" for name, known in forms.items() if any(form in data for form in known)]
    return found
