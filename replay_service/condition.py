"""The condition of the deployment: readiness and version."""

import asyncio
from pathlib import Path
from typing import Any

import psycopg

from replay_service.database import ANSWER_S, fetch_row, fetch_value
from replay_service.parts import Parts


def expected_migrations(folder: Path = Path(__file__).parent / "migrations") -> tuple[str, int]:
    """The highest version among the migration files (`<date>_<number>`) and how many files there are."""
    versions = sorted("_".join(path.name.split("_")[:2]) for path in folder.glob("*.sql"))
    return (versions[-1] if versions else "", len(versions))


async def readiness(parts: Parts) -> dict[str, bool]:
    """Each prerequisite of serving, and whether it is met. Never raises psycopg.Error."""
    found = {"database": False, "migrations": False, "worker": False}
    try:
        async with asyncio.timeout(ANSWER_S), parts.database.connection(ANSWER_S) as conn:
            row = await fetch_row(conn, "schema_version")
            found["database"] = True
            found["migrations"] = row == parts.expected_migrations
            found["worker"] = bool(await fetch_value(conn, "worker_is_fresh", fresh_s=parts.settings.heartbeat_fresh_s))
    except (psycopg.Error, TimeoutError):
        pass
    return found


async def version(parts: Parts) -> dict[str, Any]:
    """What runs here. `schema_version` is null while the database cannot be asked."""
    schema_version = None
    try:
        async with asyncio.timeout(ANSWER_S), parts.database.connection(ANSWER_S) as conn:
            schema_version = await fetch_value(conn, "schema_version")
    except (psycopg.Error, TimeoutError):
        pass
    return {
        "release": parts.settings.release,
        "commit": parts.settings.commit,
        "schema_version": schema_version,
        "drill_agent": True,
        "instance": parts.instance,
    }
