"""What a call expects of its answer, and the metric `checks` that counts it."""

import json
import random
from unittest import mock

import pytest

from loadtests.engine.canaries import Canaries, differ
from loadtests.engine.samples import Samples
from loadtests.engine.sinks import RateSink
from loadtests.engine.wire import parse_address
from loadtests.engine.workload import Workload
from loadtests.judgement.trend import is_rising, is_slowing
from loadtests.plan import Credentials, LoadPlan, Tenant, replays_of
from loadtests.thresholds.expectations import EVENT_STATUS, SUCCEEDS, accepted_event, replayed, version_of
from loadtests.thresholds.language import parse_metric_key

COMPANY, EVENT = "00000000-0000-4000-8000-00000000000A", "00000000-0000-4000-8000-00000000000b"
PAUSED = frozenset({"agents_paused"})
RUN = {"status": "started", "company_id": COMPANY.lower(), "idempotency_key": "k", "items": []}


def body(value: object) -> bytes:
    return json.dumps(value).encode()


@pytest.mark.parametrize(
    ("status", "answer", "passes"),
    [
        (200, RUN, True),
        (200, {**RUN, "status": "completed", "duplicate": True}, True),
        (200, {**RUN, "dry_run": False, "target_count": 0}, True),
        (200, {**RUN, "status": "dry_run"}, False),
        (200, {**RUN, "dry_run": True}, False),
        (200, {**RUN, "target_count": 1}, False),
        (200, {**RUN, "company_id": EVENT}, False),
        (200, {**RUN, "idempotency_key": "other"}, False),
        (200, {}, False),
        (200, [], False),
        (302, RUN, False),
        (409, {"code": "agents_paused"}, True),
        (409, {"code": "in_progress"}, False),
        (429, {"code": "rate_limited"}, False),
        (403, {"code": "agents_paused"}, False),
        (409, {"code": ["agents_paused"]}, False),
        (0, {}, False),
    ],
)
def test_a_replay_is_answered_with_its_own_run(status: int, answer: object, passes: bool) -> None:
    """Company, key and status are those of the call; of refusals only those that the call may meet."""
    assert replayed(COMPANY, "k", refusals=PAUSED).holds(status, body(answer)) is passes


@pytest.mark.parametrize(
    ("key", "items", "passes"),
    [
        ("k", [EVENT], True),
        ("k", [EVENT.upper()], True),
        ("k", [], False),
        ("k", [COMPANY], False),
        ("k", [EVENT, EVENT], False),
        ("", [EVENT], True),
        ("", [], True),
        ("", [COMPANY], False),
    ],
)
def test_a_replay_takes_one_of_the_dead_letters_that_wait(key: str, items: list[str], passes: bool) -> None:
    """Success that takes none, or what is not there, is no success; a dry run may come after all were taken."""
    answer = {**RUN, "items": items, **({} if key else {"status": "dry_run"})}
    assert replayed(COMPANY, key, refusals=PAUSED, waiting=(EVENT,)).holds(200, body(answer)) is passes


def test_a_dry_run_is_answered_as_one() -> None:
    """A real run in its place would be harm, not success."""
    dry = replayed(COMPANY, refusals=PAUSED)
    assert dry.holds(200, body({**RUN, "status": "dry_run"}))
    assert not dry.holds(200, body(RUN))
    assert not dry.holds(200, body({**RUN, "status": "dry_run", "dry_run": False}))


def test_events_their_status_and_the_version_are_told_from_mere_success() -> None:
    """202 with the event's own id; a status with a commit; a release."""
    assert accepted_event(EVENT).holds(202, body({"event_id": EVENT.upper(), "path": "outbox"}))
    assert not accepted_event(EVENT).holds(202, body({"event_id": COMPANY, "path": "outbox"}))
    assert not accepted_event(EVENT).holds(200, body({"event_id": EVENT, "path": "outbox"}))
    assert EVENT_STATUS.holds(200, body({"status": "pending", "committed_at": "2024-06-01T00:00:00Z"}))
    assert not EVENT_STATUS.holds(200, b"{}")
    for meant, passes in (("", True), ("r1", True), ("r2", False)):
        assert version_of(meant).holds(200, body({"release": "r1"})) is passes
        assert not version_of(meant).holds(200, b"<html>")
    assert [SUCCEEDS.holds(status, b"") for status in (200, 204, 302, 429, 0)] == [True, True, False, False, False]


