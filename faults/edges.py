"""Faults that show at an edge alone: in the longest list, a little too deep, at the last character of a key."""

import dataclasses
import json
import re
import uuid
from collections.abc import Sequence

import msgspec

from faults.altered import altered, altered_worker, around, instead_of, rewrite, with_database
from faults.catalogue import service, worker
from faults.effects import moving_apart
from faults.order import waits_for
from faults.outbox import is_done
from faults.probe import Probe
from replay_service.claim import Selection
from replay_service.composition import build_parts
from replay_service.database import QUERIES, Connection
from replay_service.parts import Parts
from replay_service.problems import Refusal, invalid
from replay_service.settings import Settings
from replay_service.validation import EventRequest, ReplayRequest, read_event, read_replay
from replay_service.worker.parts import WorkerParts
from replay_service.worker.settings import WorkerSettings

TEXTS = ("drill/http-surface/signs-in-text",)
MANY = 50
_TRIED_LAST = ("ORDER BY created_at, id\n  LIMIT", "ORDER BY retry_count, created_at, id\n  LIMIT")
TOO_DEEP = b"[" * 64 + b"]" * 64


@service(
    lambda p: p.send(b'{"company_id":"%s","m\\u0061x":1,"max":1}' % str(uuid.uuid4()).encode()).status_code != 400,
    "drill/safety-rails/json-equal-duplicate-key",
    "json-equal-duplicate-key",
)
@instead_of("read_replay")
def names_with_an_escape_are_others(raw: bytes) -> ReplayRequest:
    """A repeated member name is not recognised if one of them has an escape: the last one counts."""
    return read_replay(json.dumps(json.loads(raw)).encode() if b"\\u0" in raw else raw)


@service(lambda p: _reads_too_deep(p), "drill/http-surface/nesting", "66 levels")
@instead_of("read_event")
def nested_a_little_too_deep(raw: bytes) -> EventRequest:
    """A body that is nested two levels too deep is read."""
    return read_event(raw.replace(TOO_DEEP, TOO_DEEP[2:-2]))


def _reads_too_deep(probe: Probe) -> bool:
    with probe.tenant() as company:
        body = b'{"company_id":"%s","event_type":"a","payload":{"a":%s}}' % (company.encode(), TOO_DEEP)
        signed = {"X-Transbot-Signature": probe.sign(body)}
        return probe.send(body, signed, "/events").status_code == 202


def _refusing(settings: Settings, pattern: bytes) -> Parts:
    """The service that searches the raw text of a body for this pattern, not the parsed values."""

    def read(raw: bytes) -> ReplayRequest:
        if re.search(pattern, raw):
            raise invalid("", "The body must not contain U+0000 or lone surrogates.")
        return read_replay(raw)

    return dataclasses.replace(build_parts(settings), read_replay=read)


def _is_refused(probe: Probe, error_type: bytes) -> bool:
    with probe.tenant() as company:
        body = b'{"company_id":"%s","error_type":"%s"}' % (company.encode(), error_type)
        return probe.send(body, {"X-Transbot-Signature": probe.sign(body)}).status_code == 400


@service(lambda p: _is_refused(p, rb"\"" + b"[" * 70), TEXTS, "a text")
def texts_end_at_an_escaped_quote(settings: Settings) -> Parts:
    """An escaped quote is taken for the end of a string: brackets after it count as nesting."""
    return _refusing(settings, rb'\\"\[{65}')


@service(lambda p: _is_refused(p, rb"\\u0000"), TEXTS, "a text")
def a_backslash_is_an_escape(settings: Settings) -> Parts:
    r"""The escaped text `\\u0000` (a backslash, then u0000) is refused as if it were U+0000."""
    return _refusing(settings, rb"\\u0000")


@service(lambda p: _is_refused(p, rb"\ud83d\ude00"), TEXTS, "in two escapes")
def pairs_are_halves(settings: Settings) -> Parts:
    """A character written as a surrogate pair is refused: each half is taken for a lone surrogate."""
    return _refusing(settings, rb"(?i)(?<!\\)\\ud[89ab]")


@service(lambda p: _leaves_tomorrow(p), "drill/safety-rails/arguments-together", "items are shown")
def items_of_tomorrow_are_left(settings: Settings) -> Parts:
    """Items with a creation time in the future are skipped."""
    pending = "status = 'pending'"
    change = (pending, f"{pending} AND created_at <= now()")
    names = ("pick_items", "pick_items_by_id")
    return with_database(build_parts(settings), {QUERIES[n]: rewrite(QUERIES[n], change) for n in names})


def _leaves_tomorrow(probe: Probe) -> bool:
    with probe.tenant() as company:
        probe.letters(company, 1)
        probe.rows("UPDATE dead_letter_queue SET created_at = now() + interval '1 day' WHERE company_id = %s", company)
        return not probe.replay(company, dry_run=True).json()["items"]


