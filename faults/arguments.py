"""Faults of a replay's arguments together, and of what items say: one is lost, or means another thing."""

import dataclasses
import json
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from faults.altered import altered, around, instead_of
from faults.budget import BUDGETS
from faults.catalogue import service
from faults.probe import Probe
from faults.requests import REQUEST, is_dry, remembering, requesting
from replay_service.claim import Selection
from replay_service.composition import build_parts
from replay_service.database import Connection
from replay_service.parts import Parts
from replay_service.problems import Refusal
from replay_service.settings import Settings
from replay_service.tenants import ReplayFlags
from replay_service.validation import ReplayRequest, read_replay

OTHERS = "drill/safety-rails/other-tenants-untouched"
OF_TENANT = "company_id = %(company_id)s::uuid"
TOGETHER = ("drill/safety-rails/arguments-together",)
DISCARDED = "drill/dlq/discarded-stays-discarded"
LATER = {"retry_after": "2999-01-01T00:00:00Z"}


def _shown(probe: Probe, letter: dict[str, Any], **fields: Any) -> int:
    """How many items a dry run shows for a tenant with one dead letter with these columns."""
    with probe.tenant() as company:
        probe.letters(company, 1, **letter)
        return len(probe.replay(company, dry_run=True, **fields).json()["items"])


@service(lambda p: _dry_while_off(p) == 200, "drill/ledger/refused-however-asked", "feature_disabled")
@around("read_flags", of=remembering)
async def dry_runs_ask_no_outbox(release: Parts, conn: Connection, company_id: str) -> ReplayFlags:
    """A dry run does not check `outbox.enabled`."""
    flags = await release.read_flags(conn, company_id)
    return dataclasses.replace(flags, outbox_enabled=True) if is_dry() else flags


def _dry_while_off(probe: Probe) -> int:
    with probe.tenant() as company:
        probe.switch_off(company)
        return probe.replay(company, dry_run=True).status_code


@service(lambda p: _shown(p, {"error_type": "other"}, force=True, error_type="wanted") == 1, TOGETHER, "error_type")
def force_lifts_the_error_type(settings: Settings) -> Parts:
    """`force` drops the `error_type` filter, too."""
    return requesting(settings, lambda r: dataclasses.replace(r, error_type=None) if r.force else r)


@service(lambda p: _shown_of_another(p, force=True) == 1, OTHERS, ("another tenant", "force"))
def force_lifts_the_tenant(settings: Settings) -> Parts:
    """`force` drops the tenant filter, too: a replay takes the items of every tenant."""
    return altered(settings, "pick_items", (f"{OF_TENANT}\n", f"(%(force)s OR {OF_TENANT})\n"))


@service(lambda p: _shown_of_another(p, error_type="wanted") == 1, OTHERS, ("another tenant", "error_type"))
def error_type_of_every_tenant(settings: Settings) -> Parts:
    """With `error_type`, a replay takes items of every tenant."""
    either = f"({OF_TENANT} OR %(error_type)s::text IS NOT NULL)\n"
    return altered(settings, "pick_items", (f"{OF_TENANT}\n", either))


def _shown_of_another(probe: Probe, **fields: Any) -> int:
    """How many items of another tenant a dry run shows to a tenant without items."""
    with probe.tenant() as company, probe.tenant() as other:
        ids = probe.letters(other, 1, error_type="wanted")
        shown = probe.replay(company, max=50, dry_run=True, **fields).json()["items"]
        return len({*ids} & {*shown})


@service(lambda p: _shown(p, LATER, force=True) == 0, TOGETHER, "force")
def dry_run_forgets_force(settings: Settings) -> Parts:
    """A dry run forgets `force`: it shows what is due, and the real run takes the rest, too."""
    return requesting(settings, lambda r: dataclasses.replace(r, force=False) if r.dry_run else r)


@service(lambda p: _without_a_month(p) == 200, "drill/dry-run/no-monthly-budget-like-real", ("429", "dry"))
def dry_run_knows_no_month(settings: Settings) -> Parts:
    """A dry run checks the daily budget only, not the monthly one."""
    return altered(settings, "read_budget", ("monthly_limit::bigint - CASE", "1000000::bigint - CASE"))


