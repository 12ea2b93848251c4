"""Faults under one condition: a promise that is kept, but not for one caller, row or text, or at one moment."""

import dataclasses
import json
import unicodedata
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from faults.altered import around
from faults.catalogue import service
from faults.probe import Probe
from faults.requests import requesting
from replay_service.audit import ONCE_A_MINUTE, RefusalLog, RefusalNote
from replay_service.composition import build_parts
from replay_service.database import Connection, fetch_row, fetch_value
from replay_service.exchange import Call, Caller, RawHeaders, Reply
from replay_service.idempotency import Run
from replay_service.parts import Parts
from replay_service.problems import Refusal, invalid, unauthenticated
from replay_service.settings import Settings
from replay_service.strict_json import parse
from replay_service.validation import REPLAY_FIELDS, EventRequest, ReplayRequest, read_replay

NOBODY = "00000000-0000-4000-8000-00000000dead"
LATER = "drill/rate-limit/later-refusals-count"
HELD_LAG, LAG = "drill/held/does-not-count-as-lag", "drill/observability/waiting-events-show"
OLD = b"""SELECT response FROM public.replay_runs
    WHERE idempotency_key = %s AND company_id = %s AND requested_at < now() - interval '1 day'"""


@service(lambda p: _code_over_the_limit(p, p.switch_off) == "feature_disabled", LATER, "switched off")
@around("admit")
async def flags_come_before_a_used_up_limit(release: Parts, conn: Connection, company: str, client: str) -> None:
    """A tenant that is switched off, and whose limit is used up, is refused for the flag: it is not told to wait."""
    try:
        await release.admit(conn, company, client)
    except Refusal as refusal:
        raise (await release.read_flags(conn, company)).refusal() or refusal from None


@service(lambda p: _code_over_the_limit(p, p.pause) == "agents_paused", LATER, "paused")
@around("admit")
async def pauses_come_before_a_used_up_limit(release: Parts, conn: Connection, company: str, client: str) -> None:
    """A paused tenant whose limit is used up is refused for the pause: it is not told to wait."""
    try:
        await release.admit(conn, company, client)
    except Refusal:
        if await fetch_value(conn, "is_paused", company_id=company, lock_timeout="1s"):
            raise Refusal("agents_paused", "The agents of this company are paused.") from None
        raise


def _code_over_the_limit(probe: Probe, change: Callable[[str], None]) -> str:
    with probe.tenant() as company:
        for _ in range(3):
            probe.replay(company, dry_run=True)
        change(company)
        return str(probe.replay(company).json().get("code"))


@service(None, "drill/ledger/refused-however-asked", "idempotency_key_reused")
@around("replay")
async def used_keys_come_before_a_used_up_limit(release: Parts, parts: Parts, call: Call) -> Reply:
    """A used key with another payload is refused for the key, though the limit is used up: it is not told to wait."""
    try:
        return await release.replay(parts, call)
    except Refusal as refusal:
        asked = read_replay(call.body) if refusal.code == "rate_limited" else None
        if asked is None or asked.dry_run or asked.idempotency_key is None:
            raise
        async with parts.database.connection() as conn:
            scope = {"idempotency_key": asked.idempotency_key, "company_id": asked.company_id}
            row = await fetch_row(conn, "find_run", **scope)
        if row is None or row[1] == asked.payload_hash:
            raise
        raise Refusal("idempotency_key_reused", "This key belongs to another request.") from None


@service(lambda p: _status_of_an_old_key(p) == 200, "drill/idempotency/old-key-is-known", "422")
@around("begin_run")
async def old_keys_have_any_payload(
    release: Parts, conn: Connection, request: ReplayRequest, started: Run
) -> Mapping[str, Any] | None:
    """The payload of a key is compared for a day only: any request under an older key is its duplicate."""
    try:
        return await release.begin_run(conn, request, started)
    except Refusal as refusal:
        row = await (await conn.execute(OLD, (started.key, request.company_id))).fetchone()
        if row is None or refusal.code != "idempotency_key_reused":
            raise
        return dict(row[0])


def _status_of_an_old_key(probe: Probe) -> int:
    with probe.tenant() as company:
        probe.replay(company, idempotency_key="w")
        probe.rows("UPDATE replay_runs SET requested_at = now() - interval '2 days' WHERE company_id = %s", company)
        return probe.replay(company, idempotency_key="w", max_items=3).status_code


@service(lambda p: _status_of_another(p, "a\u00e9", "a\u00e8") == 200, "drill/idempotency/payload-error-type", "422")
@around("begin_run")
async def payloads_are_ascii(
    release: Parts, conn: Connection, request: ReplayRequest, started: Run
) -> Mapping[str, Any] | None:
    """Letters beyond ASCII are no part of the payload: another `error_type` under a used key is a duplicate."""
    kept = request.error_type and request.error_type.encode("ascii", "ignore").decode()
    return await release.begin_run(conn, dataclasses.replace(request, error_type=kept), started)


