"""Servers that answer without acting, or fail at one operation, do not pass."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gates.proof.workbench.servers import HANG, Behaviour, Reply, raw, serve
from loadtests.plan import LoadPlan, Tenant
from loadtests.scenario import steady
from tests.loadtests import fake_target
from tests.loadtests.fake_target import target
from tests.loadtests.load_process import at_once, finish, messages, start, verdicts

TENANTS = tuple(Tenant(f"00000000-0000-4000-8000-{number:012d}") for number in range(60))
REPLAY, EVENT, PROBE = (f"load/checks{{operation:{name}}}/rate" for name in ("replay", "event", "probe"))
REPLAY_P95 = "load/http_req_duration{operation:replay}/p95"
NOT_HERE = {
    *("load/dlq_items_count/count", "load/outbox_drained/rate", "load/db_connections_growth/count"),  # of SQL
    *("load/events_lost/count", "load/runs_lost/count", "load/companies_failing/count"),
    "load/memory_growth_mb/count",  # of /metrics
}


SLOWLY = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
REFUSED = (("Retry-After", "300"),), b'{"code": "rate_limited"}'
DEGENERATE: dict[str, Behaviour] = {
    "yes to all": lambda _: Reply(200, (), b"{}"),
    "accepted to all": lambda _: Reply(202, (), b'{"status": "ok"}'),
    "echo": lambda asked: Reply(200, (), asked.body),
    "empty": lambda _: Reply(200),
    "login page": lambda _: Reply(302, (("Location", "/login"),)),
    "too many to all": lambda _: Reply(429, *REFUSED),
    "broken": lambda _: Reply(500, *REFUSED),
    "garbage": lambda _: raw(b"\x00\xff no protocol at all\r\n\r\n"),
    "slow loris": lambda _: raw(*(part for byte in SLOWLY for part in (bytes([byte]), 0.2))),
    "hang": lambda _: HANG,
}


def plan(url: str, **more: object) -> LoadPlan:
    """The checklist's thresholds over 1.5 s: 150 events, 150 probes, 75 replays; nothing waits for longer than 1 s."""
    values: dict[str, object] = {
        "scenarios": (steady("event", 110.0), steady("probe", 110.0), steady("replay", 50.0)),
        "tenants": TENANTS,
        "duration_s": 1.5,
        "most_s": 1.5,
        "timeout_s": 1.0,
        **more,
    }
    return LoadPlan(base_url=url, **values)  # type: ignore[arg-type]


def at_servers(kinds: Sequence[str], folder: Path, **more: object) -> list[tuple[str, dict[str, Any]]]:

    def run(kind: str, own: Path) -> dict[str, Any]:
        with serve(DEGENERATE[kind]) as url:
            return finish(start(plan(url, **more), own, idle=True), own)

    return at_once(kinds, run, folder)


def test_a_server_that_answers_anything_fails_its_checks(tmp_path: Path) -> None:
    """Its statuses are fine for k6, but its answers do not fit the requests."""
    kinds = ("yes to all", "accepted to all", "echo", "empty", "login page")
    for kind, result in at_servers(kinds, tmp_path, early_abort=False):
        found, said = verdicts(result), (kind, messages(result))
        assert found["load/http_req_failed/rate"] == "pass", said
        assert [found[check] for check in (EVENT, REPLAY)] == ["fail", "fail"], said
        assert "pass" not in {found["load/agent_success/rate"], found["load/outbox_lag_ms/p95"]}, said


def test_a_server_that_refuses_everything_fails(tmp_path: Path) -> None:
    """A refusal that the call does not expect is a failure."""
    for kind, result in at_servers(("too many to all", "broken"), tmp_path):
        assert verdicts(result)["load/http_req_failed/rate"] == "fail", (kind, messages(result))
        assert "pass" not in {verdicts(result)[check] for check in (EVENT, REPLAY, PROBE)}, kind


def test_a_server_without_a_single_answer_is_no_verdict(tmp_path: Path) -> None:
    """Neither harm nor health was seen: everything is unknown, and the run says that nothing answered."""
    for kind, result in at_servers(("garbage", "slow loris", "hang"), tmp_path):
        assert not result["valid"], kind
        assert "not one answer" in result["invalid_reasons"][0], kind
        assert set(verdicts(result).values()) == {"unknown"}, (kind, messages(result))


def test_a_healthy_server_passes_every_operation(tmp_path: Path) -> None:
    """The control: everything that needs no SQL or metrics passes."""
    with target(fake_target.Behaviour()) as url:
        result = finish(start(plan(url), tmp_path), tmp_path)
    found = verdicts(result)
    assert {check for check, verdict in found.items() if verdict != "pass"} == NOT_HERE, messages(result)


def _replays_alone(number: int) -> bool:
    return number % 12 == 0


def test_slow_replays_do_not_hide_among_fast_requests(tmp_path: Path) -> None:
    """8 % of the replays alone take 3 s: over all requests that is nothing, over the replays it is not passed."""
    with target(fake_target.Behaviour(replay_delay_s=lambda n: 3.0 if _replays_alone(n) else 0.0)) as url:
        result = finish(start(plan(url, timeout_s=10.0), tmp_path, idle=True), tmp_path)
    found = verdicts(result)
    assert found["load/http_req_duration/p95"] == "pass", messages(result)
    assert found[REPLAY_P95] != "pass", messages(result)


def test_failing_replays_do_not_hide_among_good_requests(tmp_path: Path) -> None:
    """8 % of the replays alone fail: fewer than 2 % of all requests, and not passed."""
    with target(fake_target.Behaviour(replay_status=lambda n: 500 if _replays_alone(n) else 200)) as url:
        result = finish(start(plan(url), tmp_path), tmp_path)
    found = verdicts(result)
    assert found["load/http_req_failed/rate"] != "fail", messages(result)
    assert found[REPLAY] != "pass", messages(result)


def test_a_lag_that_rises_through_the_run_is_not_passed(tmp_path: Path) -> None:
    """Inside every limit at the end, and only because the end came: unknown, neither passed nor failed."""
    with target(fake_target.Behaviour(lag_growth=1.2)) as url:
        streams = (steady("event", 60.0), steady("probe", 60.0), steady("replay", 25.0))
        result = finish(start(plan(url, scenarios=streams, duration_s=2.6, most_s=2.6), tmp_path), tmp_path)
    found = verdicts(result)
    assert found["load/outbox_lag_ms/p95"] == found["load/outbox_lag_ms/avg"] == "unknown", messages(result)
    assert "rises through the whole run" in messages(result)