@service(lambda p: _told_unknown(p) < MANY, "drill/safety-rails/answer-adds-up", "not_found")
@around("describe")
async def the_last_unknown_id_is_not_told(
    sound: Parts, conn: Connection, request: ReplayRequest, items: Sequence[str], limit: int
) -> Selection:
    """Of fifty unknown ids only forty-nine are reported."""
    found = await sound.describe(conn, request, items, limit)
    return dataclasses.replace(found, not_found=found.not_found[: MANY - 1])


def _told_unknown(probe: Probe) -> int:
    with probe.tenant() as company:
        ids = [f"00000000-0000-4000-8000-{n:012d}" for n in range(MANY)]
        return len(probe.replay(company, dlq_ids=ids).json()["not_found"])


@worker(lambda p: waits_for(p, "a", "a "), "drill/outbox/poison-holds-no-other-key", "effects")
def keys_are_padded(settings: WorkerSettings) -> WorkerParts:
    """Keys are compared as if padded: a poison event of `a` holds up those of `a `."""

    def padded(one: str, other: str) -> tuple[str, str]:
        old = f"{one}.aggregate_key = {other}.aggregate_key"
        return old, f"rtrim({one}.aggregate_key) = rtrim({other}.aggregate_key)"

    return altered_worker(settings, ("drain_lane", *padded("e", "k")), ("claim_events", *padded("b", "a")))


@service(lambda p: _has_another_id(p), "drill/outbox/same-event-id-once", "capitals")
@instead_of("read_event")
def ids_in_capitals_are_none(raw: bytes) -> EventRequest:
    """An event id in capitals is ignored: the event gets another id."""
    event, sent = read_event(raw), json.loads(raw).get("event_id")
    return dataclasses.replace(event, event_id=None) if sent != event.event_id else event


def _has_another_id(probe: Probe) -> bool:
    with probe.tenant() as company:
        event = str(uuid.uuid4())
        return bool(probe.event(company, event_id=event.upper()).json()["event_id"].lower() != event)


@service(lambda p: _chokes(p), "drill/outbox/payload-unchanged", "500")
@instead_of("read_event")
def integers_have_64_bits(raw: bytes) -> EventRequest:
    """An event with an integer over 64 bits ends in a server error: its payload is packed anew."""
    event = read_event(raw)
    msgspec.msgpack.encode(event.payload)
    return event


def _chokes(probe: Probe) -> bool:
    with probe.tenant() as company:
        return probe.event(company, payload={"n": 10**30}).status_code == 500


@service(lambda p: _leaves_old_named_items(p), "drill/safety-rails/max-defaults-to-the-ids", "named items")
def old_named_items_are_left(settings: Settings) -> Parts:
    """Named items that are older than a month are not looked at."""
    young = "AND created_at > now() - interval '30 days' AND status = 'pending'"
    return altered(settings, "pick_items_by_id", ("AND status = 'pending'", young))


def _leaves_old_named_items(probe: Probe) -> bool:
    with probe.tenant() as company:
        ids = probe.letters(company, 1)
        probe.rows(
            "UPDATE dead_letter_queue SET created_at = now() - interval '40 days' WHERE company_id = %s", company
        )
        return not probe.replay(company, dlq_ids=ids, dry_run=True).json()["items"]


@service(lambda p: _moves_in_two(p), "drill/dlq/run-and-items-together", "transactions")
def batches_have_transactions_of_their_own(settings: Settings) -> Parts:
    """The items of a run beyond the first 25 are moved in other transactions."""
    return moving_apart(settings, 25)


def _moves_in_two(probe: Probe) -> bool:
    with probe.tenant() as company:
        probe.letters(company, 26)
        probe.replay(company, max=26)
        return int(probe.value("SELECT count(DISTINCT txid) FROM event_outbox WHERE company_id = %s", company)) == 2


@service(lambda p: _forgets_empty_runs(p), "drill/lifecycle/unknown-run-is-not-found", "404")
def empty_runs_are_not_found(settings: Settings) -> Parts:
    """GET of a run that found nothing to replay says 404."""
    return altered(settings, "read_run", ("WHERE id", "WHERE target_count > 0 AND id"))


def _forgets_empty_runs(probe: Probe) -> bool:
    with probe.tenant() as company:
        path = f"/dlq-replay/{probe.replay(company).json()['replay_run_id']}"
        return probe.read(path).status_code == 404


@service(lambda p: _dates_what_never_was(p), "drill/outbox/dead-letter-once", "effect_at")
def death_is_an_effect(settings: Settings) -> Parts:
    """`effect_at` of a dead event is the time at which it died."""
    return altered(settings, "read_event", ("t.updated_at AS", "coalesce(t.updated_at, o.dead_at) AS"))


