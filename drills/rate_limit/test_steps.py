"""The rate limit among the other steps: what counts although it is refused later, and what cannot be counted."""

from concurrent.futures import wait
from functools import partial

import pytest

from drills.workbench.checks import LIMIT, TENANTS
from drills.workbench.rate_limit import Limit
from drills.workbench.scene import Scene, new_key
from drills.workbench.traces import traces_in
from gates.checks.recorder import check
from gates.deployment.dialect.current import current
from gates.deployment.http.client import NoAnswer
from gates.deployment.tenants.tenants import REPLAY_FLAG

pytestmark = pytest.mark.beside_load

ADMITTED = current().limit("calls")
drill = partial(check, needs=TENANTS, after=LIMIT)

QUEUED_S = 1.0
"""How long calls wait for the row that counts them: less than a service's patience with a lock."""
LOCK_HELD_S = 6.0
"""Longer than a service's own patience with a lock, which then has to answer 503."""


@drill("drill/rate-limit/later-refusals-count", covers=("C13",))
def test_later_refusals_count(limit: Limit, scene: Scene) -> None:
    """A request that its tenant's flag or pause refuses counts like any other, and is limited when its time comes.

    The count is rolled back with the refusal: a script that is refused may call without limit.
    """
    company = scene.company("steps", items=2)
    limit.admit(company, "a dry run", control=True, dry_run=True)
    if scene.claims("pause"):
        scene.pause(company)
        _counts(limit, company, "the pause", 409, "agents_paused")
        scene.pause(company, on=False)
    scene.set_flag(company, REPLAY_FLAG, enabled=False)
    _counts(limit, company, "the flag", 403, "feature_disabled")
    scene.set_flag(company, REPLAY_FLAG, enabled=True)
    refused = limit.hits(company) - 1
    scene.seen.value(refused, [1, 2], "refused requests that count")
    for call in range(refused + 1, ADMITTED):
        limit.admit(company, f"dry run {call}", control=True, dry_run=True)
    limit.limited(limit.request(company, "one more, after those that were refused later"))
    if scene.claims("pause"):
        scene.pause(company)
        limit.limited(limit.request(company, "one more, while its tenant is paused"))
    scene.set_flag(company, REPLAY_FLAG, enabled=False)
    limit.limited(limit.request(company, "one more, while its tenant is switched off"))


def _counts(limit: Limit, company: str, what: str, status: int, code: str, **fields: object) -> None:
    """A request that something refuses after the rate limit is one more hit."""
    before, request = limit.hits(company), limit.request(company, f"refused by {what}", **fields)
    limit.seen.expect(request, limit.http.send(request), status, code, control=True)
    hits = limit.hits(company)
    assert hits == before + 1, f"a request that {what} refused was not counted: {hits} hits; due: {before + 1}"


@drill("drill/rate-limit/exhausted-budget-counts", covers=("C13",))
def test_exhausted_budget_counts(limit: Limit, scene: Scene) -> None:
    """A request that the budget or its key refuses counts like any other.

    A tenant without budget may call without limit.
    """
    company = scene.company("steps", items=2)
    scene.budget(company, daily_limit=1, daily_used=1, monthly_used=1)
    limit.admit(scene.company("steps"), "a tenant with a budget", control=True, dry_run=True)
    poor = limit.request(company, "no budget is left")
    scene.seen.expect(poor, limit.http.send(poor), 429, "budget_exhausted", control=True, busy=True)
    scene.seen.value(limit.hits(company), 1, "admitted requests")
    assert limit.hits(company) == 1, "a request that the budget refused was not counted"
    if scene.claims("idempotency") and (key := scene.known(idempotency_key=new_key())):
        used = scene.company("key")
        limit.admit(used, "a replay with a key", control=True, max=1, **key)
        _counts(limit, used, "its key", 422, "idempotency_key_reused", max=2, **key)


@pytest.mark.waits(1)
@drill("drill/rate-limit/counted-when-its-turn-comes", covers=("C10",))
def test_counted_when_its_turn_comes(limit: Limit, tenant: str) -> None:
    """Of calls that wait for their tenant's row, only as many are admitted as the limit leaves when their turn comes,
    and none comes twice.

    If calls are counted before they wait for the lock, all that wait are admitted.
    """
    limit.fill(tenant, ADMITTED - 1)
    with limit.locked_rows(tenant):
        calls = [limit.request(tenant, f"waiting call {n}", dry_run=True) for n in range(1, 4)]
        running = [limit.in_background(call) for call in calls]
        wait(running, QUEUED_S)
    try:
        answers = [one.result(20) for one in running]
    except (NoAnswer, TimeoutError):
        limit.seen.unmet("no answer to a call whose row was locked")
    for call, answer in zip(calls, answers, strict=True):
        limit.seen.expect(call, answer, (200, 429, 503))
    admitted = sum(a.status == 200 for a in answers)
    limit.seen.value(admitted, 1, "admitted")
    assert admitted <= 1, f"of {len(calls)} calls that waited for their turn, {admitted} were admitted; 1 was left"
    if {a.status for a in answers} <= {200, 429}:
        counted = limit.hits(tenant) - (ADMITTED - 1)
        assert counted == admitted, (
            f"of {len(calls)} calls that were sent once, {admitted} were admitted and {counted} counted: what stands"
            " before the service sends a call again that takes long"
        )


@pytest.mark.waits(4)
@drill("drill/rate-limit/uncounted-is-not-admitted", covers=("C14",))
def test_uncounted_is_not_admitted(limit: Limit, tenant: str) -> None:
    """A request that cannot be counted, because its row is locked, is not admitted, and its answer shows no message of
    the database.

    If the store is slow, calls are admitted without being counted: the limit ends under load.
    """
    limit.admit(tenant, "call 1, a dry run", control=True, dry_run=True)
    request = limit.request(tenant, "call 2, a dry run, its row locked", dry_run=True)
    answer, early = limit.sent_while_locked(tenant, request, LOCK_HELD_S)
    if early:
        limit.seen.expect(request, answer, (429, 503, 504), busy=True)  # 504: a front end waits no longer
        leaked = traces_in(answer.body)
        assert not leaked, f"the answer {answer.status} shows {leaked}"
