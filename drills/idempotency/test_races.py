"""Idempotency under concurrency: one key, one effect, whoever comes first, and whatever dies in between."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial

import psycopg
import pytest

from drills.workbench.audit_chain import REFUSED, says
from drills.workbench.bench import Sources
from drills.workbench.checks import SIGNED, TENANTS
from drills.workbench.rate_limit import Limit
from drills.workbench.scene import Scene, aside, new_key
from drills.workbench.waiting import PATIENCE_S
from gates.checks.recorder import check
from gates.deployment.http.client import HttpDoor, NoAnswer
from gates.deployment.requests import Answer, Request
from gates.deployment.sql.database import Connection, backend_of, execute
from gates.evidence import Severity, Where

drill = partial(check, needs=TENANTS, after=SIGNED)

TAKE = """
insert into public.replay_runs (idempotency_key, company_id, actor, payload_hash, status)
values (%s, %s, 'drill', '', 'failed')
on conflict (idempotency_key, company_id) do update set payload_hash = excluded.payload_hash
returning status <> 'failed' as is_there
"""
"""Waits for a run that is not committed yet, and holds it from that moment on."""
WAITS = "select coalesce(min(pid), 0) from pg_stat_activity where %s = any(pg_blocking_pids(pid))"
HANG_UP_S, NOTICED_S = 1.5, 2.0
"""After which a caller hangs up, when its request waits for a row, and how long the service is given to notice."""
ROUNDS = 3
"""A race is had several times: one round may end in the right order by luck."""


def _one_effect(scene: Scene, company: str, key: str, items: int) -> None:
    runs = scene.count("replay_runs", company, "idempotency_key = %s", key)
    written = scene.replayed(company)
    scene.seen.value(written, items, "outbox rows")
    assert runs == 1, f"{runs} runs of one key; allowed: 1"
    assert written == items, f"{written} outbox rows of one key; allowed: {items}"


@drill("drill/idempotency/race-same-request", covers=("D03",))
def test_race_same_request(scene: Scene, tenant: str) -> None:
    """Of concurrent identical requests with one key exactly one has an effect, and none is a server error.

    An impatient client, or a proxy that repeats, replays the events twice.
    """
    for company in (tenant, *(scene.tenants.create(label="race") for _ in range(ROUNDS - 1))):
        key = new_key()
        scene.add_items(company, 6)
        requests = [scene.replay_request(company, "concurrent", idempotency_key=key, max=2) for _ in range(8)]
        answers = scene.burst(requests)
        if any(a.status >= 500 for a in answers):
            _one_effect(scene, company, key, 2)
            scene.blame_the_limiter(answers, "one key had one effect")
        for request, answer in zip(requests, answers, strict=True):
            scene.seen.expect(request, answer, (200, 409, 429))
        raced = [a for a in answers if a.status in {200, 409}]
        scene.seen.require(len(raced) > 1, "the rate limit let only one of the concurrent requests through: no race")
        scene.seen.require(any(a.status == 200 for a in answers), "none of the concurrent requests was accepted")
        scene.seen.control(f"{len(raced)} of {len(answers)} concurrent requests passed the rate limit")
        _one_effect(scene, company, key, 2)
        firsts = [a for a in answers if a.status == 200 and a.json().get("duplicate") is False]
        assert len(firsts) == 1, f"{len(firsts)} of the answers claim to be the first; allowed: 1"


@drill("drill/idempotency/race-other-body", covers=("D04",))
def test_race_other_body(scene: Scene, tenant: str) -> None:
    """Of concurrent requests with one key and different payloads exactly one has an effect; the loser leaves nothing.

    A request is refused after its effect was committed.
    """
    for _ in range(ROUNDS):
        key = new_key()
        company = scene.tenants.create(label="race")
        scene.add_items(company, 6)
        requests = [scene.replay_request(company, f"max {n}", idempotency_key=key, max=n) for n in (1, 2, 3)]
        answers = scene.burst(requests)
        for request, answer in zip(requests, answers, strict=True):
            scene.seen.expect(request, answer, (200, 409, 422, 429))
        won = [n for n, a in zip((1, 2, 3), answers, strict=True) if a.status == 200]
        scene.seen.require(won, "none of the concurrent requests was accepted")
        assert len(won) == 1, f"{len(won)} different requests with one key were accepted; allowed: 1"
        scene.seen.control("one of three concurrent requests was accepted")
        _one_effect(scene, company, key, won[0])


@drill(
    "drill/idempotency/race-from-many-sources", where=Where.STAGING, needs=("tenants", "two-sources"), covers=("D03",)
)
def test_race_many_sources(scene: Scene, sources: Sources, tenant: str) -> None:
    """Of 24 identical requests from 8 addresses with one key exactly one has an effect.

    Each instance of the service does the work once more.
    """
    key = new_key()
    scene.add_items(tenant, 6)
    doors = [sources.door(f"127.0.0.{n}") for n in range(2, 10)]
    requests = [scene.replay_request(tenant, "concurrent", idempotency_key=key, max=2) for _ in range(3)]
    given = scene.burst(requests, *doors)
    if any(a.status >= 500 for a in given):
        _one_effect(scene, tenant, key, 2)
        scene.blame_the_limiter(given, "one key had one effect")
    for answer in given:
        scene.seen.expect(requests[0], answer, (200, 409, 429))
    scene.seen.control(f"{sum(a.status in {200, 409} for a in given)} of {len(given)} requests passed the rate limit")
    _one_effect(scene, tenant, key, 2)


@pytest.mark.rewrites
@drill("drill/idempotency/late-retry-keeps-the-run", covers=("D05",))
def test_late_retry(scene: Scene, tenant: str) -> None:
    """A retry after the run has ended, in whichever state, leaves its row exactly as it is.

    A late retry sets a completed run back to started, and it never ends; or it runs a stopped one again.
    """
    key = new_key()
    first = scene.run(tenant, label="nothing to replay", idempotency_key=key)
    scene.seen.require(first.get("status") == "completed", f"an empty run is {first.get('status')!r}, not completed")
    read = "select r.xmin::text as version, r.* from public.replay_runs r where company_id = %s"
    before = scene.rows(read, tenant)
    states = [(r["status"], r["completed_at"] is not None) for r in before]
    assert states == [("completed", True)], f"an empty run is answered as completed; its row is {states}"
    scene.add_items(tenant, 2)
    again = scene.replay(tenant, label="late retry", idempotency_key=key).json()
    assert again.get("status") == "completed", f"the late retry says {again.get('status')!r}; stored: completed"
    after = scene.rows(read, tenant)
    assert after == before, f"the run was {before}, after a late retry {after}"
    scene.reset_limit(tenant)
    ended = "update public.replay_runs set status = %s, target_count = 9, success_count = 3, failure_count = 2"
    for status in ("completed", "stopped", "failed"):
        scene.rows(f"{ended} where company_id = %s", status, tenant)
        before = scene.rows(read, tenant)
        scene.replay(tenant, label=f"retry of a {status} run", idempotency_key=key)
        after = scene.rows(read, tenant)
        assert after == before, f"the run was {before}, after a late retry {after}"
    assert scene.replayed(tenant) == 0, "a late retry replayed items"


# --- a request that is still running ------------------------------------------------------------------------------


@contextmanager
def _held_budget(scene: Scene, company: str) -> Iterator[Connection]:
    """The tenant's budget row, locked: a replay of items waits for it inside its transaction."""
    scene.budget(company, daily_limit=100)
    with scene.transaction() as holder:
        execute(holder, "savepoint budget")
        execute(holder, "select from public.replay_budgets where company_id = %s for update", company)
        yield holder


