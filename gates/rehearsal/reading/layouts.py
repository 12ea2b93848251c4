"""The migration tool that a folder is laid out for: which files it runs, and which in one transaction.

Only known behaviour is encoded here. A tool that sends a file as one query makes it one transaction, too, if it has
more than one statement.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gates.rehearsal.reading.sources import Migrations, SqlSource
from gates.rehearsal.reading.splitting import SqlStatement

_UP = re.compile(r"^--[ \t]*(migrate:up|\+goose[ \t]+up|\+migrate[ \t]+up)\b[ \t]*(.*)", re.IGNORECASE | re.MULTILINE)
_PLACEHOLDER = re.compile(r"\$\{[\w:.-]+\}")
_OF_MARK = {"migrate:up": "dbmate", "+goose up": "goose", "+migrate up": "sql-migrate"}


@dataclass(frozen=True, slots=True)
class Layout:
    """A tool, and whether it runs these statements of a file in one transaction."""

    tool: str
    wraps: Callable[[SqlSource, Sequence[SqlStatement]], bool]

    def in_one_transaction(self, source: SqlSource, statements: Sequence[SqlStatement]) -> bool:
        """Whether the file is one transaction; one that begins its own says so itself."""
        sent = [s for s in statements if not s.meta]
        return bool(sent) and not any(s.verb in {"begin", "start"} for s in sent) and self.wraps(source, sent)

    def with_placeholders(self, migrations: Migrations) -> Migrations:
        """The files of Flyway with a name for each `${name}`, whose value is only in its configuration."""
        names = sorted({m[0] for s in migrations.sources for m in _PLACEHOLDER.finditer(s.text)})
        if self.tool != "Flyway" or not names:
            return migrations
        sources = (replace(s, text=_PLACEHOLDER.sub(_as_name, s.text)) for s in migrations.sources)
        note = f"placeholders of Flyway stand for names that nothing else has: {', '.join(names)}"
        return replace(migrations, sources=tuple(sources), notes=(*migrations.notes, note))


def _as_name(placeholder: re.Match[str]) -> str:
    return "__" + re.sub(r"\W", "_", placeholder[0][2:])


def layout_of(migrations: Migrations) -> Layout | None:
    """The layout of a folder, or None if it is no known tool's."""
    return next((Layout(tool, _WRAPS[tool]) for tool in _tools(migrations)), None)


def _tools(migrations: Migrations) -> Iterator[str]:
    paths = [Path(s.shown) for s in migrations.sources]
    names = [p.name for p in paths]
    homes = {h for p in paths for h in (p.parent, p.parent.parent)}
    if migrations.supabase:
        yield "Supabase"
    marks = (m for s in migrations.sources if (m := _UP.search(s.text)))
    yield from (_OF_MARK[" ".join(m[1].lower().split())] for m in marks)
    witnesses = {"Prisma": "migration_lock.toml", "Drizzle": "meta/_journal.json", "Atlas": "atlas.sum"}
    yield from (tool for tool, name in witnesses.items() if any((h / name).is_file() for h in homes))
    by_name = {"up.sql": "Diesel", "migration.sql": "Prisma"}
    yield from (tool for name, tool in by_name.items() if set(names) == {name})
    if any(re.match(r"[VR][\d._]*__", n) for n in names):
        yield "Flyway"
    if all(re.fullmatch(r"\d+_.*\.up\.sql", n) for n in names):
        yield "golang-migrate"


def _unless(mark: str) -> Callable[[SqlSource, Sequence[SqlStatement]], bool]:
    pattern = re.compile(rf"^--[ \t]*{mark}", re.IGNORECASE | re.MULTILINE)
    return lambda source, _statements: pattern.search(source.text) is None


def _one_query(source: SqlSource, statements: Sequence[SqlStatement]) -> bool:
    return len(statements) > 1 and not source.text.lower().startswith("-- no-transaction")


def _dbmate(source: SqlSource, statements: Sequence[SqlStatement]) -> bool:
    mark = _UP.search(source.text)
    return len(statements) > 1 or mark is None or "transaction:false" not in mark[2]


def _diesel(source: SqlSource, _statements: Sequence[SqlStatement]) -> bool:
    return not _says(Path(source.shown).parent / "metadata.toml", r"run_in_transaction\s*=\s*false")


def _flyway(source: SqlSource, statements: Sequence[SqlStatement]) -> bool:
    if _says(Path(f"{source.shown}.conf"), r"executeInTransaction\s*=\s*false"):
        return False
    return not all(map(is_outside, statements))


def _says(path: Path, pattern: str) -> bool:
    return path.is_file() and re.search(pattern, path.read_text(encoding="utf-8", errors="replace")) is not None


_WRAPS: dict[str, Callable[[SqlSource, Sequence[SqlStatement]], bool]] = {
    **dict.fromkeys(("Supabase", "Drizzle"), lambda _source, _statements: True),
    **dict.fromkeys(("Prisma", "golang-migrate"), _one_query),
    "dbmate": _dbmate,
    "goose": _unless(r"\+goose[ \t]+no[ \t]+transaction"),
    "sql-migrate": _unless(r"\+migrate[ \t]+up[ \t]+notransaction"),
    "Atlas": _unless(r"atlas:txmode[ \t]+none"),
    "Diesel": _diesel,
    "Flyway": _flyway,
}


def is_outside(statement: SqlStatement) -> bool:
    """Whether the server refuses it in a transaction."""
    words = statement.plain
    if words[:1] == ("reindex",):
        return bool({"concurrently", "system", "database", "schema"} & set(words[1:6]))
    if words[:1] in {("create",), ("drop",)}:
        index = "index" in words[1:3] and "concurrently" in words[1:4]
        return index or words[1:2] in {("database",), ("tablespace",), ("subscription",)}
    return words[:1] == ("vacuum",) or words[:2] in {("alter", "system"), ("discard", "all")}


def depends_on_transaction(statements: Sequence[SqlStatement]) -> SqlStatement | None:
    """The first statement that would fail in one transaction for the whole file, unless the file has its own."""
    if any(s.verb in {"begin", "start"} for s in statements):
        return None
    for index, one in enumerate(statements):
        adds = one.plain[:2] == ("alter", "type") and "add" in one.plain and "value" in one.plain
        if is_outside(one) or (adds and index + 1 < len(statements)):
            return one
    return None
