"""Faults of what POST /events takes and tells: bodies read with a lenient reader, and answers that say too much."""

import asyncio
import contextlib
import dataclasses
import html
import json
import re
import unicodedata
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg

from faults.altered import altered, around, instead_of
from faults.catalogue import service
from faults.probe import Probe
from replay_service.audit import RefusalLog
from replay_service.authentication import authenticate, forbidden
from replay_service.composition import build_parts
from replay_service.database import Connection, Database, fetch_value
from replay_service.events import accept_event, emit
from replay_service.exchange import Call, Caller, RawHeaders, Reply
from replay_service.parts import Parts
from replay_service.problems import Refusal, invalid
from replay_service.settings import Settings
from replay_service.strict_json import JsonRefused, parse
from replay_service.validation import EventRequest, as_uuid, read_event

PAYLOAD_UNCHANGED = "drill/outbox/payload-unchanged"
REFUSED = ("drill/outbox/refused-leaves-nothing",)


def _stored(probe: Probe, payload: dict[str, Any], what: str) -> Any:
    with probe.tenant() as company:
        probe.event(company, payload=payload)
        return probe.value(f"SELECT {what} FROM events WHERE company_id = %s", company)


@service(lambda p: _with_an_empty_payload(p) == 400, REFUSED, "400")
@instead_of("read_event")
def empty_payloads_are_refused(raw: bytes) -> EventRequest:
    """An event with an empty payload is refused as if it had none."""
    request = read_event(raw)
    if not request.payload:
        raise invalid("payload", "is required")
    return request


def _with_an_empty_payload(probe: Probe) -> int:
    with probe.tenant() as company:
        return probe.event(company, payload={}).status_code


@service(lambda p: _stored(p, {"text": "e\u0301"}, "length(payload ->> 'text')") == 1, PAYLOAD_UNCHANGED, "payload")
@instead_of("read_event")
def texts_are_composed(raw: bytes) -> EventRequest:
    """The texts of an event are Unicode-normalised: a letter and its accent become one character."""
    request = read_event(raw)
    body = json.dumps({"payload": request.payload}, ensure_ascii=False)
    return dataclasses.replace(request, body=unicodedata.normalize("NFC", body))


@service(lambda p: _stored(p, {"text": "1 < 2"}, "payload ->> 'text'") == "1 &lt; 2", PAYLOAD_UNCHANGED, "payload")
@instead_of("read_event")
def texts_are_escaped(raw: bytes) -> EventRequest:
    """The texts of an event are escaped for HTML: `<` is stored as `&lt;`."""
    request = read_event(raw)
    return dataclasses.replace(request, body=html.escape(request.body, quote=False))


@service(lambda p: not _stored(p, {"dotted.name": 1}, "payload ? 'dotted.name'"), PAYLOAD_UNCHANGED, "payload")
def odd_names_are_dropped(settings: Settings) -> Parts:
    """Members of a payload whose names have a dot or begin with `$` are dropped, as a document store wants it."""
    odd = "left(m.key, 1) = '$' OR strpos(m.key, '.') > 0"
    kept = f"(SELECT coalesce(jsonb_object_agg(m.key, m.value) FILTER (WHERE NOT ({odd})), '{{}}')"
    change = f"{kept} FROM jsonb_each((%(body)s::jsonb) -> 'payload') m)"
    return altered(settings, "emit_event", ("(%(body)s::jsonb) -> 'payload'", change))


@service(lambda p: not _stored(p, {"none": None}, "payload ? 'none'"), PAYLOAD_UNCHANGED, "payload")
def nulls_are_dropped(settings: Settings) -> Parts:
    """Null members of an event's payload are dropped."""
    change = ("(%(body)s::jsonb) -> 'payload'", "jsonb_strip_nulls((%(body)s::jsonb) -> 'payload')")
    return altered(settings, "emit_event", change)


@service(lambda p: _status(p, f'"payload":{{"a":1,"a":2}},"event_id":"{uuid.uuid4()}"') == 202, REFUSED, "202")
@instead_of("read_event")
def repeated_names_are_overlooked(raw: bytes) -> EventRequest:
    """Of a name that comes twice in an event the last one counts."""
    try:
        parse(raw)
    except JsonRefused as refused:
        if "repeat" in str(refused):
            return read_event(json.dumps(json.loads(raw)).encode())
    return read_event(raw)


@service(lambda p: _status(p, r'"payload":{"\ud800":1}') == 500, REFUSED, "500")
@instead_of("read_event")
def odd_names_are_server_errors(raw: bytes) -> EventRequest:
    """A lone surrogate in a member's name is a server error: only values are checked."""
    if re.search(rb'"\\ud8..":', raw):
        raise ValueError("the database refuses the text")
    return read_event(raw)


