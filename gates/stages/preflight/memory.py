"""Which credentials a target accepted before: a keyed fingerprint of each, never the credential or a plain digest."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import hmac
import json
from dataclasses import dataclass
from pathlib import Path

from gates import disk
from gates.deployment.dialect.current import current
from gates.deployment.identity import identity
from gates.deployment.target import Target

FILE = "credentials.json"
OF_ANSWERS = ("http", "ids", "members", "tenant_claim", "token")
"""The parts of `names:` by which credentials are made and answers are read."""
KEPT = 8
"""Fingerprints of one kind: rotations come and go, and each secret of the list may be the first."""


@dataclass(frozen=True, slots=True)
class Memory:
    """The file of one target. What cannot be read or written is not remembered: a refusal is then unknown."""

    path: Path
    key: str

    @classmethod
    def of(cls, target: Target, folder: Path) -> Memory:
        """folder: that of the target (`Settings.state_of`)."""
        return cls(folder / FILE, identity(target))

    def note(self, kind: str, secret: str, release: str) -> None:
        """The target accepted this credential just now."""
        day = dt.datetime.now(dt.UTC).strftime("%Y-%m-%d")
        told = f"on {day}" + (f" (release {release[:100]})" if release else "")
        known = self._read()
        kept = {k: v for k, v in known.get(kind, {}).items() if k != self._print(kind, secret)}
        kept = dict([*kept.items(), (self._print(kind, secret), told)][-KEPT:])
        text = json.dumps({**known, kind: kept}, indent=1)
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            disk.write(self.path, text, mode=0o600)

    def accepted(self, kind: str, secret: str) -> str:
        """When the target accepted this very credential last, and of which release; empty where that is not known."""
        return self._read().get(kind, {}).get(self._print(kind, secret), "")

    def _print(self, kind: str, secret: str) -> str:
        given = current().given
        # an answer was read by the mapping of then: by another one it may mean something else
        words = json.dumps({part: given[part] for part in OF_ANSWERS if part in given}, sort_keys=True)
        key = self.key if words == "{}" else f"{self.key} {words}"
        return hmac.new(secret.encode(), f"replaygate {kind} {key}".encode(), hashlib.sha256).hexdigest()

    def _read(self) -> dict[str, dict[str, str]]:
        try:
            told = json.loads(disk.read(self.path))
            return {str(k): {str(f): str(t) for f, t in v.items()} for k, v in told.items()}
        except (OSError, ValueError, AttributeError, RecursionError):
            return {}
