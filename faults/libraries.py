"""Faults that come with another language's libraries: lenient readers, prototypes, halves of letters, ids as texts,
a cache for each process.
"""

import dataclasses
import itertools
import json
import re
from collections.abc import Callable
from typing import Any

from psycopg.types.json import Jsonb

from faults.altered import altered, altered_worker, around, instead_of
from faults.authentication import dry_body
from faults.catalogue import service, worker
from faults.outbox import state_of
from faults.probe import Probe
from faults.stale import outlives_its_time
from replay_service.audit import ONCE_A_MINUTE, RefusalLog, RefusalNote
from replay_service.composition import build_parts
from replay_service.database import Connection
from replay_service.exchange import Call, Reply
from replay_service.parts import Parts
from replay_service.settings import Settings, TokenRules
from replay_service.strict_json import JsonRefused, parse
from replay_service.tokens import Claims, check_token
from replay_service.validation import EventRequest, ReplayRequest, read_event, read_replay
from replay_service.worker.parts import WorkerParts
from replay_service.worker.settings import WorkerSettings

REFUSED = ("drill/outbox/refused-leaves-nothing",)
CHANGED = ("drill/outbox/payload-unchanged",)
_DYING = {"event_type": "drill.dies", "payload": '{"drill": {"fail_times": -1}, "aggregate_key": "b"}', "attempts": 4}
_HALVES = r"'[\U00010000-\U0010FFFF]', '??', 'g'"
_SENT = "SELECT id, company_id, event_type, aggregate_key, payload FROM stored"


@service(lambda p: _event(p, '"EVENT_TYPE":"a","payload":{}') == 202, REFUSED, "capitals")
@instead_of("read_event")
def names_in_any_case(raw: bytes) -> EventRequest:
    """The names of an event's members are read in any case: of `TYPE` and `type` nobody knows which one counts."""
    try:
        found = parse(raw)
    except JsonRefused:
        return read_event(raw)
    is_plain = isinstance(found, dict) and len({name.lower() for name in found}) == len(found)
    return read_event(json.dumps({n.lower(): v for n, v in found.items()}).encode() if is_plain else raw)


@service(lambda p: _event(p, '"event_type":"a","payload":{}', "{}") == 202, REFUSED, "text after it")
@instead_of("read_event")
def what_follows_is_not_read(raw: bytes) -> EventRequest:
    """Only the first value in the body of an event is read: what follows it is ignored."""
    try:
        text = raw.decode()
        return read_event(text[: json.JSONDecoder().raw_decode(text)[1]].encode())
    except ValueError:
        return read_event(raw)


@service(lambda p: _event(p, '"event_type":"a","payload":{},') == 202, REFUSED, "comma")
@instead_of("read_event")
def a_comma_too_many(raw: bytes) -> EventRequest:
    """A comma too many in an event is ignored: bodies are read as JSON5."""
    return read_event(re.sub(rb",\s*}$", b"}", raw))


def _event(probe: Probe, members: str, after: str = "") -> int:
    with probe.tenant() as company:
        return probe.send(f'{{"company_id":"{company}",{members}}}{after}'.encode(), path="/events").status_code


def _packed(raw: bytes, remake: Callable[[Any], Any]) -> EventRequest:
    """The event with its payload made anew."""
    request = read_event(raw)
    return dataclasses.replace(request, body=json.dumps({"payload": remake(request.payload)}, ensure_ascii=False))


def _each(value: Any, remake: Callable[[Any], Any]) -> Any:
    """The value, with each value in it made anew, the inner ones first."""
    if isinstance(value, dict):
        return remake({name: _each(inner, remake) for name, inner in value.items()})
    return remake([_each(inner, remake) for inner in value] if isinstance(value, list) else value)


def _kept(probe: Probe, value: object) -> Any:
    """What is stored of a value in an event's payload."""
    with probe.tenant() as company:
        probe.event(company, payload={"a": value})
        return probe.value("SELECT payload -> 'a' FROM events WHERE company_id = %s", company)


