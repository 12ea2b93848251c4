"""`gate up` as users run it: a line of JSON, a working deployment, and nothing left at any end."""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from gates.deployment.control import Control
from gates.deployment.requests import encode_body, sign_v1
from gates.evidence import TargetKind
from gates.stack import procfs, rundir
from gates.stack.account import Account
from gates.stack.errors import StackError
from gates.stack.plan import DEFAULT_COMPANY_ID, StackOptions
from gates.stack.postgres import Postgres, connect
from gates.stack.stack import reference_stack
from tests.gates.gate_process import gate
from tests.waiting import command_line

ROOT = Path(__file__).parents[3]
FOREIGN = {
    "DATABASE_URL": "postgresql://nobody:nothing@127.0.0.1:1/none",
    "TRANSBOT_HMAC_SECRET": "x",
    "PGOPTIONS": "-c role=none",
    "PGHOST": "127.0.0.9",
}
NAMES = {
    *("GATE_TARGET", "BASE_URL", "TRANSBOT_HMAC_SECRET", "TEST_COMPANY_ID", "ADMIN_JWT", "REPLAY_JWT_SECRET"),
    *("DATABASE_URL", "RELEASE", "TRUSTED_PROXIES", "TEST_OUTBOX", "TEST_DLQ", "TEST_AGENTS"),
}


@dataclass
class Up:
    """A running `gate up`, and its output."""

    process: subprocess.Popen[str]
    variables: dict[str, str]
    errors: Path

    @property
    def folder(self) -> Path:
        """Its run folder, as its stderr names it."""
        assert procfs.wait_until(lambda: "logs in " in self.errors.read_text(), 5)
        return Path(self.errors.read_text().partition("logs in ")[2].partition("/log;")[0])

    def end(self, signal_number: int) -> int:
        self.process.send_signal(signal_number)
        code = self.process.wait(timeout=20)
        if self.process.stdout:
            self.process.stdout.close()
        return code


def start(tmp_path: Path, *options: str, environ: Mapping[str, str] | None = None) -> Up:
    errors = tmp_path / f"stderr-{time.monotonic_ns()}"
    with errors.open("w") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "gates", "up", *options],
            stdout=subprocess.PIPE,
            stderr=err,
            text=True,
            cwd=ROOT,
            env={**os.environ, **(environ or {})},
        )
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        process.wait(timeout=10)
        process.stdout.close()
        raise AssertionError(errors.read_text())
    return Up(process, json.loads(line), errors)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """One that several tests look at and none changes, in an environment that speaks of other databases; SIGTERM ends
    it, and leaves nothing.
    """
    options = ("--instances", "2", "--workers", "2", "--release", "r-17")
    running = start(tmp_path_factory.mktemp("up"), *options, environ=FOREIGN)
    yield running
    ends_whole(running, signal.SIGTERM)


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    running = start(tmp_path)
    yield running
    if running.process.poll() is None:
        running.end(signal.SIGKILL)


def get(base_url: str, path: str) -> tuple[int, dict[str, object]]:
    parts = urlsplit(base_url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=10)
    connection.request("GET", parts.path + path)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, json.loads(body or b"{}")


def left_over(folder: Path) -> list[int]:
    """Processes of the stack, found by data folder, record or working directory."""
    names = ("postgres", "python", Path(sys.executable).resolve().name, "python3")
    return [pid for name in names for pid in procfs.processes_within(folder, name)]


def nothing_left(folder: Path) -> bool:
    return not left_over(folder) and not folder.exists()


def test_the_first_line_is_the_variables_and_they_work(shared: Up) -> None:
    """The JSON has the contract's names; the service answers under BASE_URL with its release; the secrets sign."""
    found = shared.variables
    assert set(found) == NAMES
    assert (found["GATE_TARGET"], found["RELEASE"]) == ("staging", "r-17")
    status, version = get(found["BASE_URL"], "/version")
    assert (status, version["release"]) == (200, "r-17")
    assert get(found["BASE_URL"], "/readyz")[0] == 200
    body = encode_body({"company_id": found["TEST_COMPANY_ID"], "dry_run": True})
    parts = urlsplit(found["BASE_URL"])
    for headers in (
        {"X-Transbot-Signature": sign_v1(found["TRANSBOT_HMAC_SECRET"], body)},
        {"Authorization": f"Bearer {found['ADMIN_JWT']}"},
    ):
        connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=10)
        connection.request("POST", f"{parts.path}/dlq-replay", body, {"Content-Type": "application/json", **headers})
        response = connection.getresponse()
        answer = json.loads(response.read())
        connection.close()
        assert (response.status, answer.get("target_count")) == (200, 4), answer


def test_its_login_is_the_superuser_and_the_service_is_not(shared: Up) -> None:
    """DATABASE_URL is the cluster's superuser; service and worker are logged in as their own roles."""
    with connect(shared.variables["DATABASE_URL"]) as connection:
        assert connection.execute("select rolsuper from pg_roles where rolname = current_user").fetchone() == (True,)
        users = connection.execute(
            "select distinct usename from pg_stat_activity where datname = current_database()"
            " and pid <> pg_backend_pid() order by 1"
        ).fetchall()
    assert users == [("replay_service",), ("replay_worker",)]


