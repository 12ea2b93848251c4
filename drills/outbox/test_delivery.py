"""The outbox as producers see it: what is committed is delivered once, what is not is never."""

import itertools
import time
import uuid
from functools import partial
from typing import Any

import psycopg

from drills.workbench.checks import DELIVERS, SIGNED, SQL
from drills.workbench.scene import Scene, best_of, new_key
from drills.workbench.tenant_data import KEPT_PAYLOAD, OF_ITS_OWN, PAYLOAD, PLAIN_TYPE, QUOTED, as_jsonb, large_payload
from gates.checks.recorder import check
from gates.deployment.dialect.current import current
from gates.deployment.ids import new_id
from gates.deployment.requests import encode_body
from gates.deployment.tenants.tenants import OUTBOX_FLAG
from gates.evidence import Severity

drill = partial(check, needs=SQL, after=DELIVERS)

ODD_PAYLOADS = (
    *("null", '{"a\\u0000":1}', '{"deep":[{"a":"\\u0000"}]}', '{"\\ud800":1}'),
    *('{"a":1,"a":2}', '{"deep":[{"a":1,"a":1}]}', '{"deep":[NaN]}', '{"a":-Infinity}'),
)
"""What readers of JSON drop, or choke on."""
BEYOND = (b"9223372036854775808", b"-1%s" % (b"0" * 40))
_TABLES = (("events", "id"), ("event_outbox", "event_id"))


@check("drill/outbox/delivered-once", needs=SQL, covers=("K01",), phase="first")
def test_delivered_once(scene: Scene) -> None:
    """An accepted event has, soon after, exactly one effect.

    Exactly one effect is the purpose of the outbox: events are lost or done twice.
    """
    company = scene.company()
    scene.delivered([str(scene.emit(company, control=True)["event_id"])])


@drill("drill/outbox/one-row-each", covers=("K01",))
def test_one_row_each(scene: Scene) -> None:
    """A delivered event has one business row of its tenant and one outbox row, which is marked as processed.

    An event is counted twice, or delivered again after the next restart.
    """
    company = scene.company()
    event = str(scene.emit(company, control=True)["event_id"])
    scene.delivered([event])
    rows = scene.outbox(company)
    assert [r["event"] for r in rows] == [event], f"one accepted event has {len(rows)} outbox rows"
    business = scene.number("select count(*) from public.events where id = %s and company_id = %s", event, company)
    assert business == 1, f"one accepted event has {business} business rows"
    scene.seen.count(int(scene.until(lambda: scene.outbox(company)[0]["state"] == "processed", "the row as processed")))


@drill("drill/outbox/effect-within-two-seconds", covers=("K01", "K04"))
def test_effect_within_two_seconds(scene: Scene) -> None:
    """With nothing waiting, an event with a key of its own, with that of the one before, or without, just after another
    effect, has its own within 2 s (best of three).

    A relay that polls rarely, or sleeps, makes every customer wait.
    """
    company = scene.company()

    def measure(key: str | None) -> float:
        known = scene.emit_unkeyed(company) if key is None else scene.emit(company, control=True, key=key or new_key())
        started = time.monotonic()
        scene.delivered([str(known["event_id"])] if known else [])
        return (time.monotonic() - started) * 1000.0

    measure("k")  # a relay that polls has looked just now: the next one waits for a whole interval
    for key in ("", "k", None):
        since = time.monotonic()
        scene.seen.quick("the effect came", best_of(3, partial(measure, key), 2000.0), 2000.0, since)


@drill("drill/outbox/event-and-row-together", after=SIGNED, covers=("K03",))
def test_event_and_row_together(scene: Scene) -> None:
    """The business row and the outbox row of an event are written by one transaction (equal txid), and dated now.

    A crash between two transactions leaves an order that nobody is told of, or news of an order that does not exist. A
    lag is judged by the date: one of another zone hides hours of it, or invents them.
    """
    company, dated = scene.company(), current().has("event_outbox", "inserted_at")
    age = f"coalesce(abs(extract(epoch from now() - {'o.inserted_at' if dated else 'now()'})), 'infinity')::float8"
    read = f"select e.txid::text as event, o.txid::text as outbox, {age} as age_s from public.events e"
    for number in range(8):  # a row that is lost now and then is seen
        event = ((scene.emit_unkeyed(company) if number % 2 else {}) or scene.emit(company, control=True))["event_id"]
        row = scene.one(f"{read} left join public.event_outbox o on o.event_id = e.id where e.id = %s", event)
        assert row, f"the accepted event {event} has no business row"
        assert row["outbox"], f"the accepted event {event} has no outbox row"
        written = (row["event"], row["outbox"])
        assert len({*written}) == 1, f"event and outbox row were written by the transactions {written}; due: one"
        assert row["age_s"] < 1800, f"inserted_at of a row just written is {row['age_s']} s from now, or not set"
        scene.seen.count()


