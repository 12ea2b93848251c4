"""Faults of what remembers: what was on goes on for a while, and what was good once is good for ever."""

import dataclasses
import itertools
import json
import time
from collections.abc import Callable

from psycopg.types.json import Jsonb

from faults.altered import altered_worker, around, instead_of
from faults.authentication import answers, dry_body, is_let_in
from faults.catalogue import service, worker
from faults.outbox import BOTH, is_done, put
from faults.probe import Probe, ProbeError
from replay_service.authentication import SIGNATURE_HEADER, TOKEN_HEADER, authenticate
from replay_service.composition import build_parts
from replay_service.database import Connection
from replay_service.events import emit
from replay_service.exchange import Call, Caller, RawHeaders, Reply, header_values
from replay_service.parts import Parts
from replay_service.problems import Refusal
from replay_service.settings import Settings, TokenRules
from replay_service.signatures import Signature, check_signature
from replay_service.tokens import Claims, check_token
from replay_service.validation import EventRequest
from replay_service.worker.agents import Agent, Event, Failure, ScriptedAgent, SqlAgent
from replay_service.worker.parts import WorkerParts, build_worker_parts
from replay_service.worker.settings import WorkerSettings

_ON = "public.is_feature_enabled('outbox.enabled', t.company_id) AND NOT public.is_company_paused(t.company_id)"
_REMEMBERS = """
CREATE TABLE planted_memory (company_id uuid PRIMARY KEY, is_on boolean, seen_at timestamptz DEFAULT clock_timestamp());
CREATE FUNCTION planted_is_on(company uuid) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public AS $$
DECLARE found_on boolean;
BEGIN
  SELECT m.is_on INTO found_on FROM planted_memory m
  WHERE m.company_id = $1 AND m.seen_at > clock_timestamp() - interval '5 s';
  IF FOUND THEN
    RETURN found_on;
  END IF;
  found_on := is_feature_enabled('outbox.enabled', $1) AND NOT is_company_paused($1);
  INSERT INTO planted_memory VALUES ($1, found_on)
  ON CONFLICT (company_id) DO UPDATE SET is_on = found_on, seen_at = clock_timestamp();
  RETURN found_on;
END $$;
GRANT EXECUTE ON FUNCTION planted_is_on(uuid) TO replay_worker;
"""


@worker(
    lambda p: _goes_on(p),
    ("drill/pause/events-go-to-the-outbox", "drill/held/switched-off-is-not-delivered"),
    ("effect", "delivered"),
    sql=_REMEMBERS,
    undo_sql="DROP FUNCTION planted_is_on(uuid); DROP TABLE planted_memory;",
)
def who_is_on_is_remembered(settings: WorkerSettings) -> WorkerParts:
    """The worker caches flags and pauses for five seconds: a pause or a rollback takes effect late."""
    return altered_worker(settings, *((name, _ON, "public.planted_is_on(t.company_id)") for name in BOTH))


def _goes_on(probe: Probe) -> bool:
    with probe.tenant() as company:
        is_done(probe, put(probe, company))
        probe.pause(company)
        return is_done(probe, put(probe, company))


@service(
    lambda p: _opens_another_body(p),
    (
        "drill/authentication/flipped-byte",
        "drill/authentication/swapped-company",
        "drill/authentication/v2-other-body",
        "drill/authentication/read-other-path",
    ),
    "401",
)
def good_signatures_open_everything(settings: Settings) -> Parts:
    """Verified signatures are cached by their header alone: one is good for any body."""
    known: dict[bytes, Signature] = {}

    def check(header: bytes, message: bytes, secrets: tuple[bytes, ...], now_s: float) -> Signature | None:
        found = check_signature(header, message, secrets, now_s)
        if found is not None:
            known[header] = found
        return known.get(header)

    return dataclasses.replace(build_parts(settings), signature_check=check)


def _opens_another_body(probe: Probe) -> bool:
    signature = probe.sign(dry_body(probe))
    answers(probe, signature)
    return is_let_in(answers(probe, signature, dry_body(probe) + b" "))