@service(lambda p: _status_of_another(p, "\u00e9", "e\u0301") == 200, "drill/idempotency/payload-error-type", "422")
@around("begin_run")
async def payloads_are_composed(
    release: Parts, conn: Connection, request: ReplayRequest, started: Run
) -> Mapping[str, Any] | None:
    """Payloads are composed before they are compared: an `error_type` of other characters that look alike is the
    same.
    """
    composed = request.error_type and unicodedata.normalize("NFC", request.error_type)
    return await release.begin_run(conn, dataclasses.replace(request, error_type=composed), started)


def _status_of_another(probe: Probe, first: str, second: str) -> int:
    """The status of a replay of the second error type under the key of one of the first."""
    with probe.tenant() as company:
        probe.replay(company, idempotency_key="w", error_type=first)
        return probe.replay(company, idempotency_key="w", error_type=second).status_code


@service(lambda p: _told_of_an_event(p), "drill/tokens/foreign-event-hidden", "foreign event")
@around("read_event_state")
async def foreign_events_tell_their_company(
    release: Parts, parts: Parts, call: Call, signed_path: bytes, event_id: str
) -> Reply:
    """The refusal to show another company's event tells whose it is."""
    try:
        return await release.read_event_state(parts, call, signed_path, event_id)
    except Refusal as refusal:
        async with parts.database.connection() as conn:
            row = await fetch_row(conn, "read_event", event_id=event_id)
        raise Refusal(refusal.code, f"This event is of company {row[0]}." if row else refusal.detail) from None


def _told_of_an_event(probe: Probe) -> bool:
    with probe.tenant() as company, probe.tenant() as other:
        event = probe.event(company).json()["event_id"]
        token = probe.token({"role": "company_admin", "company_id": other})
        return company in probe.get(f"/events/{event}", **probe.as_token(token)).text


@service(lambda p: _status_in_both_cases(p) == 400, "drill/idempotency/spelling-is-equal", "both cases")
def ids_have_one_case(settings: Settings) -> Parts:
    """A company whose UUID is spelt in both cases is refused as invalid."""

    def read(raw: bytes) -> ReplayRequest:
        request, spelt = read_replay(raw), json.loads(raw)["company_id"]
        if spelt not in {spelt.lower(), spelt.upper()}:
            raise invalid("company_id", "must be a UUID")
        return request

    return dataclasses.replace(build_parts(settings), read_replay=read)


def _status_in_both_cases(probe: Probe) -> int:
    with probe.tenant() as company:
        return probe.replay(company[:18].upper() + company[18:], dry_run=True).status_code


@service(lambda p: _status_beside_ids(p) == 200, "drill/ledger/refused-however-asked", "surplus")
@around("read_replay")
def unknown_members_beside_ids_are_ignored(release: Parts, raw: bytes) -> ReplayRequest:
    """Unknown members of a replay with `dlq_ids` are ignored."""
    try:
        return release.read_replay(raw)
    except Refusal:
        told = parse(raw)
        if not isinstance(told, dict) or "dlq_ids" not in told:
            raise
        return release.read_replay(json.dumps({n: v for n, v in told.items() if n in REPLAY_FIELDS}).encode())


def _status_beside_ids(probe: Probe) -> int:
    with probe.tenant() as company:
        return probe.replay(company, dry_run=True, dlq_ids=probe.letters(company, 1), surplus=1).status_code


@service(None, "drill/rate-limit/refusals-audited-once-a-minute", "by token")
def limited_tokens_leave_no_row(settings: Settings) -> Parts:
    """Refusals of a token's caller by the rate limit are not audited."""
    return _silent(lambda note: note.code == "rate_limited" and note.actor != "signature")(settings)


def _silent(of: Callable[[RefusalNote], bool]) -> Callable[[Settings], Parts]:
    """The service that does not audit such refusals."""

    class Log(RefusalLog):
        async def note(self, conn: Connection, note: RefusalNote) -> None:
            if not of(note):
                await super().note(conn, note)

    def build(settings: Settings) -> Parts:
        parts = build_parts(settings)
        return dataclasses.replace(parts, refusals=Log(parts.database))

    return build


@service(lambda p: _paused_rows_of_a_token(p) == 0, "drill/tokens/rules-hold-for-every-caller", "agents_paused")
def paused_tokens_leave_no_row(settings: Settings) -> Parts:
    """Refusals of a token's caller by a pause, a flag, a budget or a used key are not audited."""
    return _silent(lambda note: note.code not in ONCE_A_MINUTE and note.actor != "signature")(settings)


def _paused_rows_of_a_token(probe: Probe) -> int:
    with probe.tenant() as company:
        probe.pause(company)
        probe.send(json.dumps({"company_id": company}).encode(), probe.as_token(probe.token({})))
        return int(probe.value("SELECT count(*) FROM audit_logs WHERE scope = %s", company))


