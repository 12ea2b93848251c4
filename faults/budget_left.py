"""Faults of what is left of a budget: how it is asked, and what an empty one refuses."""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from faults.altered import altered, around, instead_of, rewrite, with_database
from faults.budget import BUDGETS, NONE_LEFT, answer_of, set_budget
from faults.catalogue import service
from faults.probe import Probe
from faults.requests import is_forced, remembering
from replay_service.composition import build_parts
from replay_service.database import QUERIES, Connection, fetch_value
from replay_service.parts import Parts
from replay_service.problems import Refusal
from replay_service.settings import Settings
from replay_service.tenants import ReplayFlags
from replay_service.validation import ReplayRequest

_A_YEAR_AGO = "SELECT ((now() AT TIME ZONE 'UTC') - interval '1 year')::date"


@service(
    lambda p: answer_of(p, {"daily_limit": 2}, 4).get("target_count") != 2,
    (f"{BUDGETS}/batch-cut-to-what-is-left", "drill/dry-run/cut-by-the-budget"),
    ("cut", "left", "2", "3"),
)
def batch_not_cut(settings: Settings) -> Parts:
    """A batch is not cut to the budget: with one item left it asks for all (the trigger then refuses it)."""
    return _leaving(settings, lambda left: 500 if left > 0 else left)


@service(
    lambda p: answer_of(p, {"daily_limit": 2}, 4).get("target_count") == 1,
    (f"{BUDGETS}/batch-cut-to-what-is-left", "drill/dry-run/cut-by-the-budget"),
    ("cut", "left", "2", "3"),
)
def one_left_too_few(settings: Settings) -> Parts:
    """One item too few is left of a budget (off by one): the last one can never be replayed."""
    return _leaving(settings, lambda left: left - 1)


@service(lambda p: answer_of(p, NONE_LEFT)["http"] == 200, f"{BUDGETS}/exhausted-refused", ("exhausted", "429"))
def exhausted_not_refused(settings: Settings) -> Parts:
    """An empty budget still lets a request through: nothing is moved and nothing refused."""
    release = build_parts(settings)
    poor: set[str] = set()

    async def reserve(conn: Connection, company_id: str) -> int:
        left = await release.reserve_budget(conn, company_id)
        (poor.add if left <= 0 else poor.discard)(company_id)
        return max(left, 1)

    async def pick(conn: Connection, request: ReplayRequest, limit: int) -> tuple[str, ...]:
        return () if request.company_id in poor else await release.pick(conn, request, limit)

    return dataclasses.replace(release, reserve_budget=reserve, pick=pick)


@service(
    lambda p: (
        answer_of(p, {"daily_limit": 5, "daily_used": 5, "monthly_used": 5}, 2)["http"] == 429 and _lowered(p) == 200
    ),
    f"{BUDGETS}/lowered-limit-leaves-nothing",
    ("lower", "429"),
)
def lowered_limit_is_none(settings: Settings) -> Parts:
    """A limit lowered below the used amount counts as no limit."""
    return _leaving(settings, lambda left: 500 if left < 0 else left)


def _lowered(probe: Probe) -> int:
    with probe.tenant() as company:
        probe.letters(company, 2)
        set_budget(probe, company, {"daily_limit": 9, "daily_used": 9, "monthly_used": 9})
        probe.rows("UPDATE replay_budgets SET daily_limit = 5 WHERE company_id = %s", company)
        return probe.replay(company, dry_run=True).status_code


def _leaving(settings: Settings, change: Callable[[int], int]) -> Parts:
    """The service in which the remaining budget is changed by a function."""
    release = build_parts(settings)

    async def reserve(conn: Connection, company_id: str) -> int:
        return change(await release.reserve_budget(conn, company_id))

    async def preview(conn: Connection, company_id: str) -> int:
        return change(await release.preview_budget(conn, company_id))

    return dataclasses.replace(release, reserve_budget=reserve, preview_budget=preview)


