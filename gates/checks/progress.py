"""What a run has seen so far: checks ask here whether the checks that they need have passed."""

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from gates import disk
from gates.evidence import Evidence, Outcome
from gates.evidence_file import check_in, parse


@dataclass
class EvidenceFile:
    """The evidence file of a run as it grows. Each line is read once, and parsed only if its check is asked for."""

    path: Path
    run: str = ""
    offset: int = 0
    _lines: dict[bytes, list[bytes]] = field(default_factory=dict)

    def refresh(self) -> None:
        if not self.path.exists():
            return
        with disk.opened(self.path, "rb") as lines:
            lines.seek(self.offset)
            whole, newline, _ = lines.read().rpartition(b"\n")
        self.offset += len(whole) + len(newline)
        for line in filter(None, whole.split(b"\n")):
            self._lines.setdefault(check_in(line), []).append(line)

    def failed(self, check: str) -> bool:
        return any(one.outcome is not Outcome.PASS for one in self._seen(check))

    def capability(self, check: str) -> bool | None:
        """What the check of a capability saw; None if it did not pass or saw no such thing."""
        seen = [e.observed for e in self._seen(check) if e.outcome is Outcome.PASS and isinstance(e.observed, bool)]
        return any(seen) if seen else None

    def _seen(self, check: str) -> list[Evidence]:
        lines = (*self._lines.get(check.encode(), ()), *self._lines.get(b"", ()))
        return [one for line in lines for one in _evidence_in(line, self.run) if one.check == check]


@lru_cache(maxsize=256)
def _evidence_in(line: bytes, run: str) -> tuple[Evidence, ...]:
    return tuple(parse(line, run))