def test_no_secret_is_in_a_log_or_an_argument(shared: Up) -> None:
    """What the JSON holds is in no log file, not on stderr, in no process's arguments."""
    found = shared.variables
    password = str(urlsplit(found["DATABASE_URL"]).password)
    secrets = [found["TRANSBOT_HMAC_SECRET"], found["REPLAY_JWT_SECRET"], found["ADMIN_JWT"], password]
    texts = [shared.errors.read_text(), *(p.read_text(errors="replace") for p in (shared.folder / "log").iterdir())]
    texts += [command_line(pid) for pid in left_over(shared.folder)]
    assert not [s for s in secrets for t in texts if s in t]


def ends_whole(up: Up, number: int) -> None:
    """After the signal no process, port or file is left."""
    folder = up.folder
    assert len(left_over(folder)) >= 3
    assert up.end(number) == 128 + number
    assert nothing_left(folder)
    with pytest.raises(OSError, match="refused"):
        get(up.variables["BASE_URL"], "/healthz")


def test_a_closed_terminal_ends_it_and_leaves_nothing(up: Up) -> None:
    """SIGHUP; SIGTERM and Ctrl-C are seen on the stacks of other tests."""
    ends_whole(up, signal.SIGHUP)


def test_a_kill_leaves_nothing_either(up: Up) -> None:
    """After SIGKILL the processes die with it, and the janitor removes the folder."""
    folder = up.folder
    up.end(signal.SIGKILL)
    assert procfs.wait_until(lambda: nothing_left(folder), 15)


def test_a_kill_of_the_janitor_too_is_mended_by_the_next_start(up: Up, tmp_path: Path) -> None:
    """The next stack cleans up; Ctrl-C ends that one without a trace."""
    folder = up.folder
    children = Path(f"/proc/{up.process.pid}/task/{up.process.pid}/children").read_text().split()
    janitors = [int(c) for c in children if "janitor" in command_line(c)]
    assert len(janitors) == 1
    procfs.kill_all(janitors)
    up.end(signal.SIGKILL)
    second = start(tmp_path)
    assert nothing_left(folder)
    ends_whole(second, signal.SIGINT)


def test_a_database_url_in_the_environment_is_not_read(shared: Up) -> None:
    """No foreign database, secret or PostgreSQL setting enters the stack."""
    assert {name for name, value in FOREIGN.items() if shared.variables.get(name) == value} == set()
    assert get(shared.variables["BASE_URL"], "/readyz")[0] == 200


def test_a_guest_leaves_the_server_as_it_was(tmp_path: Path, foreign_server: Postgres) -> None:
    """With --server it makes a database there, and after the end, or a SIGKILL, databases and roles are as before."""
    url = foreign_server.server.url("postgres")
    query = b"select array(select datname from pg_database order by 1), array(select rolname from pg_roles order by 1)"
    with connect(url) as connection:
        before = connection.execute(query).fetchone()
        first = start(tmp_path, "--server", url)
        second = start(tmp_path, "--server", url)
        assert get(second.variables["BASE_URL"], "/readyz")[0] == 200
        assert first.variables["DATABASE_URL"] != second.variables["DATABASE_URL"]
        assert first.end(signal.SIGINT) == 130
        assert get(second.variables["BASE_URL"], "/readyz")[0] == 200
        second.end(signal.SIGKILL)
        assert procfs.wait_until(lambda: connection.execute(query).fetchone() == before, 15, 0.1)


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--server", "mysql://h/d"), 3, "postgresql://"),
        (("--server", "postgresql://u:hidden-word@127.0.0.1:1/d"), 3, "cannot be reached"),
        (("--instances", "0"), 2, "1 to 32"),
        (("--company-id", "00000000-0000-4000-8000-000000000001"), 3, "bucket"),
    ],
)
def test_a_wrong_option_says_what_is_allowed(options: tuple[str, ...], code: int, words: str) -> None:
    """Nothing starts, stdout is empty, and the message has no password."""
    done = gate("up", *options)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr
    assert "hidden-word" not in done.stderr


def test_a_service_that_cannot_start_says_so_with_its_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the process and the end of its log, and nothing stays running."""
    made: list[rundir.RunFolder] = []
    create = rundir.create

    def remember(places: Sequence[Path], account: Account) -> rundir.RunFolder:
        made.append(create(places, account))
        return made[-1]

    monkeypatch.setattr(rundir, "create", remember)
    options = StackOptions(serve_arguments=("--no-such-option",))
    with (
        pytest.raises(StackError, match=r"(?s)service-0 ended with exit code 2.*--no-such-option"),
        reference_stack(options, os.environ),
    ):
        pass
    assert nothing_left(made[0].path)


def test_the_reference_stack_can_kill_and_mend_every_process() -> None:
    """`gate run`'s own stack is a `reference` target with a control door: each process dies and comes back."""
    with reference_stack(StackOptions(instances=2), os.environ) as stack:
        target = stack.info.target()
        assert (target.kind, target.test_company_id) == (TargetKind.REFERENCE, DEFAULT_COMPANY_ID)
        control = Control(target.control)
        names = [p.name for p in control.processes()]
        assert names == ["postgres", "service-0", "service-1", "worker-0"]
        for name in names:
            control.kill(name)
            control.mend()
            assert get(target.base_url, "/readyz")[0] == 200
        with connect(target.database_url) as connection:
            assert connection.execute("select count(*) from public.companies").fetchone() == (1,)
        with psycopg.connect(stack.info.gate_url) as connection:
            assert connection.execute("select session_user").fetchone() == ("replay_gate",)
        stack.begin_stop()
    assert not stack.info.folder.exists(), "the end of the block waits for a stop that was begun within it"