@service(
    lambda p: answer_of(p, {"daily_limit": 40_000, "monthly_limit": 40_000})["http"] >= 500,
    f"{BUDGETS}/charged-by-items-moved",
    "raised limits",
)
def large_budgets_are_server_errors(settings: Settings) -> Parts:
    """A replay of a tenant with more than 32767 left ends in a server error: what is left is a small integer."""
    return altered(settings, "lock_budget", ("ELSE 0 END\n)", "ELSE 0 END\n)::smallint"))


@service(
    lambda p: answer_of(p, {"daily_limit": 600, "daily_used": 600, "monthly_used": 600})["http"] != 429,
    f"{BUDGETS}/exhausted-refused",
    "the daily budget is spent",
)
def large_limits_are_none(settings: Settings) -> Parts:
    """A daily limit above the default counts as no limit."""
    return altered(
        settings,
        "lock_budget",
        ("daily_limit::bigint", "CASE WHEN daily_limit > 500 THEN 1e6 ELSE daily_limit END::bigint"),
    )


@service(
    lambda p: answer_of(p, {"monthly_limit": 1, "monthly_used": 1}, dry_run=True)["http"] == 200,
    f"{BUDGETS}/monthly-limit-binds",
    "month",
)
def month_not_asked(settings: Settings) -> Parts:
    """The monthly limit does not bind."""
    both = {QUERIES[name]: _only_daily(QUERIES[name]) for name in ("lock_budget", "read_budget")}
    return with_database(build_parts(settings), both)


def _only_daily(text: bytes) -> bytes:
    return text.replace(b"monthly_limit::bigint -", b"1000000 + monthly_limit::bigint -")


@service(
    lambda p: answer_of(p, {"monthly_limit": 0}, dry_run=True)["http"] == 200,
    f"{BUDGETS}/monthly-limit-binds",
    "limit of 0",
)
def a_month_of_zero_is_no_limit(settings: Settings) -> Parts:
    """A monthly limit of 0 counts as no limit."""
    return _zero_is_none(settings, "monthly_limit")


@service(
    lambda p: answer_of(p, {"daily_limit": 0}, dry_run=True)["http"] == 200,
    f"{BUDGETS}/monthly-limit-binds",
    "limit of 0",
)
def a_day_of_zero_is_no_limit(settings: Settings) -> Parts:
    """A daily limit of 0 counts as no limit."""
    return _zero_is_none(settings, "daily_limit")


def _zero_is_none(settings: Settings, limit: str) -> Parts:
    none = (f"{limit}::bigint -", f"coalesce(nullif({limit}, 0), 1000000)::bigint -")
    both = {QUERIES[name]: rewrite(QUERIES[name], none) for name in ("lock_budget", "read_budget")}
    return with_database(build_parts(settings), both)


@service(
    lambda p: answer_of(p, NONE_LEFT, dry_run=True)["http"] == 200,
    f"{BUDGETS}/exhausted-refused",
    ("429", "exhausted", "daily"),
)
def day_not_asked(settings: Settings) -> Parts:
    """The daily limit does not bind."""
    both = {
        QUERIES[name]: QUERIES[name].replace(b"daily_limit::bigint -", b"1000000 + daily_limit::bigint -")
        for name in ("lock_budget", "read_budget")
    }
    return with_database(build_parts(settings), both)


@service(
    lambda p: answer_of(p, {"daily_limit": 5, "daily_used": 5, "day": "2020-01-01"}, dry_run=True)["http"] == 429,
    f"{BUDGETS}/new-day-starts-at-zero",
    "day",
)
def day_never_ends(settings: Settings) -> Parts:
    """What was used yesterday still counts today."""
    return _unbounded(
        settings, b"CASE WHEN day = (now() AT TIME ZONE 'UTC')::date THEN daily_used ELSE 0 END", b"daily_used"
    )


@service(
    lambda p: answer_of(p, {"monthly_limit": 5, "monthly_used": 5, "month": "2020-01-01"}, dry_run=True)["http"] == 429,
    f"{BUDGETS}/new-month-starts-at-zero",
    "month",
)
def month_never_ends(settings: Settings) -> Parts:
    """What was used last month still counts this month."""
    rolled = b"CASE WHEN month = date_trunc('month', now() AT TIME ZONE 'UTC')::date THEN monthly_used ELSE 0 END"
    return _unbounded(settings, rolled, b"monthly_used")