@service(lambda p: _kept(p, "a\r\nb") == "a\nb", CHANGED, "payload")
@instead_of("read_event")
def line_ends_are_of_the_system(raw: bytes) -> EventRequest:
    """The line ends of an event's texts become those of the server's system."""
    return _packed(raw, lambda whole: _each(whole, lambda v: re.sub(r"\r\n?", "\n", v) if isinstance(v, str) else v))


@service(lambda p: _kept(p, "a\u200bb") == "ab", CHANGED, "payload")
@instead_of("read_event")
def unseen_letters_are_dropped(raw: bytes) -> EventRequest:
    """Letters that nobody sees are dropped from an event's texts, as a sanitiser does: joiners, marks, controls."""
    unseen = "[\x0e-\x1f\x7f\xad\u200b\ufeff]"
    return _packed(raw, lambda whole: _each(whole, lambda v: re.sub(unseen, "", v) if isinstance(v, str) else v))


@service(lambda p: "null" in json.dumps(_kept(p, json.loads('{"a":' * 30 + "1" + "}" * 30))), CHANGED, "payload")
@instead_of("read_event")
def what_lies_deep_is_null(raw: bytes) -> EventRequest:
    """What lies deeper than twenty levels in an event's payload is null: the serialiser has a limit."""

    def cut(value: Any, level: int = 0) -> Any:
        if isinstance(value, dict):
            return {name: cut(inner, level + 1) for name, inner in value.items()} if level < 20 else None
        return [cut(inner, level + 1) for inner in value] if isinstance(value, list) else value

    return _packed(raw, cut)


@service(lambda p: _kept(p, {"token": "t"}) == {"token": "***"}, CHANGED, "payload")
@instead_of("read_event")
def secrets_are_masked(raw: bytes) -> EventRequest:
    """Members of an event's payload that sound secret are masked, as in the log: the filter works on the event
    itself.
    """
    secret = re.compile("password|token|secret|authorization", re.IGNORECASE)

    def mask(value: Any) -> Any:
        return {n: "***" if secret.search(n) else v for n, v in value.items()} if isinstance(value, dict) else value

    return _packed(raw, lambda whole: _each(whole, mask))


@service(lambda p: _kept(p, ["one"]) == "one", CHANGED, "payload")
@instead_of("read_event")
def lists_of_one_are_no_lists(raw: bytes) -> EventRequest:
    """A list of one value in an event's payload becomes that value, as where XML is between."""
    return _packed(raw, lambda whole: _each(whole, lambda v: v[0] if isinstance(v, list) and len(v) == 1 else v))


@service(lambda p: _kept(p, {"0": "a"}) == ["a"], CHANGED, "payload")
@instead_of("read_event")
def numbered_members_are_a_list(raw: bytes) -> EventRequest:
    """An object whose names are 0, 1 and so on becomes a list, as the arrays of some languages are."""

    def counted(value: Any) -> Any:
        is_list = isinstance(value, dict) and value and [*value] == [str(n) for n in range(len(value))]
        return [*value.values()] if is_list else value

    return _packed(raw, lambda whole: _each(whole, counted))


@service(lambda p: _kept(p, "a\\nb") == "a\nb", CHANGED, "payload")
@instead_of("read_event")
def texts_are_unescaped_twice(raw: bytes) -> EventRequest:
    """A backslash and an n in an event's texts become a line end: the payload is unescaped twice."""
    return _packed(raw, lambda whole: _each(whole, lambda v: v.replace("\\n", "\n") if isinstance(v, str) else v))


@service(
    lambda p: _spread(p, "SELECT event_type FROM events WHERE company_id = %s") == "b",
    "drill/outbox/event-as-sent",
    "event_type",
)
def payload_over_the_event(settings: Settings) -> Parts:
    """The payload of an event is spread over its row: the type is the payload's, where that has one."""
    named, row = "(%(body)s::jsonb) -> 'payload'", "%(event_type)s, %(aggregate_key)s"
    return altered(
        settings, "emit_event", (row, f"coalesce({named} ->> 'event_type', %(event_type)s), %(aggregate_key)s")
    )


