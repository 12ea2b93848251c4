"""Faults of a replay's arguments together: one is lost, or means another thing, beside another."""

from __future__ import annotations

import dataclasses
from typing import Any

from faults.altered import altered
from faults.budget import BUDGETS
from faults.catalogue import service
from faults.probe import Probe
from faults.requests import REQUEST, remembering, requesting
from replay_service.database import Connection
from replay_service.parts import Parts
from replay_service.settings import Settings

TOGETHER = ("drill/safety-rails/arguments-together",)
LATER = {"retry_after": "2999-01-01T00:00:00Z"}


def _shown(probe: Probe, letter: dict[str, Any], **fields: Any) -> int:
    """How many items a dry run shows of a tenant with one such letter."""
    with probe.tenant() as company:
        probe.letters(company, 1, **letter)
        return len(probe.replay(company, dry_run=True, **fields).json()["items"])


@service(
    "`force` lifts the error type, too.",
    lambda p: _shown(p, {"error_type": "other"}, force=True, error_type="wanted") == 1,
    TOGETHER,
    names=("error_type",),
)
def force_lifts_the_error_type(settings: Settings) -> Parts:
    return requesting(settings, lambda r: dataclasses.replace(r, error_type=None) if r.force else r)


@service(
    "A dry run forgets `force`: it shows what is due, and the real run takes the rest, too.",
    lambda p: _shown(p, LATER, force=True) == 0,
    TOGETHER,
    names=("force",),
)
def dry_run_forgets_force(settings: Settings) -> Parts:
    return requesting(settings, lambda r: dataclasses.replace(r, force=False) if r.dry_run else r)


@service(
    "A dry run looks at the budget of the day alone.",
    lambda p: _without_a_month(p) == 200,
    ("drill/dry-run/no-monthly-budget-like-real",),
    names=("429", "dry"),
)
def dry_run_knows_no_month(settings: Settings) -> Parts:
    return altered(settings, "read_budget", ("monthly_limit::bigint - CASE", "1000000::bigint - CASE"))


def _without_a_month(probe: Probe) -> int:
    with probe.tenant() as company:
        probe.rows("INSERT INTO replay_budgets (company_id, monthly_limit, monthly_used) VALUES (%s, 5, 5)", company)
        return probe.replay(company, dry_run=True).status_code


@service(
    "Items that are named are charged by the names, not by what was moved.",
    lambda p: _charged_for_one_of_two(p) == 2,
    (f"{BUDGETS}/named-items-are-cut-and-charged",),
    names=("charged", "named"),
)
def named_items_are_charged_whole(settings: Settings) -> Parts:
    release = remembering(settings)

    async def charge(conn: Connection, company_id: str, items: int) -> None:
        request = REQUEST.get()
        named = len(request.dlq_ids or ()) if request else 0
        await release.charge(conn, company_id, named or items)

    return dataclasses.replace(release, charge=charge)


def _charged_for_one_of_two(probe: Probe) -> int:
    """What is charged for two ids of which one is known."""
    with probe.tenant() as company:
        known = probe.letters(company, 1)[0]
        probe.replay(company, dlq_ids=[known, "00000000-0000-4000-8000-0000000000aa"])
        return int(probe.value("SELECT daily_used FROM replay_budgets WHERE company_id = %s", company))