@service(lambda p: _status(p, '"payload":{"a":NaN}') == 500, REFUSED, "500")
@instead_of("read_event")
def what_is_no_number_is_a_server_error(raw: bytes) -> EventRequest:
    """An event with NaN is a server error: its reader takes what the database refuses."""
    if b":NaN" in raw or b"[NaN" in raw:
        raise ValueError("the database refuses the text")
    return read_event(raw)


def _status(probe: Probe, members: str) -> int:
    with probe.tenant() as company:
        body = f'{{"company_id":"{company}","event_type":"witness.done",{members}}}'
        return probe.send(body.encode(), path="/events").status_code


@service(lambda p: _is_shown(p), "drill/outbox/event-id-of-another-tenant", "payload")
@instead_of("emit")
async def known_ids_show_their_event(conn: Connection, request: EventRequest, event_id: str) -> tuple[str, bool]:
    """A sender that uses the id of another tenant's event is shown that event."""
    try:
        return await emit(conn, request, event_id)
    except Refusal as refusal:
        found = await conn.execute(b"SELECT payload::text FROM public.events WHERE id = %s::uuid", (event_id,))
        raise Refusal(refusal.code, f"{refusal.detail} It is {await found.fetchone()}.") from None


def _is_shown(probe: Probe) -> bool:
    with probe.tenant() as first, probe.tenant() as second:
        event = str(uuid.uuid4())
        probe.event(first, event_id=event, payload={"note": "not yours"})
        return "not yours" in probe.event(second, event_id=event).text


@service(lambda p: _has_the_id_of_its_payload(p), "drill/outbox/equal-events-are-two", ("duplicate", "id"))
@instead_of("read_event")
def id_of_the_payload(raw: bytes) -> EventRequest:
    """An event without an id takes the `id` of its payload: two orders of one customer are one."""
    request = read_event(raw)
    return dataclasses.replace(request, event_id=request.event_id or as_uuid(request.payload.get("id")))


def _has_the_id_of_its_payload(probe: Probe) -> bool:
    with probe.tenant() as company:
        event = str(uuid.uuid4())
        return bool(probe.event(company, payload={"id": event}).json()["event_id"] == event)


@service(lambda p: _is_accepted_unwritten(p), "drill/flags/direct-effect-with-its-event", "accepted")
def accepted_before_it_is_written(settings: Settings) -> Parts:
    """An event is acknowledged before it is written: a crash in between loses it."""
    release, writing = build_parts(settings), set[asyncio.Task[Any]]()

    async def accept(parts: Parts, call: Call) -> Reply:
        task = asyncio.create_task(accept_event(parts, call))
        writing.add(task)
        task.add_done_callback(writing.discard)
        with contextlib.suppress(TimeoutError):
            return await asyncio.wait_for(asyncio.shield(task), 0.1)
        path = "direct" if await _is_direct(parts, request := parts.read_event(call.body)) else "outbox"
        return Reply(202, {"event_id": request.event_id or parts.new_id(), "path": path, "duplicate": False})

    return dataclasses.replace(release, accept_event=accept)


@service(lambda p: _leaves_a_failed_task(p), "drill/flags/direct-effect-with-its-event", "no effect")
def direct_path_leaves_a_failed_task(settings: Settings) -> Parts:
    """An event of the direct path whose task is there, and has failed, is accepted and never done."""
    effect = "DO UPDATE SET status = 'completed', updated_at = now() WHERE agent_tasks.status <> 'completed'"
    return altered(settings, "emit_event", (effect, "DO NOTHING"))


def _leaves_a_failed_task(probe: Probe) -> bool:
    failed = "INSERT INTO agent_tasks (company_id, agent_name, event_id, status) VALUES (%s, 'a', %s, 'failed')"
    with probe.tenant() as company:
        probe.switch_off(company)
        event = str(uuid.uuid4())
        probe.rows(failed, company, event)
        path = probe.event(company, event_id=event).json()["path"]
        done = "SELECT count(*) FROM agent_tasks WHERE event_id = %s AND status = 'completed'"
        return path == "direct" and not probe.value(done, event)


@service(lambda p: _refuses_many_lists(p), "drill/http-surface/signs-in-text", "side by side")
@instead_of("read_event")
def lists_side_by_side_are_nested(raw: bytes) -> EventRequest:
    """Lists side by side count as nested: an honest payload with many of them is refused."""
    if raw.count(b"[") > 64:
        raise Refusal("invalid_request", "See errors.")
    return read_event(raw)


def _refuses_many_lists(probe: Probe) -> bool:
    with probe.tenant() as company:
        return probe.event(company, payload={"a": [[]] * 100}).status_code == 400