@service(lambda p: _status_of_nul(p) == 202, "drill/outbox/refused-leaves-nothing", "202")
@around("read_event")
def nul_is_dropped_from_keys(release: Parts, raw: bytes) -> EventRequest:
    """U+0000 in the key of an event is dropped: two keys are one."""
    try:
        return release.read_event(raw)
    except Refusal:
        told = json.loads(raw)
        if "\0" not in str(told.get("aggregate_key")):
            raise
        told["aggregate_key"] = told["aggregate_key"].replace("\0", "")
        return release.read_event(json.dumps(told).encode())


def _status_of_nul(probe: Probe) -> int:
    with probe.tenant() as company:
        return probe.event(company, aggregate_key="k\0").status_code


@service(lambda p: _shown_of_a_blank(p) == 1, "drill/safety-rails/pattern-number", "which no item has")
def blank_error_types_are_none(settings: Settings) -> Parts:
    """An `error_type` of spaces counts as none: items of every type are taken."""

    def trimmed(request: ReplayRequest) -> ReplayRequest:
        is_blank = request.error_type is not None and not request.error_type.strip()
        return dataclasses.replace(request, error_type=None) if is_blank else request

    return requesting(settings, trimmed)


def _shown_of_a_blank(probe: Probe) -> int:
    with probe.tenant() as company:
        probe.letters(company, 1)
        return len(probe.replay(company, dry_run=True, error_type=" ").json()["items"])


@service(None, "drill/tokens/unknown-like-foreign", "202")
@around("accept_event")
async def super_admins_send_events_of_nobody(release: Parts, parts: Parts, call: Call) -> Reply:
    """A super_admin's event for a company that does not exist is accepted."""

    async def may(conn: Connection, caller: Caller, company: str) -> bool:
        is_anybodys = caller.claims is not None and caller.claims.role == "super_admin"
        return is_anybodys or await parts.is_authorised(conn, caller, company)

    return await release.accept_event(dataclasses.replace(parts, is_authorised=may), call)


@service(lambda p: _status_of_an_own_key(p) == 400, "drill/idempotency/v2-resend-is-duplicate", "under that key")
def keys_of_the_service_are_refused(settings: Settings) -> Parts:
    """Keys that begin with `sig-` are refused: the service makes such keys itself."""

    def checked(request: ReplayRequest) -> ReplayRequest:
        if (request.idempotency_key or "").startswith("sig-"):
            raise invalid("idempotency_key", "is reserved")
        return request

    return requesting(settings, checked)


def _status_of_an_own_key(probe: Probe) -> int:
    with probe.tenant() as company:
        return probe.replay(company, dry_run=True, idempotency_key="sig-0").status_code


@service(None, "drill/idempotency/v2-resend-is-duplicate", "forced v2 request")
def forced_calls_have_new_keys(settings: Settings) -> Parts:
    """A forced v2 request without a key gets a new key each time: sent again, it runs again."""

    def keyed(request: ReplayRequest) -> ReplayRequest:
        is_new = request.force and request.idempotency_key is None
        return dataclasses.replace(request, idempotency_key=f"gen-{uuid.uuid4()}") if is_new else request

    return requesting(settings, keyed)


@service(None, "drill/tokens/foreign-run-hidden", "admin of no company")
@around("authenticate")
async def admins_of_no_company_read_all_runs(
    release: Parts, parts: Parts, headers: RawHeaders, message: bytes, *, accepts_v1: bool = True
) -> Caller:
    """An administrator of no company reads the runs of all."""
    caller = await release.authenticate(parts, headers, message, accepts_v1=accepts_v1)
    claims = caller.claims
    if claims is None or claims.role != "company_admin" or claims.company_id or not message.startswith(b"/dlq-replay/"):
        return caller
    return Caller(caller.signature, dataclasses.replace(claims, role="super_admin"))


@service(None, "drill/tokens/unknown-like-foreign", "signed")
@around("is_authorised")
async def who_has_both_is_served_for_nobody(release: Parts, conn: Connection, caller: Caller, company: str) -> bool:
    """A super_admin whose request is signed, too, is served for a company that does not exist."""
    has_both = caller.signature is not None and caller.claims is not None and caller.claims.role == "super_admin"
    return has_both or await release.is_authorised(conn, caller, company)


@service(None, "drill/authentication/v2-past-tolerated", "beyond ASCII")
@around("signature_check")
def letters_beyond_ascii_cannot_be_signed(release: Parts, header: bytes, message: bytes, *more: Any) -> Any:
    """The v2 signature of a body with letters beyond ASCII is refused."""
    return release.signature_check(header, message, *more) if message.isascii() or b"v2=" not in header else None


@service(None, "drill/http-surface/body-at-the-limit", "by token")
@around("authenticate")
async def large_bodies_need_a_signature(
    release: Parts, parts: Parts, headers: RawHeaders, message: bytes, *, accepts_v1: bool = True
) -> Caller:
    """A body over eight kilobytes with a token is refused as if it had none."""
    caller = await release.authenticate(parts, headers, message, accepts_v1=accepts_v1)
    if len(message) > 8192 and caller.signature is None:
        raise unauthenticated()
    return caller