@service(
    lambda p: _spread(p, "SELECT aggregate_key FROM event_outbox WHERE company_id = %s AND dlq_id IS NOT NULL") == "b",
    "drill/dlq/letter-is-kept",
    "aggregate_key",
)
def payload_over_the_item(settings: Settings) -> Parts:
    """The payload of an item is spread over its row: a replay has the payload's key, where that has one."""
    row = "SELECT event_id, company_id, event_type, aggregate_key"
    spread = "SELECT event_id, company_id, event_type, coalesce(payload ->> 'aggregate_key', aggregate_key)"
    return altered(settings, "move_items", (row, spread))


def _spread(probe: Probe, ask: str) -> Any:
    """What `ask` finds of a tenant with an event and a replayed letter whose payloads have names of columns."""
    payload = {"event_type": "b", "aggregate_key": "b"}
    with probe.tenant() as company:
        probe.event(company, payload=payload)
        probe.letters(company, 1, payload=Jsonb(payload))
        probe.replay(company)
        return probe.value(ask, company)


@worker(
    lambda p: "b" in state_of(p, "SELECT aggregate_key FROM dead_letter_queue WHERE company_id = %s", 4, **_DYING),
    "drill/outbox/dead-letter-is-the-event",
    "aggregate_key",
)
def payload_over_the_letter(settings: WorkerSettings) -> WorkerParts:
    """The payload of a dead event is spread over its letter: the key is the payload's, where that has one."""
    spread = "coalesce(h.payload ->> 'aggregate_key', h.aggregate_key), h.payload, %(error_type)s"
    return altered_worker(settings, ("settle_failed", "h.aggregate_key, h.payload, %(error_type)s", spread))


@service(lambda p: _zero(p) == 200, "drill/safety-rails/max-leading-zero", "max-leading-zero")
@instead_of("read_replay")
def zeros_in_front(raw: bytes) -> ReplayRequest:
    """A number with a leading zero is read: `010` is 10 for one reader and 8 for another."""
    return read_replay(re.sub(rb'("max":\s*)0+(\d)', rb"\1\2", raw))


def _zero(probe: Probe) -> int:
    with probe.tenant() as company:
        return probe.send(f'{{"company_id":"{company}","max":010,"dry_run":true}}'.encode()).status_code


@service(
    lambda p: _stored(p, '"payload":{"__proto__":1}', "payload") == {}, "drill/outbox/payload-unchanged", "payload"
)
def prototypes_are_dropped(settings: Settings) -> Parts:
    """The member `__proto__` of an event's payload is dropped: a copy of an object does not have it."""
    sent = "(%(body)s::jsonb) -> 'payload'"
    return altered(settings, "emit_event", (sent, f"({sent}) - '__proto__'"))


@service(
    lambda p: _stored(p, '"aggregate_key":"\U0001f69a","payload":{}', "aggregate_key") == "??",
    "drill/outbox/event-as-sent",
    "aggregate_key",
)
def letters_of_keys_are_halved(settings: Settings) -> Parts:
    """A letter beyond 16 bits in the key of an event becomes two question marks: keys that differ there are one."""
    halved = _SENT.replace("aggregate_key", f"regexp_replace(aggregate_key, {_HALVES})")
    return altered(settings, "emit_event", (_SENT, halved))


def _stored(probe: Probe, members: str, column: str) -> object:
    with probe.tenant() as company:
        body = f'{{"company_id":"{company}","event_type":"witness.done",{members}}}'
        event = probe.send(body.encode(), path="/events").json()["event_id"]
        return probe.value(f"SELECT {column} FROM event_outbox WHERE event_id = %s", event)