def test_checks_are_one_rate_that_tags_take_apart() -> None:
    """By operation, by name of the check; what no check asked is no sample; packing loses nothing."""
    samples, merged = Samples(), Samples()
    for operation, passed, count in (("replay", True, 3), ("replay", False, 1), ("event", True, 4)):
        group = samples.group(
            {"operation": operation, "status": "200"}, failed=False, check=f"{operation}: fine", passed=passed
        )
        group.timings["http_req_duration"].extend([1.0] * count)
    samples.group({"operation": "replay"}, failed=False).timings["http_req_duration"].append(1.0)
    merged.merge_report(samples.take_report())
    found = {key: merged.select(parse_metric_key(key)) for key in ("checks", "checks{operation:replay}")}
    found["by name"] = merged.select(parse_metric_key("checks{check:event: fine}"))
    assert found == {"checks": RateSink(7, 8), "checks{operation:replay}": RateSink(3, 4), "by name": RateSink(4, 4)}


def test_replay_calls_stay_within_the_limit_and_most_of_them_are_real() -> None:
    """Three a company, two of them real runs under keys of their own; the number is known beforehand."""
    tenants = tuple(Tenant(f"00000000-0000-4000-8000-{n:012d}", replays=n != 1) for n in range(5))
    plan = LoadPlan("http://127.0.0.1:9", tenants=tenants)
    work = Workload(plan, Credentials(hmac_secret="0123456789abcdef"), parse_address(plan.base_url))
    calls = [call for _ in range(50) if (call := work.call("replay"))]
    assert len(calls) == replays_of(plan) == 12
    bodies = [json.loads(call.data.partition(b"\r\n\r\n")[2]) for call in calls]
    each = [sum(one["company_id"] == tenant.id for one in bodies) for tenant in tenants]
    assert each == [3, 0, 3, 3, 3]
    assert len({one["idempotency_key"] for one in bodies if "idempotency_key" in one}) == 8
    assert {one["max"] for one in bodies} == {1}
    assert {one["company_id"] for one in bodies[:4]} == {tenant.id for tenant in tenants if tenant.replays}


@pytest.mark.parametrize(
    ("status", "answer", "is_anothers"),
    [
        (200, RUN, False),
        (200, {**RUN, "company_id": EVENT}, True),
        (200, {**RUN, "idempotency_key": "another"}, True),
        (200, {"status": "started"}, None),
        (200, {**RUN, "company_id": 7, "idempotency_key": None}, None),
        (409, {**RUN, "company_id": EVENT}, None),
    ],
)
def test_an_answer_is_anothers_where_it_names_another(status: int, answer: object, is_anothers: bool | None) -> None:
    """A success alone, and what it does not name is neither: one such answer is one too many."""
    assert replayed(COMPANY, "k", refusals=PAUSED).is_anothers(status, body(answer)) is is_anothers
    assert accepted_event(EVENT).is_anothers(202, body({"event_id": COMPANY})) is True
    assert accepted_event(EVENT).is_anothers(202, body({"event_id": EVENT.upper()})) is False
    assert accepted_event("").is_anothers(202, body({"event_id": EVENT})) is None


@pytest.mark.parametrize(
    ("first", "second", "apart"),
    [
        ("2026-01-02T03:04:05.100000+00:00", "2026-01-02T04:04:05.100+01:00", False),
        ("2026-01-02T03:04:05.100000Z", "2026-01-02T03:04:05.120000Z", False),
        ("2026-01-02T03:04:05.100000Z", "2026-01-02T03:04:05.155000Z", True),
        ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05.955000Z", False),
        ("2026-01-02T03:04:05Z", "2026-01-02T03:04:07Z", True),
        ("yesterday", "2026-01-02T03:04:07Z", None),
    ],
)
def test_two_commits_of_an_event_differ_as_far_as_they_are_told(first: str, second: str, apart: bool | None) -> None:
    """Other zones, fewer digits and a few milliseconds are the same commit."""
    assert differ(first, second) is apart