@drill("drill/outbox/same-event-id-once", covers=("K01", "K10"))
def test_same_event_id_once(scene: Scene) -> None:
    """An event sent twice with the same event_id is one event: the second answer says duplicate, there is one effect.
    So it is two days later, where its row can be made so old; it is still shown. A UUID in capitals may be refused, but
    is the same id. One of version 7 is an id, too.

    Producers retry: without it every time-out doubles an order.
    """
    company, events = scene.company(), [new_id("event"), new_id("event")]
    for event, key in zip(tuple(events), ("k", None), strict=True):
        send = partial(scene.emit, key=key, control=True) if key else scene.emit_unkeyed
        first = send(company, event_id=event)
        if not first:
            events.remove(event)
            continue
        second = scene.emit(company, event_id=event, key=key)
        said = repr((first["duplicate"], second["duplicate"]))  # 0 and 1 are equal to these, and are not these
        sent = f"the first and the second send of an event {'with' if key else 'without'} an aggregate key"
        assert said == "(False, True)", f"duplicate is {said} for {sent}; due: false and true"
        assert first["event_id"] == event == second["event_id"], "the answers name another event id than was sent"
        assert first.get("path") == second.get("path"), f"two paths of one event: {first} and then {second}"
    events.append(new_id("event", version=7))
    scene.emit(company, event_id=events[-1])
    when = "two days later" if _is_made_older(scene, company) else "once more"
    late = scene.emit(company, event_id=events[0])
    assert late["duplicate"] is True, f"duplicate is {late['duplicate']!r} for an event that is sent again {when}"
    if "/events/{event_id}" not in current().lacking:
        scene.event_status(events[0], company)
    if current().id_type("event") == "uuid":
        capitals = scene.expect(scene.event_request(company, event_id=events[0].upper()), (202, 400))
        told = capitals.json().get("duplicate"), str(capitals.json().get("event_id")).lower()
        assert capitals.status == 400 or told == (True, events[0]), f"an event_id in capitals is another id: {told}"
    scene.delivered(events)
    rows = len(scene.outbox(company))
    assert rows == len(events), f"{len(events)} events, each sent twice, have {rows} outbox rows"


def _is_made_older(scene: Scene, company: str) -> bool:
    """Make the company's events two days older. Not where the database keeps what was written as it was."""
    try:
        scene.rows(
            "update public.events set created_at = created_at - interval '2 days' where company_id = %s", company
        )
    except psycopg.OperationalError:
        raise
    except psycopg.Error:
        return False
    scene.seen.control("the events were made two days older")
    return True


@drill("drill/outbox/event-id-of-another-tenant", after=SIGNED, covers=("K01", "B28"))
def test_event_id_of_another_tenant(scene: Scene) -> None:
    """An event whose id is another tenant's event is refused, or is an event of its own: never accepted and lost.

    A tenant that uses an id first swallows another tenant's later event with that id.
    """
    first, second, mark = scene.company(), scene.company(), uuid.uuid4().hex
    scene.emit(second, control=True)
    for payload in ({"n": 1}, {"note": mark}):  # equal to the event that comes later, and another one
        event = new_id("event")
        scene.emit(first, event_id=event, payload=payload, control=True)
        request = scene.event_request(second, event_id=event)
        answer = scene.expect(request, (202, 400, 403, 404, 409, 422))
        if answer.status != 202:
            told = [what for what, of in (("company", first), ("payload", mark)) if answer.says(of)]
            assert not told, f"the refusal, {answer.status}, shows the {told} of the tenant whose event it is"
            continue
        kept = scene.count("event_outbox", second, "event_id = %s", answer.json().get("event_id"))
        assert kept, f"answered 202, duplicate {answer.json().get('duplicate')!r}, and the tenant has no such event"


