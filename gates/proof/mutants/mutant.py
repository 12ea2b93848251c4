"""Which mutants there are: every change of every file of the reference, each with a name that stays."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from gates.proof.mutants import clauses, statements
from gates.proof.mutants.statements import Edit
from gates.stack.service import SOURCE_ROOT

PACKAGE = "replay_service"
MUTANTS = 300
"""So many are drawn where nobody says how many."""
OUTSIDE = {"__main__.py", "app.py", "logs.py", "migrate.py", "openapi.py", "settings.py"}
"""They read the command line and the environment, write logs, apply migrations: a gate sees what comes of it."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of one file. path: below the sources; line: from one; old, new: what stands there, on one line."""

    path: str
    line: int
    operator: str
    old: str
    new: str
    text: str
    context: str = ""
    """The lines around it."""

    @property
    def id(self) -> str:
        """`file:line:operator`, and a few digits that tell those of one line apart."""
        return self._named(f"{self.line}:")

    @property
    def key(self) -> str:
        """The name without the line, which changes with what stands above."""
        return self._named("")

    def _named(self, line: str) -> str:
        return f"{self.path}:{line}{self.operator}-{hashlib.sha256(self.said.encode()).hexdigest()[:6]}"

    @property
    def said(self) -> str:
        """What was changed, whatever the number of its line."""
        return f"{self.old} => {self.new or 'nothing'}"

    @property
    def as_applied(self) -> str:
        """SQL by which a changed migration passes for the one that is shipped."""
        version = Path(self.path).name[:12]
        digest = hashlib.sha256((SOURCE_ROOT / self.path).read_bytes()).hexdigest()
        return f"update public.schema_migrations set checksum = '{digest}' where version = '{version}'"

    @property
    def is_schema(self) -> bool:
        """Whether it changes what the migrations make."""
        return "/migrations/" in self.path


def mutants(root: Path = SOURCE_ROOT) -> list[Mutant]:
    """Every mutant of the sources, by file and place. No two make the same text."""
    found = []
    for path in sorted((root / PACKAGE).rglob("*")):
        if path.suffix == ".sql" or (path.suffix == ".py" and path.name not in OUTSIDE):
            text = path.read_text(encoding="utf-8")
            name = path.relative_to(root).as_posix()
            made = {_applied(text, one): one for one in _changes(text, name)}
            ordered = sorted(made.values(), key=lambda c: (c.start, c.end, c.new))
            found += [_mutant(text, name, one) for one in ordered if _applied(text, one) != text]
    return found


def _changes(text: str, name: str) -> Iterator[Edit]:
    if name.endswith(".sql"):
        return clauses.changes(text, is_schema="/migrations/" in name)
    return statements.changes(text)


def _applied(text: str, change: Edit) -> str:
    return text[: change.start] + change.new + text[change.end :]


def _mutant(text: str, name: str, one: Edit) -> Mutant:
    """Where little is replaced, what is said of it is the whole line."""
    line = text.count("\n", 0, one.start) + 1
    first = text.rfind("\n", 0, one.start) + 1
    last = text.find("\n", one.end)
    old = text[first : last if last >= 0 else len(text)]
    new = old[: one.start - first] + one.new + old[one.end - first :]
    said = _one_line(old), _one_line(new)
    return Mutant(name, line, one.operator, *said, _applied(text, one), _around(text, line))


def _around(text: str, line: int) -> str:
    return " ".join(text.splitlines()[max(line - 4, 0) : line + 3])


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def drawn(found: Sequence[Mutant], count: int, seed: str) -> list[Mutant]:
    """So many of them, by chance: the same seed draws the same. A longer draw begins with the shorter one."""
    return sorted(found, key=lambda m: hashlib.sha256(f"{seed} {m.id}".encode()).digest())[: count or len(found)]


@contextmanager
def planted(mutant: Mutant, root: Path = SOURCE_ROOT) -> Iterator[Path]:
    """A folder with the package, this one file changed; all else are links."""
    with TemporaryDirectory(prefix="proof-mutant-") as folder:
        made = Path(folder) / PACKAGE
        shutil.copytree(root / PACKAGE, made, ignore=shutil.ignore_patterns("__pycache__"))
        (Path(folder) / mutant.path).write_text(mutant.text, encoding="utf-8")
        yield Path(folder)