@service(
    lambda p: (
        answer_of(p, {"daily_limit": 5, "daily_used": 5, "day": p.value(_A_YEAR_AGO)}, dry_run=True)["http"] == 429
    ),
    f"{BUDGETS}/new-month-starts-at-zero",
    "429",
)
def a_day_is_its_number(settings: Settings) -> Parts:
    """What was used on the day of the same number in another month still counts today."""
    return _unbounded(
        settings,
        b"day = (now() AT TIME ZONE 'UTC')::date THEN",
        b"extract(day FROM day) = extract(day FROM now() AT TIME ZONE 'UTC') THEN",
    )


def _unbounded(settings: Settings, rolled: bytes, plain: bytes) -> Parts:
    names = ("lock_budget", "read_budget", "charge_budget")
    return with_database(build_parts(settings), {QUERIES[n]: QUERIES[n].replace(rolled, plain) for n in names})


@service(lambda p: _without_control(p) == 429, "drill/flags/budget-switch-is-wired", ("budget_control", "429"))
def control_always_on(settings: Settings) -> Parts:
    """Budgets bind although `dlq.replay.budget_control` is off."""
    return _controlling(settings, is_on=True)


@service(
    lambda p: answer_of(p, NONE_LEFT)["http"] == 200,
    (f"{BUDGETS}/exhausted-refused", "drill/flags/budget-switch-is-wired"),
    ("429", "exhausted", "budget_control"),
)
def control_always_off(settings: Settings) -> Parts:
    """Budgets never bind: `dlq.replay.budget_control` is not looked at."""
    return _controlling(settings, is_on=False)


@service(lambda p: _without_control(p, "true, 1") == 429, "drill/flags/service-asks-the-function", "budget control at")
def control_without_its_percentage(settings: Settings) -> Parts:
    """The service reads only `enabled` of the budget control flag, not its percentage."""
    return _without_percentage(settings, "dlq.replay.budget_control")


@service(
    lambda p: _with_flag(p, "outbox.enabled", "true, 1").status_code == 200,
    "drill/flags/service-asks-the-function",
    "the outbox at",
)
def outbox_without_its_percentage(settings: Settings) -> Parts:
    """A replay reads only `enabled` of the outbox flag, not its percentage."""
    return _without_percentage(settings, "outbox.enabled")


def _without_percentage(settings: Settings, flag: str) -> Parts:
    asked = f"public.is_feature_enabled('{flag}', %(company_id)s::uuid)"
    row = f"key = '{flag}' AND company_id = %(company_id)s::uuid"
    own = f"coalesce((SELECT enabled FROM public.feature_flags WHERE {row}), {asked})"
    return altered(settings, "replay_flags", (asked, own))


def _controlling(settings: Settings, *, is_on: bool) -> Parts:
    release = build_parts(settings)

    async def twin(conn: Connection, company_id: str) -> ReplayFlags:
        return dataclasses.replace(await release.read_flags(conn, company_id), budget_control=is_on)

    return dataclasses.replace(release, read_flags=twin)


def _without_control(probe: Probe, state: str = "false, 100") -> int:
    """The status of a replay with a spent budget, with this row of the flag: enabled, percentage."""
    return _with_flag(probe, "dlq.replay.budget_control", state, NONE_LEFT).status_code


def _with_flag(probe: Probe, flag: str, state: str, budget: dict[str, Any] | None = None) -> httpx.Response:
    """The answer to a dry run of a tenant that has a row of a flag: enabled, percentage."""
    row = f"('{flag}', %s, {state})"
    with probe.tenant() as company:
        probe.rows(f"INSERT INTO feature_flags (key, company_id, enabled, rollout_percentage) VALUES {row}", company)
        if budget:
            set_budget(probe, company, budget)
        return probe.replay(company, dry_run=True)


