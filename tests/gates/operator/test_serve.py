"""`gate serve`: its answers to Argo's web metric and Flagger's webhooks, over real connections."""

import contextlib
import datetime as dt
import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gates import past_decisions
from gates.operator.serve import MOST_BODY, Desk, VerdictServer
from gates.past_decisions import PastDecision, remember
from gates.verdict import Decision
from tests.gates.gate_process import gate
from tests.gates.hostile_text import ALL
from tests.gates.operator.served import NOW, ROLLBACK, ask, decided, served, verdict
from tests.sources import ROOT

TOKEN = "a-token-of-some-length"

CONFIRM = "/v1/flagger/confirm-promotion"


def test_argo_reads_the_last_verdict_of_the_release_that_it_asks_about(port: int, tmp_path: Path) -> None:
    """Without a verdict of that release the answer is hold, with status 200."""
    assert verdict(port)["decision"] == "hold"
    remember(tmp_path / "t1", decided(Decision.PROMOTE))
    assert verdict(port) == {
        "decision": "promote",
        "release": "r-1",
        "target": "",
        "finished_at": "2026-01-02T11:55:00+00:00",
        "reason": "the reason",
    }
    assert verdict(port, "r-2")["decision"] == "hold"
    assert verdict(port, "")["decision"] == "hold"
    assert verdict(port, "r-1&release=r-1")["decision"] == "hold"


@pytest.mark.parametrize("minutes", [61, -6])
def test_a_promote_grows_old_and_a_rollback_does_not(port: int, tmp_path: Path, minutes: float) -> None:
    """A promote expires, and one from the future does not count; a rollback stays."""
    remember(tmp_path / "t1", decided(Decision.PROMOTE, minutes=minutes))
    assert verdict(port)["decision"] == "hold"
    remember(tmp_path / "t1", decided(Decision.ROLLBACK, minutes=minutes, run_id="a2"))
    assert verdict(port)["decision"] == "rollback"


def test_the_worst_of_several_targets_counts_and_a_broken_file_holds(port: int, tmp_path: Path) -> None:
    """A rollback on one target outweighs a promote on another."""
    remember(tmp_path / "t1", decided(Decision.PROMOTE))
    remember(tmp_path / "t2", decided(Decision.PROMOTE))
    assert verdict(port)["decision"] == "promote"
    (tmp_path / "t2" / past_decisions.FILE).write_bytes(b"{")
    assert verdict(port)["decision"] == "hold"
    remember(tmp_path / "t3", decided(Decision.ROLLBACK))
    assert verdict(port)["decision"] == "rollback"


@pytest.mark.parametrize("lost", ["t2", f"t2/{past_decisions.FILE}"])
@pytest.mark.parametrize("to", ["/nowhere/mounted", "t2"], ids=["nothing", "itself"])
def test_a_history_behind_a_link_that_leads_nowhere_holds(lost: str, to: str, port: int, tmp_path: Path) -> None:
    """What cannot be reached may be a hold or a rollback: another target's promote is not told instead."""
    remember(tmp_path / "t1", decided(Decision.PROMOTE))
    (tmp_path / lost).parent.mkdir(exist_ok=True)
    (tmp_path / lost).symlink_to(to if "/nowhere" in to else Path(lost).name)
    assert verdict(port)["reason"].startswith("the state folder cannot be read")


def test_a_history_that_was_put_in_the_place_of_another_is_read_anew(port: int, tmp_path: Path) -> None:
    """A replaced file is read again, even if its size and time are the same."""
    remember(tmp_path / "t1", decided(Decision.PROMOTE))
    file = tmp_path / "t1" / past_decisions.FILE
    was, text = file.stat(), file.read_text()
    assert verdict(port)["decision"] == "promote"
    file.write_text(text.replace('"promote"', '"hold"   ', 1))
    os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (was.st_size, was.st_mtime_ns)
    assert verdict(port)["decision"] == "hold"


def test_what_staging_promoted_is_promoted_to_nobody_who_asks_for_production(port: int, tmp_path: Path) -> None:
    """With several targets, a promote is told only to callers that name its target."""
    for kind in ("staging", "production"):
        one = replace(decided(Decision.PROMOTE), target=kind)
        remember(tmp_path / kind, one if kind == "staging" else replace(one, release="r-0"))
        if kind == "staging":
            assert verdict(port)["target"] == "staging"
            assert verdict(port)["decision"] == "promote", "the only kind there is"
            assert verdict(port, "r-1&target=production")["decision"] == "hold"
    assert verdict(port)["decision"] == "hold"
    assert "(production, staging): ask with &target=KIND" in verdict(port)["reason"]
    asked = {
        kind: verdict(port, f"r-1&target={kind}") for kind in ("staging", "production", "staging&target=production")
    }
    assert [(a["decision"], a["target"]) for a in asked.values()] == [
        ("promote", "staging"),
        ("hold", "production"),
        ("hold", "staging,production"),
    ]
    told = {"metadata": {"release": "r-1", "target": "staging"}}
    assert ask(port, CONFIRM, told)[0] == 200
    assert ask(port, CONFIRM, {"metadata": {"release": "r-1"}})[0] == 403
    remember(tmp_path / "staging", replace(decided(Decision.ROLLBACK, run_id="a2"), target=""))
    assert verdict(port)["decision"] == "rollback", "harm is told to whoever asks for no kind"
    assert verdict(port, "r-1&target=staging")["decision"] == "rollback"
    assert verdict(port, "r-1&target=production")["decision"] == "hold"


