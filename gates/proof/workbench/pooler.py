"""pgbouncer in front of a PostgreSQL server on loopback, lending its sessions in one of its three modes."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from gates.proof.workbench import programs
from gates.stack.errors import StackError
from gates.stack.postgres import free_port

PROGRAM = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
START_S = 10.0
ACCOUNT = "nobody"
"""pgbouncer refuses to run as root."""


def lacking() -> str:
    """Why there is no pooler on this machine; empty if there is one."""
    return "" if PROGRAM else "pgbouncer is not installed (Debian package pgbouncer)"


@contextmanager
def pgbouncer(
    folder: Path, url: str, mode: str, *, ignore: str = "", size: int = 20, everybody: bool = False
) -> Iterator[str]:
    """The URL of the same database through the pooler, whose files are in the folder.

    `ignore`: startup parameters that it drops silently. everybody: it asks the server for the passwords of all logins,
    as the superuser of the URL may. Raise StackError if it does not start.
    """
    if PROGRAM is None:
        raise StackError(f"{lacking()}; allowed: a machine that has it. Install it")
    parts, port = urlsplit(url), free_port()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "users.txt").write_text(f'"{parts.username}" "{parts.password}"\n', encoding="utf-8")
    settings = {
        "listen_addr": "127.0.0.1",
        "listen_port": port,
        "unix_socket_dir": "",
        "auth_type": "scram-sha-256" if everybody else "plain",
        "auth_user": parts.username if everybody else "",
        "auth_file": folder / "users.txt",
        "pool_mode": mode,
        "default_pool_size": size,
        "max_client_conn": 400,
        "ignore_startup_parameters": ignore,
    }
    lines = [f"{name} = {setting}" for name, setting in settings.items() if setting != ""]
    databases = f"* = host={parts.hostname} port={parts.port}"
    text = "\n".join(["[databases]", databases, "[pgbouncer]", *lines, ""])
    (folder / "pgbouncer.ini").write_text(text, encoding="utf-8")
    command = [PROGRAM, "-q", str(folder / "pgbouncer.ini")]
    with (folder / "log").open("wb") as log:
        if os.getuid() == 0:
            command[1:1] = ["-u", ACCOUNT]
        process = programs.start(command, {"PATH": "/usr/bin:/bin"}, folder, stdout=log, stderr=log)
    try:
        _wait(process, port, folder / "log")
        login = f"{parts.username}:{parts.password}@127.0.0.1:{port}"
        yield urlunsplit((parts.scheme, login, parts.path, parts.query, ""))
    finally:
        programs.end(process, signal.SIGQUIT)  # on SIGTERM it would wait for idle clients


@contextmanager
def temporary_pgbouncer(url: str, mode: str, *, everybody: bool = False) -> Iterator[str]:
    """The URL through a pgbouncer whose files are removed at the end of the block."""
    with tempfile.TemporaryDirectory(prefix="proof-pooler-") as folder:
        Path(folder).chmod(0o755)
        with pgbouncer(Path(folder) / "pooler", url, mode, everybody=everybody) as pooled:
            yield pooled


def _wait(process: subprocess.Popen[str], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        with closing(socket.socket()) as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    said = log.read_text(encoding="utf-8", errors="replace")[-500:]
    raise StackError(f"pgbouncer did not start; allowed: within {START_S:.0f} s; in {log.parent}. Its log ends: {said}")