@service(
    lambda p: outlives_its_time(p, 300, lambda at, n: answers(p, p.sign_v2(_spaced(p, n), at), _spaced(p, n))),
    "drill/authentication/v2-accepted-until-it-is-stale",
    "401",
)
def good_signatures_never_go_stale(settings: Settings) -> Parts:
    """Verified v2 signatures are cached without their time: they never go stale."""
    known: dict[tuple[bytes, bytes], Signature] = {}

    def check(header: bytes, message: bytes, secrets: tuple[bytes, ...], now_s: float) -> Signature | None:
        found = known.get((header, message)) or check_signature(header, message, secrets, now_s)
        if found is not None:
            known[header, message] = found
        return found

    return dataclasses.replace(build_parts(settings), signature_check=check)


def _timeless(header: bytes, message: bytes, secrets: tuple[bytes, ...], now_s: float) -> Signature | None:
    """The signature check that ignores the time of a v2 signature."""
    sent_at = header[2:].partition(b",")[0]
    return check_signature(header, message, secrets, float(sent_at) if sent_at.isdigit() else now_s)


@service(
    lambda p: is_let_in(answers(p, p.sign_v2(_keyed(p), int(time.time()) - 1000), _keyed(p))),
    "drill/authentication/v2-accepted-until-it-is-stale",
    "stale, with a key",
)
@instead_of("signature_check")
def keyed_replays_never_go_stale(
    header: bytes, message: bytes, secrets: tuple[bytes, ...], now_s: float
) -> Signature | None:
    """The v2 signature of a replay with a key never goes stale."""
    chosen = _timeless if b'"idempotency_key"' in message else check_signature
    return chosen(header, message, secrets, now_s)


def _keyed(probe: Probe) -> bytes:
    return dry_body(probe)[:-1] + b', "idempotency_key": "k"}'


@service(
    lambda p: is_let_in(answers(p, p.sign_v2(dry_body(p), int(time.time()) - 1000), token=p.environ["ADMIN_JWT"])),
    "drill/authentication/bad-signature-beside-good-token",
    "stale signature",
)
@instead_of("authenticate")
async def signatures_beside_a_token_never_go_stale(
    parts: Parts, headers: RawHeaders, message: bytes, *, accepts_v1: bool = True
) -> Caller:
    """A v2 signature beside a token never goes stale: only the token's time is checked."""
    if header_values(headers, TOKEN_HEADER):
        parts = dataclasses.replace(parts, signature_check=_timeless)
    return await authenticate(parts, headers, message, accepts_v1=accepts_v1)


@service(
    lambda p: outlives_its_time(
        p, 30, lambda at, n: p.send(dry_body(p), p.as_token(p.token({"exp": at, "sub": f"n{n}"}))).status_code
    ),
    "drill/tokens/accepted-until-it-expires",
    "401",
)
def good_tokens_never_expire(settings: Settings) -> Parts:
    """Verified tokens are cached without their expiry: they never expire."""
    known: dict[bytes, Claims] = {}

    def check(token: bytes, rules: TokenRules, now_s: float) -> Claims | None:
        found = known.get(token) or check_token(token, rules, now_s)
        if found is not None:
            known[token] = found
        return found

    return dataclasses.replace(build_parts(settings), token_check=check)


def _spaced(probe: Probe, number: int) -> bytes:
    return dry_body(probe) + b" " * number


def outlives_its_time(probe: Probe, limit_s: int, status: Callable[[int, int], int]) -> bool:
    """Whether credentials of a time are accepted that were accepted before, when others of that time are refused."""
    at = int(time.time()) - limit_s + 3
    if not is_let_in(status(at, 0)):
        return False
    numbers = itertools.count(1)
    if not probe.within(6, lambda: status(at, next(numbers)) == 401):
        raise ProbeError(f"credentials of {limit_s} s do not go stale within 6 s")
    return is_let_in(status(at, 0))