@service(lambda p: _takes_any_name(p), "drill/http-surface/signs-in-text", "member named")
@instead_of("read_event")
def names_in_a_payload_are_not_examined(raw: bytes) -> EventRequest:
    """A member's name may hold U+0000 or a lone surrogate: these are silently removed."""
    return read_event(re.sub(rb'"\\u(?:0000|d800)":', b'"":', raw))


def _takes_any_name(probe: Probe) -> bool:
    with probe.tenant() as company:
        return probe.event(company, payload={"\0": 1}).status_code == 202


@service(lambda p: _is_accepted_though_failing(p), "drill/flags/direct-path-fails-as-a-whole", "always fails")
@instead_of("obey_drill")
async def deaf_to_a_direct_failure(_conn: Connection, _request: EventRequest) -> int:
    """On the direct path a failure of the agent is ignored: the event is accepted as done."""
    return 0


def _is_accepted_though_failing(probe: Probe) -> bool:
    with probe.tenant() as company:
        probe.switch_off(company)
        failing = {"event_type": "drill.direct", "payload": {"drill": {"fail_times": -1}}}
        return probe.event(company, **failing).status_code == 202


async def _is_direct(parts: Parts, request: EventRequest) -> bool:
    async with parts.database.connection() as conn:
        return bool(await fetch_value(conn, "event_path", company_id=request.company_id) == "direct")


def _is_accepted_unwritten(probe: Probe) -> bool:
    with probe.tenant() as company, locked(probe):
        return probe.event(company, event_id=str(uuid.uuid4())).status_code == 202


@contextlib.contextmanager
def locked(probe: Probe) -> Iterator[None]:
    """The table of events, locked for a second at most by a session of its own."""
    with psycopg.connect(probe.environ["DATABASE_URL"]) as held:
        held.execute("LOCK TABLE public.events IN EXCLUSIVE MODE")
        yield


@service(lambda p: _sends(p, "viewer", event_type=7) == 403, "drill/tokens/validation-before-role", "403")
@around("accept_event")
async def rights_come_before_validation(release: Parts, parts: Parts, call: Call) -> Reply:
    """The rights of an event's sender are looked at before its body is validated."""
    if not (await parts.authenticate(parts, call.headers, call.body)).has_role:
        raise forbidden()
    return await release.accept_event(parts, call)


@service(lambda p: _sends(p, "viewer") == 202, "drill/tokens/foreign-event-refused", "202")
def any_role_sends_events(settings: Settings) -> Parts:
    """Any token of a tenant may send its events, whatever its role."""

    async def twin(parts: Parts, headers: RawHeaders, message: bytes, *, accepts_v1: bool = True) -> Caller:
        caller = await authenticate(parts, headers, message, accepts_v1=accepts_v1)
        if caller.claims is None or caller.has_role:
            return caller
        return dataclasses.replace(caller, claims=dataclasses.replace(caller.claims, role="company_admin"))

    async def accept(parts: Parts, call: Call) -> Reply:
        return await accept_event(dataclasses.replace(parts, authenticate=twin), call)

    return dataclasses.replace(build_parts(settings), accept_event=accept)


def _sends(probe: Probe, role: str, event_type: Any = "witness.done") -> int:
    with probe.tenant() as company:
        body = json.dumps({"company_id": company, "event_type": event_type, "payload": {}}).encode()
        headers = probe.as_token(probe.token({"role": role, "company_id": company}))
        return probe.send(body, headers, "/events").status_code


@service(lambda p: _leaves_a_transaction_open(p), "drill/outbox/sent-again-and-again", "503")
def used_ids_keep_their_connection(settings: Settings) -> Parts:
    """An event id that was used for another event leaves a connection in a transaction that nobody ends."""
    database = _LosingDatabase(settings)
    return dataclasses.replace(build_parts(settings), database=database, refusals=RefusalLog(database))


class _LosingDatabase(Database):
    @contextlib.asynccontextmanager
    async def connection(self, timeout_s: float | None = None) -> AsyncIterator[Connection]:
        conn = await self._living(self._timeout_s if timeout_s is None else timeout_s)
        kept = False
        try:
            yield conn
        except Refusal as refusal:
            kept = refusal.code == "event_id_reused"
            raise
        finally:
            if kept:
                await conn.execute("BEGIN")
            else:
                await self._pool.putconn(conn)


def _leaves_a_transaction_open(probe: Probe) -> bool:
    """Leaves one transaction open, not a dozen: the service must still answer; or the pool is empty already."""
    with probe.tenant() as company:
        event = str(uuid.uuid4())
        answers = [probe.event(company, event_id=event, payload={"n": n}).status_code for n in (1, 2)]
        left = "usename = 'replay_service' AND state = 'idle in transaction' AND query = 'BEGIN'"
        return 503 in answers or bool(probe.value(f"SELECT count(*) FROM pg_stat_activity WHERE {left}"))