def _waiter(scene: Scene, holder: Connection, running: Future[Answer]) -> int:
    """The pid of the backend that waits for the holder's row; unknown where the request does not wait."""
    pid, found = backend_of(holder), 0

    def probe() -> bool:
        nonlocal found
        found = scene.number(WAITS, pid)
        return found > 0 or running.done()

    scene.until_true(probe, within_s=PATIENCE_S)
    busy = f"a replay neither ended nor came to the budget row of its tenant in {PATIENCE_S:g} s: run again when idle"
    scene.seen.require(found or running.done(), busy)
    scene.seen.require(found, "a replay does not wait for the budget row of its tenant: it cannot be held")
    return found


def _take_run(holder: Connection, company: str, key: str) -> bool:
    """Let the replay that waits for the holder's row go on, and hold its run as soon as it has committed. False where
    the run cannot be held: then nothing is said of when its answer is stored.
    """
    try:
        with holder.pipeline():  # the second must come before the replay's commit
            execute(holder, "rollback to savepoint budget")
            taken = holder.execute(TAKE.encode(), (key, company)).fetchall()
    except psycopg.Error:
        return False
    return bool(taken and taken[0]["is_there"])


@drill("drill/idempotency/in-progress", severity=Severity.WARN, covers=("D03",))
def test_in_progress(limit: Limit, http: HttpDoor, tenant: str) -> None:
    """While a request runs, another with its key is refused at once with 409 `in_progress`, and nothing happens twice.
    It counts against the rate limit, and is a duplicate when it comes again after the first. Other tenants' requests
    with that key, other keys of the tenant and dry runs neither wait nor are refused.

    Retries pile up behind a slow request and take every connection of the service.
    """
    key = new_key()
    limit.add_items(tenant, 3)
    request = limit.replay_request(tenant, "first, held", idempotency_key=key, max=2)
    beside = limit.replay_request(tenant, "a key like it", idempotency_key=f"{key}-2", error_type="none-such")
    dry = limit.replay_request(tenant, "a dry run", **limit.known(idempotency_key=key, max=2, dry_run=True))
    with ThreadPoolExecutor(max_workers=3) as pool:
        with _held_budget(limit, tenant) as holder:
            running: Future[Answer] = pool.submit(http.send, request)
            _waiter(limit, holder, running)
            again = request.labelled("same key, while the first runs")
            try:
                second = http.send(again, timeout_s=3 + limit.way_s)
            except NoAnswer:
                second = None
                limit.seen.require(limit.prompt(), "no answer in 3 s, and neither was anything else answered promptly")
            counted = limit.hits(tenant) if limit.has_rows else None
            other = pool.submit(http.send, beside)
            limit.replay(limit.company("other"), label="another tenant, the same key", idempotency_key=key, max=1)
            limit.reset_limit(tenant)
            looks = pool.submit(http.send, dry) if limit.claims("dry-run") else other
            wait([looks], timeout=1 + limit.way_s)
        first = running.result()
    limit.seen.expect(request, first, 200, control=True)
    assert other.result().code != "in_progress", "another key, while the first runs, is called in progress"
    assert looks.result().code != "in_progress", "a dry run, while its key runs, is called in progress"
    assert second is not None, "the same key, while the first runs: no answer in 3 s; due: 409 in_progress at once"
    limit.seen.expect(again, second, 409, "in_progress")
    assert counted is None or counted > 1, f"two requests count {counted} times, one of them refused as in_progress"
    if limit.claims("audit"):
        told = limit.until_true(
            lambda: any(says(r, "in_progress") for r in limit.audit(tenant, REFUSED)), within_s=PATIENCE_S
        )
        assert told, "the refusal in_progress left no audit row"
    limit.reset_limit(tenant)
    limit.expect(again.labelled("the same key, after the first has ended"), 200)
    _one_effect(limit, tenant, key, 2)


