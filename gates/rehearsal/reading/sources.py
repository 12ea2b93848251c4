"""Reads what is rehearsed: a folder of migrations, one file, a dump, or Markdown with fenced SQL. Text that is no SQL
is blanked, never cut, so a position in the text is the position in the file.
"""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gates import disk
from gates.errors import UsageError
from gates.inputs.strict_yaml import Place
from gates.text.quantity import with_unit

MOST_BYTES = 64 * 1024 * 1024
"""The most bytes of one file; a dump with more rows rehearses nothing more than its schema does."""
SQL, MARKDOWN = (".sql",), (".md", ".markdown")
_FENCE = re.compile(r"^([ \t]*)(```+|~~~+)[ \t]*([^\s`]*)[^\n]*$")
_SQL_FENCES = {"sql", "psql", "postgres", "postgresql", "pgsql", "plpgsql"}
_DOWN = re.compile(r"^--[ \t]*(?:migrate:down|\+goose[ \t]+down|\+migrate[ \t]+down)\b.*", re.IGNORECASE | re.MULTILINE)
_UP = re.compile(r"^--[ \t]*(?:migrate:up|\+goose[ \t]+up|\+migrate[ \t]+up)\b", re.IGNORECASE | re.MULTILINE)
_LIQUIBASE = re.compile(r"\s*--[ \t]*liquibase formatted sql", re.IGNORECASE)
_CHANGESET = re.compile(r"^--[ \t]*changeset\b[^\n]*", re.IGNORECASE | re.MULTILINE)
_DUMP = re.compile(r"^-- PostgreSQL database (?:cluster )?dump", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class SqlSource:
    """One file: its display name, and its SQL at the positions that it has in the file."""

    shown: str
    text: str

    @property
    def is_dump(self) -> bool:
        """Whether pg_dump wrote it."""
        return _DUMP.search(self.text[:4000]) is not None


@dataclass(frozen=True, slots=True)
class Migrations:
    """The files in order; `supabase`: whether it is Supabase's layout. `notes`: what was left out, and why."""

    sources: tuple[SqlSource, ...]
    supabase: bool = False
    notes: tuple[str, ...] = field(default=())


def read_migrations(where: Path) -> Migrations:
    """The migrations at a path. Raise UsageError if there are none, ConfigError if a file is unreadable or outside."""
    if where.is_file():
        notes: list[str] = []
        return Migrations((read_source(where, str(where), notes),), notes=tuple(notes))
    if not where.is_dir():
        raise UsageError(f"{where}: there is no such file or folder; allowed: a folder of migrations, or one .sql or "
                         ".md file. Correct the path")  # fmt: skip
    inner = where / "supabase" / "migrations"
    folder = inner if inner.is_dir() else where
    supabase = folder.name == "migrations" and folder.resolve().parent.name == "supabase"
    paths, notes = _paths(folder)
    seed = folder.parent / "seed.sql"
    if supabase and seed.is_file():
        paths.append(seed)
    if not paths:
        raise UsageError(f"{where}: no migration was found; allowed: .sql files, or .md files with ```sql fences"
                         f"{_elsewhere(where)}. Name the folder that has them")  # fmt: skip
    _must_be_within(folder.parent if supabase or folder.name == "deploy" else folder, paths)
    sources = tuple(read_source(path, str(path), notes) for path in paths)
    return Migrations(sources, supabase, tuple(notes))


def _must_be_within(folder: Path, paths: list[Path]) -> None:
    """Raise ConfigError if a link or a plan leads out of the folder, or of its repository. A server quotes text that is
    no SQL, and that may be a secret of the machine.
    """
    folder = folder.resolve()
    home = next((place for place in (folder, *folder.parents) if (place / ".git").exists()), folder)
    for path in paths:
        if not path.resolve().is_relative_to(home):
            start = Place(str(path), 1, 1)
            raise start.error(
                f"a file that is not below {home}", "the files of one folder", "Copy it there, or name it"
            )


def _paths(folder: Path) -> tuple[list[Path], list[str]]:
    """The files in the order in which they run. Down migrations and, if there is SQL, Markdown are left out."""
    if planned := _planned(folder):
        return planned, ["the order is that of sqitch.plan; what reverts and verifies a change is not run"]
    found = [p for p in folder.iterdir() if p.is_file() and p.suffix.lower() in SQL + MARKDOWN]
    found = found or [p for p in folder.rglob("*.sql") if p.is_file() and ".git" not in p.parts]
    notes = []
    deeper = [p for p in folder.rglob("*.sql") if p.parent != folder and ".git" not in p.parts]
    if deeper and found[0].parent == folder:
        files = with_unit(len(deeper), "files")
        notes.append(f"not run: {files} (.sql) in subfolders, the first is {min(map(str, deeper))}")
    if any(p.suffix.lower() in SQL for p in found) and any(p.suffix.lower() in MARKDOWN for p in found):
        notes.append("Markdown beside .sql files is not run; name such a file itself to rehearse it")
        found = [p for p in found if p.suffix.lower() in SQL]
    down = [p for p in found if re.search(r"[._-]down\.sql$", p.name.lower()) or p.name.lower() == "down.sql"]
    down += [p for p in found if re.match(r"U[\d._]+__", p.name)]
    down += [p for p in found if p.parent.name.lower() == "down" and p.parent.with_name("up").is_dir()]
    if down:
        files = with_unit(len(down), "files")
        notes.append(f"not run: {files} that undo a migration, the first is {min(p.name for p in down)}")
    kept = [p for p in found if p not in down]
    return sorted(kept, key=lambda p: (p.name.startswith("R__"), natural(p.relative_to(folder).as_posix()))), notes


def _planned(folder: Path) -> list[Path]:
    """The deploy scripts of a Sqitch project in the order of its plan."""
    home = folder.parent if folder.name == "deploy" else folder
    plan = home / "sqitch.plan"
    lines = read_text(plan, str(plan)).splitlines() if plan.is_file() else []
    changes = [line.split()[0] for line in lines if line.strip() and line.lstrip()[0] not in "%#@"]
    paths = [home / "deploy" / f"{name}.sql" for name in dict.fromkeys(changes)]
    return [path for path in paths if path.is_file()]


def natural(name: str) -> list[tuple[int, int, str]]:
    """A sort key by which 2 comes before 10."""
    return [
        (0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name.lower()) if part
    ]


def _elsewhere(where: Path) -> str:
    for path in sorted(where.rglob("*")):
        if path.is_file() and path.suffix.lower() in SQL and "node_modules" not in path.parts:
            return f" ({path.parent} has some)"
    return ""


def read_source(path: Path, shown: str, notes: list[str]) -> SqlSource:
    """One file as SQL. Raise ConfigError with file, line and column if it cannot be read."""
    text = read_text(path, shown)
    if path.suffix.lower() in MARKDOWN:
        return SqlSource(shown, only_fences(text))
    for start, end in reversed(list(_undoing(text))):
        notes.append(f"{shown}: what undoes it is not run, from line {text.count(chr(10), 0, start) + 1} on")
        text = text[:start] + blank(text[start:end]) + text[end:]
    text = _with_delimiters(text)
    return SqlSource(shown, text)


def _undoing(text: str) -> Iterator[tuple[int, int]]:
    """Each part from a "down" mark to the next "up" mark."""
    ups = [m.start() for m in _UP.finditer(text)]
    end = 0
    for down in _DOWN.finditer(text) if ups else ():
        if down.start() >= end:
            end = next((up for up in ups if up > down.start()), len(text))
            yield down.start(), end


def _with_delimiters(text: str) -> str:
    """A `;` at the end of each statement, for a Liquibase changeset with another delimiter."""
    changes = list(_CHANGESET.finditer(text)) if _LIQUIBASE.match(text) else []
    for change, after in itertools.zip_longest(changes, (m.start() for m in changes[1:])):
        if mark := re.search(r"endDelimiter:(\S+)", change[0]):
            delimiter = re.escape(mark[1].strip('"').replace("\\n", ""))
            ends = re.compile(rf"{delimiter}(?=[ \t\r]*$)", re.MULTILINE)
            part = ends.sub(lambda m: ";".ljust(len(m[0])), text[change.end() : after])
            text = text[: change.end()] + part + text[change.end() + len(part) :]
    return text


def read_text(path: Path, shown: str) -> str:
    """The text of a file in UTF-8. Raise ConfigError with the place of an invalid byte."""
    start = Place(shown, 1, 1)
    try:
        raw = disk.read(path) if path.stat().st_size <= MOST_BYTES else b""
    except OSError as error:
        raise start.error(error.strerror or str(error), "a file that can be read", "See to its permissions") from None
    if not raw and path.stat().st_size:
        raise start.error(f"{path.stat().st_size} bytes", f"{MOST_BYTES}", "Dump the schema alone: pg_dump -s")
    if raw.startswith(b"PGDMP"):
        do = f"Make it plain: pg_restore -f dump.sql {shown}"
        raise start.error("pg_dump's own format", "plain SQL", do)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8", "replace")
        raise place_in(shown, before, len(before)).error(
            f"the byte 0x{raw[error.start]:02x}", "text in UTF-8", "Save the file in UTF-8"
        ) from None
    if "\0" in text:
        raise place_in(shown, text, text.index("\0")).error("a NUL character", "text", "Remove it")
    return text


def place_in(shown: str, text: str, offset: int) -> Place:
    """The line and column of an offset, both from 1."""
    return Place(shown, text.count("\n", 0, offset) + 1, offset - (text.rfind("\n", 0, offset) + 1) + 1)


def blank(text: str) -> str:
    """Replace everything but line ends by spaces."""
    return re.sub(r"[^\n]", " ", text)


def only_fences(text: str) -> str:
    """The SQL in the fences of Markdown; a `;` at the end of a fence ends its last statement."""
    lines, kept, fence, sql = text.split("\n"), [], "", False
    for line in lines:
        found = _FENCE.match(line.rstrip("\r"))
        if not fence and found:
            fence, sql = found[2], found[3].strip("{}.").lower() in _SQL_FENCES
            kept.append(blank(line))
        elif fence and found and not found[3] and found[2].startswith(fence):
            kept.append(found[1] + ";" if sql else blank(line))
            fence = ""
        else:
            kept.append(line if fence and sql else blank(line))
    return "\n".join(kept)
