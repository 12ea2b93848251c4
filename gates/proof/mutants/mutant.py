"""All mutants: every change of every file of the reference, each with a stable name."""

import hashlib
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from gates.proof.mutants import clauses, statements
from gates.proof.mutants.statements import Edit
from gates.stack.service import SOURCE_ROOT

PACKAGE = "replay_service"
MUTANTS = 300
"""How many are drawn by default."""
OUTSIDE = {"__main__.py", "app.py", "http_agent.py", "logs.py", "migrate.py", "openapi.py", "settings.py"}
"""Files that read the command line and the environment, write logs, or apply migrations: a gate sees only their
effects. Also the HTTP agent, which the proved worker does not use.
"""
EQUIVALENTS = Path(__file__).with_name("equivalents.yaml")
"""Why some mutants may be promoted: the only place for it."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """The sources with a change.

    id: its name. key: the same without the line, which changes with edits above it, and with a number from the second
    of its kind on. said: the change, on one line. about: words around the change. texts: new text of a file, by path.
    """

    id: str
    key: str
    said: str
    about: str
    texts: Mapping[str, str] = field(repr=False)

    @property
    def as_applied(self) -> str:
        """SQL that makes changed migrations look like the shipped ones."""
        shipped = {p: hashlib.sha256((SOURCE_ROOT / p).read_bytes()).hexdigest() for p in self._migrations}
        return "; ".join(
            f"update public.schema_migrations set checksum = '{digest}' where version = '{Path(p).name[:12]}'"
            for p, digest in shipped.items()
        )

    @property
    def digest(self) -> str:
        """What distinguishes it from another mutant of the same name."""
        return hashlib.sha256(repr(sorted(self.texts.items())).encode()).hexdigest()

    @property
    def is_schema(self) -> bool:
        """Whether it changes what the migrations create."""
        return bool(self._migrations)

    @property
    def _migrations(self) -> list[str]:
        return [path for path in self.texts if "/migrations/" in path]


def mutants(root: Path = SOURCE_ROOT) -> list[Mutant]:
    """Every mutant of the sources, by file and place. No two produce the same text."""
    found = list[Mutant]()
    for path in sorted((root / PACKAGE).rglob("*")):
        if path.suffix == ".sql" or (path.suffix == ".py" and path.name not in OUTSIDE):
            text = path.read_text(encoding="utf-8")
            name = path.relative_to(root).as_posix()
            made = {_applied(text, one): one for one in _changes(text, name)}
            ordered = sorted(made.values(), key=lambda c: (c.start, c.end, c.new))
            found += _numbered([_mutant(text, name, one) for one in ordered if _applied(text, one) != text])
    return found


def _numbered(mutants: Sequence[Mutant]) -> Iterator[Mutant]:
    """Those of one file: the second of two equal ones has another key, so an excuse covers only one."""
    alike = Counter[str]()
    for one in mutants:
        alike[one.key] += 1
        yield replace(one, key=f"{one.key}-{alike[one.key]}") if alike[one.key] > 1 else one


def _changes(text: str, name: str) -> Iterator[Edit]:
    if name.endswith(".sql"):
        return clauses.changes(text, is_schema="/migrations/" in name)
    return statements.changes(text)


def _applied(text: str, change: Edit) -> str:
    return text[: change.start] + change.new + text[change.end :]


def _mutant(text: str, name: str, one: Edit) -> Mutant:
    """Its id is `file:line:operator` and digits that distinguish those of one line; whole lines are described."""
    line = text.count("\n", 0, one.start) + 1
    first = text.rfind("\n", 0, one.start) + 1
    last = text.find("\n", one.end)
    old = text[first : last if last >= 0 else len(text)]
    new = old[: one.start - first] + one.new + old[one.end - first :]
    said = f"{one_line(old)} => {one_line(new) or 'nothing'}"
    kind = f"{one.operator}-{hashlib.sha256(said.encode()).hexdigest()[:6]}"
    about = f"{name.removeprefix(PACKAGE)} {one_line(old)} {_around(text, line)}"
    return Mutant(f"{name}:{line}:{kind}", f"{name}:{kind}", said, about, {name: _applied(text, one)})


def _around(text: str, line: int) -> str:
    return " ".join(text.splitlines()[max(line - 4, 0) : line + 3])


def one_line(text: str) -> str:
    """The text without its breaks."""
    return re.sub(r"\s+", " ", text).strip()


def drawn(found: Sequence[Mutant], count: int, seed: str) -> list[Mutant]:
    """Mutants at random: the same seed draws the same. A longer draw begins with the shorter one."""
    return sorted(found, key=lambda m: hashlib.sha256(f"{seed} {m.id}".encode()).digest())[: count or len(found)]


def together(mutants: Sequence[Mutant]) -> Mutant:
    """One mutant with the changes of all of these. Raise ValueError if two change the same place."""
    texts: dict[str, str] = {}
    for path in sorted({path for one in mutants for path in one.texts}):
        old = made = (SOURCE_ROOT / path).read_text(encoding="utf-8")
        after = len(old) + 1
        for start, end, new in sorted((_changed(old, m.texts[path]) for m in mutants if path in m.texts), reverse=True):
            if end >= after:
                raise ValueError(f"two changes of one place of {path}; allowed: changes apart. Show one of them alone")
            made, after = made[:start] + new + made[end:], start
        texts[path] = made
    names = " + ".join(one.id for one in mutants)
    return Mutant(names, names, names, " ".join(one.about for one in mutants), texts)


def _changed(old: str, new: str) -> tuple[int, int, str]:
    """The start and end of the difference in the old text, and the new text there."""
    start = _alike(old, new)
    same = _alike(old[start:][::-1], new[start:][::-1])
    return start, len(old) - same, new[start : len(new) - same]


def _alike(one: str, other: str) -> int:
    """The length of their common prefix."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def companies(mutants: Sequence[Mutant], size: int) -> list[list[Mutant]]:
    """The mutants in groups that can be put into one deployment, those of the schema separately."""
    found: list[list[Mutant]] = []
    for one in mutants:
        home = next((c for c in found if len(c) < size and c[0].is_schema == one.is_schema and _fits(one, c)), None)
        if home is None:
            found.append([one])
        else:
            home.append(one)
    return found


def _fits(one: Mutant, company: Sequence[Mutant]) -> bool:
    try:
        together([*company, one])
    except ValueError:
        return False
    return True


@contextmanager
def planted(mutant: Mutant, root: Path = SOURCE_ROOT) -> Iterator[Path]:
    """A folder with a changed copy of the package."""
    with TemporaryDirectory(prefix="proof-mutant-") as folder:
        made = Path(folder) / PACKAGE
        shutil.copytree(root / PACKAGE, made, ignore=shutil.ignore_patterns("__pycache__"))
        for path, text in mutant.texts.items():
            (Path(folder) / path).write_text(text, encoding="utf-8")
        yield Path(folder)


def equivalents(text: str | None = None) -> Mapping[str, str]:
    """Key of the mutant -> the reason. Raise ValueError for anything that is not one."""
    found: dict[str, str] = {}
    for why, files in (yaml.safe_load(text or EQUIVALENTS.read_text(encoding="utf-8")) or {}).items():
        for key in (f"{PACKAGE}/{file}:{change}" for file, changes in files.items() for change in changes):
            if key in found:
                raise ValueError(f"{key} is there twice; allowed: once; in {EQUIVALENTS.name}. Drop one")
            found[key] = why
    return found