@drill("drill/outbox/event-of-nobody", after=SIGNED, covers=("K02", "B28"))
def test_event_of_nobody(scene: Scene) -> None:
    """A signed event for a company that does not exist is refused like a foreign one, and leaves nothing, whatever the
    version of its UUID.

    Such an event is never delivered, though its sender was told that it was accepted.
    """
    scene.emit(scene.company(), control=True)
    event = new_id("event")
    for version in (4, 7):
        scene.expect(scene.event_request(new_id("company", version), event_id=event), (403, 404))
    left = scene.number("select count(*) from public.event_outbox where event_id = %s", event)
    assert left == 0, f"the refused event left {left} outbox rows"


@drill("drill/outbox/refused-leaves-nothing", after=SIGNED, covers=("K02",))
def test_refused_leaves_nothing(scene: Scene) -> None:
    """An event that is refused leaves neither a business row nor an outbox row; a good one with its id is accepted.

    An event that was refused and yet happens surprises both sides.
    """
    company, event = scene.company(), new_id("event")
    good = {"company_id": company, "event_type": PLAIN_TYPE, "aggregate_key": "k", "payload": {}, "event_id": event}
    odd: list[dict[str, Any]] = [
        {"event_type": 7},
        {"surplus": 1},
        {"aggregate_key": "k\0"},
        *({name: None} for name in ("event_type", "aggregate_key", "event_id")),
    ]
    bodies = {f"{change}": encode_body({**good, **change}) for change in odd}
    plain = encode_body(good)
    bodies["two types"] = plain.replace(b"{", b'{"event_type":"a",', 1)
    bodies["its key in capitals"] = plain.replace(b'"aggregate_key"', b'"AGGREGATE_KEY"')
    bodies |= {"a text after it": plain + b"{}", "a comma too many": plain[:-1] + b",}"}
    bodies |= {f"payload {one}": plain.replace(b"{}", one.encode()) for one in ODD_PAYLOADS}
    for label, body in bodies.items():
        scene.expect(scene.signer.post("/events", body, f"an event with {label}"), 400, "invalid_request")
    left = scene.number(
        "select (select count(*) from public.events where id = %s) + (select count(*) from"
        " public.event_outbox where event_id = %s)",
        event,
        event,
    )
    assert left == 0, f"refused requests left {left} rows"
    scene.expect(scene.signer.post("/events", plain, "an event with that id and without payload members"), 202)
    scene.seen.control("the good event is accepted")


@drill("drill/outbox/payload-unchanged", after=SIGNED, covers=("K12",))
def test_payload_unchanged(scene: Scene) -> None:
    """The payload in the business row and in the outbox row is the JSON value that was sent, also one of 60 kilobytes;
    a number beyond what a machine's integer holds is no server error.

    A rounded amount or a truncated name is delivered and used as if it were right.
    """
    company = scene.company()
    large = large_payload()
    sent = [(scene.emit(company, payload=one, control=True)["event_id"], one) for one in (PAYLOAD, large)]
    with_nulls = scene.expect(scene.event_request(company, payload=KEPT_PAYLOAD), (202, 400))
    if with_nulls.status == 202:  # a service may refuse them, and not drop them
        sent.append((with_nulls.json()["event_id"], KEPT_PAYLOAD))
    for number in BEYOND:  # which may lose its digits, or be refused (RFC 7493)
        body = scene.event_request(company, payload={"n": 0}).body.replace(b'{"n":0}', b'{"n":%s}' % number)
        scene.expect(scene.signer.post("/events", body, f"the number {number.decode()}"), (202, 400))
    for (event, payload), (table, column) in itertools.product(sent, _TABLES):
        row = scene.one(
            f"select payload = %s::jsonb as same, payload::text as stored from public.{table} where {column} = %s",
            as_jsonb(payload),
            event,
        )
        if not row.get("same"):
            scene.seen.witness = str(row.get("stored"))[:2000]
        size = " of 60 kilobytes" * (payload is large)
        assert row.get("same"), f"the payload{size} in {table} is not what was sent"
        scene.seen.count()