@service(
    lambda p: answer_of(p, NONE_LEFT, force=True, dry_run=True)["http"] == 200,
    (f"{BUDGETS}/force-does-not-ignore-it", "drill/safety-rails/force-respects-budget"),
    ("force", "429"),
)
def force_ignores_budget(settings: Settings) -> Parts:
    """`force` ignores the budget."""
    release = remembering(settings)

    def unless_forced(ask: Callable[[Connection, str], Awaitable[int]]) -> Callable[[Connection, str], Awaitable[int]]:
        async def twin(conn: Connection, company_id: str) -> int:
            return 500 if is_forced() else await ask(conn, company_id)

        return twin

    return dataclasses.replace(
        release,
        reserve_budget=unless_forced(release.reserve_budget),
        preview_budget=unless_forced(release.preview_budget),
    )


@service(lambda p: _spent_at_once(p) > 3 or _failed_at_once(p), f"{BUDGETS}/race-never-overspends", ("racing", "spent"))
def read_without_lock(settings: Settings) -> Parts:
    """The budget is read without a lock: parallel replays overspend."""
    release = altered(settings, "lock_budget", ("\nFOR UPDATE", ""))

    async def reserve(conn: Connection, company_id: str) -> int:
        left = await release.reserve_budget(conn, company_id)
        await asyncio.sleep(0.05)
        return left

    return dataclasses.replace(release, reserve_budget=reserve)


def _race(probe: Probe) -> list[Any]:
    with probe.tenant() as company, ThreadPoolExecutor(max_workers=3) as pool:
        probe.letters(company, 9)
        set_budget(probe, company, {"daily_limit": 3})
        calls = [pool.submit(probe.replay, company, max_items=3) for _ in range(3)]
        return [call.result() for call in calls]


def _spent_at_once(probe: Probe) -> int:
    return sum(answer.json().get("target_count", 0) for answer in _race(probe))


def _failed_at_once(probe: Probe) -> bool:
    return any(answer.status_code >= 500 for answer in _race(probe))


@service(
    lambda p: answer_of(p, {"daily_limit": 2}, 4, dry_run=True).get("target_count") == 4,
    ("drill/dry-run/cut-by-the-budget", "drill/dry-run/no-budget-like-real", f"{BUDGETS}/dry-run-shows-what-is-left"),
    ("dry", "budget"),
)
@instead_of("preview_budget")
async def dry_run_asks_no_budget(_conn: Connection, _company_id: str) -> int:
    """A dry run ignores the budget: it shows items that the real run cannot take."""
    return 500


@service(
    lambda p: answer_of(p, {}, 26, dry_run=True, max=26).get("target_count") == 25,
    f"{BUDGETS}/no-row-means-the-defaults",
    "default",
)
@instead_of("preview_budget")
async def dry_run_knows_other_defaults(conn: Connection, company_id: str) -> int:
    """A dry run takes a missing budget row for a small budget, the real run for the default one."""
    left = await fetch_value(conn, "read_budget", company_id=company_id)
    return 25 if left is None else int(left)


@service(
    lambda p: answer_of(p, NONE_LEFT)["code"] == "rate_limited",
    f"{BUDGETS}/exhausted-refused",
    ("budget_exhausted", "rate_limited"),
)
@around("reserve_budget")
async def exhausted_is_rate_limited(release: Parts, conn: Connection, company_id: str) -> int:
    """An empty budget is answered as a rate limit: clients wait five minutes instead of a day."""
    left = await release.reserve_budget(conn, company_id)
    if left <= 0:
        raise Refusal("rate_limited", "Too much.", headers={"retry-after": "300"})
    return left


@service(
    lambda p: answer_of(p, {"daily_limit": 2}, 4, dry_run=True, force=True).get("target_count") == 4,
    "drill/dry-run/cut-by-the-budget",
    "shown",
)
@around("preview_budget", of=remembering)
async def forced_dry_runs_are_not_cut(release: Parts, conn: Connection, company_id: str) -> int:
    """A forced dry run is not cut to the budget."""
    left = await release.preview_budget(conn, company_id)
    return 500 if left > 0 and is_forced() else left
