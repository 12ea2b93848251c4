"""Faults of what a dry run shows: other items than the real run takes."""

import dataclasses

from faults.altered import altered, around
from faults.catalogue import service
from faults.probe import Probe
from faults.requests import REQUEST, remembering, requesting
from faults.selection import looking
from replay_service.audit import AuditRow
from replay_service.database import Connection
from replay_service.parts import Parts
from replay_service.settings import Settings


@service(lambda p: _shows_what_is_under_way(p), "drill/safety-rails/replaying-not-replayed", "not eligible")
def what_is_under_way_is_shown(settings: Settings) -> Parts:
    """A dry run also shows items that another run is replaying."""
    return looking(settings, ("status = 'pending'", "status IN ('pending', 'replaying')"))


def _shows_what_is_under_way(probe: Probe) -> bool:
    with probe.tenant() as company:
        probe.letters(company, 1, status="replaying")
        return bool(probe.replay(company, dry_run=True).json()["items"])


@service(lambda p: _shows_a_page(p), "drill/safety-rails/max-defaults-to-the-ids", "a dry run shows")
def a_page_is_shown(settings: Settings) -> Parts:
    """A dry run shows 25 items at most, whatever it is asked."""
    return requesting(settings, lambda r: dataclasses.replace(r, max_items=min(r.max_items, 25)) if r.dry_run else r)


def _shows_a_page(probe: Probe) -> bool:
    with probe.tenant() as company:
        probe.letters(company, 30)
        return len(probe.replay(company, max=30, dry_run=True).json()["items"]) == 25


@service(lambda p: _shown_of_a_month(p) == 4, "drill/dry-run/cut-by-the-budget", "plain")
def months_do_not_cut(settings: Settings) -> Parts:
    """A dry run checks only whether monthly budget is left, not how much: it shows too many items."""
    month = "CASE WHEN month = date_trunc('month', now() AT TIME ZONE 'UTC')::date THEN monthly_used ELSE 0 END"
    left = f"monthly_limit::bigint - {month}"
    return altered(settings, "read_budget", (left, f"CASE WHEN {left} > 0 THEN daily_limit ELSE 0 END"))


def _shown_of_a_month(probe: Probe) -> int:
    with probe.tenant() as company:
        probe.letters(company, 4)
        probe.rows("INSERT INTO replay_budgets (company_id, monthly_limit) VALUES (%s, 2)", company)
        return len(probe.replay(company, dry_run=True).json()["items"])


@service(lambda p: _rows_of_an_empty_look(p) == 0, "drill/audit/dry-run", "of 0 items")
@around("append_audit")
async def empty_looks_leave_no_row(release: Parts, conn: Connection, row: AuditRow) -> None:
    """A dry run that finds nothing is not audited."""
    if row.action != "dlq_replay_dry_run" or row.target_count:
        await release.append_audit(conn, row)


def _rows_of_an_empty_look(probe: Probe) -> int:
    with probe.tenant() as company:
        probe.replay(company, dry_run=True)
        return int(probe.value("SELECT count(*) FROM audit_logs WHERE scope = %s", company))


@service(lambda p: _looks_without_budget(p) == 200, "drill/dry-run/no-budget-like-real", "dlq_ids")
@around("preview_budget", of=remembering)
async def named_looks_ask_no_budget(release: Parts, conn: Connection, company: str) -> int:
    """A dry run of named items is not refused for a spent budget: it shows one."""
    left, request = await release.preview_budget(conn, company), REQUEST.get()
    return max(left, 1) if request and request.dlq_ids else left


def _looks_without_budget(probe: Probe) -> int:
    with probe.tenant() as company:
        probe.rows("INSERT INTO replay_budgets (company_id, daily_limit) VALUES (%s, 0)", company)
        return probe.replay(company, dry_run=True, dlq_ids=probe.letters(company, 1)).status_code


@service(lambda p: not _looks_as_answered(p), "drill/audit/dry-run", "request id")
@around("append_audit")
async def looks_under_another_id(release: Parts, conn: Connection, row: AuditRow) -> None:
    """The audit row of a dry run has a request id that no answer had."""
    is_look = row.action == "dlq_replay_dry_run"
    await release.append_audit(conn, dataclasses.replace(row, request_id=release.new_id()) if is_look else row)


def _looks_as_answered(probe: Probe) -> bool:
    with probe.tenant() as company:
        told = probe.replay(company, dry_run=True).headers["X-Request-Id"]
        return bool(probe.value("SELECT request_id FROM audit_logs WHERE scope = %s", company) == told)
