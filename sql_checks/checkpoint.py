"""Remembers how far the audit trail was verified, in a file, since the gate creates no table in its target.

One file a database, in the folder of `--state`. It is written when all checks of the trail passed, and never goes back.
An unusable file is not treated as a missing one: the check that needs it is unknown.
"""

import datetime as dt
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg

from gates import disk
from gates.contract.fragments import expand
from gates.deployment.sql.database import Connection, execute, sql

HERE = Path(__file__).parent
POSITION = HERE / "checkpoint_position.sql"
DATABASE = HERE / "checkpoint_database.sql"
FRAGMENTS = (HERE / "spot" / "fragments",)

CHECK = "sql/spot/audit-checkpoint"
TRAIL = frozenset({CHECK, "sql/spot/audit-chain", "sql/spot/audit-heads", "sql/spot/audit-row-counts"})
"""The checks that must all have passed before a run may say that it verified the trail."""

FORMAT = 1
HASH = re.compile(r"[0-9a-f]{64}")
CLOCK_SLACK = dt.timedelta(minutes=1)


class CheckpointError(ValueError):
    """A checkpoint cannot be used: what was observed, what is allowed, where, what to do."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a run ended: the last row of the trail that is verified without a gap, and the heads of its scopes then.

    database: which one, see `identify`; scopes: of each, id and hash of its last row, and how many rows it had;
    is_behind: rows after it were left for the next run; written_at: by the clock of the database; server_started_at: a
    server that was started since may be a restored one.
    """

    database: str
    last_id: int
    last_hash: str
    scopes: Mapping[str, tuple[int, str, int]]
    written_at: dt.datetime
    server_started_at: dt.datetime
    is_behind: bool = False

    def settings(self) -> dict[str, str]:
        """What the queries are given: `replaygate.<name>`."""
        place = {"last_id": self.last_id, "last_hash": self.last_hash}
        return {"checkpoint": json.dumps(place), "checkpoint_scopes": json.dumps(self.scopes)}

    def dump(self) -> str:
        """The text of the file."""
        return json.dumps(
            {
                "format": FORMAT,
                "database": self.database,
                "written_at": self.written_at.isoformat(),
                "server_started_at": self.server_started_at.isoformat(),
                "last_id": self.last_id,
                "last_hash": self.last_hash,
                "is_behind": self.is_behind,
                "scopes": self.scopes,
            }
        )


def identify(connection: Connection) -> str:
    """Which database this is: cluster, oid, and the address it was reached at (a clone on disk has the same cluster).

    Raise psycopg.Error.
    """
    info = connection.info
    address = f"{info.host}:{info.port}/{info.dbname}"
    try:
        row = execute(connection, sql(DATABASE))[0]
    except psycopg.errors.InsufficientPrivilege:
        return address
    return f"{row['system']}/{row['oid']} at {address}"


def file_of(folder: Path, database: str) -> Path:
    return folder / f"audit-{hashlib.sha256(database.encode()).hexdigest()[:24]}.json"


def read(path: Path, database: str, now: dt.datetime) -> Checkpoint | None:
    """The checkpoint, None where there is none yet. Raise CheckpointError for anything that is not what a run wrote."""
    try:
        found = _parsed(disk.read_text(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _unusable(path, f"{type(error).__name__}: {str(error)[:80]}", "what a run wrote") from error
    if found.database != database:
        raise _unusable(path, f"it is of {found.database}", f"a checkpoint of {database}")
    if found.written_at > now + CLOCK_SLACK:
        raise _unusable(path, f"it is of {found.written_at}, the database says {now}", "a time that has been")
    return found


def _unusable(path: Path, observed: str, allowed: str) -> CheckpointError:
    advice = "Find out why; remove the file only to begin anew, with `--deep`"
    return CheckpointError(f"{path}: the checkpoint cannot be used: {observed}; allowed: {allowed}. {advice}")


def _parsed(text: str) -> Checkpoint:
    data: Any = json.loads(text)
    if data["format"] != FORMAT:
        raise ValueError(f"format {data['format']!r}")
    scopes = {str(s): (int(i), _hash(h), int(n)) for s, (i, h, n) in data["scopes"].items()}
    place = (int(data["last_id"]), _hash(data["last_hash"]))
    times = (_time(data["written_at"]), _time(data["server_started_at"]))
    return Checkpoint(str(data["database"]), *place, scopes, *times, bool(data["is_behind"]))


def _time(text: str) -> dt.datetime:
    found = dt.datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError(f"{text} has no time zone")
    return found


def _hash(text: object) -> str:
    if not isinstance(text, str) or not HASH.fullmatch(text):
        raise ValueError(f"{str(text)[:20]!r} is no hash")
    return text


def position(connection: Connection, database: str) -> Checkpoint | None:
    """How far a run that starts in this snapshot verifies; None where there are no rows. Raise psycopg.Error."""
    row: dict[str, Any] = execute(connection, expand(sql(POSITION), FRAGMENTS))[0]
    if row["last_id"] is None:
        return None
    scopes = {s: (int(i), str(h), int(n)) for s, (i, h, n) in row["scopes"].items()}
    place = (int(row["last_id"]), str(row["last_hash"]))
    return Checkpoint(database, *place, scopes, row["written_at"], row["server_started_at"], bool(row["is_behind"]))


def write(path: Path, reached: Checkpoint, before: Checkpoint | None) -> None:
    """Replace the file at once or not at all, unless another run came further meanwhile. Raise OSError.

    Scopes that only the earlier checkpoint knows are kept: what was verified once must stay.
    """
    now = read_or_none(path, reached.database)
    if now is not None and now.last_id > reached.last_id:
        return
    scopes = {**(before.scopes if before else {}), **reached.scopes}
    whole = replace(reached, scopes=scopes)
    path.parent.mkdir(parents=True, exist_ok=True)
    disk.write(path, whole.dump() + "\n", durable=True)


def read_or_none(path: Path, database: str) -> Checkpoint | None:
    """The checkpoint that another run may have written meanwhile; an unusable file counts as none here."""
    try:
        return read(path, database, dt.datetime.max.replace(tzinfo=dt.UTC) - CLOCK_SLACK)
    except CheckpointError:
        return None