def test_a_promote_of_an_older_gate_names_no_target(port: int, tmp_path: Path) -> None:
    """Without a kind of target it is told to no caller that asks for one."""
    remember(tmp_path / "t1", decided(Decision.PROMOTE))
    assert verdict(port)["decision"] == "promote"
    asked = verdict(port, "r-1&target=production")
    assert (asked["decision"], asked["reason"]) == (
        "hold",
        "that a production target was judged is not known: run the gate again",
    )


@pytest.mark.parametrize(
    ("decision", "confirm", "rollback"),
    [(Decision.PROMOTE, 200, 403), (Decision.HOLD, 403, 403), (Decision.ROLLBACK, 403, 200)],
)
def test_flagger_is_answered_by_the_status(
    port: int, tmp_path: Path, decision: Decision, confirm: int, rollback: int
) -> None:
    """Yes is 200, no is 403 with a reason; the rollback hook gets yes only for a rollback of this release."""
    remember(tmp_path / "t1", decided(decision))
    remember(tmp_path / "t2", decided(decision, "1.1"))
    canary = {"name": "replay", "phase": "Progressing", "checksum": "abc", "metadata": {"release": "r-1"}}
    assert ask(port, CONFIRM, canary) == (confirm, f"{decision.value}: the reason\n")
    assert ask(port, ROLLBACK, canary)[0] == rollback
    another = {**canary, "metadata": {"release": "r-2"}}
    others: list[object] = [another, {}, [], b"\xff", {"metadata": []}, {"checksum": ["r-1"]}]
    for other in others:
        assert ask(port, CONFIRM, other)[0] == 403
        assert ask(port, ROLLBACK, other)[0] == 403
    assert ask(port, CONFIRM, {"checksum": "r-1"})[0] == confirm
    for hook in (CONFIRM, ROLLBACK):
        status, said = ask(port, hook, {"metadata": {"release": 1.10}})
        assert (status, "in quotes" in said) == (403, True)
    assert ask(port, "/v1/flagger/event", {})[0] == 200


@pytest.mark.parametrize("port", [TOKEN], ids=["token"], indirect=True)
def test_a_token_is_asked_for_where_one_is_set(port: int, tmp_path: Path) -> None:
    """Argo sends a header, Flagger metadata; without the token nothing is told or confirmed."""
    remember(tmp_path / "t1", decided(Decision.PROMOTE))
    metadata = {"release": "r-1"}
    assert ask(port, "/v1/verdict?release=r-1")[0] == 401
    assert ask(port, "/metrics", token="another")[0] == 401
    assert ask(port, "/v1/verdict?release=r-1", token=TOKEN)[0] == 200
    assert ask(port, CONFIRM, {"metadata": metadata})[0] == 403
    assert ask(port, CONFIRM, {"metadata": {**metadata, "token": TOKEN}})[0] == 200
    assert ask(port, CONFIRM, {"metadata": metadata}, token=TOKEN)[0] == 200
    assert ask(port, "/healthz")[0] == 200


def test_prometheus_reads_the_last_decision(port: int, tmp_path: Path) -> None:
    """Nothing before the first run; then all three decisions as 0 or 1, the time, and the counts."""
    assert ask(port, "/metrics") == (200, "")
    remember(tmp_path / "t1", decided(Decision.ROLLBACK, minutes=9))
    remember(tmp_path / "t2", decided(Decision.HOLD))
    remember(tmp_path / "t2", PastDecision.begun({"run_id": "b"}, "r-1"))
    lines = ask(port, "/metrics")[1].splitlines()
    at = (NOW - dt.timedelta(minutes=5)).timestamp()
    assert [line for line in lines if not line.startswith("#")] == [
        'gate_decision{decision="promote"} 0',
        'gate_decision{decision="hold"} 1',
        'gate_decision{decision="rollback"} 0',
        f"gate_last_run_timestamp_seconds {at:.3f}",
        'gate_checks{outcome="pass"} 7',
        'gate_checks{outcome="fail"} 1',
        'gate_checks{outcome="unknown"} 2',
    ]
    assert sum(line.startswith("# TYPE") for line in lines) == 3