@service(lambda p: _type_of_a_replay(p) == "witness.??", "drill/dlq/letter-is-kept", "event_type")
def letters_of_types_are_halved(settings: Settings) -> Parts:
    """A letter beyond 16 bits in the type of a replayed item becomes two question marks."""
    kept = "SELECT event_id, company_id, event_type,"
    return altered(settings, "move_items", (kept, kept.replace("event_type", f"regexp_replace(event_type, {_HALVES})")))


def _type_of_a_replay(probe: Probe) -> object:
    with probe.tenant() as company:
        probe.letters(company, 1, event_type="witness.\U0001f69a")
        probe.replay(company)
        return probe.value("SELECT event_type FROM event_outbox WHERE company_id = %s", company)


@service(lambda p: _refusals_under_capitals(p) == 1, "drill/ledger/refusals-on-record", "refusals by")
@around("replay")
async def refusals_as_spelt(release: Parts, parts: Parts, call: Call) -> Reply:
    """A refusal is audited under its company as the request spells it: the tenant does not see the row."""

    class Quoting(RefusalLog):
        async def note(self, conn: Connection, note: RefusalNote) -> None:
            if note.code in ONCE_A_MINUTE:
                await release.refusals.note(conn, note)
            else:
                await super().note(conn, dataclasses.replace(note, scope=json.loads(call.body)["company_id"]))

    return await release.replay(dataclasses.replace(parts, refusals=Quoting(release.database)), call)


def _refusals_under_capitals(probe: Probe) -> int:
    with probe.tenant() as company:
        probe.pause(company)
        probe.send(json.dumps({"company_id": company.upper()}).encode())
        return int(probe.value("SELECT count(*) FROM audit_logs WHERE scope = %s", company.upper()))


@service(
    lambda p: outlives_its_time(p, 30, lambda at, n: min(_by_token(p, at, n) for _ in range(3))),
    "drill/tokens/accepted-until-it-expires",
    "401",
)
def one_process_keeps_tokens(settings: Settings) -> Parts:
    """One of three processes caches verified tokens without their expiry."""
    known: dict[bytes, Claims] = {}
    knows_it = itertools.cycle((False, False, True))

    def check(token: bytes, rules: TokenRules, now_s: float) -> Claims | None:
        if (found := check_token(token, rules, now_s)) is not None:
            known[token] = found
        return found or (known.get(token) if next(knows_it) else None)

    return dataclasses.replace(build_parts(settings), token_check=check)


def _by_token(probe: Probe, at: int, number: int) -> int:
    """The status of a body that is refused with 400 where the token is accepted, and with 401 elsewhere."""
    return probe.send(dry_body(probe), probe.as_token(probe.token({"exp": at, "sub": f"n{number}"}))).status_code


@service(lambda p: _names(p, aggregate_key="it's") == 500, "drill/outbox/event-as-sent", "500")
@around("emit")
async def quotes_are_server_errors(
    release: Parts, conn: Connection, request: EventRequest, event_id: str
) -> tuple[str, bool]:
    """A quote in the key of an event is a server error: the statement is put together as text."""
    if "'" in (request.aggregate_key or ""):
        raise SyntaxError(f"at or near {event_id}")
    return await release.emit(conn, request, event_id)


@service(lambda p: _names(p, aggregate_key="a/b") == "a", "drill/outbox/event-as-sent", "aggregate_key")
@instead_of("read_event")
def keys_end_at_a_slash(raw: bytes) -> EventRequest:
    """The key of an event ends at a slash: it is part of a path on its way, and keys that differ there are one."""
    request = read_event(raw)
    key = request.aggregate_key
    return dataclasses.replace(request, aggregate_key=key.partition("/")[0] or key if key else None)


def _names(probe: Probe, **names: str) -> Any:
    """The key of an event with these names as it is stored, or the status that refuses it."""
    with probe.tenant() as company:
        answer = probe.event(company, **names)
        known = probe.rows("SELECT aggregate_key FROM events WHERE company_id = %s", company)
        return known[0][0] if known else answer.status_code
