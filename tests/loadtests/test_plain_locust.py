"""Locust's own command line on loadtests/locustfile.py: the verdict is its exit code, and nothing is never 0."""

import contextlib
import json
import signal
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gates.stack.postgres import free_port
from tests.launched import launched
from tests.loadtests.fake_target import Behaviour, target
from tests.loadtests.load_process import ENVIRON, ROOT, at_once
from tests.waiting import until

LOAD = """{
  scenarios: {s: {executor: 'constant-arrival-rate', rate: 300, duration: '1s', preAllocatedVUs: 500, exec: 'probe'}},
  thresholds: {http_req_failed: ['rate<0.02'], http_req_duration: ['p(95)<900']},
}"""


@contextlib.contextmanager
def locust(folder: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Locust with our file; its results go into the folder. It ends with the block."""
    (folder / "t.js").write_text(LOAD, encoding="utf-8")
    with_load = [] if "--worker" in words else ["--thresholds", str(folder / "t.js"), "--results", str(folder / "out")]
    program = (sys.executable, "-m", "locust", "-f", "loadtests/locustfile.py", "--only-summary")
    command = launched(*program, *words, *with_load)
    out = (folder / f"{len(list(folder.iterdir()))}.log").open("w+", encoding="utf-8")
    with out, subprocess.Popen(command, cwd=ROOT, env=ENVIRON, stdout=out, stderr=out, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def ended(folder: Path, *words: str) -> tuple[int, str]:
    """Exit code and output of a headless run."""
    with locust(folder, *(["--headless"] if "--autostart" not in words else []), *words) as process:
        code = process.wait(timeout=60)
    return code, "".join(log.read_text(encoding="utf-8") for log in sorted(folder.glob("*.log")))


def test_the_exit_code_is_that_of_the_verdict(tmp_path: Path) -> None:
    """A healthy target, a failing one, none at all, and no address."""
    expected = {
        "healthy": (0, "verdict: passed (as planned)"),
        "failing": (20, "FAIL    load/http_req_failed/rate"),
        "refused": (10, "not one answer"),
        "no address": (10, "give --host or set BASE_URL"),
        "the operator's": (20, "FAIL    load/http_req_failed/rate"),
    }
    with target(Behaviour()) as good, target(Behaviour(status=lambda _n: 503)) as bad:
        hosts = {
            "healthy": good,
            "failing": bad,
            "refused": f"http://127.0.0.1:{free_port()}",
            "no address": "",
            "the operator's": bad,
        }
        more = {"the operator's": ("--autostart", "--autoquit", "0", "--web-port", str(free_port()))}

        def run(kind: str, folder: Path) -> tuple[int, str]:
            return ended(folder, *(("--host", hosts[kind]) if hosts[kind] else ()), *more.get(kind, ()))

        for kind, (code, output) in at_once(expected, run, tmp_path, most=2):
            assert code == expected[kind][0], output
            assert expected[kind][1] in output, (kind, output)


def test_a_master_and_its_workers_share_the_load(tmp_path: Path) -> None:
    """Two workers make between them what one process would; no sample is lost, and the code is the master's."""
    port, behaviour = str(free_port()), Behaviour()
    with target(behaviour) as url, contextlib.ExitStack() as workers:
        for number in range(2):
            own = tmp_path / str(number)
            own.mkdir()
            workers.enter_context(locust(own, "--worker", "--master-host", "127.0.0.1", "--master-port", port))
        words = ("--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", port, "--expect-workers", "2")
        code, output = ended(tmp_path, *words, "--host", url)
    assert code == 0, output
    result = json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))
    assert len(result["facts"]["cpu_percent"]) == 2
    assert result["facts"]["requests"] == sum(row["count"] for row in result["requests"]) >= 300


def asked(url: str, **form: str) -> Any:
    """The JSON that the web UI answers."""
    data = urllib.parse.urlencode(form).encode() if form else None
    with urllib.request.urlopen(url, data, timeout=10) as answer:  # noqa: S310  -- our own server
        return json.loads(answer.read())


def verdicts(ui: str) -> list[str]:
    return [row["verdict"] for row in asked(f"{ui}/stats/requests")["extended_stats"][0]["data"]]


def test_the_web_ui_starts_runs_and_shows_their_verdicts(tmp_path: Path) -> None:
    """One after the other, each judged for itself; a run that is stopped by hand is none. The last one is the code."""
    behaviour, port = Behaviour(), free_port()
    ui = f"http://127.0.0.1:{port}"
    with target(behaviour) as url, locust(tmp_path, "--web-host", "127.0.0.1", "--web-port", str(port)) as process:
        for status, expected in ((200, "pass"), (503, "fail")):
            behaviour.status = lambda _n, status=status: status  # type: ignore[misc]
            until(lambda: _starts(ui, url), timeout_s=30, what="the web UI")
            until(lambda word=expected: _judged(ui, url, word), timeout_s=60, what=expected)  # type: ignore[misc]
            until(lambda: asked(f"{ui}/stats/requests")["state"] == "stopped", timeout_s=30)
        with urllib.request.urlopen(ui, timeout=10) as page:
            assert '"Verdict"' in page.read().decode()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 20


def _starts(ui: str, host: str) -> bool:
    try:
        return bool(asked(f"{ui}/swarm", user_count="1", spawn_rate="1", host=host)["success"])
    except (urllib.error.URLError, ConnectionError):
        return False


def _judged(ui: str, host: str, word: str) -> bool:
    """Whether the last run came to this; one that could not be judged on a busy machine is made again."""
    if word in verdicts(ui):
        return True
    if asked(f"{ui}/stats/requests")["state"] == "stopped":
        _starts(ui, host)
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_ended_by_hand_is_no_verdict(number: signal.Signals, tmp_path: Path) -> None:
    """Half a run has seen nothing fail, and is no pass."""
    behaviour = Behaviour()
    with target(behaviour) as url, locust(tmp_path, "--headless", "--host", url, "-u", "3", "-t", "30s") as process:
        until(lambda: behaviour.count > 30, timeout_s=40, what="the load")
        process.send_signal(number)
        assert process.wait(timeout=60) == 10
    assert "the run was stopped by hand" in "".join(log.read_text() for log in tmp_path.glob("*.log"))