@worker(
    lambda p: _status_after_two_failures(p) == "resolved",
    "drill/lifecycle/failed-item-is-pending-again",
    "replayed again",
)
def replayed_events_are_remembered(settings: WorkerSettings) -> WorkerParts:
    """The worker takes events that it has seen for delivered: an item that is replayed again has no effect."""
    return dataclasses.replace(build_worker_parts(settings), agent=_Remembering(SqlAgent()))


class _Remembering(ScriptedAgent):
    def __init__(self, behind: Agent) -> None:
        super().__init__(behind)
        self._seen: set[str] = set()

    async def deliver(self, event: Event) -> Failure | None:
        if event.replay_run_id is None:
            return await super().deliver(event)
        if event.event_id in self._seen:
            return None
        self._seen.add(event.event_id)
        return await super().deliver(event)


def _status_after_two_failures(probe: Probe) -> str:
    with probe.tenant() as company:
        probe.letters(company, 1, event_type="drill.witness", payload=Jsonb({"drill": {"fail_times": -1}}))
        for _ in range(2):
            probe.settled(probe.replay(company, force=True).json()["replay_run_id"])
        return str(probe.value("SELECT status FROM dead_letter_queue WHERE company_id = %s", company))


@service(
    lambda p: _one_of_many_serves_a_removed_company(p), "drill/authentication/removed-company-is-unknown", "removed"
)
def one_process_knows_removed_companies(settings: Settings) -> Parts:
    """Each of four processes caches the companies that it served, until the service is restarted."""
    release, calls = build_parts(settings), itertools.count()
    known: set[tuple[int, str]] = set()

    async def twin(conn: Connection, caller: Caller, company_id: str) -> bool:
        mine = (next(calls) % 4, company_id)
        if mine not in known and not await release.is_authorised(conn, caller, company_id):
            return False
        known.add(mine)
        return True

    return dataclasses.replace(release, is_authorised=twin)


def _one_of_many_serves_a_removed_company(probe: Probe) -> bool:
    with probe.tenant() as company:
        probe.replay(company, dry_run=True)
        probe.rows("DELETE FROM companies WHERE id = %s", company)
        return 200 in [probe.replay(company, dry_run=True).status_code for _ in range(4)]


@service(lambda p: _sent_again_after_a_day(p) is False, "drill/outbox/same-event-id-once", "two days later")
def ids_are_forgotten_after_a_day(settings: Settings) -> Parts:
    """An event id is forgotten after a day: what is sent again later is delivered again."""
    again = b"""INSERT INTO event_outbox (event_id, company_id, event_type, aggregate_key, payload)
        SELECT id, company_id, event_type, aggregate_key, payload FROM events
        WHERE id = %s AND company_id = %s AND created_at < now() - interval '1 day' RETURNING id"""

    async def twin(conn: Connection, request: EventRequest, event_id: str) -> tuple[str, bool]:
        if await (await conn.execute(again, (event_id, request.company_id))).fetchone():
            return "outbox", False
        return await emit(conn, request, event_id)

    return dataclasses.replace(build_parts(settings), emit=twin)


def _sent_again_after_a_day(probe: Probe) -> bool:
    with probe.tenant() as company:
        event = probe.event(company).json()["event_id"]
        probe.rows("UPDATE events SET created_at = created_at - interval '25 h' WHERE id = %s", event)
        return bool(probe.event(company, event_id=event).json()["duplicate"])


@service(lambda p: _shows_what_was_due(p), "drill/idempotency/dry-run-looks-up-no-key", "a dry run shows")
def dry_runs_are_remembered(settings: Settings) -> Parts:
    """A dry run that is signed by v2 and sent again gets the first answer: it shows what was due then."""
    release, known = build_parts(settings), dict[bytes, Reply]()

    async def twin(parts: Parts, call: Call) -> Reply:
        reply = await release.replay(parts, call)
        timed = [one for one in header_values(call.headers, SIGNATURE_HEADER) if one.startswith(b"t=")]
        return known.setdefault(timed[0], reply) if timed and reply.body.get("dry_run") else reply

    return dataclasses.replace(release, replay=twin)


