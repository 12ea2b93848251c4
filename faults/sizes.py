"""Faults of what has room for little: the large, the long and the unlike is cut, or left out, and nobody is told."""

import dataclasses
import json
import uuid
from collections.abc import Sequence
from typing import Any

from psycopg.types.json import Jsonb

from faults.altered import altered, altered_worker, around, instead_of
from faults.catalogue import service, worker
from faults.probe import Probe
from faults.requests import requesting
from replay_service.database import Connection
from replay_service.parts import Parts
from replay_service.problems import Refusal
from replay_service.settings import Settings
from replay_service.validation import EventRequest, ReplayRequest, read_event, read_replay
from replay_service.worker.parts import WorkerParts
from replay_service.worker.settings import WorkerSettings

_LARGE = {"text": "x" * 20_000}
_SENT = "SELECT id, company_id, event_type, aggregate_key, payload FROM stored"


def _emptied(column: str) -> str:
    return f"CASE WHEN length({column}::text) > 8192 THEN '{{}}' ELSE {column} END"


@service(lambda p: _row_of_an_event(p, payload=_LARGE)[0] == {}, "drill/outbox/payload-unchanged", "payload")
def large_payloads_are_emptied(settings: Settings) -> Parts:
    """The payload of an event over eight kilobytes is empty in its outbox row."""
    return altered(settings, "emit_event", (_SENT, _SENT.replace("key, payload", f"key, {_emptied('payload')}")))


@service(
    lambda p: len(_row_of_an_event(p, payload={"list": [*range(101)]})[0]["list"]) == 100,
    "drill/outbox/payload-unchanged",
    "payload",
)
def long_lists_are_cut(settings: Settings) -> Parts:
    """Lists in the payload of an event are cut to a hundred members."""
    cut = "jsonb_path_query_array(payload, '$.list[0 to 99]')"
    kept = f"CASE WHEN payload ? 'list' THEN jsonb_set(payload, '{{list}}', {cut}) ELSE payload END"
    return altered(settings, "emit_event", (_SENT, _SENT.replace("key, payload", f"key, {kept}")))


@service(lambda p: _status_of_a_zero(p) == 202, "drill/http-surface/signs-in-text", "40 kB")
@around("read_event")
def large_bodies_are_not_looked_through(parts: Parts, raw: bytes) -> EventRequest:
    """Forbidden characters are refused in bodies up to 4 kB, and silently removed from larger ones."""
    return parts.read_event(raw.replace(rb"\u0000", b"") if len(raw) > 4096 else raw)


@service(lambda p: "\ufffd" in _text_of_an_event(p, "x\u20ac" * 5_000), "drill/outbox/payload-unchanged", "payload")
@around("read_event")
def large_bodies_are_read_in_blocks(parts: Parts, raw: bytes) -> EventRequest:
    """Bodies are decoded in 4 kB blocks: a character across two of them becomes question marks."""
    blocks = (raw[n : n + 4096].decode(errors="replace") for n in range(0, len(raw), 4096))
    return parts.read_event("".join(blocks).encode())


def _text_of_an_event(probe: Probe, text: str) -> str:
    """What is stored of a text that is sent as it is, without escapes."""
    with probe.tenant() as company:
        sent = {"company_id": company, "event_type": "witness.done", "payload": {"text": text}}
        event = probe.send(json.dumps(sent, ensure_ascii=False).encode(), path="/events").json()["event_id"]
        return str(probe.value("SELECT payload ->> 'text' FROM event_outbox WHERE event_id = %s", event))


def _status_of_a_zero(probe: Probe) -> int:
    with probe.tenant() as company:
        return probe.event(company, payload={**_LARGE, "zero": "\0"}).status_code


@service(lambda p: _first_of_27(p) > 2, "drill/lifecycle/items-of-a-key-in-order", "order")
@around("move")
async def what_is_over_25_goes_first(parts: Parts, conn: Connection, run_id: str, items: Sequence[str]) -> None:
    """A replay moves its items in batches of 25, the last batch first: events of a key are reordered."""
    for part in (items[25:], items[:25]):
        await parts.move(conn, run_id, part)


def _first_of_27(probe: Probe) -> int:
    """By age, which of 27 letters a replay moves first."""
    first = "SELECT dlq_id::text FROM event_outbox WHERE company_id = %s ORDER BY id LIMIT 1"
    with probe.tenant() as company:
        letters = probe.letters(company, 27)
        probe.replay(company, max=27)
        return 1 + letters.index(probe.value(first, company))


@service(lambda p: len(_row_of_an_event(p, event_type="x" * 100)[1]) == 64, "drill/outbox/event-as-sent", "event_type")
def long_types_are_cut(settings: Settings) -> Parts:
    """The type of an event is cut to 64 characters in its outbox row."""
    return altered(settings, "emit_event", (_SENT, _SENT.replace("event_type", "left(event_type, 64)")))