def _without_a_month(probe: Probe) -> int:
    with probe.tenant() as company:
        probe.rows("INSERT INTO replay_budgets (company_id, monthly_limit, monthly_used) VALUES (%s, 5, 5)", company)
        return probe.replay(company, dry_run=True).status_code


@service(lambda p: _charged_for_one_of_two(p) == 2, f"{BUDGETS}/named-items-are-cut-and-charged", ("charged", "named"))
@around("charge", of=remembering)
async def named_items_are_charged_whole(release: Parts, conn: Connection, company_id: str, items: int) -> None:
    """A replay of named items charges the number of names, not the number of items moved."""
    request = REQUEST.get()
    named = len(request.dlq_ids or ()) if request else 0
    await release.charge(conn, company_id, named or items)


def _charged_for_one_of_two(probe: Probe) -> int:
    """The number of items charged for two ids, one of them unknown."""
    with probe.tenant() as company:
        known = probe.letters(company, 1)[0]
        probe.replay(company, dlq_ids=[known, "00000000-0000-4000-8000-0000000000aa"])
        return int(probe.value("SELECT daily_used FROM replay_budgets WHERE company_id = %s", company))


@service(
    lambda p: _shown(p, {"error_type": "wanted"}, error_type=" wanted ") == 1,
    "drill/safety-rails/pattern-prefix",
    "error_type",
)
def error_type_is_trimmed(settings: Settings) -> Parts:
    """Spaces around an `error_type` are trimmed before it is compared."""
    change = ("error_type = %(error_type)s::text)", "error_type = btrim(%(error_type)s::text))")
    return altered(settings, "pick_items", change)


@service(
    lambda p: _shown(p, {"error_type": "unknown"}, error_type="wanted") == 1,
    "drill/safety-rails/pattern-number",
    "error_type",
)
def unknown_is_every_type(settings: Settings) -> Parts:
    """With `error_type`, items whose type is unknown are taken, too."""
    change = ("error_type = %(error_type)s::text)", "error_type IN ('unknown', %(error_type)s::text))")
    return altered(settings, "pick_items", change)


@service(lambda p: _shown(p, {"error_type": f"{'w' * 64}a"}, error_type=f"{'w' * 64}b") == 1, TOGETHER, "error_type")
def error_types_are_alike_in_64_characters(settings: Settings) -> Parts:
    """Only the first 64 characters of an `error_type` are compared."""
    alike = ("error_type = %(error_type)s::text", "left(error_type, 64) = left(%(error_type)s::text, 64)")
    return altered(settings, "pick_items", alike)


@service(lambda p: _named(p, {"error_type": "Wanted"}, error_type="%anted") == 1, TOGETHER, "error_type")
def named_items_match_a_pattern(settings: Settings) -> Parts:
    """With `dlq_ids`, `error_type` is matched as a pattern: items of other error types are taken, too."""
    return altered(settings, "pick_items_by_id", ("error_type = %(error_type)s", "error_type LIKE %(error_type)s"))


@service(lambda p: _named(p, {"retry_count": 7, "max_retries": 9}) == 0, TOGETHER, "items")
def named_items_have_five_retries(settings: Settings) -> Parts:
    """A named item may be retried five times, whatever its row allows."""
    return altered(settings, "pick_items_by_id", ("retry_count < max_retries", "retry_count < least(max_retries, 5)"))


def _named(probe: Probe, letter: dict[str, Any], **fields: Any) -> int:
    """As `_shown`, where the letter is named."""
    with probe.tenant() as company:
        ids = probe.letters(company, 1, **letter)
        return len(probe.replay(company, dry_run=True, dlq_ids=ids, **fields).json()["items"])


@service(lambda p: _discarded_meanwhile(p, is_named=True) == "replaying", DISCARDED, "discarded while")
def named_items_are_not_locked(settings: Settings) -> Parts:
    """A named item is not locked: one that is discarded at that moment is replayed all the same."""
    return altered(settings, "pick_items_by_id", ("  FOR UPDATE SKIP LOCKED\n", ""))


