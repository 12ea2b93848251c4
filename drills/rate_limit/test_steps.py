"""The rate limit among the other steps: what counts although it is refused later, and what cannot be counted."""

from __future__ import annotations

from functools import partial

import pytest

from drills.workbench.checks import LIMIT, TENANTS
from drills.workbench.rate_limit import Limit
from drills.workbench.scene import Scene
from gates.checks.recorder import check

drill = partial(check, needs=TENANTS, after=LIMIT)

LOCK_HELD_S = 6.0
"""Longer than a service's own patience with a lock, which then has to answer 503."""


@drill("drill/rate-limit/later-refusals-count", covers=("C13",))
def test_later_refusals_count(limit: Limit, scene: Scene) -> None:
    """A request that its tenant's flag, pause or budget refuses counts like any other.

    Otherwise the count is rolled back with the refusal, and a script that is refused asks without limit.
    """
    company = scene.company("steps", items=2)
    limit.admit(company, "call 1, a dry run", control=True, dry_run=True)
    scene.pause(company)
    paused = limit.request(company, "call 2, paused")
    scene.expect(paused, 409, "agents_paused", control=True)
    after_pause = limit.hits(company)
    scene.pause(company, on=False)
    scene.set_flag(company, "dlq.replay.enabled", enabled=False)
    off = limit.request(company, "call 3, switched off")
    scene.expect(off, 403, "feature_disabled", control=True)
    after_flag = limit.hits(company)
    scene.seen.value(f"{after_pause} after the pause, {after_flag} after the flag", "2 and 3", "admitted requests")
    assert after_pause == 2, f"a request that the pause refused was not counted: {after_pause} hits; due: 2"
    assert after_flag == 3, f"a request that the flag refused was not counted: {after_flag} hits; due: 3"
    scene.set_flag(company, "dlq.replay.enabled", enabled=True)
    limit.limited(limit.request(company, "call 4, after two that were refused later"))


@drill("drill/rate-limit/exhausted-budget-counts", covers=("C13",))
def test_exhausted_budget_counts(limit: Limit, scene: Scene) -> None:
    """A request that the budget refuses counts like any other.

    Otherwise a tenant without budget asks without limit.
    """
    company = scene.company("steps", items=2)
    scene.budget(company, daily_limit=1, daily_used=1, monthly_used=1)
    limit.admit(scene.company("steps"), "a tenant with a budget", control=True, dry_run=True)
    poor = limit.request(company, "no budget is left")
    scene.seen.expect(poor, limit.http.send(poor), 429, "budget_exhausted", control=True, busy=True)
    scene.seen.value(limit.hits(company), 1, "admitted requests")
    assert limit.hits(company) == 1, "a request that the budget refused was not counted"


@pytest.mark.waits
@pytest.mark.waits(4)
@drill("drill/rate-limit/uncounted-is-not-admitted", covers=("C14",))
def test_uncounted_is_not_admitted(limit: Limit, tenant: str) -> None:
    """While a request cannot be counted, because its row is locked, it is not admitted.

    Otherwise the limit ends where the load begins: what a slow store cannot count is let through.
    """
    limit.admit(tenant, "call 1, a dry run", control=True, dry_run=True)
    request = limit.request(tenant, "call 2, a dry run, its row locked", dry_run=True)
    answer, early = limit.sent_while_locked(tenant, request, LOCK_HELD_S)
    if early:
        limit.seen.expect(request, answer, (429, 503), busy=True)