@pytest.mark.parametrize(
    ("answers", "mixed"),
    [
        ([("a", 10), ("b", 20), ("a", 10)], [0.0]),
        ([("a", 10), ("b", 20), ("a", 20)], [1.0]),
        ([("a", 20), ("b", 10), ("a", 10)], [1.0]),
        ([("a", 10), ("b", 20), ("a", 15)], [0.0]),  # nobody else's: one event whose commit is told in two ways
    ],
)
def test_an_answer_is_anothers_where_it_tells_the_commit_of_another(
    answers: list[tuple[str, int]], mixed: list[float]
) -> None:
    """By event and second of its commit, as they are told one after the other."""
    drive = mock.Mock()
    canaries = Canaries(drive, mock.Mock(), 1.0, mock.Mock())
    for event, second in answers:
        canaries.compare(event, "company", {"committed_at": f"2026-01-02T03:04:{second}Z"})
    assert [call.args for call in drive.samples.add.call_args_list] == [("answers_mixed", value) for value in mixed]


@pytest.mark.parametrize(
    ("values", "rises"),
    [
        ([n * 10.0 for n in range(200)], True),
        ([float(n % 60) * 30 for n in range(240)], False),
        ([1900.0 - float(n % 36) * 50 for n in range(180)], False),
        ([5.0] * 180 + [3000.0] * 60, False),
        ([3000.0] * 60 + [5.0] * 180, False),
        ([n * 10.0 for n in range(50)], False),
        ([n * 1.0 for n in range(300)], False),
    ],
)
def test_only_a_rise_through_the_whole_run_is_one(values: list[float], rises: bool) -> None:
    """Neither a sawtooth, nor a hiccup at an end, nor few samples, nor a small rise."""
    assert is_rising(values) is rises


@pytest.mark.parametrize(
    ("values", "null", "slows"),
    [
        ([5.0 + n for n in range(180)], [1.0] * 200, True),
        ([5.0 + n + n % 7 * 40.0 for n in range(180)], [1.0] * 200, True),
        ([5.0 + n for n in range(180)], [1.0 + n for n in range(200)], False),
        ([5.0 + n / 3 for n in range(180)], [1.0] * 200, False),
        ([900.0 + n for n in range(180)], [1.0] * 200, True),
        ([900.0 + n + n % 7 * 90.0 for n in range(180)], [1.0] * 200, False),
        ([5.0] * 60 + [5.0 + n * 5 for n in range(60)] + [300.0] * 60, [1.0] * 200, False),
        ([5.0 + n for n in range(50)], [1.0] * 200, False),
        ([5.0 + n for n in range(180)], [], False),
        ([*([5.0] * 19), 2000.0] * 9, [1.0] * 200, False),
    ],
)
def test_latency_grows_only_with_every_part_of_the_run(values: list[float], null: list[float], slows: bool) -> None:
    """Neither a rise of the instrument, nor one that is small or comes to an end, nor few samples, nor a slow tail."""
    assert is_slowing(values, null) is slows


def test_healthy_latencies_hardly_ever_grow_through_a_run() -> None:
    """Wild noise, and noise that goes on from one request to the next: of two thousand runs each two at the most."""
    dice, null = random.Random(7), [1.0] * 200
    alarms = drifting = 0
    for _ in range(2000):
        alarms += is_slowing([dice.lognormvariate(5.0, 1.0) for _ in range(180)], null)
        level, values = 100.0, []
        for _ in range(180):
            level = 100.0 + 0.8 * (level - 100.0) + dice.gauss(0.0, 60.0)
            values.append(max(2.0, level))
        drifting += is_slowing(values, null)
    assert alarms <= 2
    assert drifting <= 2