@drill("drill/idempotency/answer-stored-with-its-effect", severity=Severity.WARN, covers=("D10",))
def test_answer_stored_with_its_effect(scene: Scene, tenant: str) -> None:
    """The answer of a replay is stored with its effect: it is given while another transaction has its run.

    Where the service dies between the two, nobody learns what was moved.
    """
    key = new_key()
    scene.add_items(tenant, 3)
    request = scene.replay_request(tenant, "a replay, held", idempotency_key=key, max=2)
    with _held_budget(scene, tenant) as holder:
        running = scene.in_background(request)
        _waiter(scene, holder, running)
        is_held = _take_run(holder, tenant, key)
        scene.seen.require(is_held, "the run of a replay that has just committed could not be held")
        stored = bool(wait([running], timeout=1 + scene.way_s).done)
        scene.seen.require(stored or scene.prompt(), "nothing else was answered promptly either")
    scene.seen.expect(request, running.result(), 200, control=True)
    assert stored, "the replay has committed, and is not answered while its run is held: its answer is stored later"


@pytest.mark.waits(3)
@pytest.mark.rewrites
@drill("drill/idempotency/caller-hangs-up", severity=Severity.WARN, covers=("D10", "D11"))
def test_caller_hangs_up(scene: Scene, http: HttpDoor, tenant: str) -> None:
    """A replay whose caller hangs up while it runs is carried out or taken back as a whole: sent again, it is answered
    with 200, and has had its effect once.

    A caller that did not want to wait is told for ever that its key is in progress, or its items move twice.
    """
    key = new_key()
    scene.add_items(tenant, 3)
    request = scene.replay_request(tenant, "a replay, held", idempotency_key=key, max=2)
    with _held_budget(scene, tenant) as holder:
        running = aside(lambda: http.send(request, timeout_s=HANG_UP_S + scene.way_s))
        _waiter(scene, holder, running)
        hung_up = wait([running], timeout=20).done and isinstance(running.exception(), NoAnswer)
        # the service may notice, and end its work, before it could be done
        scene.until_true(lambda: not scene.number(WAITS, backend_of(holder)), within_s=NOTICED_S)
    scene.seen.require(hung_up, "a held replay was answered before its caller could hang up")
    again = request.labelled("sent again after its caller hung up")
    answers: list[Answer] = []

    def is_answered() -> bool:
        scene.reset_limit(tenant)
        answers.append(http.send(again))
        return answers[-1].status == 200

    scene.until_true(is_answered, within_s=PATIENCE_S)
    scene.replay(scene.company("other"), label="another tenant's", control=True, max=1)
    scene.seen.expect(again, answers[-1], 200)
    _one_effect(scene, tenant, key, 2)


