"""The periods of a budget: the day and the month of UTC, and what was used in those that are over."""

import datetime as dt
from decimal import Decimal
from functools import partial
from typing import Any

import pytest

from drills.workbench.checks import SIGNED, SQL
from drills.workbench.scene import Scene
from gates.checks.recorder import check
from gates.deployment.sql.database import execute, value
from gates.evidence import Severity

pytestmark = pytest.mark.beside_load

drill = partial(check, needs=SQL, after=SIGNED)

BUDGET_ROW = """
select daily_limit, monthly_limit, daily_used, monthly_used, day from public.replay_budgets where company_id = %s
"""


def _roll_back(scene: Scene, company: str, part: str) -> dict[str, Any]:
    """Set the row's day (or day and month) one period back, or a year, on the day of that number; the row then."""
    row = scene.one("select day, month from public.replay_budgets where company_id = %s", company)
    scene.seen.require(isinstance(row["day"], dt.date), f"replay_budgets.day is no date but {row['day']!r}")
    if part == "day":
        scene.rows("update public.replay_budgets set day = day - 1 where company_id = %s", company)
    else:
        months = 12 if part == "year" else 1
        scene.rows(
            "update public.replay_budgets set day = (day - make_interval(months => %s))::date, month = %s"
            " where company_id = %s",
            *(months, _month_before(scene, row["month"], months), company),
        )
    return scene.one("select day, month from public.replay_budgets where company_id = %s", company)


def _month_before(scene: Scene, month: object, months: int) -> object:
    """So many months earlier, in the form that the row has."""
    text = str(month)
    scene.seen.require(len(text) >= 7 and text[4] == "-", f"replay_budgets.month is neither date nor YYYY-MM: {text!r}")
    year, number = divmod(int(text[:4]) * 12 + int(text[5:7]) - 1 - months, 12)
    earlier = f"{year:04d}-{number + 1:02d}{text[7:]}"
    return dt.date.fromisoformat(earlier).replace(day=1) if isinstance(month, dt.date) else earlier


@drill("drill/budgets/new-day-starts-at-zero", covers=("G05",))
def test_new_day_starts_at_zero(scene: Scene) -> None:
    """What was spent on an earlier UTC day does not count today: the full daily budget is available again, and of the
    month what is left. The limits stay as they are.

    A tenant that once spent its day is locked out for good.
    """
    company, day = scene.company(items=3), scene.today()
    scene.budget(company, daily_limit=3, daily_used=3, monthly_limit=5, monthly_used=3)
    same_month = day.day > 1
    _roll_back(scene, company, "day" if same_month else "month")
    shown = scene.replay(company, label="a dry run", max=3, dry_run=True).json()
    answer = scene.replay(company, max=3).json()
    scene.seen.require(scene.today() == day, "the UTC day changed meanwhile; run again")
    left = 2 if same_month else 3
    where = f"where the new day leaves 3, and the month {left}"
    assert answer["target_count"] == left, f"{answer['target_count']} items taken {where}"
    assert shown["target_count"] == left, f"a dry run shows {shown['target_count']} items {where}"
    row = scene.one(BUDGET_ROW, company)
    assert row["daily_used"] == left, f"daily_used is {row['daily_used']} after {left} items on the new day"
    assert row["day"] == day, f"the row's day is {row['day']}; today in UTC is {day}"
    due = 5 if same_month else 3
    assert row["monthly_used"] == due, (
        f"monthly_used is {row['monthly_used']}; due: {due}, with yesterday's 3 in its month"
    )
    limits = (row["daily_limit"], row["monthly_limit"])
    assert limits == (3, 5), f"the first replay of a new day left the limits {limits}; due: 3 and 5, as they were"
    scene.seen.control("the same row with today's day is refused: drill/budgets/exhausted-refused")


@drill("drill/budgets/spent-today-stays-spent", covers=("G05",))
def test_spent_today_stays_spent(scene: Scene) -> None:
    """Budget spent earlier on the same UTC day stays spent; only a row of an earlier day is reset.

    A reset by local time or by age gives a tenant its budget twice in one day.
    """
    company = scene.company(items=1)
    day = scene.today()
    scene.budget(company, daily_limit=2, daily_used=2, monthly_used=2)
    scene.replay(company, 429, "budget_exhausted", max=1)
    scene.seen.require(scene.today() == day, "the UTC day changed meanwhile; run again")
    scene.rows("update public.replay_budgets set daily_used = 1 where company_id = %s", company)
    scene.replay(company, control=True, max=1)


