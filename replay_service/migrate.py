"""Apply the plain SQL files of `migrations/`, each once, in the order of their names.

`schema_migrations` remembers version, name and sha256 of every applied file. A file that was changed, removed or
slipped in below the newest applied version is refused: the schema would no longer be what the files say.
"""

import hashlib
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg

from replay_service.session import pinning

MIGRATIONS = Path(__file__).parent / "migrations"
FILE_NAME = re.compile(r"(?P<version>\d{8}_\d{3})_(?P<name>[a-z0-9_]+)\.sql")
LOCK_KEY = 0x7265706C6179  # "replay": one migration at a time in a database
LOCK_WAIT_S = 60
CONNECT_TIMEOUT_S = 10
EXIT_CONFIGURATION = 3
CLUSTER_RACES = 5  # roles are cluster-wide: a migration of another database may be granting the same ones

LEDGER = """
SET LOCAL ROLE replay_owner;
CREATE TABLE public.schema_migrations (
  version text PRIMARY KEY,
  name text NOT NULL,
  checksum text NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE public.schema_migrations ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.schema_migrations FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_records ON public.schema_migrations FOR ALL TO replay_owner USING (true) WITH CHECK (true);
CREATE POLICY version_is_seen ON public.schema_migrations FOR SELECT
  TO replay_service, replay_worker, replay_gate USING (true);
GRANT SELECT ON public.schema_migrations TO replay_service, replay_worker, replay_gate;
"""


class MigrationError(Exception):
    """The files and the database disagree; a person must act."""


@dataclass(frozen=True)
class Migration:
    """One file: its version (sorts as text), name and whole text."""

    version: str
    name: str
    text: str

    @property
    def checksum(self) -> str:
        """Hex sha256 of the file's text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def read_migrations(folder: Path = MIGRATIONS) -> tuple[Migration, ...]:
    """All files of the folder by version. Raises MigrationError on a foreign name or two files of one version."""
    found: dict[str, Migration] = {}
    for path in sorted(folder.glob("*.sql")):
        match = FILE_NAME.fullmatch(path.name)
        if match is None:
            raise MigrationError(f"{path.name} is no migration name; allowed is YYYYMMDD_NNN_name.sql; rename it")
        if match["version"] in found:
            raise MigrationError(
                f"{path.name} shares version {match['version']} with another file; renumber one of them"
            )
        found[match["version"]] = Migration(match["version"], match["name"], path.read_text(encoding="utf-8"))
    if not found:
        raise MigrationError(f"no migration in {folder}; the installation is incomplete")
    return tuple(found.values())


def expected_version() -> str:
    """The version that a database of this release has."""
    return read_migrations()[-1].version


def pending(files: Sequence[Migration], applied: Mapping[str, str]) -> tuple[Migration, ...]:
    """Files to apply, given version -> checksum of the applied ones. Raises MigrationError where they disagree."""
    by_version = {file.version: file for file in files}
    newest = max(applied, default="")
    for version, checksum in applied.items():
        file = by_version.get(version)
        if file is None:
            raise MigrationError(f"migration {version} was applied and its file is missing; bring the file back")
        if file.checksum != checksum:
            raise MigrationError(
                f"migration {version} was changed after it was applied; undo that, add a new file instead"
            )
    todo = tuple(file for file in files if file.version not in applied)
    for file in todo:
        if file.version < newest:
            raise MigrationError(f"migration {file.version} came after {newest} was applied; give it a higher version")
    return todo


def migrate(url: str, folder: Path = MIGRATIONS) -> str:
    """Bring the database to the newest version and return it. Raises MigrationError or psycopg.Error."""
    files = read_migrations(folder)
    # of a database in SQL_ASCII, psycopg reads texts as bytes
    with psycopg.connect(
        url, client_encoding="utf8", connect_timeout=CONNECT_TIMEOUT_S, autocommit=True, prepare_threshold=None
    ) as conn:
        conn.isolation_level, conn.read_only = psycopg.IsolationLevel.READ_COMMITTED, False
        while _apply(conn, files):
            pass
    return files[-1].version


def _applied(conn: psycopg.Connection) -> dict[str, str]:
    if not _has_ledger(conn):
        return {}
    return dict(conn.execute("SELECT version, checksum FROM public.schema_migrations ORDER BY version").fetchall())


def _has_ledger(conn: psycopg.Connection) -> bool:
    row = conn.execute("SELECT to_regclass('public.schema_migrations') IS NOT NULL").fetchone()
    return row is not None and bool(row[0])


def _apply(conn: psycopg.Connection, files: Sequence[Migration]) -> bool:
    """Apply the next file. False where there was none."""
    for race in range(1, CLUSTER_RACES + 1):
        try:
            return _apply_once(conn, files)
        except psycopg.errors.InternalError_ as error:  # "tuple concurrently updated" has no code of its own
            if race == CLUSTER_RACES or "concurrently" not in str(error):
                raise
    return False


def _apply_once(conn: psycopg.Connection, files: Sequence[Migration]) -> bool:
    """Apply the next file in one transaction that sets all it needs: a pooler may give the next one another session."""
    with conn.transaction():
        conn.execute(pinning({"lock_timeout": f"{LOCK_WAIT_S}s"}))
        conn.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK_KEY,))
        todo = pending(files, _applied(conn))
        if not todo:
            return False
        file = todo[0]
        conn.execute(file.text.encode())
        if not _has_ledger(conn):
            conn.execute(LEDGER.encode())
        conn.execute("SET LOCAL ROLE replay_owner")
        conn.execute(
            "INSERT INTO public.schema_migrations (version, name, checksum) VALUES (%s, %s, %s)",
            (file.version, file.name, file.checksum),
        )
        return True


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """`python -m replay_service migrate`: prints the schema version. Exit 0, 1 (refused) or 3 (configuration)."""
    if argv:
        sys.stderr.write(f"migrate takes no arguments, got {' '.join(argv)}\n")
        return EXIT_CONFIGURATION
    url = environ.get("DATABASE_URL", "")
    if not url:
        sys.stderr.write("DATABASE_URL is not set; migrate needs the URL of a login that may create roles\n")
        return EXIT_CONFIGURATION
    try:
        version = migrate(url)
    except (MigrationError, psycopg.Error) as error:
        sys.stderr.write(f"migrate: {error}\n")
        return 1
    sys.stdout.write(f"{version}\n")
    return 0