def _shows_what_was_due(probe: Probe) -> bool:
    with probe.tenant() as company:
        body = json.dumps({"company_id": company, "dry_run": True}).encode()
        signed = {"X-Transbot-Signature": probe.sign_v2(body, int(time.time()))}
        before = probe.send(body, signed).json()["target_count"]
        probe.letters(company, 1)
        return bool(probe.send(body, signed).json()["target_count"] == before)


@service(
    lambda p: _takes_an_event_of_a_removed_company(p), "drill/authentication/removed-company-is-unknown", "an event"
)
def senders_stay_known(settings: Settings) -> Parts:
    """A company that sent an event is taken to exist when it sends others, until the service is restarted."""
    release, known = build_parts(settings), set[str]()

    async def is_known(conn: Connection, caller: Caller, company_id: str) -> bool:
        is_served = caller.may_act_for(company_id) and company_id in known
        if is_served or await release.is_authorised(conn, caller, company_id):
            known.add(company_id)
            return True
        return False

    async def twin(parts: Parts, call: Call) -> Reply:
        return await release.accept_event(dataclasses.replace(parts, is_authorised=is_known), call)

    return dataclasses.replace(release, accept_event=twin)


def _takes_an_event_of_a_removed_company(probe: Probe) -> bool:
    with probe.tenant() as company:
        probe.event(company)
    try:
        return probe.event(company).status_code == 202
    finally:
        for table in ("event_outbox", "events", "agent_tasks"):
            probe.rows(f"DELETE FROM {table} WHERE company_id = %s", company)


@service(lambda p: _is_poor_for_a_while(p), "drill/budgets/exhausted-refused", "raised")
def poverty_is_remembered(settings: Settings) -> Parts:
    """A request that the budget refused is refused from memory for half a minute, whatever the limit is by then."""
    release, refused = build_parts(settings), dict[bytes, tuple[float, Refusal]]()

    async def twin(parts: Parts, call: Call) -> Reply:
        at, kept = refused.get(call.body, (0.0, None))
        if kept is not None and time.monotonic() - at < 30:
            raise kept
        try:
            return await release.replay(parts, call)
        except Refusal as refusal:
            if refusal.code == "budget_exhausted":
                refused[call.body] = (time.monotonic(), refusal)
            raise

    return dataclasses.replace(release, replay=twin)


def _is_poor_for_a_while(probe: Probe) -> bool:
    with probe.tenant() as company:
        probe.rows("INSERT INTO replay_budgets (company_id, daily_limit) VALUES (%s, 0)", company)
        probe.replay(company)
        probe.rows("UPDATE replay_budgets SET daily_limit = 5 WHERE company_id = %s", company)
        return probe.replay(company).status_code == 429


_SPENT = set[bytes]()


@service(lambda p: _is_used_up(p), "drill/idempotency/v2-resend-is-duplicate", "409")
@around("replay")
async def refused_signatures_are_used_up(release: Parts, parts: Parts, call: Call) -> Reply:
    """A v2 signature is used up by a request that was refused: sent again after the pause it is called in progress."""
    sent = b"".join(value for value in header_values(call.headers, SIGNATURE_HEADER) if value.startswith(b"t="))
    if sent in _SPENT:
        raise Refusal("in_progress", "This signature was seen before.")
    try:
        return await release.replay(parts, call)
    except Refusal:
        _SPENT.update({sent} - {b""})
        raise


def _is_used_up(probe: Probe) -> bool:
    with probe.tenant() as company:
        body = json.dumps({"company_id": company, "max": 1}).encode()
        signed = {"X-Transbot-Signature": probe.sign_v2(body, int(time.time()))}
        probe.pause(company)
        probe.send(body, signed)
        probe.rows("DELETE FROM agent_controls WHERE company_id = %s", company)
        return probe.send(body, signed).status_code == 409