def _dates_what_never_was(probe: Probe) -> bool:
    with probe.tenant() as company:
        event = probe.event(company).json()["event_id"]
        is_done(probe, event)
        probe.rows("DELETE FROM agent_tasks WHERE event_id = %s", event)
        probe.rows("UPDATE event_outbox SET processed_at = NULL, dead_at = now() WHERE event_id = %s", event)
        path = f"/events/{event}"
        return bool(probe.read(path).json()["effect_at"])


@service(lambda p: _reads_any_bytes(p), TEXTS, "UTF-8")
@instead_of("read_replay")
def any_bytes_are_text(raw: bytes) -> ReplayRequest:
    """Bytes that are not UTF-8 are read as question marks."""
    return read_replay(raw.decode(errors="replace").encode())


def _reads_any_bytes(probe: Probe) -> bool:
    with probe.tenant() as company:
        body = b'{"company_id":"%s","error_type":"\xff"}' % company.encode()
        return probe.send(body, {"X-Transbot-Signature": probe.sign(body)}).status_code == 200


@service(lambda p: _shows_what_is_overdrawn(p), "drill/budgets/lowered-limit-leaves-nothing", "dry_run")
@around("preview_budget")
async def overdrawn_is_left(sound: Parts, conn: Connection, company: str) -> int:
    """A dry run takes an overdrawn budget for a positive one."""
    return abs(await sound.preview_budget(conn, company))


def _shows_what_is_overdrawn(probe: Probe) -> bool:
    insert = "INSERT INTO replay_budgets (company_id, daily_limit, daily_used) VALUES (%s, 5, 5)"
    with probe.tenant() as company:
        probe.rows(insert, company)
        probe.rows("UPDATE replay_budgets SET daily_limit = 3 WHERE company_id = %s", company)
        return probe.replay(company, dry_run=True).status_code == 200


@service(lambda p: _refuses_what_it_knows(p), "drill/flags/outbox-off-takes-direct-path", "409")
@around("emit")
async def direct_events_are_sent_once(
    sound: Parts, conn: Connection, request: EventRequest, event_id: str
) -> tuple[str, bool]:
    """An event that took the direct path and is sent again is refused: its id is known."""
    path, is_known = await sound.emit(conn, request, event_id)
    if is_known and path == "direct":
        raise Refusal("event_id_reused", "This event is known.")
    return path, is_known


def _refuses_what_it_knows(probe: Probe) -> bool:
    with probe.tenant() as company:
        probe.switch_off(company)
        event = probe.event(company).json()["event_id"]
        return probe.event(company, event_id=event).status_code != 202


@service(lambda p: _takes_null(p), "drill/outbox/refused-leaves-nothing", "event_type")
@instead_of("read_event")
def null_is_a_type(raw: bytes) -> EventRequest:
    """An event type of null is stored as the text `null`."""
    return read_event(raw.replace(b'"event_type":null', b'"event_type":"null"'))


def _takes_null(probe: Probe) -> bool:
    with probe.tenant() as company:
        body = b'{"company_id":"%s","event_type":null,"payload":{}}' % company.encode()
        return probe.send(body, path="/events").status_code == 202


@service(lambda p: _takes_what_is_over(p), "drill/dlq/max-retries-is-the-end", "retries")
def more_than_all_is_not_all(settings: Settings) -> Parts:
    """An item with more retries used than allowed still counts as eligible (compared by =, not >=)."""
    left = ("retry_count < max_retries", "retry_count <> max_retries")
    names = ("pick_items", "pick_items_by_id")
    return with_database(build_parts(settings), {QUERIES[n]: rewrite(QUERIES[n], left) for n in names})


def _takes_what_is_over(probe: Probe) -> bool:
    with probe.tenant() as company:
        probe.letters(company, 1, retry_count=5, max_retries=3)
        return bool(probe.replay(company, dry_run=True).json()["items"])


@service(lambda p: _first_of_tried(p) == 1, "drill/safety-rails/oldest-first", "oldest")
def tried_items_come_last(settings: Settings) -> Parts:
    """Items that were tried before are taken last, whatever their age."""
    return altered(settings, "pick_items", _TRIED_LAST)


@service(lambda p: _first_of_tried(p, named=True) == 1, "drill/safety-rails/oldest-first", "oldest")
def tried_named_items_come_last(settings: Settings) -> Parts:
    """Named items that were tried before are taken last, whatever their age."""
    return altered(settings, "pick_items_by_id", _TRIED_LAST)


def _first_of_tried(probe: Probe, *, named: bool = False) -> int:
    """Which of two items is taken; the first of them was tried before."""
    with probe.tenant() as company:
        ids = [*probe.letters(company, 1, retry_count=1), *probe.letters(company, 1)]
        asked = {"dlq_ids": ids} if named else {}
        return ids.index(probe.replay(company, dry_run=True, max_items=1, **asked).json()["items"][0])