@service(lambda p: _row_of_an_event(p, aggregate_key=" k ")[2] == "k", "drill/outbox/event-as-sent", "aggregate_key")
def keys_are_trimmed(settings: Settings) -> Parts:
    """Spaces around an event's key are dropped: two keys are one."""
    return altered(settings, "emit_event", (_SENT, _SENT.replace("aggregate_key", "btrim(aggregate_key)")))


@service(
    lambda p: _row_of_an_event(p, event_type="witness.\u00e9")[1] == "witness.\u00c3\u00a9",
    "drill/outbox/event-as-sent",
    "event_type",
)
def type_read_as_latin_1(settings: Settings) -> Parts:
    """The type of an event is read as Latin-1 on its way: letters beyond ASCII become others."""
    garbled = "convert_from(convert_to(event_type, 'UTF8'), 'LATIN1')"
    return altered(settings, "emit_event", (_SENT, _SENT.replace("event_type", garbled)))


def _row_of_an_event(probe: Probe, **fields: Any) -> tuple[Any, ...]:
    with probe.tenant() as company:
        event = probe.event(company, **fields).json()["event_id"]
        return probe.rows("SELECT payload, event_type, aggregate_key FROM event_outbox WHERE event_id = %s", event)[0]


@worker(lambda p: _large_letter(p) == {}, "drill/outbox/dead-letter-is-the-event", "payload")
def large_letters_are_empty(settings: WorkerSettings) -> WorkerParts:
    """The payload of an event over eight kilobytes is empty in its dead letter."""
    return altered_worker(settings, ("settle_failed", "h.payload, %(error", f"{_emptied('h.payload')}, %(error"))


def _large_letter(probe: Probe) -> Any:
    insert = "INSERT INTO event_outbox (company_id, event_type, payload) VALUES (%s, 'drill.witness', %s)"
    due = "UPDATE event_outbox SET next_attempt_at = now() WHERE company_id = %s AND next_attempt_at > now()"
    found = "SELECT payload FROM dead_letter_queue WHERE company_id = %s"
    with probe.tenant() as company:
        probe.rows(insert, company, Jsonb({**_LARGE, "drill": {"fail_times": -1}}))
        probe.within(8, lambda: bool(probe.rows(due, company) or probe.rows(found, company)))
        return probe.value(found, company)


@service(lambda p: _replayed_large_item(p) == {}, "drill/dlq/large-item-is-replayed", "payload")
def large_items_are_replayed_empty(settings: Settings) -> Parts:
    """The payload of an item over eight kilobytes is empty when it is replayed."""
    taken = "aggregate_key, payload, %(run_id)s"
    return altered(settings, "move_items", (taken, taken.replace("payload", _emptied("payload"))))


def _replayed_large_item(probe: Probe) -> Any:
    with probe.tenant() as company:
        probe.letters(company, 1, payload=Jsonb(_LARGE))
        probe.replay(company)
        return probe.value("SELECT payload FROM event_outbox WHERE company_id = %s", company)


@service(lambda p: _replayed_list(p) == {}, "drill/outbox/any-payload-is-delivered", "payloads", decision="hold")
def lists_are_replayed_empty(settings: Settings) -> Parts:
    """The payload of an item that is a list or a number is empty when it is replayed."""
    taken = "aggregate_key, payload, %(run_id)s"
    objects_alone = "CASE WHEN jsonb_typeof(payload) = 'object' THEN payload ELSE '{}' END"
    return altered(settings, "move_items", (taken, taken.replace("payload", objects_alone)))


def _replayed_list(probe: Probe) -> Any:
    with probe.tenant() as company:
        probe.letters(company, 1, payload=Jsonb(["drill"]))
        probe.replay(company)
        return probe.value("SELECT payload FROM event_outbox WHERE company_id = %s", company)


@service(lambda p: _takes(p, "e\u0301", "\u00e9"), "drill/safety-rails/pattern-case", "other types")
def accents_are_composed(settings: Settings) -> Parts:
    """An `error_type` is Unicode-normalised before it is compared: two types become one."""
    exact = "error_type = %(error_type)s::text)"
    return altered(settings, "pick_items", (exact, "normalize(error_type) = normalize(%(error_type)s::text))"))


@service(lambda p: not _takes(p, "\U0001f98a", "\U0001f98a"), "drill/safety-rails/pattern-case", "of the 1 due")
def letters_beyond_16_bits_are_halved(settings: Settings) -> Parts:
    """A letter beyond 16 bits in an `error_type` that is asked for becomes two question marks: no item has that
    type.
    """

    def halved(asked: ReplayRequest) -> ReplayRequest:
        text = asked.error_type and "".join(c if ord(c) < 1 << 16 else "??" for c in asked.error_type)
        return dataclasses.replace(asked, error_type=text)

    return requesting(settings, halved)


def _takes(probe: Probe, error_type: str, asked: str) -> bool:
    with probe.tenant() as company:
        probe.letters(company, 1, error_type=error_type)
        return bool(probe.replay(company, dry_run=True, error_type=asked).json()["items"])