@drill("drill/outbox/any-text-is-delivered", covers=("K12",))
def test_any_text_is_delivered(scene: Scene) -> None:
    """An event whose payload holds characters of many scripts has its effect, whatever its type is called, and so have
    the events beside it.

    A relay that fails on one customer's characters never delivers that event, and delays its whole batch.
    """
    company, beside = scene.company("a"), scene.company("b")
    plain = [str(scene.emit(beside, control=True)["event_id"])]
    odd = scene.write_outbox(company, 1, payload=as_jsonb(PAYLOAD))
    odd += [scene.write_outbox(company, 1, event_type=kind)[0] for kind in ("paid", QUOTED, "заказ.оплачен")]
    odd += [str(scene.emit(company, payload=PAYLOAD)["event_id"])]
    plain += [str(scene.emit(beside)["event_id"])]
    scene.delivered(plain + odd)


@drill("drill/outbox/event-as-sent", after=SIGNED, covers=("K12",))
def test_event_as_sent(scene: Scene) -> None:
    """Business row and outbox row hold the event's type and key as sent, on both paths, whatever its payload has of
    those names; one that is long, or has spaces around it, quotes or letters beyond ASCII, may be refused, not cut.

    A consumer that waits for `Order.Paid` never sees `order.paid`, and a key that was changed has an order of its own.
    """
    company, kind, key = scene.company(), "Order.Paid/v2", "Kunde Ä A\u0308 \uff10\u2167 0007"
    sent = {scene.emit(company, event_type=kind, key=key, payload=OF_ITS_OWN, control=True)["event_id"]: (kind, key)}
    unkeyed, direct = scene.emit_unkeyed(company), set[str]()
    odd_names = (kind.ljust(190, "x"), key.ljust(190, "x")), (kind, f" {key} "), ("Заказ.Bezahlt/é", key)
    for by_outbox in (True, False)[: 1 + scene.claims("flags")]:
        if scene.claims("flags"):
            scene.set_flag(company, OUTBOX_FLAG, enabled=by_outbox)
        for names in (*odd_names, (kind, "\U0001f69a 7"), (kind, "0"), ("0", "007"), (QUOTED, key), (kind, QUOTED)):
            odd = scene.expect(scene.event_request(company, event_type=names[0], key=names[1]), (202, 400))
            if odd.status == 202:
                sent[odd.json()["event_id"]] = names
                direct |= set() if by_outbox else {odd.json()["event_id"]}
    for (event, due), (table, column) in itertools.product(sent.items(), _TABLES):
        if event in direct and table == "event_outbox":
            continue
        row = scene.one(f"select event_type, aggregate_key from public.{table} where {column} = %s", event)
        scene.seen.require(row, f"the accepted event {event} has no row in {table}")
        found = (row["event_type"], row["aggregate_key"])
        assert found == due, f"event_type and aggregate_key in {table} are {found}; sent: {due}"
        scene.seen.count()
    for table, column in _TABLES if unkeyed else ():
        kept = scene.value(f"select aggregate_key from public.{table} where {column} = %s", unkeyed["event_id"])
        assert kept is None, f"an event without a key has the key {kept!r} in {table}: all such wait for each other"


@drill("drill/outbox/written-by-hand", covers=("K20", "K10"), severity=Severity.WARN)
def test_written_by_hand(scene: Scene) -> None:
    """Rows that another producer inserts, with the contract's columns alone and without any notice, are delivered once.

    A relay that relies on notices alone misses rows of other producers, and lost notices.
    """
    company = scene.company()
    events = scene.write_outbox(company, 3)
    scene.delivered(events)
    scene.passes_by(company, 1)


@drill("drill/outbox/crowd-once-each", covers=("K08", "K10"))
def test_crowd_once_each(scene: Scene) -> None:
    """Sixty events of one transaction, of several keys and of none, have exactly one effect each.

    A crowd shows two relays that claim the same row, or a batch that is cut short.
    """
    company = scene.company()
    with scene.transaction() as connection:
        events = scene.write_outbox(company, 20, connection=connection)
        for key in ("a", "b"):
            events += scene.write_outbox(company, 20, connection=connection, aggregate_key=key)
        connection.commit()
    scene.delivered(events)
    scene.passes_by(company, 1)
    twice = {e: n for e, n in scene.effects(events).items() if n != 1}
    assert not twice, f"{len(twice)} of 60 events have more than one effect"