@pytest.mark.parametrize("later", ["t1", "t2"])
def test_a_clock_that_was_ahead_outlives_no_later_decision(later: str, port: int, tmp_path: Path) -> None:
    """The lines of a target are in order, whatever their times; of several targets, a time to come is not the last."""
    remember(tmp_path / "t1", decided(Decision.PROMOTE, minutes=-600, run_id="a0"))
    remember(tmp_path / later, decided(Decision.ROLLBACK))
    assert 'gate_decision{decision="rollback"} 1' in ask(port, "/metrics")[1]


def test_hostile_requests_are_answered_and_do_no_harm(port: int, tmp_path: Path) -> None:
    """Garbage, long bodies and wrong methods are refused, and the server goes on; HEAD works like GET."""
    remember(tmp_path / "t1", decided(Decision.PROMOTE))
    for raw, status in (
        (b"\x00\xff\r\n\r\n", b"400"),
        (b"<b>\r\n\r\n", b"400"),
        (b"GET / HTTP/9.9\r\n\r\n", b"505"),
        (b"GET /" + b"x" * 65_532, b"414"),
        (b"<B> / HTTP/1.1\r\n\r\n", b"501"),
        (b"POST / HTTP/1.1\r\n" + b"A: b\r\n" * 101, b"431"),
    ):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client, client.makefile("rb") as reader:
            client.sendall(raw)
            client.shutdown(socket.SHUT_WR)
            head, _, body = reader.read().partition(b"\r\n\r\n")
        assert (head.split()[1], b"application/json" in head) == (status, True)
        assert json.loads(body)["error"]
        assert b"<" not in body
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(b"POST " + CONFIRM.encode() + b" HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (MOST_BODY + 1))
        assert b" 413 " in client.recv(200)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        body = json.dumps({"metadata": {"release": "r-1"}}).encode()
        client.sendall(
            b"POST " + CONFIRM.encode() + b" HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (len(body) + 1) + body
        )
        client.shutdown(socket.SHUT_WR)
        assert b" 400 " in client.recv(200)
    assert ask(port, CONFIRM, b"[" * 60_000)[0] == 403
    assert ask(port, "/../../etc/passwd")[0] == 404
    assert ask(port, CONFIRM)[0] == 404
    assert ask(port, "/v1/verdict", method="DELETE")[0] == 501
    assert ask(port, "/metrics", method="HEAD") == (200, "")
    assert verdict(port)["decision"] == "promote"


SMALL: dict[str, Any] = {"at_once": 2, "within_s": 0.5}
"""Two connections at once, and half a second for a request."""


@pytest.mark.parametrize(
    "begun",
    [b"GET /", b"GET / HTTP/1.1\r\nA: ", b"POST / HTTP/1.1\r\nContent-Length: 60000\r\n\r\n"],
    ids=["line", "header", "body"],
)
def test_a_client_that_drips_is_left_at_the_deadline(tmp_path: Path, begun: bytes) -> None:
    """A byte now and then does not extend the deadline."""
    with served(tmp_path, **SMALL) as port, socket.create_connection(("127.0.0.1", port)) as client:
        started, dripped = time.monotonic(), 0
        client.sendall(begun)
        client.settimeout(0.05)
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - started < 10:
                try:
                    if not client.recv(1000):
                        break
                except TimeoutError:
                    client.sendall(b"a")
                    dripped += 1
        assert dripped > 2
        assert time.monotonic() - started < 5


def test_clients_that_drip_keep_nobody_out(tmp_path: Path) -> None:
    """If all places are taken, the slowest client is dropped and a new one is answered at once."""
    remember(tmp_path / "t1", decided(Decision.PROMOTE))
    with served(tmp_path, **SMALL) as port, contextlib.ExitStack() as crowd:
        started = time.monotonic()
        for _ in range(20):
            crowd.enter_context(socket.create_connection(("127.0.0.1", port))).sendall(b"GET /")
        for _ in range(3):
            assert verdict(port)["decision"] == "promote"
        assert time.monotonic() - started < 5


@pytest.mark.parametrize("text", ALL, ids=range(len(ALL)))
def test_a_hostile_reason_stays_a_text(text: str, tmp_path: Path) -> None:
    """It is a JSON string for Argo, and one line for Flagger."""
    one = decided(Decision.HOLD)
    remember(
        tmp_path / "t1", PastDecision.from_json({**one.to_json(), "reason": text.encode("utf-8", "replace").decode()})
    )
    desk = Desk(tmp_path, dt.timedelta(minutes=60), lambda: NOW)
    answer = desk.get("/v1/verdict?release=r-1", "")
    assert json.loads(answer.text)["decision"] == "hold"
    assert answer.text.isascii()
    said = desk.post(CONFIRM, b'{"checksum": "r-1"}', "")
    assert said.status == 403
    assert said.text.count("\n") == 1
    assert said.text.endswith("\n")


def test_nobody_listens_beyond_loopback_without_a_token(tmp_path: Path) -> None:
    """The command names the variable to set."""
    done = gate("serve", "--host", "0.0.0.0", "--state", str(tmp_path), cwd=tmp_path)  # noqa: S104  -- what is refused
    assert done.returncode == 2
    assert "GATE_SERVE_TOKEN" in done.stderr


@pytest.mark.parametrize("token", ["0123456789abcde\udcff", "0123456789abcdef\n", "ä" * 16])
def test_a_token_that_no_header_carries_is_refused_at_once(tmp_path: Path, token: str) -> None:
    """With such a token no client would ever be answered, or let in."""
    done = gate("serve", "--state", str(tmp_path), cwd=tmp_path, environ={"GATE_SERVE_TOKEN": token})
    assert done.returncode == 2
    assert "GATE_SERVE_TOKEN" in done.stderr


def test_a_host_that_is_no_name_is_an_error_of_the_caller(tmp_path: Path) -> None:
    """The resolver cannot even encode such a name; the command says so without a traceback."""
    own = {"GATE_SERVE_TOKEN": TOKEN}
    done = gate("serve", "--host", "é..é", "--state", str(tmp_path), cwd=tmp_path, environ=own)
    assert done.returncode == 4
    assert "Correct --" in done.stderr


def test_the_loopback_of_ipv6_is_served(tmp_path: Path) -> None:
    """The server listens on `::1`, where the machine has it."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"no IPv6 loopback here: {error}")
    with VerdictServer(("::1", 0), Desk(tmp_path, dt.timedelta(minutes=60), lambda: NOW)) as server:
        assert server.server_address[0] == "::1"


def test_the_command_answers_until_a_signal(tmp_path: Path) -> None:
    """It prints its address, serves the state folder, and ends with the signal's exit code."""
    at = dt.datetime.now(dt.UTC).isoformat()
    remember(tmp_path / "t1", PastDecision("a1", "r-1", Decision.PROMOTE, "all passed", at, at))
    words = [sys.executable, "-m", "gates", "serve", "--port", "0", "--state", str(tmp_path)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert verdict(int(address.rpartition(":")[2]))["decision"] == "promote"
        process.terminate()
        _, said = process.communicate(timeout=30)
    assert process.returncode == 143
    assert said == "gate serve: ended by SIGTERM; rollout controllers get no answer until it runs again\n"


def test_the_promote_of_a_dry_run_is_told_to_nobody(port: int, tmp_path: Path) -> None:
    """A dry run changed nothing, so its promote is a hold; its rollback counts."""
    remember(tmp_path / "a", replace(decided(Decision.PROMOTE), dry_run=True))
    told = json.loads(ask(port, "/v1/verdict?release=r-1")[1])
    assert (told["decision"], "dry run" in told["reason"]) == ("hold", True)
    assert ask(port, CONFIRM, {"metadata": {"release": "r-1"}})[0] == 403
    remember(tmp_path / "a", replace(decided(Decision.ROLLBACK, run_id="a2"), dry_run=True))
    assert json.loads(ask(port, "/v1/verdict?release=r-1")[1])["decision"] == "rollback"


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8600", "10.0.0.1", "[::2]", "[", "localhost.evil.example"),
        *("localhost/.evil.example", "evil.example@localhost", "localhost#.evil.example", "localhost:80:80"),
    ],
)
def test_a_page_of_another_name_gets_no_answer_without_a_token(host: str, port: int) -> None:
    """A foreign host name may resolve to loopback, and a browser would hand the answer to that site."""
    assert ask(port, "/v1/verdict?release=r-1", host=host)[0] == 421
    assert ask(port, CONFIRM, {}, host=host)[0] == 421
    for own in ("localhost", "localhost:80", "127.0.0.1:8600", "127.1.2.3", "[::1]:8600", "LOCALHOST"):
        assert ask(port, "/healthz", host=own)[0] == 200


@pytest.mark.parametrize("port", [TOKEN], indirect=True)
def test_with_a_token_any_name_is_answered_for(port: int) -> None:
    """A service in a cluster has its own host name."""
    assert ask(port, "/healthz", host="gate.prod.svc")[0] == 200


def test_an_address_that_cannot_be_read_is_answered(port: int, tmp_path: Path) -> None:
    """Without an answer a controller would see a network error."""
    assert ask(port, "/v1/verdict?" + "&".join(f"a{n}=1" for n in range(30)))[0] == 400
    desk = Desk(tmp_path, dt.timedelta(minutes=60), lambda: NOW)
    assert (desk.get("http://[", "").status, desk.post("http://[", b"{}", "").status) == (400, 404)
