"""Faults where two things meet: two steps of a request, an error and its answer, a new period and its limits."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any

import psycopg

from faults.altered import altered, around
from faults.budget import BUDGETS, NONE_LEFT, set_budget
from faults.catalogue import service
from faults.probe import Probe
from faults.requests import requesting
from replay_service.composition import build_parts
from replay_service.database import Connection
from replay_service.exchange import Call, Caller, Reply
from replay_service.parts import Parts
from replay_service.problems import Refusal, invalid
from replay_service.settings import Settings
from replay_service.tenants import ReplayFlags
from replay_service.validation import ReplayRequest, read_replay

COMMIT = "drill/outbox/commit-that-fails"
INSIDES = "drill/ledger/no-answer-shows-insides"
NEW_DAY = f"{BUDGETS}/new-day-starts-at-zero"
_TODAY = "day = (now() AT TIME ZONE 'UTC')::date"
_THIS_MONTH = "month = date_trunc('month', now() AT TIME ZONE 'UTC')::date THEN monthly_used"
_FULL = b"""SELECT true FROM public.edge_rate_limits r
    WHERE r.key LIKE 'replay:' || %s || ':%%' AND cardinality(r.hits) >= 3"""
_OTHERS = b"SELECT id::text, name FROM public.companies WHERE id <> %s::uuid ORDER BY id DESC LIMIT 3"


@service(None, COMMIT, "answered 202", production=False)
@around("accept_event")
async def timeouts_of_events_are_overlooked(release: Parts, parts: Parts, call: Call) -> Reply:
    """An event that a timeout of the database stops is answered as accepted, and lost."""
    try:
        return await release.accept_event(parts, call)
    except psycopg.errors.QueryCanceled:
        return Reply(202, {"event_id": parts.new_id(), "path": "outbox", "duplicate": False})


@service(None, (COMMIT, "drill/idempotency/crash-leaves-no-key"), "answered 200", production=False)
@around("replay")
async def outages_are_empty_replays(release: Parts, parts: Parts, call: Call) -> Reply:
    """A replay that is cut off is answered as one that found nothing."""
    try:
        return await release.replay(parts, call)
    except psycopg.OperationalError:
        asked = read_replay(call.body)
        told = {"company_id": asked.company_id, "idempotency_key": asked.idempotency_key, "dry_run": asked.dry_run}
        lists: dict[str, Any] = {"target_count": 0, "items": [], "not_found": [], "ineligible": []}
        return Reply(200, {"status": "completed", "replay_run_id": parts.new_id(), "duplicate": False, **told, **lists})


@service(
    lambda p: _code(p, (p.pause, p.switch_off)) == "agents_paused",
    "drill/flags/refused-before-anything-else",
    "agents_paused",
)
@around("read_flags")
async def the_pause_comes_before_the_flags(release: Parts, conn: Connection, company_id: str) -> ReplayFlags:
    """A paused tenant that is switched off is refused for the pause: its flag is asked later."""
    if await release.is_paused(conn, company_id):
        raise Refusal("agents_paused", "The agents of this company are paused.")
    return await release.read_flags(conn, company_id)


def _code(probe: Probe, before: Sequence[Callable[[str], None]] = (), **fields: Any) -> str:
    """The code of the refusal of a replay."""
    with probe.tenant() as company:
        for one in before:
            one(company)
        return str(probe.replay(company, **fields).json().get("code"))


@service(lambda p: _stranger_at_a_used_up_limit(p) == 429, "drill/rate-limit/forbidden-do-not-count", "429")
@around("is_authorised")
async def a_used_up_limit_comes_before_the_rights(
    release: Parts, conn: Connection, caller: Caller, company_id: str
) -> bool:
    """A stranger is told that the limit of a tenant is used up: its rights are looked at later."""
    is_fine = await release.is_authorised(conn, caller, company_id)
    if not is_fine and await (await conn.execute(_FULL, (company_id,))).fetchone():
        raise Refusal("rate_limited", "Too many requests for this company.", headers={"retry-after": "60"})
    return is_fine


def _stranger_at_a_used_up_limit(probe: Probe) -> int:
    with probe.tenant() as company, probe.tenant() as own:
        for _ in range(3):
            probe.replay(company, dry_run=True)
        token = probe.token({"role": "company_admin", "company_id": own})
        body = json.dumps({"company_id": company}).encode()
        return probe.send(body, probe.as_token(token)).status_code


def _telling(code: str, column: int) -> Callable[[Settings], Parts]:
    """The service whose refusal with this code tells of other tenants, by their ids (0) or names (1)."""

    @around("replay")
    async def build(release: Parts, parts: Parts, call: Call) -> Reply:
        try:
            return await release.replay(parts, call)
        except Refusal as refusal:
            if refusal.code != code:
                raise
            async with parts.database.connection() as conn:
                rows = await (await conn.execute(_OTHERS, (read_replay(call.body).company_id,))).fetchall()
            told = f"{refusal.detail} So it is for {', '.join(row[column] for row in rows)}."
            raise Refusal(code, told, headers=refusal.headers, members=refusal.members) from refusal

    return build


@service(lambda p: _tells(p, lambda company: set_budget(p, company, NONE_LEFT), 0), INSIDES, "other tenants")
def budgets_of_others_are_told(settings: Settings) -> Parts:
    """The refusal by a spent budget tells the ids of other tenants."""
    return _telling("budget_exhausted", 0)(settings)


@service(lambda p: _tells(p, p.switch_off, 1), INSIDES, "other tenants")
def names_of_others_are_told(settings: Settings) -> Parts:
    """The refusal by a flag tells the names of other tenants."""
    return _telling("feature_disabled", 1)(settings)


def _tells(probe: Probe, before: Callable[[str], object], column: int) -> bool:
    with probe.tenant() as other, probe.tenant() as company:
        before(company)
        said = probe.replay(company).text
        named = probe.rows("SELECT id::text, name FROM companies WHERE id <> %s", company)
        return other in said or any(str(row[column]) in said for row in named)


@service(lambda p: _shown_in_capitals(p) == 0, "drill/dry-run/foreign-ids-hidden", "items")
def dry_runs_know_small_letters_alone(settings: Settings) -> Parts:
    """A dry run compares named ids as they are written: one in capitals is not found."""
    parts = build_parts(settings)

    def read(raw: bytes) -> ReplayRequest:
        request = read_replay(raw)
        if not request.dry_run or request.dlq_ids is None:
            return request
        asked = {*json.loads(raw)["dlq_ids"]}
        return dataclasses.replace(request, dlq_ids=tuple(i if i in asked else parts.new_id() for i in request.dlq_ids))

    return dataclasses.replace(parts, read_replay=read)


def _shown_in_capitals(probe: Probe) -> int:
    with probe.tenant() as company:
        ids = [one.upper() for one in probe.letters(company, 1)]
        return len(probe.replay(company, dry_run=True, dlq_ids=ids).json()["items"])


@service(lambda p: _told_of_two_spellings(p) == 2, "drill/dry-run/foreign-ids-hidden", "not_found")
def spellings_are_told_apart(settings: Settings) -> Parts:
    """An id that is named in capitals and in small letters counts twice: once as an item, once as not found."""

    def read(raw: bytes) -> ReplayRequest:
        request = read_replay(raw)
        if request.dlq_ids is None or len(asked := {*json.loads(raw)["dlq_ids"]}) == len(request.dlq_ids):
            return request
        return dataclasses.replace(request, dlq_ids=tuple(sorted(asked)))

    return dataclasses.replace(build_parts(settings), read_replay=read)


def _told_of_two_spellings(probe: Probe) -> int:
    with probe.tenant() as company:
        (one,) = probe.letters(company, 1)
        answer = probe.replay(company, dry_run=True, dlq_ids=[one, one.upper()]).json()
        return sum(len(answer[name]) for name in ("items", "not_found", "ineligible"))


@service(
    lambda p: _code(p, idempotency_key='a"b', dry_run=True) == "invalid_request",
    "drill/safety-rails/key-of-200-accepted",
    "idempotency_key",
)
def quotes_are_not_printable(settings: Settings) -> Parts:
    """A quote or a backslash in a key is refused as not printable."""

    def checked(request: ReplayRequest) -> ReplayRequest:
        if {'"', "\\"} & {*(request.idempotency_key or "")}:
            raise invalid("idempotency_key", "must be printable")
        return request

    return requesting(settings, checked)


@service(lambda p: _limits_after_a_charge(p) == (500, 10_000), NEW_DAY, "limits")
def new_periods_have_the_default_limits(settings: Settings) -> Parts:
    """The first charge of a new day or month sets the limits back to the default ones."""
    anew = f"SET daily_limit = CASE WHEN {_TODAY} THEN daily_limit ELSE 500 END,"
    anew += f" monthly_limit = CASE WHEN {_TODAY} THEN monthly_limit ELSE 10000 END,"
    return altered(settings, "charge_budget", ("SET\n", f"{anew}\n"))


def _limits_after_a_charge(probe: Probe) -> tuple[int, int]:
    with probe.tenant() as company:
        probe.letters(company, 1)
        set_budget(probe, company, {"daily_limit": 7, "monthly_limit": 70, "day": "2020-01-01", "month": "2020-01-01"})
        probe.replay(company)
        day, month = probe.rows("SELECT daily_limit, monthly_limit FROM replay_budgets WHERE company_id = %s", company)[
            0
        ]
        return int(day), int(month)


@service(lambda p: _status_in_a_spent_month(p) == 500, NEW_DAY, "500", from_day=2)
def new_days_free_the_month(settings: Settings) -> Parts:
    """The month does not bind the first replay of a day, which the database then refuses: it ends in a server error."""
    return altered(settings, "lock_budget", (f"CASE WHEN {_THIS_MONTH}", f"CASE WHEN {_TODAY} AND {_THIS_MONTH}"))


def _status_in_a_spent_month(probe: Probe) -> int:
    with probe.tenant() as company:
        probe.letters(company, 1)
        set_budget(probe, company, {"monthly_limit": 5, "monthly_used": 5, "day": "2020-01-01"})
        return probe.replay(company).status_code


@service(lambda p: _large_direct_payload(p) == {}, "drill/flags/outbox-off-takes-direct-path", "payload")
def large_direct_events_are_empty(settings: Settings) -> Parts:
    """The payload of an event over eight kilobytes is empty where it takes the direct path."""
    sent = "(%(body)s::jsonb) -> 'payload', route.path"
    cut = f"CASE WHEN route.path = 'direct' AND length(%(body)s) > 8192 THEN '{{}}' ELSE {sent[:-12]} END, route.path"
    return altered(settings, "emit_event", (sent, cut))


def _large_direct_payload(probe: Probe) -> Any:
    with probe.tenant() as company:
        probe.switch_off(company)
        probe.event(company, payload={"text": "x" * 9000})
        return probe.value("SELECT payload FROM events WHERE company_id = %s", company)


@service(lambda p: _moved_of(p, 50) == 49, "drill/safety-rails/max-defaults-to-the-ids", "49 of 50")
def the_fiftieth_stays(settings: Settings) -> Parts:
    """Of fifty named items one is left behind: the last is looked for below the limit."""

    def cut(request: ReplayRequest) -> ReplayRequest:
        is_full = request.max_items == len(request.dlq_ids or ()) == 50
        return dataclasses.replace(request, max_items=49) if is_full else request

    return requesting(settings, cut)


def _moved_of(probe: Probe, count: int) -> int:
    with probe.tenant() as company:
        return len(probe.replay(company, dlq_ids=probe.letters(company, count)).json()["items"])


@service(lambda p: _direct_type(p) == "bezahlt.?", "drill/outbox/event-as-sent", "event_type")
def direct_types_are_ascii(settings: Settings) -> Parts:
    """On the direct path a letter of an event's type that is not ASCII becomes a question mark."""
    ascii_only = "regexp_replace(%(event_type)s::text, '[^[:ascii:]]', '?', 'g')"
    told = f"CASE route.path WHEN 'direct' THEN {ascii_only} ELSE %(event_type)s END,"
    return altered(settings, "emit_event", ("%(event_type)s,", told))


def _direct_type(probe: Probe) -> Any:
    with probe.tenant() as company:
        probe.switch_off(company)
        probe.event(company, event_type="bezahlt.\u00e9")
        return probe.value("SELECT event_type FROM events WHERE company_id = %s", company)
