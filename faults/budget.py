"""Faults of what a replay is charged: how much, to which period, and where there is no row yet."""

import dataclasses
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg

from faults.altered import altered, around
from faults.catalogue import service
from faults.probe import Probe
from faults.requests import REQUEST, is_forced, remembering
from replay_service.database import QUERIES, Connection
from replay_service.parts import Parts
from replay_service.settings import Settings

BUDGETS = "drill/budgets"
NONE_LEFT = {"daily_limit": 5, "daily_used": 5, "monthly_used": 5}
_USED = "SELECT coalesce(max(daily_used), 0), coalesce(max(monthly_used), 0) FROM replay_budgets WHERE company_id = %s"
_PLUS_MONTH = ("THEN monthly_used ELSE 0 END + %(items)s", "THEN monthly_used ELSE 0 END")
_PLUS_DAY = ("THEN daily_used ELSE 0 END + %(items)s", "THEN daily_used ELSE 0 END")
_NO_ROW = ("VALUES (%(company_id)s::uuid)", "SELECT %(company_id)s::uuid WHERE false")


def set_budget(probe: Probe, company: str, columns: dict[str, Any]) -> None:
    names, marks = ", ".join(columns), ", ".join(["%s"] * len(columns))
    probe.rows(f"INSERT INTO replay_budgets (company_id, {names}) VALUES (%s, {marks})", company, *columns.values())


def answer_of(probe: Probe, columns: dict[str, Any], letters: int = 4, **fields: Any) -> dict[str, Any]:
    """The answer to a replay of a tenant with this budget; its status is in `http`."""
    with probe.tenant() as company:
        probe.letters(company, letters)
        if columns:
            set_budget(probe, company, columns)
        answer = probe.replay(company, **fields)
        return {"http": answer.status_code, **answer.json()}


def used_by(probe: Probe, letters: int = 4, columns: dict[str, Any] | None = None, **fields: Any) -> tuple[int, int]:
    """What a replay of a tenant charges to its day and its month."""
    with probe.tenant() as company:
        probe.letters(company, letters)
        if columns:
            set_budget(probe, company, columns)
        probe.replay(company, **fields)
        day, month = probe.rows(_USED, company)[0]
        return int(day), int(month)


@service(
    lambda p: used_by(p) == (0, 0),
    (f"{BUDGETS}/charged-by-items-moved", "sql/spot/budget-not-undercharged"),
    ("charge", "used", "budget"),
)
def nothing_charged(settings: Settings) -> Parts:
    """Replays are not charged."""
    return _charging(settings, lambda _items: 0)


@service(lambda p: used_by(p, 2, max_items=9)[0] == 9, f"{BUDGETS}/charged-by-items-moved", ("charge", "used", "moved"))
def charged_by_max(settings: Settings) -> Parts:
    """A replay is charged by what it asked for, not by what it moved."""

    def asked(items: int) -> int:
        request = REQUEST.get()
        return request.max_items if request else items

    return _charging(settings, asked)


@service(lambda p: used_by(p, 4)[0] == 8, f"{BUDGETS}/charged-by-items-moved", ("charge", "used"))
def charged_twice(settings: Settings) -> Parts:
    """Every replay is charged twice."""
    return _charging(settings, lambda items: 2 * items)


@service(
    lambda p: used_by(p, 4)[0] == 1,
    (f"{BUDGETS}/charged-by-items-moved", "sql/spot/budget-not-undercharged"),
    ("charge", "used"),
)
def charged_by_call(settings: Settings) -> Parts:
    """A replay is charged as one item, however many it moves."""
    return _charging(settings, lambda _items: 1)


@service(lambda p: used_by(p, 12, max_items=12)[0] == 10, f"{BUDGETS}/charged-by-items-moved", "used")
def charged_for_ten(settings: Settings) -> Parts:
    """At most ten items of a replay are charged."""
    return _charging(settings, lambda items: min(items, 10))


@service(lambda p: _moved(p, 45) == 40, f"{BUDGETS}/charged-by-items-moved", "outbox rows")
@around("move")
async def forty_are_moved(release: Parts, conn: Connection, run_id: str, items: Sequence[str]) -> None:
    """At most forty items of a replay move: the rest is answered, charged and audited, but stays."""
    await release.move(conn, run_id, items[:40])


def _moved(probe: Probe, letters: int) -> int:
    with probe.tenant() as company:
        probe.letters(company, letters)
        probe.replay(company, max_items=letters)
        return int(probe.value("SELECT count(*) FROM event_outbox WHERE company_id = %s", company))


def _charging(settings: Settings, change: Callable[[int], int]) -> Parts:
    release = remembering(settings)

    async def twin(conn: Connection, company_id: str, items: int) -> None:
        await release.charge(conn, company_id, change(items))

    return dataclasses.replace(release, charge=twin)


@service(
    lambda p: used_by(p, 4) == (4, 0),
    (f"{BUDGETS}/monthly-limit-binds", f"{BUDGETS}/new-month-starts-at-zero"),
    "month",
)
def month_not_charged(settings: Settings) -> Parts:
    """Only the day is charged: the month never fills."""
    return altered(settings, "charge_budget", _PLUS_MONTH)


@service(
    lambda p: used_by(p, 4) == (0, 4),
    (f"{BUDGETS}/exhausted-refused", f"{BUDGETS}/race-never-overspends"),
    ("day", "daily"),
)
def day_not_charged(settings: Settings) -> Parts:
    """Only the month is charged: the day never fills."""
    return altered(settings, "charge_budget", _PLUS_DAY)