@drill("drill/outbox/uncommitted-is-not-delivered", covers=("K02",))
def test_uncommitted_is_not_delivered(scene: Scene) -> None:
    """A row whose transaction is open has no effect, and after its rollback never has one.

    News of what never happened cannot be taken back.
    """
    company, other = scene.company("a"), scene.company("b")
    with scene.transaction() as connection:
        events = scene.write_outbox(company, 2, connection=connection)
        scene.passes_by(other, 2)
        assert not scene.effects(events), "an event was delivered before its transaction was committed"
    scene.passes_by(other, 1)
    assert not scene.effects(events), "an event was delivered although its transaction was rolled back"
    scene.seen.count(2)


@drill("drill/outbox/late-commit-is-delivered", covers=("K09",))
def test_late_commit_is_delivered(scene: Scene) -> None:
    """A row with a lower id that commits after rows with higher ids were delivered is delivered, too.

    A relay that remembers the last id loses every slow transaction, silently.
    """
    company = scene.company()
    with scene.transaction() as slow:
        late = scene.write_outbox(company, 2, connection=slow)
        # so many that a relay which remembers one id for each of its lanes has some of them in the late ones' lane
        fast = scene.write_outbox(company, 48)
        scene.delivered(fast)
        scene.seen.control("rows with higher ids were delivered while the transaction was open")
        slow.commit()
    scene.delivered(late)
    ids = {r["event"]: r["id"] for r in scene.outbox(company)}
    scene.seen.require(max(ids[e] for e in late) < min(ids[e] for e in fast), "the late rows did not get lower ids")


@drill("drill/outbox/status-of-an-event", covers=("K01",))
def test_status_of_an_event(scene: Scene) -> None:
    """GET /events/{id} shows no effect_at while an event waits, and a sound one once it has its effect; committed_at
    stays. Without credentials no request tells which events exist.

    The load stage measures lag by it; a wrong time hides a backlog. Anyone may follow a customer's business.
    """
    company = scene.company()
    scene.pause(company)
    begun = scene.value("select clock_timestamp() - interval '2 s'")
    event = str(scene.emit(company)["event_id"])
    waiting = scene.event_status(event, company)
    # checked afterwards: if the pause let the event through meanwhile, the status is right
    scene.seen.require(not scene.effects([event]), "the paused tenant's event was delivered")
    assert waiting.get("effect_at") is None, f"effect_at is {waiting.get('effect_at')!r} while the event waits"
    committed = waiting.get("committed_at")  # a service may show none yet
    later = "select clock_timestamp() > %s::timestamptz + interval '0.3 s'"
    if committed:
        scene.until_true(lambda: bool(scene.value(later, committed)), within_s=1.0)
    scene.pause(company, on=False)
    scene.delivered([event])
    first = scene.until(lambda: scene.event_status(event, company).get("effect_at"), "effect_at of the event")
    done = scene.event_status(event, company)
    assert done["effect_at"] == first, f"effect_at of one effect is {first}, and then {done['effect_at']}"
    told = (waiting.get("status"), done.get("status"))
    assert told[0] != told[1], f"the status is {told[0]!r} while the event waits, and {told[1]!r} with its effect"
    assert done.get("committed_at"), "the event has no committed_at"
    times = (done["committed_at"], done["effect_at"])
    apart = "select abs(extract(epoch from %s::timestamptz - %s::timestamptz))::float8"
    moved_s = scene.value(apart, committed, times[0]) if committed else 0.0
    assert moved_s < 0.2, f"committed_at is {committed} while the event waits, and then {times[0]}"
    order = "select %s <= %s::timestamptz and %s::timestamptz <= %s::timestamptz + interval '2 s'"  # two clocks
    ordered = scene.value(order, begun, times[0], *times)
    assert ordered, f"committed_at {times[0]} and effect_at {times[1]} do not follow {begun} and each other"
    over = scene.value("select %s::timestamptz < clock_timestamp() + interval '2 s'", times[1])
    assert over, f"effect_at {times[1]} lies in the future"
    scene.seen.control("the same event, delivered, has an effect_at")
    scene.shut_to_strangers("/events", event, new_id("event"), company)