@drill("drill/idempotency/crash-leaves-no-key", where=Where.REFERENCE, covers=("D10", "D11"))
def test_crash_leaves_no_key(scene: Scene, http: HttpDoor, tenant: str) -> None:
    """A request whose transaction is cut off leaves neither effect nor key, and is not answered with 200: its retry has
    the effect, once. Nothing is lost where the service itself repeats it, and then answers.

    A crash between effect and key loses or doubles the events, or an error is stored as the answer.
    """
    key = new_key()
    scene.add_items(tenant, 3)
    scene.replay(tenant, label="a dry run, undisturbed", control=True, dry_run=True)
    request: Request = scene.replay_request(tenant, "cut off", idempotency_key=key, max=2)
    with ThreadPoolExecutor(max_workers=1) as pool, _held_budget(scene, tenant) as holder:
        running: Future[Answer] = pool.submit(http.send, request)
        victim = _waiter(scene, holder, running)
        try:
            execute(scene.db, "select pg_terminate_backend(%s)", victim)
        except psycopg.errors.InsufficientPrivilege:
            scene.seen.unmet("the login of DATABASE_URL may not end other sessions")
        first = running.result()
    moved, due = scene.replayed(tenant), 2 if first.status == 200 else 0  # a service may repeat what was cut off
    assert moved == due, f"{moved} outbox rows of a request that was cut off and answered {first.status}; due: {due}"
    scene.seen.require(due or first.status >= 500, f"the request that was cut off was answered {first.status}")
    retry = request.labelled("the retry")
    answer = http.send(retry)
    for _ in range(2):
        if answer.status < 500:
            break
        scene.reset_limit(tenant)
        scene.replay(tenant, label="another key, in between", control=True, dry_run=True)
        answer = http.send(retry)
    # the same answer each time, while another key is accepted: the target is not just busy
    scene.seen.expect(retry, answer, 200, busy=answer.status == first.status)
    _one_effect(scene, tenant, key, 2)
