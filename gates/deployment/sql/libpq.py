"""What libpq reads besides the connection string: passwords (a server may echo them, so they must be hidden), variables
that say where the database is, and files, which must not be pipes.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from gates import disk

MOST_BYTES = 65_536
"""The most bytes of a password or service file that are read."""
PLACES = {"host": "PGHOST", "hostaddr": "PGHOSTADDR", "port": "PGPORT", "dbname": "PGDATABASE", "service": "PGSERVICE"}
REDIRECTS = frozenset(
    {*PLACES.values(), "PGTARGETSESSIONATTRS", "PGLOADBALANCEHOSTS"}
    | {"PGOPTIONS", "PGCLIENTENCODING", "PGDATESTYLE", "PGTZ", "PGGEQO"}
)
"""Variables that lead libpq elsewhere, or change the session, against the connection string."""

PASSWORDS, SERVICES = "passfile", "servicefile"
FILES = {
    "sslcert": ("PGSSLCERT", ".postgresql/postgresql.crt"),
    "sslrootcert": ("PGSSLROOTCERT", ".postgresql/root.crt"),
    "sslcrl": ("PGSSLCRL", ".postgresql/root.crl"),
    PASSWORDS: ("PGPASSFILE", ".pgpass"),
    SERVICES: ("PGSERVICEFILE", ".pg_service.conf"),
}
"""Parameter -> its variable, and its file below HOME. libpq waits for any kind of file but private keys."""
NEEDED = (*PLACES.values(), *(variable for variable, _ in FILES.values()), "HOME", "PGSYSCONFDIR", "PGPASSWORD")
"""Variables that say where the database is, and which files are read to find it."""
OF_OPENSSL = "SSL_CERT_FILE"
"""The variable that names a file which OpenSSL opens for a context, and waits for."""


def placed(conninfo: str, environ: Mapping[str, str]) -> str:
    """The connection string, completed from the environment if it does not say where the database is. What is judged,
    acted on and remembered is then the same. Raise psycopg.Error if it cannot be read.
    """
    given = conninfo_to_dict(conninfo)
    if given.keys() & {"host", "hostaddr", "service"}:
        return conninfo
    found = {name: environ[variable] for name, variable in PLACES.items() if environ.get(variable)}
    return make_conninfo(conninfo, **{**found, **given}) if found else conninfo


def other_passwords(conninfo: str, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Those of PGPASSWORD, the password file and the service files. What we cannot read, libpq cannot read either."""
    found = {environ.get("PGPASSWORD", "")}
    home = Path(environ.get("HOME") or "/nonexistent")
    passfile = _keyword(conninfo, "passfile") or environ.get("PGPASSFILE") or home / ".pgpass"
    found |= set(_of_passfile(_text(Path(passfile))))
    folder = Path(environ.get("PGSYSCONFDIR") or "/nonexistent")
    for path in (environ.get("PGSERVICEFILE") or home / ".pg_service.conf", folder / "pg_service.conf"):
        found |= {p.strip() for p in re.findall(r"(?m)^[^\S\n]*+(?:ssl)?password[^\S\n]*+=(.*+)$", _text(Path(path)))}
    return tuple(sorted(found - {""}))


def without_end(conninfo: str, environ: Mapping[str, str]) -> str:
    """The pipe or device that libpq or OpenSSL would open as a file; empty if there is none. They would wait for it
    inside the library, where no limit of ours and no signal ends it.
    """
    given = conninfo_to_dict(conninfo) if conninfo else {}
    home = Path(environ.get("HOME") or "/nonexistent")
    asked = {SERVICES: given.get("service"), PASSWORDS: not (given.get("password") or environ.get("PGPASSWORD"))}
    read = [n for n in FILES if conninfo and asked.get(n, True)]
    paths = [str(given.get(n) or environ.get(FILES[n][0]) or home / FILES[n][1]) for n in read]
    if SERVICES in read and environ.get("PGSYSCONFDIR"):
        paths.append(str(Path(environ["PGSYSCONFDIR"], "pg_service.conf")))
    return next(filter(disk.is_endless, [*paths, environ.get(OF_OPENSSL, "")]), "")


def _keyword(conninfo: str, name: str) -> str:
    try:
        return str(conninfo_to_dict(conninfo).get(name) or "") if conninfo else ""
    except psycopg.Error:
        return ""


def _text(path: Path) -> str:
    try:
        if not path.is_file():  # a pipe would block
            return ""
        with path.open("rb") as file:
            return file.read(MOST_BYTES).decode("utf-8", "replace")
    except (OSError, ValueError):
        return ""


def _of_passfile(text: str) -> Iterator[str]:
    """The last of `host:port:database:user:password`; a backslash escapes a colon or a backslash."""
    for line in text.splitlines():
        parts = re.split(r"(?<!\\):", line, maxsplit=4)
        if len(parts) == 5 and not line.startswith("#"):
            yield re.sub(r"\\(.)", r"\1", parts[4])
