"""Faults of what is rarely sent, or rarely there: large and chunked bodies, networks of addresses, rows of long ago."""

import dataclasses
import json
from collections.abc import Sequence
from ipaddress import ip_network
from typing import Any

from psycopg.types.json import Jsonb
from starlette.types import Receive

from faults.altered import altered, altered_worker, around, instead_of
from faults.authentication import answers, dry_body, is_let_in
from faults.catalogue import service, worker
from faults.outbox import BOTH, is_done, put
from faults.probe import Probe
from faults.rate_limit import passed_on
from replay_service.authentication import authenticate
from replay_service.client_ip import Network, client_ip
from replay_service.composition import build_parts
from replay_service.database import Connection
from replay_service.exchange import Caller, RawHeaders, header_values
from replay_service.parts import Parts
from replay_service.problems import Refusal
from replay_service.settings import Settings
from replay_service.signatures import Signature
from replay_service.strict_json import JsonRefused, parse
from replay_service.validation import EventRequest, ReplayRequest, read_replay
from replay_service.worker.parts import WorkerParts
from replay_service.worker.settings import WorkerSettings

LARGE = 32_768
_UNREAD = Caller(Signature(1, "0" * 64), None)
_DUE = "WHERE w.is_due"
_OFF = "w.company_id NOT IN (SELECT t.company_id FROM tenants t WHERE NOT t.is_on)"
_ROW = "FROM public.event_outbox x WHERE x.ctid = w.ctid)"
_EARLIER = (
    ("drain_lane", "WHERE r.aggregate_key IS NOT NULL", "WHERE r.aggregate_key <> 'null'"),
    ("claim_events", "a.aggregate_key IS NULL OR", "coalesce(a.aggregate_key, 'null') = 'null' OR"),
)


@service(
    lambda p: is_let_in(answers(p, "0" * 64, dry_body(p) + b" " * LARGE)), "drill/authentication/flipped-byte", "60 KB"
)
@instead_of("authenticate")
async def large_bodies_are_let_in(
    parts: Parts, headers: RawHeaders, message: bytes, *, accepts_v1: bool = True
) -> Caller:
    """Bodies over 32 KB are streamed past the check of their signature."""
    return _UNREAD if len(message) > LARGE else await authenticate(parts, headers, message, accepts_v1=accepts_v1)


@service(lambda p: _chunks_are_let_in(p), "drill/authentication/flipped-byte", "chunks")
@instead_of("authenticate")
async def chunks_are_let_in(parts: Parts, headers: RawHeaders, message: bytes, *, accepts_v1: bool = True) -> Caller:
    """The signature of a body that comes in chunks is not checked: its end is not known when the check begins."""
    if header_values(headers, b"transfer-encoding"):
        return _UNREAD
    return await authenticate(parts, headers, message, accepts_v1=accepts_v1)


def _chunks_are_let_in(probe: Probe) -> bool:
    return is_let_in(_in_chunks(probe, dry_body(probe)))


def _in_chunks(probe: Probe, *chunks: bytes) -> int:
    headers = {"Content-Type": "application/json", "X-Transbot-Signature": "0" * 64}
    return probe.http.post(f"{probe.base_url}/dlq-replay", content=iter(chunks), headers=headers).status_code


@service(
    lambda p: _in_chunks(p, dry_body(p), b" " * LARGE) == 413,
    "drill/http-surface/chunked-body-over-the-limit",
    "of 60 KiB",
    production=False,
)
@around("read_body")
async def large_bodies_in_chunks_are_refused(
    release: Parts, headers: RawHeaders, receive: Receive, timeout_s: float
) -> bytes:
    """A body that comes in chunks may have 32 KB alone: a smaller one than the documented is refused."""
    body = await release.read_body(headers, receive, timeout_s)
    if len(body) > LARGE and header_values(headers, b"transfer-encoding"):
        raise Refusal("body_too_large", "A body has at most 32 KB.")
    return body


@service(
    lambda p: p.replay("00000000-0000-4000-8000-0000000000aa", _note="n").status_code == 403,
    "drill/safety-rails/limit-field",
    "_note",
)
@instead_of("read_replay")
def comments_are_ignored(raw: bytes) -> ReplayRequest:
    """Fields whose names begin with `_`, `$` or `x-` pass for comments: they are ignored."""
    try:
        found = parse(raw)
    except JsonRefused:
        return read_replay(raw)
    if not isinstance(found, dict) or "__proto__" in found:
        return read_replay(raw)
    kept = {name: value for name, value in found.items() if not name.startswith(("_", "$", "x-"))}
    return read_replay(raw if kept == found else json.dumps(kept).encode())


@service(
    lambda p: passed_on(p, "2001:db8::9:1") == "2001:db8::", "drill/rate-limit/behind-a-trusted-proxy", "passed on"
)
@instead_of("client_ip")
def networks_share_a_limit(peer: str | None, forwarded: Sequence[bytes], trusted: Sequence[Network]) -> str:
    """Addresses of version 6 are counted by their network: the clients of one share a limit."""
    found = client_ip(peer, forwarded, trusted)
    return str(ip_network(f"{found}/64", strict=False).network_address) if ":" in found else found