@service(
    lambda p: (
        answer_of(p, {"daily_limit": 2, "daily_used": 2, "monthly_used": 2, "day": "2020-01-01"}, dry_run=True)["http"]
        == 429
    ),
    f"{BUDGETS}/new-day-starts-at-zero",
    "dry",
)
def dry_run_counts_yesterday(settings: Settings) -> Parts:
    """A dry run counts what was used on an earlier day."""
    today = "CASE WHEN day = (now() AT TIME ZONE 'UTC')::date THEN daily_used ELSE 0 END"
    return altered(settings, "read_budget", (today, "daily_used"))


@service(
    lambda p: used_by(p, 4, {"monthly_used": 100, "day": "2020-01-01"}) == (4, 4),
    f"{BUDGETS}/new-day-starts-at-zero",
    "month",
    from_day=2,
)
def new_day_resets_month(settings: Settings) -> Parts:
    """A new day resets the month, too."""
    rolled = "WHEN month = date_trunc('month', now() AT TIME ZONE 'UTC')::date THEN monthly_used"
    return altered(settings, "charge_budget", (rolled, f"WHEN day = (now() AT TIME ZONE 'UTC')::date AND {rolled[5:]}"))


@service(lambda p: _day_after_charge(p) == "2020-01-01", f"{BUDGETS}/new-day-starts-at-zero", ("day", "used"))
def day_not_set(settings: Settings) -> Parts:
    """The day of a budget is not set when it is charged in a new one: the next request starts at zero again."""
    return altered(settings, "charge_budget", ("day = (now() AT TIME ZONE 'UTC')::date,\n", "day = day,\n"))


def _day_after_charge(probe: Probe) -> str:
    with probe.tenant() as company:
        probe.letters(company, 2)
        set_budget(probe, company, {"daily_used": 3, "day": "2020-01-01"})
        probe.replay(company)
        return str(probe.value("SELECT day FROM replay_budgets WHERE company_id = %s", company))


@service(lambda p: answer_of(p, {})["http"] == 429, f"{BUDGETS}/no-row-means-the-defaults", ("row", "default", "429"))
def no_row_is_nothing(settings: Settings) -> Parts:
    """A tenant without a budget row has none left."""
    return altered(settings, "create_budget", _NO_ROW)


@service(lambda p: _fails_beside_another(p), f"{BUDGETS}/no-row-means-the-defaults", "500")
def first_replays_collide(settings: Settings) -> Parts:
    """Of two first replays of a tenant at once one fails: both write its budget row."""
    return altered(settings, "create_budget", ("ON CONFLICT (company_id) DO NOTHING", ""))


def _fails_beside_another(probe: Probe) -> bool:
    """Whether a first replay that waits for another's budget row fails."""
    with (
        probe.tenant() as company,
        psycopg.connect(probe.environ["DATABASE_URL"]) as other,
        ThreadPoolExecutor(1) as beside,
    ):
        probe.letters(company, 1)
        other.execute("INSERT INTO replay_budgets (company_id) VALUES (%s)", (company,))
        answer = beside.submit(probe.replay, company)
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE %s"
        probe.within(3, lambda: bool(probe.value(waits, "%replay_budgets%")))
        other.commit()
        return answer.result(10).status_code == 500


@service(
    lambda p: used_by(p, 4) == (0, 0),
    (f"{BUDGETS}/no-row-means-the-defaults", f"{BUDGETS}/charged-by-items-moved", "sql/spot/budget-not-undercharged"),
    ("row", "default", "used"),
)
def no_row_is_no_limit(settings: Settings) -> Parts:
    """A tenant without a budget row has no limit and is not charged."""
    release = altered(settings, "create_budget", _NO_ROW)

    async def reserve(conn: Connection, company_id: str) -> int:
        row = await (await conn.execute(QUERIES["read_budget"], {"company_id": company_id})).fetchone()
        return 10_000 if row is None else await release.reserve_budget(conn, company_id)

    return dataclasses.replace(release, reserve_budget=reserve)


@service(
    lambda p: used_by(p, 4, dry_run=True)[0] == 4,
    ("drill/dry-run/consumes-nothing", "drill/dry-run/writes-nothing"),
    ("dry", "budget", "used"),
)
@around("append_audit", of=remembering)
async def dry_run_charged(release: Parts, conn: Connection, row: Any) -> None:
    """A dry run is charged."""
    await release.append_audit(conn, row)
    if row.action == "dlq_replay_dry_run" and row.target_count:
        await release.reserve_budget(conn, row.scope)
        await release.charge(conn, row.scope, row.target_count)


@service(lambda p: _forced_beside_another(p) != 429, f"{BUDGETS}/race-never-overspends", "racing")
def forced_replays_take_no_lock(settings: Settings) -> Parts:
    """A forced replay reads the budget without a lock: beside another one it overspends, or fails."""
    release = remembering(settings)

    async def reserve(conn: Connection, company_id: str) -> int:
        return await (release.preview_budget if is_forced() else release.reserve_budget)(conn, company_id)

    return dataclasses.replace(release, reserve_budget=reserve)


def _forced_beside_another(probe: Probe) -> int:
    """The status of a forced replay that comes while another spends what is left."""
    with (
        probe.tenant() as company,
        psycopg.connect(probe.environ["DATABASE_URL"]) as other,
        ThreadPoolExecutor(1) as beside,
    ):
        probe.letters(company, 1)
        set_budget(probe, company, {"daily_limit": 3})
        other.execute("UPDATE replay_budgets SET daily_used = 3, monthly_used = 3 WHERE company_id = %s", (company,))
        answer = beside.submit(probe.replay, company, force=True)
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE %s"
        probe.within(3, lambda: bool(probe.value(waits, "%replay_budgets%")))
        other.commit()
        return answer.result(10).status_code