@service(lambda p: _discarded_meanwhile(p, is_named=False) == "replaying", DISCARDED, "discarded while")
def picked_items_are_not_locked(settings: Settings) -> Parts:
    """A selected item is not locked: one that is discarded at that moment is replayed all the same."""
    return altered(settings, "pick_items", ("  FOR UPDATE SKIP LOCKED\n", ""))


def _discarded_meanwhile(probe: Probe, *, is_named: bool) -> str:
    """What becomes of an item that somebody discards while a replay comes for it; the run may be over by then."""
    with (
        probe.tenant() as company,
        psycopg.connect(probe.environ["DATABASE_URL"]) as operator,
        ThreadPoolExecutor(1) as beside,
    ):
        ids = probe.letters(company, 1, event_type="drill.slow", payload=Jsonb({"drill": {"delay_ms": 3000}}))
        operator.execute("UPDATE dead_letter_queue SET status = 'discarded' WHERE id = %s", (ids[0],))
        answer = beside.submit(probe.replay, company, **({"dlq_ids": ids} if is_named else {}))
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE %s"
        probe.within(2, lambda: answer.done() or bool(probe.value(waits, "%dead_letter_queue%")))
        operator.commit()
        answer.result(10)
        return str(probe.value("SELECT status FROM dead_letter_queue WHERE company_id = %s", company))


@service(lambda p: _status_after_a_month(p) == 429, f"{BUDGETS}/new-month-starts-at-zero", ("429", "dry run"))
def dry_run_counts_last_month(settings: Settings) -> Parts:
    """A dry run counts the budget used in an earlier month against this one."""
    past = "CASE WHEN month = date_trunc('month', now() AT TIME ZONE 'UTC')::date THEN monthly_used ELSE 0 END"
    return altered(settings, "read_budget", (past, "monthly_used"))


def _status_after_a_month(probe: Probe) -> int:
    with probe.tenant() as company:
        probe.rows(
            "INSERT INTO replay_budgets (company_id, monthly_limit, monthly_used, day, month)"
            " VALUES (%s, 5, 5, '2020-01-01', '2020-01-01')",
            company,
        )
        return probe.replay(company, dry_run=True).status_code


@service(lambda p: _budget_rows_of_a_dry_run(p) == 1, "drill/dry-run/writes-nothing", "replay_budgets")
def dry_run_makes_a_budget(settings: Settings) -> Parts:
    """A dry run of a tenant without a budget row makes one."""
    release = build_parts(settings)

    def kept(conn: Connection, *, keep: bool = True) -> AbstractAsyncContextManager[None]:
        return release.transaction(conn, keep=True)

    return dataclasses.replace(release, preview_budget=release.reserve_budget, transaction=kept)


def _budget_rows_of_a_dry_run(probe: Probe) -> int:
    with probe.tenant() as company:
        probe.replay(company, dry_run=True)
        return int(probe.value("SELECT count(*) FROM replay_budgets WHERE company_id = %s", company))


@service(lambda p: _told_of_a_resolved_item(p) == [], "drill/dry-run/foreign-ids-hidden", "ineligible")
@around("describe")
async def dry_run_tells_no_ineligible(
    release: Parts, conn: Connection, request: ReplayRequest, items: Sequence[str], limit: int
) -> Selection:
    """A dry run does not tell which of the named items it would leave."""
    found = await release.describe(conn, request, items, limit)
    return dataclasses.replace(found, ineligible=()) if request.dry_run else found


def _told_of_a_resolved_item(probe: Probe, *, of_another: bool = False) -> Any:
    with probe.tenant() as company, probe.tenant() as other:
        ids = probe.letters(other if of_another else company, 1, status="resolved")
        return probe.replay(company, dry_run=True, dlq_ids=ids).json()["ineligible"]


@service(
    lambda p: _told_of_a_resolved_item(p, of_another=True) != [],
    ("drill/safety-rails/foreign-ids-not-found", "drill/dry-run/foreign-ids-hidden"),
    ("not_found", "ineligible"),
)
def settled_foreign_ids_told(settings: Settings) -> Parts:
    """Another tenant's items that no replay would take are `ineligible`, which tells that they exist."""
    settled = f"({OF_TENANT} OR status <> 'pending' OR retry_after > now())"
    return altered(settings, "describe_items", (f"WHERE {OF_TENANT}", f"WHERE {settled}"))


