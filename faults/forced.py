"""Faults of `force` and of named items where they meet a budget, a dry run, the wait and the retries of an item."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from faults.altered import altered, around
from faults.catalogue import service
from faults.lifecycle import LIFE
from faults.probe import Probe
from faults.requests import REQUEST, is_forced, remembering, requesting
from replay_service.database import Connection
from replay_service.idempotency import Run
from replay_service.parts import Parts
from replay_service.settings import Settings
from replay_service.tenants import ReplayFlags
from replay_service.validation import ReplayRequest

SAME = "drill/dry-run/same-items-as-the-real-run"
AHEAD = {"retry_after": "2099-01-01"}


def _shown(probe: Probe, count: int, columns: dict[str, Any], **fields: Any) -> int:
    """How many of the named items of a tenant a dry run lists."""
    with probe.tenant() as company:
        ids = probe.letters(company, count, **columns)
        return len(probe.replay(company, dry_run=True, dlq_ids=ids, **fields).json()["items"])


@service(lambda p: _shown(p, 1, AHEAD, force=True) == 0, SAME, "forced dry run")
def dry_runs_are_not_forced(settings: Settings) -> Parts:
    """A dry run ignores `force`: it leaves out the postponed items that the real run takes."""
    return requesting(settings, lambda r: dataclasses.replace(r, force=r.force and not r.dry_run))


@service(lambda p: _shown(p, 3, {}, max_items=2) == 3, SAME, "forced dry run")
def dry_runs_list_all_that_is_named(settings: Settings) -> Parts:
    """A dry run of named items lists all of them, whatever `max` is."""
    return requesting(settings, lambda r: dataclasses.replace(r, max_items=50) if r.dry_run and r.dlq_ids else r)


@service(lambda p: _spent(p) == 200, "drill/budgets/force-does-not-ignore-it", "forced and named")
@around("read_flags", of=remembering)
async def what_is_named_and_forced_costs_nothing(release: Parts, conn: Connection, company_id: str) -> ReplayFlags:
    """Items that are named and forced are replayed past the budget."""
    found, request = await release.read_flags(conn, company_id), REQUEST.get()
    is_free = request is not None and request.force and request.dlq_ids is not None
    return dataclasses.replace(found, budget_control=found.budget_control and not is_free)


def _spent(probe: Probe) -> int:
    with probe.tenant() as company:
        columns = "(company_id, daily_limit, daily_used, monthly_used)"
        probe.rows(f"INSERT INTO replay_budgets {columns} VALUES (%s, 1, 1, 1)", company)
        return probe.replay(company, force=True, dlq_ids=probe.letters(company, 1)).status_code


@service(lambda p: not _delivered(p), f"{LIFE}/failed-item-is-pending-again", "the end of replay run")
def forced_items_wait(settings: Settings) -> Parts:
    """A forced replay delivers its items only when their `retry_after` comes."""
    return altered(
        settings,
        "move_items",
        ("replay_run_id, dlq_id)", "replay_run_id, dlq_id, next_attempt_at)"),
        ("%(run_id)s::uuid, id\n", "%(run_id)s::uuid, id, retry_after\n"),
        ("payload, created_at\n", "payload, created_at, retry_after\n"),
    )


def _delivered(probe: Probe) -> bool:
    with probe.tenant() as company:
        probe.letters(company, 1, **AHEAD)
        return probe.settled(probe.replay(company, force=True).json()["replay_run_id"], 3)


def _takes(probe: Probe, **columns: Any) -> bool:
    with probe.tenant() as company:
        probe.letters(company, 1, **columns)
        return bool(probe.replay(company, dry_run=True).json()["items"])


@service(lambda p: not _takes(p, retry_count=12, max_retries=20), "drill/dlq/max-retries-is-the-end", "8 of 140")
def ten_retries_are_the_most(settings: Settings) -> Parts:
    """No item has more than ten retries, whatever its `max_retries`."""
    return altered(settings, "pick_items", ("retry_count < max_retries", "retry_count < least(max_retries, 10)"))


@service(lambda p: _named_in_capitals(p), "drill/safety-rails/ids-and-error-type", "error type")
def named_types_in_any_case(settings: Settings) -> Parts:
    """With `dlq_ids`, `error_type` is compared without regard to case."""
    exact = "error_type = %(error_type)s::text"
    return altered(settings, "pick_items_by_id", (exact, "lower(error_type) = lower(%(error_type)s::text)"))


def _named_in_capitals(probe: Probe) -> bool:
    with probe.tenant() as company:
        ids = probe.letters(company, 1, error_type="TIMEOUT")
        return bool(probe.replay(company, dry_run=True, dlq_ids=ids, error_type="timeout").json()["items"])


@service(lambda p: _has_two_limits(p), "drill/rate-limit/forced-calls-count", "forced")
@around("admit", of=remembering)
async def forced_calls_have_their_own_limit(sound: Parts, conn: Connection, company: str, client: str) -> None:
    """Forced calls have a rate limit of their own."""
    await sound.admit(conn, company, f"{client}/forced" if is_forced() else client)


def _has_two_limits(probe: Probe) -> bool:
    with probe.tenant() as company:
        answers = [probe.replay(company, dry_run=True, force=n > 1).status_code for n in range(1, 5)]
        return answers == [200] * 4


@service(lambda p: _items_of_a_repeated_one(p) == [], "drill/safety-rails/arguments-together", "the duplicate differs")
@around("begin_run")
async def duplicates_of_forced_calls_have_no_items(
    release: Parts, conn: Connection, request: ReplayRequest, run: Run
) -> Mapping[str, Any] | None:
    """A duplicate of a forced replay is answered without its items."""
    stored = await release.begin_run(conn, request, run)
    return {**stored, "items": []} if stored and request.force else stored


def _items_of_a_repeated_one(probe: Probe) -> Any:
    with probe.tenant() as company:
        probe.letters(company, 1)
        return [probe.replay(company, force=True, idempotency_key="w").json()["items"] for _ in range(2)][1]
