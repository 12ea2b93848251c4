"""The code that is proved, as one digest: a proof of code that changed meanwhile proves nothing."""

from __future__ import annotations

import hashlib
from pathlib import Path

from gates.stages.suite import ROOT

FOLDERS = ("gates", "drills", "sql_checks", "loadtests", "replay_service", "faults")
ENDINGS = (".py", ".sql", ".yaml", ".json")
NOT_CODE = ("gates/proof/last.json",)


def source_digest(root: Path = ROOT) -> str:
    """sha256 over names and contents of the sources of gate, checks, reference and faults."""
    total = hashlib.sha256()
    files = (p for folder in FOLDERS for p in (root / folder).rglob("*") if p.suffix in ENDINGS)
    for name, path in sorted((p.relative_to(root).as_posix(), p) for p in files):
        if name in NOT_CODE or "__pycache__" in name:
            continue
        total.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return "sha256:" + total.hexdigest()
