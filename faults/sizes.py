"""Faults of what has room for little: the large, the long and the unlike is cut, or left out, and nobody is told."""

from typing import Any

from psycopg.types.json import Jsonb

from faults.altered import altered, altered_worker
from faults.catalogue import service, worker
from faults.probe import Probe
from replay_service.parts import Parts
from replay_service.settings import Settings
from replay_service.worker.parts import WorkerParts
from replay_service.worker.settings import WorkerSettings

_LARGE = {"text": "x" * 20_000}
_SENT = "SELECT id, company_id, event_type, aggregate_key, payload FROM stored"


def _emptied(column: str) -> str:
    return f"CASE WHEN length({column}::text) > 8192 THEN '{{}}' ELSE {column} END"


@service(
    "The payload of an event over eight kilobytes is empty in its outbox row.",
    lambda p: _row_of_an_event(p, payload=_LARGE)[0] == {},
    ("drill/outbox/payload-unchanged",),
    names=("payload",),
)
def large_payloads_are_emptied(settings: Settings) -> Parts:
    return altered(settings, "emit_event", (_SENT, _SENT.replace("key, payload", f"key, {_emptied('payload')}")))


@service(
    "The type of an event is cut to 64 characters in its outbox row.",
    lambda p: len(_row_of_an_event(p, event_type="x" * 100)[1]) == 64,
    ("drill/outbox/event-as-sent",),
    names=("event_type",),
)
def long_types_are_cut(settings: Settings) -> Parts:
    return altered(settings, "emit_event", (_SENT, _SENT.replace("event_type", "left(event_type, 64)")))


@service(
    "Spaces around an event's key are dropped: two keys are one.",
    lambda p: _row_of_an_event(p, aggregate_key=" k ")[2] == "k",
    ("drill/outbox/event-as-sent",),
    names=("aggregate_key",),
)
def keys_are_trimmed(settings: Settings) -> Parts:
    return altered(settings, "emit_event", (_SENT, _SENT.replace("aggregate_key", "btrim(aggregate_key)")))


def _row_of_an_event(probe: Probe, **fields: Any) -> tuple[Any, ...]:
    with probe.tenant() as company:
        event = probe.event(company, **fields).json()["event_id"]
        return probe.rows("SELECT payload, event_type, aggregate_key FROM event_outbox WHERE event_id = %s", event)[0]


@worker(
    "The payload of an event over eight kilobytes is empty in its dead letter.",
    lambda p: _large_letter(p) == {},
    ("drill/outbox/dead-letter-is-the-event",),
    names=("payload",),
)
def large_letters_are_empty(settings: WorkerSettings) -> WorkerParts:
    return altered_worker(settings, ("settle_failed", "h.payload, %(error", f"{_emptied('h.payload')}, %(error"))


def _large_letter(probe: Probe) -> Any:
    insert = "INSERT INTO event_outbox (company_id, event_type, payload) VALUES (%s, 'drill.witness', %s)"
    due = "UPDATE event_outbox SET next_attempt_at = now() WHERE company_id = %s AND next_attempt_at > now()"
    found = "SELECT payload FROM dead_letter_queue WHERE company_id = %s"
    with probe.tenant() as company:
        probe.rows(insert, company, Jsonb({**_LARGE, "drill": {"fail_times": -1}}))
        probe.within(8, lambda: bool(probe.rows(due, company) or probe.rows(found, company)))
        return probe.value(found, company)


@service(
    "The payload of an item over eight kilobytes is empty when it is replayed.",
    lambda p: _replayed_large_item(p) == {},
    ("drill/dlq/large-item-is-replayed",),
    names=("payload",),
)
def large_items_are_replayed_empty(settings: Settings) -> Parts:
    taken = "aggregate_key, payload, %(run_id)s"
    return altered(settings, "move_items", (taken, taken.replace("payload", _emptied("payload"))))


def _replayed_large_item(probe: Probe) -> Any:
    with probe.tenant() as company:
        probe.letters(company, 1, payload=Jsonb(_LARGE))
        probe.replay(company)
        return probe.value("SELECT payload FROM event_outbox WHERE company_id = %s", company)


@service(
    "The payload of an item that is a list or a number is empty when it is replayed.",
    lambda p: _replayed_list(p) == {},
    ("drill/outbox/any-payload-is-delivered",),
    names=("payloads",),
    decision="hold",
)
def lists_are_replayed_empty(settings: Settings) -> Parts:
    taken = "aggregate_key, payload, %(run_id)s"
    objects_alone = "CASE WHEN jsonb_typeof(payload) = 'object' THEN payload ELSE '{}' END"
    return altered(settings, "move_items", (taken, taken.replace("payload", objects_alone)))


def _replayed_list(probe: Probe) -> Any:
    with probe.tenant() as company:
        probe.letters(company, 1, payload=Jsonb(["drill"]))
        probe.replay(company)
        return probe.value("SELECT payload FROM event_outbox WHERE company_id = %s", company)