@service(lambda p: _is_limited_without_calls(p), "drill/rate-limit/deleting-the-row-resets", "no calls")
def rows_without_calls_are_full(settings: Settings) -> Parts:
    """A row of the rate limit that has no calls counts as full."""
    full = "cardinality(seen.hits) >= %(allowed)s"
    change = (f"FROM seen WHERE {full}", f"FROM seen WHERE {full} OR seen.hits = '{{}}'")
    return altered(settings, "admit_request", change)


def _is_limited_without_calls(probe: Probe) -> bool:
    with probe.tenant() as company:
        probe.replay(company, dry_run=True)
        probe.rows("UPDATE edge_rate_limits SET hits = '{}' WHERE starts_with(key, 'replay:' || %s)", company)
        return probe.replay(company, dry_run=True).status_code == 429


@service(lambda p: _second_try_is_lost(p), "drill/outbox/commit-that-fails", "refused its row")
def ids_are_remembered_too_early(settings: Settings) -> Parts:
    """An event's id is remembered before the event is written: where that fails, the next try is a duplicate,
    and lost.
    """
    release, known = build_parts(settings), set[tuple[str, str]]()

    async def twin(conn: Connection, request: EventRequest, event_id: str) -> tuple[str, bool]:
        mine = (event_id, request.company_id)
        if mine in known:
            return "outbox", True
        if request.event_id:
            known.add(mine)
        return await release.emit(conn, request, event_id)

    return dataclasses.replace(release, emit=twin)


def _second_try_is_lost(probe: Probe) -> bool:
    """Whether an event is accepted that the database refuses at each try."""
    event, slow = "00000000-0000-4000-8000-0000000000ee", {"drill": {"fail_times": -1}}
    refuses = "ALTER TABLE events ADD CONSTRAINT witness_no CHECK (event_type <> 'witness.refused') NOT VALID"
    with probe.tenant() as company:
        probe.rows(refuses)
        try:
            tries = [
                probe.event(company, event_id=event, event_type="witness.refused", payload=slow).status_code
                for _ in range(2)
            ]
        finally:
            probe.rows("ALTER TABLE events DROP CONSTRAINT witness_no")
        return tries[0] >= 500 and tries[1] == 202


@service(
    lambda p: _is_overwritten(p),
    "drill/outbox/sent-again-and-again",
    "payload",
    sql="GRANT UPDATE ON events TO replay_service;"
    " CREATE POLICY planted_overwrites ON events FOR UPDATE TO replay_service USING (true)",
    undo_sql="DROP POLICY planted_overwrites ON events; REVOKE UPDATE ON events FROM replay_service",
)
@around("emit")
async def the_last_payload_wins(
    release: Parts, conn: Connection, request: EventRequest, event_id: str
) -> tuple[str, bool]:
    """An event that is sent again with another payload overwrites the one that is there."""
    try:
        return await release.emit(conn, request, event_id)
    except Refusal:
        text = b"UPDATE events SET payload = (%s::jsonb) -> 'payload' WHERE id = %s AND company_id = %s RETURNING path"
        cursor = await conn.execute(text, (request.body, event_id, request.company_id))
        if (row := await cursor.fetchone()) is None:
            raise
        return str(row[0]), True


def _is_overwritten(probe: Probe) -> bool:
    with probe.tenant() as company:
        event = probe.event(company).json()["event_id"]
        probe.event(company, event_id=event, payload={"n": 2})
        return bool(probe.value("SELECT payload ->> 'n' FROM events WHERE id = %s", event) == "2")


@service(
    lambda p: _waits_with_another(p),
    "drill/outbox/sent-again-and-again",
    "event_outbox",
    sql="GRANT UPDATE ON event_outbox TO replay_service;"
    " CREATE POLICY planted_waiting ON event_outbox FOR UPDATE TO replay_service USING (true)",
    undo_sql="DROP POLICY planted_waiting ON event_outbox; REVOKE UPDATE ON event_outbox FROM replay_service",
)
@around("emit")
async def the_last_payload_is_delivered(
    release: Parts, conn: Connection, request: EventRequest, event_id: str
) -> tuple[str, bool]:
    """An event that is sent again with another payload is delivered with it, if it still waits."""
    try:
        return await release.emit(conn, request, event_id)
    except Refusal:
        text = b"UPDATE event_outbox SET payload = (%s::jsonb) -> 'payload' WHERE event_id = %s AND company_id = %s"
        await conn.execute(text + b" AND processed_at IS NULL", (request.body, event_id, request.company_id))
        return "outbox", True


def _waits_with_another(probe: Probe) -> bool:
    with probe.tenant() as company:
        probe.pause(company)
        event = probe.event(company).json()["event_id"]
        probe.event(company, event_id=event, payload={"n": 2})
        return bool(probe.value("SELECT payload ->> 'n' FROM event_outbox WHERE event_id = %s", event) == "2")