@service(lambda p: _key_of_an_item(p, " k ") == "k", "drill/dlq/letter-is-kept", "aggregate_key")
def keys_of_items_are_trimmed(settings: Settings) -> Parts:
    """Spaces around an item's key are dropped when it is replayed: it does not wait for the events of its own."""
    kept = "SELECT event_id, company_id, event_type, aggregate_key, payload"
    return altered(settings, "move_items", (kept, kept.replace("aggregate_key", "trim(aggregate_key)")))


def _key_of_an_item(probe: Probe, key: str) -> Any:
    with probe.tenant() as company:
        probe.letters(company, 1, aggregate_key=key)
        probe.replay(company)
        return probe.value("SELECT aggregate_key FROM event_outbox WHERE company_id = %s", company)


@service(lambda p: not _takes_behind_a_page(p), "drill/safety-rails/not-due-waits", "0 items taken")
def one_page_is_looked_at(settings: Settings) -> Parts:
    """Only the oldest hundred letters are read: a hundred that are not due stop a tenant's replays."""
    own = "company_id = %(company_id)s::uuid\n    AND status = 'pending'"
    page = f"SELECT w.id FROM public.dead_letter_queue w WHERE w.{own} ORDER BY w.created_at, w.id LIMIT 100"
    return altered(settings, "pick_items", (own, f"{own} AND id IN ({page})"))


def _takes_behind_a_page(probe: Probe) -> bool:
    with probe.tenant() as company:
        youngest = probe.letters(company, 101, retry_after="2099-01-01")[-1]
        probe.value("UPDATE dead_letter_queue SET retry_after = now() WHERE id = %s RETURNING 1", youngest)
        return bool(probe.replay(company, dry_run=True).json()["items"])


@service(
    lambda p: p.replay(str(uuid.uuid4()), max_items=2**32 + 1).status_code != 400,
    "drill/safety-rails/max-beyond-all-integers",
    "max-beyond-all-integers",
)
@instead_of("read_replay")
def max_has_32_bits(raw: bytes) -> ReplayRequest:
    """`max` overflows at 32 bits: 4294967297, or 2^64 + 1, counts as 1."""
    try:
        return read_replay(raw)
    except Refusal as refusal:
        asked = json.loads(raw) if refusal.code == "batch_too_large" else {}
        if asked.get("max", 0) < 2**31:
            raise
        return read_replay(json.dumps({**asked, "max": asked["max"] % 2**32}).encode())


@service(lambda p: _blank_keys_run_twice(p), "drill/idempotency/keys-differ-in-spaces", "run of another key")
def blank_keys_are_none(settings: Settings) -> Parts:
    """A key of one space counts as no key: the request runs again when it is re-sent."""

    def change(request: ReplayRequest) -> ReplayRequest:
        is_blank = request.idempotency_key is not None and not request.idempotency_key.strip()
        return dataclasses.replace(request, idempotency_key=None) if is_blank else request

    return requesting(settings, change)


def _blank_keys_run_twice(probe: Probe) -> bool:
    with probe.tenant() as company:
        return not [probe.replay(company, idempotency_key=" ").json()["duplicate"] for _ in range(2)][1]


@service(lambda p: _digits(p)[0], "drill/idempotency/keys-of-digits", ("duplicate", "run of another key"))
def keys_of_digits_are_numbers(settings: Settings) -> Parts:
    """A key that reads as a number is one: `007` and `7` are the same."""

    def change(request: ReplayRequest) -> ReplayRequest:
        key = request.idempotency_key
        return dataclasses.replace(request, idempotency_key=str(int(key))) if key and key.isdigit() else request

    return requesting(settings, change)


@service(lambda p: _digits(p)[1], "drill/safety-rails/pattern-number", "other types")
def zero_is_no_error_type(settings: Settings) -> Parts:
    """An `error_type` of `0` counts as none, as the text does in some languages: items of every type are taken."""
    return requesting(settings, lambda r: dataclasses.replace(r, error_type=None) if r.error_type == "0" else r)


def _digits(probe: Probe) -> tuple[bool, bool]:
    """Whether the key `7` is known after `007`, and whether an item of another type is shown for the type `0`."""
    with probe.tenant() as company:
        probe.replay(company, idempotency_key="007")
        again = probe.replay(company, idempotency_key="7").json()["duplicate"]
        probe.letters(company, 1)
        return bool(again), bool(probe.replay(company, dry_run=True, error_type="0").json()["items"])


@service(lambda p: _zero_is_no_key(p), "drill/outbox/event-as-sent", "aggregate_key")
@instead_of("read_event")
def zero_is_no_aggregate_key(raw: bytes) -> EventRequest:
    """An aggregate key of `0` counts as none: the events of that key have no order."""
    request = read_event(raw)
    return dataclasses.replace(request, aggregate_key=None) if request.aggregate_key == "0" else request


def _zero_is_no_key(probe: Probe) -> bool:
    with probe.tenant() as company:
        probe.event(company, aggregate_key="0")
        return probe.value("SELECT aggregate_key FROM events WHERE company_id = %s", company) is None
