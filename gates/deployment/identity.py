"""Which deployment a target is: one short name for BASE_URL and DATABASE_URL, without a secret in it."""

import hashlib
import ipaddress
import re
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict

from gates.deployment.sql.database import Connection, execute, sql
from gates.deployment.target import Target

DIGITS = 12
NUMBERED = re.compile(r"([0-9]+/[0-9]+)@([0-9]+)")
"""The result of server.sql."""
HERE = Path(__file__).parent


def identity(target: Target) -> str:
    """Twelve hex digits over BASE_URL and the host, port and name of the database, never over a login or a password.
    The gate's memory has this name, so it never mixes two deployments.
    """
    return hashlib.sha256(f"{http_place(target)}\n{database_place(target)}".encode()).hexdigest()[:DIGITS]


def http_place(target: Target) -> str:
    """BASE_URL without user and query; empty if it is missing or unreadable."""
    try:
        parts = urlsplit(target.base_url)
        port = f":{parts.port}" if parts.port else ""
        host = (parts.hostname or "").lower()
    except ValueError:
        return ""
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}{parts.path}" if host else ""


def without_login(url: str) -> str:
    """The URL without user and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if "@" in parts.netloc else url


def database_place(target: Target) -> str:
    """`host:port/name` of DATABASE_URL, with the service if it names one; empty if it is missing or unreadable."""
    if not target.database_url:
        return ""
    try:
        parts = conninfo_to_dict(target.database_url)
    except psycopg.Error:
        return ""
    name = parts.get("dbname") or parts.get("user") or ""
    service = f" of service {parts['service']}" if parts.get("service") else ""
    return f"{parts.get('host') or parts.get('hostaddr') or ''}:{parts.get('port') or 5432}/{name}{service}"


def is_here(target: Target) -> bool:
    """Whether all addresses in BASE_URL and DATABASE_URL are on this machine. A libpq service may be anywhere."""
    database = conninfo_to_dict(target.database_url) if target.database_url else {}
    named = [urlsplit(target.base_url).hostname, *str(database.get("host") or "").split(",")]
    named += str(database.get("hostaddr") or "").split(",")
    return not database.get("service") and all(map(_is_own, filter(None, named)))


def _is_own(host: str) -> bool:
    try:
        return host == "localhost" or host.startswith(("/", "@")) or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def server_of(connection: Connection) -> str:
    """The identity of a database, wherever it listens now. The identifier of its cluster, if this login may read it,
    the database, and the cluster's timeline.
    """
    try:
        with connection.transaction():
            return str(execute(connection, sql(HERE / "server.sql"))[0]["server"])
    except psycopg.Error:
        if connection.closed:
            raise
        return str(execute(connection, sql(HERE / "server_least.sql"))[0]["server"])


def is_another(here: str, server: str) -> bool:
    """Whether this is another database than the one seen before, if one was. Each failover begins a later timeline: an
    earlier one means that an old primary came back.
    """
    (now, line), (before, line_before) = (_parts(one) for one in (here, server))
    return bool(server) and (now != before or line < line_before)


def _parts(server: str) -> tuple[str, int]:
    """A database and its timeline; 0 if unknown."""
    found = NUMBERED.fullmatch(server)
    return (found[1], int(found[2])) if found else (server, 0)


def must_be_same(connection: Connection, server: str, what: str) -> str:
    """The identity of this database. Raise psycopg.OperationalError if one is given and this is another."""
    here = server_of(connection)
    if is_another(here, server):
        see = "see where DATABASE_URL leads (a pooler, a name, an old primary, a restored copy)"
        raise psycopg.OperationalError(f"the database is another one than {what}: {see}")
    return here