def _waits(probe: Probe, **columns: Any) -> bool:
    with probe.tenant() as company:
        return not is_done(probe, put(probe, company, **columns))


@worker(lambda p: _is_delivered_when_off(p), "drill/held/switched-off-is-not-delivered", "switched-off")
def claims_that_ran_out_ask_no_flag(settings: WorkerSettings) -> WorkerParts:
    """A row whose claim ran out is delivered again although its tenant is switched off."""
    either = f"((SELECT x.claimed_until < now() {_ROW} IS TRUE OR {_OFF})"
    return altered_worker(settings, *((name, _OFF, either) for name in BOTH))


def _is_delivered_when_off(probe: Probe) -> bool:
    with probe.tenant() as company:
        probe.switch_off(company)
        return is_done(probe, put(probe, company, claimed_until=probe.value("SELECT now() - interval '1 hour'")))


@worker(
    lambda p: _waits(p, inserted_at=p.value("SELECT now() - interval '9 days'")),
    "drill/outbox/old-rows-are-delivered",
    "effects",
)
def last_week_alone_is_read(settings: WorkerSettings) -> WorkerParts:
    """The worker reads the last week only: what was held for longer is never delivered."""
    recent = f"{_DUE} AND (SELECT x.inserted_at > now() - interval '7 days' {_ROW}"
    return altered_worker(settings, *((name, _DUE, recent) for name in BOTH))


@worker(lambda p: _waits(p, attempts=12), "drill/outbox/old-rows-are-delivered", "many attempts")
def tired_rows_are_left(settings: WorkerSettings) -> WorkerParts:
    """A row with more attempts than are allowed is never looked at, and is neither delivered nor dead."""
    fresh = f"{_DUE} AND (SELECT x.attempts < 10 {_ROW}"
    return altered_worker(settings, *((name, _DUE, fresh) for name in BOTH))


@worker(lambda p: _dies_without_a_letter(p), "drill/outbox/dead-letter-in-one-transaction", "paused in a last")
def paused_deaths_leave_no_letter(settings: WorkerSettings) -> WorkerParts:
    """The last failure of an event whose tenant was paused meanwhile leaves no dead letter: the event is lost."""
    running = "WHERE h.is_last AND NOT public.is_company_paused(h.company_id)\n)"
    return altered_worker(settings, ("settle_failed", "WHERE h.is_last\n)", running))


def _dies_without_a_letter(probe: Probe) -> bool:
    slow = {"event_type": "drill.slow", "payload": Jsonb({"drill": {"fail_times": -1, "delay_ms": 800}})}
    claimed = "SELECT 1 FROM event_outbox WHERE company_id = %s AND claimed_until > now()"
    died = "SELECT 1 FROM event_outbox WHERE company_id = %s AND dead_at IS NOT NULL"
    with probe.tenant() as company:
        put(probe, company, attempts=40, **slow)
        probe.within(2, lambda: bool(probe.rows(claimed, company)))
        probe.pause(company)
        dead = probe.within(4, lambda: bool(probe.rows(died, company)))
        return dead and not probe.rows("SELECT 1 FROM dead_letter_queue WHERE company_id = %s", company)


@worker(
    lambda p: _overtakes_under_null(p),
    ("drill/outbox/follower-of-a-row-that-backs-off", "drill/outbox/follower-of-a-claimed-row"),
    "of their key",
)
def null_is_no_key(settings: WorkerSettings) -> WorkerParts:
    """The key `null` counts as none: its events do not wait for each other."""
    return altered_worker(settings, *_EARLIER)


def _overtakes_under_null(probe: Probe) -> bool:
    with probe.tenant() as company:
        later = probe.value("SELECT now() + interval '1 hour'")
        put(probe, company, aggregate_key="null", next_attempt_at=later)
        return is_done(probe, put(probe, company, aggregate_key="null"))


@worker(
    lambda p: _next_type_overtakes(p),
    ("drill/outbox/follower-of-a-row-that-backs-off", "drill/outbox/failing-event-holds-its-key"),
    ("of their key", "a later event"),
)
def each_type_has_its_own_order(settings: WorkerSettings) -> WorkerParts:
    """The order of a key is that of its events of one type: the next type does not wait."""
    type_of = "(SELECT y.event_type FROM public.event_outbox y WHERE y.id = {})"
    earlier, before = "b.aggregate_key = a.aggregate_key", "e.aggregate_key = k.aggregate_key"
    return altered_worker(
        settings,
        ("claim_events", earlier, f"{earlier} AND b.event_type = {type_of.format('a.id')}"),
        ("drain_lane", before, f"{before} AND e.event_type = {type_of.format('k.last_id')}"),
    )


def _next_type_overtakes(probe: Probe) -> bool:
    with probe.tenant() as company:
        later = probe.value("SELECT now() + interval '1 hour'")
        put(probe, company, aggregate_key="k", next_attempt_at=later)
        return is_done(probe, put(probe, company, aggregate_key="k", event_type="witness.next"))