@drill(
    "drill/budgets/new-month-starts-at-zero", after=(*SIGNED, "drill/budgets/new-day-starts-at-zero"), covers=("G05",)
)
def test_new_month_starts_at_zero(scene: Scene) -> None:
    """What was spent in an earlier UTC month, or in the same one of last year, does not count in this one.

    A tenant that once spent its month is locked out for good.
    """
    for part in ("month", "year"):
        company = scene.company(items=3)
        scene.budget(company, daily_limit=2, daily_used=2, monthly_limit=2, monthly_used=2)
        _roll_back(scene, company, part)
        day = scene.today()
        shown = scene.replay(company, label="a dry run", max=3, dry_run=True).json()
        answer = scene.replay(company, max=3).json()
        scene.seen.require(scene.today() == day, "the UTC day changed meanwhile; run again")
        assert answer["target_count"] == 2, f"{answer['target_count']} items taken where the new month leaves 2"
        assert shown["target_count"] == 2, f"a dry run shows {shown['target_count']} items where the new month leaves 2"
        scene.charged(company, 2)
        scene.rows("update public.replay_budgets set daily_limit = 3, monthly_limit = 3 where company_id = %s", company)
        scene.run(company, max=1)
        scene.charged(company, 3)
    scene.seen.control("the same row with this month is refused: drill/budgets/monthly-limit-binds")


@check("drill/budgets/view-forgets-past-periods", needs=SQL, covers=("G08",), severity=Severity.WARN)
def test_view_forgets_past_periods(scene: Scene) -> None:
    """replay_budgets_status shows what is left, and counts what was used in a past period as nothing.

    An operator who reads on a new day that nothing is left waits, or raises the limit, for no reason.
    """
    company = scene.company()
    scene.budget(company, daily_limit=7919, monthly_limit=104_729, daily_used=17, monthly_used=29)
    shown = _shown(scene, company)
    assert {7902, 104_700} <= set(shown), f"the view shows {shown}; 7902 of 7919 and 104700 of 104729 are left"
    scene.seen.control("what is left of the current periods is shown")
    _roll_back(scene, company, "day")
    shown = _shown(scene, company)
    assert {7919, 104_700} <= set(shown), f"the view shows {shown} of a row of yesterday; 7919 and 104700 are left"
    _roll_back(scene, company, "month")
    shown = _shown(scene, company)
    whole = shown.count(7919) > 1 and shown.count(104_729) > 1
    assert whole, f"the view shows {shown} of a row of past periods; 7919 and 104729 are left, whatever was used then"
    scene.seen.count(6)


@drill("drill/budgets/day-of-utc", covers=("G05",))
def test_day_of_utc(scene: Scene) -> None:
    """A budget row gets the current day in UTC, whatever the time zone of the session that writes it.

    A row written in another time zone gets another day, and what it says was used counts as nothing.
    """
    company = scene.company()
    for zone in ("Etc/GMT+12", "UTC", "Etc/GMT-14"):  # it is another day in one of them at any time
        with scene.transaction() as connection:
            execute(connection, "delete from public.replay_budgets where company_id = %s", company)
            execute(connection, "select set_config('timezone', %s, true)", zone)
            execute(connection, "insert into public.replay_budgets (company_id) values (%s)", company)
            day = value(connection, "select day::text from public.replay_budgets where company_id = %s", company)
            due = value(
                connection, "select (now() at time zone 'UTC')::date::text"
            )  # the same instant as the default's
        assert str(day)[:10] == due, f"a row written in {zone} is of the day {day}; in UTC it is {due}"
        scene.seen.count()
    scene.seen.control("a session in UTC writes the day of UTC")


def _shown(scene: Scene, company: str) -> list[int]:
    """All numbers of the tenant's row in the view: how the remaining amounts are called is not promised."""
    row = scene.one("select * from public.replay_budgets_status where company_id = %s", company)
    return [int(v) for v in row.values() if isinstance(v, int | Decimal)]