@service(lambda p: _takes_51_ids(p), "drill/safety-rails/dlq-ids-over-50-for-one", "ids")
@instead_of("read_replay")
def many_ids_beside_max(raw: bytes) -> ReplayRequest:
    """With `max`, more than 50 ids are accepted, and those beyond 50 are silently dropped."""
    try:
        return read_replay(raw)
    except Refusal as refusal:
        fields = json.loads(raw)
        if refusal.code != "batch_too_large" or not 1 <= fields.get("max", 0) <= 50:
            raise
        return read_replay(json.dumps(fields | {"dlq_ids": fields["dlq_ids"][:50]}).encode())


def _takes_51_ids(probe: Probe) -> bool:
    with probe.tenant() as company:
        ids = [str(uuid.uuid4()) for _ in range(51)]
        return probe.replay(company, dlq_ids=ids, max=1, dry_run=True).status_code == 200


@service(lambda p: _takes_what_has_no_retry(p), "drill/dlq/max-retries-is-the-end", "retries left")
def no_retry_is_the_default(settings: Settings) -> Parts:
    """A named item whose `max_retries` is 0 may be retried five times."""
    return altered(settings, "pick_items_by_id", ("< max_retries", "< coalesce(nullif(max_retries, 0), 5)"))


@service(lambda p: _takes_what_has_no_retry(p, named=False), "drill/dlq/max-retries-is-the-end", "retries left")
def no_retry_is_no_end(settings: Settings) -> Parts:
    """An item whose `max_retries` is 0 is replayed without limit, unless it is named."""
    own = "retry_count < max_retries"
    return altered(settings, "pick_items", (own, f"(max_retries = 0 OR {own})"))


def _takes_what_has_no_retry(probe: Probe, *, named: bool = True) -> bool:
    with probe.tenant() as company:
        ids = {"dlq_ids": probe.letters(company, 1, max_retries=0)}
        return bool(probe.replay(company, dry_run=True, **(ids if named else {})).json()["items"])


@service(lambda p: _cut_times(p), "drill/safety-rails/oldest-first", "oldest")
def ages_are_cut_to_milliseconds(settings: Settings) -> Parts:
    """Items are ordered by whole milliseconds: older ones of the same millisecond may come later."""
    ages = ("ORDER BY created_at, id\n  LIMIT", "ORDER BY date_trunc('milliseconds', created_at), id\n  LIMIT")
    return altered(settings, "pick_items", ages)


def _cut_times(probe: Probe) -> bool:
    with probe.tenant() as company:
        younger, older = sorted(probe.letters(company, 2))
        at = "update dead_letter_queue set created_at = %s::timestamptz where id = %s"
        probe.rows(at, "2026-01-01 00:00:00.000102Z", younger)
        probe.rows(at, "2026-01-01 00:00:00.000101Z", older)
        return bool(probe.replay(company, max=1, dry_run=True).json()["items"] == [younger])


@service(
    lambda p: p.replay("017f22e2-79b0-7cc3-98c4-dc0c0c07398f").status_code == 400,
    "drill/safety-rails/all-fields-accepted",
    "400",
)
@instead_of("read_replay")
def uuids_of_one_version(raw: bytes) -> ReplayRequest:
    """Ids that are not UUIDs of version 4 are refused."""
    request = read_replay(raw)
    if any(one[14] != "4" for one in (request.company_id, *(request.dlq_ids or ()))):
        raise Refusal("invalid_request", "An id is no UUID of version 4.")
    return request


@service(lambda p: bool(_shown(p, {}, error_type="all")), TOGETHER, "other types")
def all_is_every_error_type(settings: Settings) -> Parts:
    """The `error_type` all means every one."""
    asked = "(%(error_type)s::text IS NULL"
    return altered(settings, "pick_items", (asked, f"{asked} OR %(error_type)s::text = 'all'"))
