"""Whatever a row is: of long ago, of one of many tenants, large, or with a payload of any form, it is delivered."""

import itertools
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import psycopg

from drills.workbench.checks import AGENT, DELIVERS, SIGNED, SQL
from drills.workbench.scene import Scene
from drills.workbench.tenant_data import PLAIN_TYPE, POISON, as_jsonb, large_payload
from drills.workbench.waiting import PATIENCE_S, POLL_S
from gates.checks.recorder import check
from gates.deployment.dialect.current import current
from gates.deployment.http.client import NoAnswer
from gates.deployment.ids import new_id
from gates.deployment.requests import BY_A_PROXY, Answer, Request
from gates.deployment.sql.database import execute
from gates.deployment.tenants.tenants import OUTBOX_FLAG
from gates.evidence import Severity, Where

drill = partial(check, needs=SQL, after=DELIVERS)

NO_OBJECTS = ("[]", '["drill"]', '"drill"', "0", "null")
"""Payloads of every other kind."""
MANY = 4000
"""More than a relay looks at with one statement."""
OVER = """
insert into public.event_outbox (company_id, event_type, payload, inserted_at, next_attempt_at, processed_at, dead_at)
select %s, %s, '{}', o.at, o.at, case when n %% 2 = 0 then o.at end, case when n %% 2 = 1 then o.at end
from (select %s::timestamptz as at) o, generate_series(1, %s) n
"""
TIRED = 20
"""Attempts of a row from the time when more were allowed."""
AGAIN = 24
"""More than a pool of one process usually has connections."""


# alone: until they are delivered the service shows a lag of days, which elsewhere would call somebody up
@drill("drill/outbox/old-rows-are-delivered", covers=("K01", "K09"), where=Where.STAGING, phase="last")
def test_old_rows_are_delivered(scene: Scene) -> None:
    """Rows that were written ten days ago are delivered like new ones, with and without a key, even behind thousands
    of rows that are done or dead; and one that has been tried more often than is allowed is delivered, or dead.

    A relay that reads only the last hour silently loses what waited out a longer pause; one that reads a fixed number
    of rows, done or not, stands still after its first busy day.
    """
    company = scene.company()
    scene.delivered([str(scene.emit(company, control=True)["event_id"])])
    old = scene.value("select now() - interval '10 days'")
    scene.rows(OVER, company, PLAIN_TYPE, old, MANY)
    events = scene.write_outbox(company, 9, inserted_at=old, next_attempt_at=old)
    events += scene.write_each_kind(company, inserted_at=old, next_attempt_at=old)
    events += scene.write_each_kind(company, inserted_at=old, next_attempt_at=old, aggregate_key="waited")
    events += scene.write_outbox(company, 1, aggregate_key="waited")
    tired = scene.write_outbox(company, 1, attempts=TIRED) if current().has("event_outbox", "attempts") else []
    scene.delivered(events)
    scene.in_order(events[-3:])
    ends = {(event, state) for event in tired for state in ("processed", "dead")}
    shown = "an end of a row with many attempts"
    scene.until(lambda: not tired or any((r["event"], r["state"]) in ends for r in scene.outbox(company)), shown)


@drill("drill/outbox/equal-events-are-two", covers=("K01", "K10"))
def test_equal_events_are_two(scene: Scene) -> None:
    """Events that are equal in all but their ids are each delivered, be they sent, also at once, or written by another
    producer.

    Two equal orders are two orders: a service that takes them for duplicates loses one.
    """
    company = scene.company()
    payload = dict.fromkeys(("id", "event_id", "idempotency_key"), new_id("event"))  # no column is read from there
    sent = [scene.emit(company, payload=payload, control=True)]
    at_once = [scene.event_request(company, payload=payload) for _ in range(2)]
    for request, answer in zip(at_once, scene.burst(at_once), strict=True):
        sent.append(scene.seen.expect(request, answer, 202).json())
    told = [answer.get("duplicate") for answer in sent]
    assert told == [False] * 3, f"of three equal events without ids the answers say duplicate {told}"
    events = [str(answer["event_id"]) for answer in sent]
    assert len({*events}) == 3, f"three equal events without ids, two of them sent at once, were given the ids {events}"
    scene.delivered(events + scene.write_outbox(company, 2, aggregate_key="k", payload=as_jsonb(payload)))


@drill("drill/outbox/large-payload-is-delivered", covers=("K12",))
def test_large_payload_is_delivered(scene: Scene) -> None:
    """An event of sixty kilobytes has its effect, be it sent or written by another producer.

    A NOTIFY holds eight kilobytes: a relay that puts the payload in it loses just the largest orders.
    """
    company = scene.company()
    scene.delivered([str(scene.emit(company, control=True)["event_id"])])
    payload = large_payload()
    events = [str(scene.emit(company, payload=payload)["event_id"])]
    scene.delivered(events + scene.write_outbox(company, 1, payload=as_jsonb(payload)))


@drill(
    "drill/outbox/any-payload-is-delivered", after=(*DELIVERS, *SIGNED), covers=("K12", "K20"), severity=Severity.WARN
)
def test_any_payload_is_delivered(scene: Scene) -> None:
    """A row of another producer has its effect whether its payload is an object, a list, a text, a number or null; a
    dead letter of each is replayed with its payload.

    Every JSON value is allowed: a relay that expects an object retries such a row for ever, or gives it up; a replay
    that expects one delivers an empty payload.
    """
    company = scene.company()
    scene.delivered(scene.write_outbox(company, 1, payload="{}"))
    scene.seen.control("an empty object is delivered")
    events = [scene.write_outbox(company, 1, payload=one)[0] for one in NO_OBJECTS]
    scene.delivered(events)
    if not scene.claims("replay"):
        return
    events = [new_id("event") for _ in NO_OBJECTS]
    letters = [{"payload": one, "event_id": event} for one, event in zip(NO_OBJECTS, events, strict=True)]
    scene.tenants.add_rows(company, letters)
    run = str(scene.run(company, max=len(letters))["replay_run_id"])
    sent = "select payload::text as payload from public.event_outbox where event_id = any(%s::uuid[])"
    payloads = sorted(str(row["payload"]) for row in scene.rows(sent, events))
    assert payloads == sorted(NO_OBJECTS), f"items with the payloads {sorted(NO_OBJECTS)} are replayed with {payloads}"
    settled = scene.ended(run)["success_count"]
    assert settled == len(letters), f"{settled} of {len(letters)} items whose payload is no object were delivered"
    scene.seen.count(len(letters))


@check("drill/outbox/only-drill-events-obey", needs=AGENT, after=DELIVERS, covers=("K14",), severity=Severity.WARN)
def test_only_drill_events_obey(scene: Scene) -> None:
    """An event whose type does not start with `drill.` is delivered, whatever its payload asks the drill agent for.

    A customer whose payload has a member `drill` would make its own events fail.
    """
    scene.claims_drill_agent()
    company = scene.company()
    scene.delivered([str(scene.emit(company, control=True)["event_id"])])
    asks = {"drill": {"fail_times": -1}}
    kinds = ("drilling.done", "order.drill.paid")
    events = [scene.write_outbox(company, 1, event_type=kind, payload=as_jsonb(asks))[0] for kind in kinds]
    scene.delivered(events)


@drill("drill/outbox/effect-touches-only-its-event", covers=("K01", "K10"))
def test_effect_touches_only_its_event(scene: Scene) -> None:
    """An event gets its effect even where a failed attempt left its task, and no other task changes, neither its
    tenant's nor another's.

    An UPDATE that lacks one condition marks everybody's failed tasks as done.
    """
    company, other = scene.company("a"), scene.company("b")
    event, beside, foreign = (new_id("event") for _ in range(3))
    task = (
        "insert into public.agent_tasks (company_id, agent_name, event_id, status) values (%s, 'drill', %s, 'failed')"
    )
    own = ((company, event),) if scene.leaves_tasks(company) else ()
    for owner, of in (*own, (company, beside), (other, foreign)):
        scene.rows(task, owner, of)
    insert = "insert into public.event_outbox (event_id, company_id, event_type, payload) values (%s, %s, %s, '{}')"
    scene.rows(insert, event, company, PLAIN_TYPE)
    scene.delivered([event])
    scene.seen.control("the event had its effect")
    states = "select event_id::text as event, status from public.agent_tasks where event_id = any(%s::uuid[])"
    changed = [r["event"] for r in scene.rows(states, [beside, foreign]) if r["status"] != "failed"]
    assert not changed, f"{len(changed)} tasks of other events were called completed"
    scene.seen.count(3)


@drill("drill/outbox/effects-of-their-tenants", covers=("J26", "K08"))
def test_effects_of_their_tenants(scene: Scene) -> None:
    """Each of many events that two tenants write in turn has its effect as its own tenant's.

    A relay that takes the tenant of a batch from its first row shows, and bills, one customer's events to another.
    """
    companies = (scene.company("a"), scene.company("b"))
    scene.delivered([str(scene.emit(company, control=True)["event_id"]) for company in companies])
    owners: dict[str, str] = {}
    with scene.db.at_once():
        for _ in range(10):
            for company, stranger in zip(companies, companies[::-1], strict=True):
                # whose an event is, its row says: a payload may name whom it likes
                names = as_jsonb({"company_id": stranger, "tenant_id": stranger})
                written = scene.write_outbox(company, 1, connection=scene.db, payload=names)
                written += scene.write_outbox(company, 1, connection=scene.db, aggregate_key="of both")
                owners |= dict.fromkeys(written, company)
    scene.delivered(list(owners))
    _of_their_tenants(scene, owners)


@check("drill/outbox/failed-tasks-of-their-tenants", needs=AGENT, after=DELIVERS, covers=("J26", "K14"))
def test_failed_tasks_of_their_tenants(scene: Scene) -> None:
    """What is recorded about a failed event or item belongs to its own tenant: its dead letter, and the agent's task
    where failures have one.

    A relay that files failures under another tenant shows the wrong customer a failing agent.
    """
    scene.claims_drill_agent()
    owners, written = dict[str, str](), list[str]()
    for label in ("a", "b"):
        company = scene.company(label, items=1, payload=POISON, event_id=new_id("event"))
        written += scene.write_outbox(company, 1, payload=POISON)
        owners[written[-1]] = company
        scene.ended(str(scene.run(company, max=1)["replay_run_id"]))
        owners |= {str(r["event_id"]): company for r in scene.items(company)}
    tried = "select count(*) from public.event_outbox where event_id = any(%s::uuid[]) and attempts > 0"
    scene.until(lambda: scene.number(tried, written) >= len(written), "the first failure of each event")
    _of_their_tenants(scene, owners)
    _of_their_tenants(scene, owners, "dead_letter_queue")


def _of_their_tenants(scene: Scene, owners: Mapping[str, str], table: str = "agent_tasks") -> None:
    """The claim: the rows that a table has of these events are of these tenants."""
    ask = f"select event_id::text as event, company_id::text as company from public.{table}"
    rows = scene.rows(f"{ask} where event_id = any(%s::uuid[])", list(owners))
    wrong = [r for r in rows if owners[str(r["event"])] != str(r["company"])]
    if wrong:
        scene.seen.witness = [{k: str(v) for k, v in r.items()} for r in wrong[:3]]
    assert not wrong, f"{len(wrong)} of {len(rows)} rows of {table} are of another tenant than their event"
    scene.seen.count(len(rows))


REFUSE = """create function public.drill_no_commit() returns trigger language plpgsql as $$ begin
if '{company}' in (to_jsonb(new) ->> 'company_id', to_jsonb(new) ->> 'scope') then
raise exception 'refused by a drill' using errcode = '{error}'; end if; return null; end $$"""
REFUSING = """create constraint trigger drill_no_commit after insert or update on public.{table}
deferrable initially {when} for each row execute function public.drill_no_commit()"""
AT_COMMIT, AT_ONCE = "deferred", "immediate"
VIOLATION = "check_violation"
PASSING = ("lock_not_available", "query_canceled", "serialization_failure", "disk_full")
"""Errors that a service may take for a moment's trouble, which is over before anybody notices."""
OF_AN_EVENT = ("events", "event_outbox")
OF_A_REPLAY = {
    "replay_runs": "",
    "event_outbox": "",
    "dead_letter_queue": "",
    "replay_budgets": "budgets",
    "audit_logs": "audit",
}
"""What a replay writes, and the area of the contract that it is of, where a deployment may do without."""


@drill(
    "drill/outbox/commit-that-fails", after=(*DELIVERS, *SIGNED), covers=("K02",), where=Where.REFERENCE, phase="last"
)
def test_commit_that_fails(scene: Scene) -> None:
    """An event or a replay whose COMMIT fails, or any one of its writes, for good or for the moment, is answered with
    an error and leaves nothing; sent again, it works. So is an event of the direct path whose effect is refused.

    A service that answers before the commit, or goes on after its error, acknowledges what does not exist: items that
    are moved but not charged, or not audited.
    """
    company = scene.company(items=1)
    key = str(uuid.uuid4())
    event = scene.event_request(company, event_id=new_id("event"))
    replay = scene.replay_request(company, max=1, idempotency_key=key)
    tables = [table for table, area in OF_A_REPLAY.items() if not area or scene.claims(area)]
    for request, when, written in (
        (event, AT_COMMIT, OF_AN_EVENT[:1]),
        (event, AT_ONCE, OF_AN_EVENT),
        (replay, AT_COMMIT, tables[:1]),
        (replay, AT_ONCE, tables),
    ):
        for table in written:
            _refused(scene, request, company, table, when)
    for request, error in itertools.product((event, replay), PASSING):
        _refused(scene, request, company, "event_outbox", AT_ONCE, error)
    if scene.claims("budgets"):  # a row that is there is changed, not made
        scene.budget(company)
        _refused(scene, replay, company, "replay_budgets", AT_ONCE)
    if scene.claims("flags"):
        direct, beside = scene.company("direct", items=1), scene.company("beside")
        for one in (direct, beside):
            scene.set_flag(one, OUTBOX_FLAG, enabled=False)
        if scene.emit(beside, control=True)["path"] == "direct":
            _refused(scene, scene.event_request(direct), direct, "agent_tasks", AT_ONCE)
    scene.reset_limit(company)
    scene.emit(company, control=True)
    scene.expect(event, 202)
    there = scene.count("events", company)
    assert there == 2, f"an event whose first tries failed is accepted, and of 2 accepted events {there} are there"
    scene.run(scene.company("beside"), label="another replay")
    scene.expect(replay.labelled("the replay whose first tries failed"), 200)


def _refused(scene: Scene, request: Request, company: str, table: str, when: str, error: str = VIOLATION) -> None:
    """The claim: a request one of whose tables refuses what it writes is answered with an error, and leaves nothing."""
    scene.reset_limit(company)
    try:
        scene.rows(REFUSE.format(company=company, error=error))
        scene.rows(REFUSING.format(table=table, when=when))
        answer = scene.http.send(request)
    except psycopg.errors.InsufficientPrivilege:
        scene.seen.unmet("the login of DATABASE_URL may not make triggers")
    finally:
        scene.rows("drop function if exists public.drill_no_commit() cascade")
    why = f"{table} refused its row{' at the COMMIT' if when == AT_COMMIT else ''} ({error})"
    assert answer.status >= 400, f"{request.label} is answered {answer.status}, and {why}"
    left = {name: scene.count(name, company) for name in ("events", "replay_runs", "event_outbox")}
    assert not any(left.values()), f"{why}, and {request.label} left {left}"
    states = [row["status"] for row in scene.items(company)]
    assert states == ["pending"], f"{why}, and the item is {states}"
    scene.seen.count()


# alone: a service that has lost its connections refuses whatever else is asked of it
@drill("drill/outbox/sent-again-and-again", covers=("K01", "O14"), phase="last")
def test_sent_again_and_again(scene: Scene) -> None:
    """A service that was sent a known event again and again, as it was and under another payload, accepts a new one,
    and has kept the known one as it was, also while it waits to be delivered. Sent again byte for byte, with its v2
    signature, it is accepted.

    If each repetition leaks a connection, one sender that retries takes the service down after a dozen. If a signature
    is good once, a sender that heard no answer is told that it is nobody.
    """
    company, event = scene.company(), new_id("event")
    places = {"events": "id"}
    if scene.claims("pause"):
        places["event_outbox"] = "event_id"
        scene.pause(company)
    scene.emit(company, event_id=event, payload={"n": 1}, control=True)
    if scene.claims("authentication"):
        known = scene.event_request(company, event_id=event, payload={"n": 1})
        for timed in [scene.signer.v2(known.path, known.body, "a known event, signed by v2")] * 2:
            scene.expect(timed, 202)
    for payload in ({"n": 1}, {"n": 2}):
        scene.http.several([scene.event_request(company, event_id=event, payload=payload)] * AGAIN)
    request = scene.event_request(company)
    answer = scene.http.send(request)
    deadline = time.monotonic() + scene.patience_s(PATIENCE_S)
    while answer.status >= 500 and time.monotonic() < deadline:
        time.sleep(POLL_S)
        answer = scene.http.send(request)
    if answer.status >= 500:
        scene.seen.require(scene.prompt(), "the target, or its database, is slow")
    told = f"after {2 * AGAIN} sends of a known event a new one is answered {answer.status} for seconds; due: 202"
    assert answer.status < 500, told
    scene.seen.expect(request, answer, 202)
    for table, column in places.items():
        if current().has(table, "payload"):
            kept = scene.value(f"select payload ->> 'n' from public.{table} where {column} = %s", event)
            assert kept == "1", f"payload.n in {table} was 1; the event was sent again with 2, and now it is {kept!r}"
    if scene.claims("pause"):
        scene.pause(company, on=False)


@drill("drill/outbox/same-event-id-raced", covers=("K01", "K08"))
def test_same_event_id_raced(scene: Scene) -> None:
    """An event sent by six callers at once with the same event_id is one event with one effect, and no answer is 5xx,
    also where all have looked for it before any has written it. Of two tenants that send it, one has it, and the other
    is refused, or has one of its own.

    A check before an insert lets two of them through; one that waits for another tenant's event calls its own a
    duplicate, and loses it.
    """
    company, event = scene.company(), new_id("event")
    requests = [scene.event_request(company, event_id=event) for _ in range(6)]
    answers = [a for a in scene.http.burst(requests) if not isinstance(a, NoAnswer)]
    scene.seen.require(any(a.status == 202 for a in answers), "no racing event was accepted")
    scene.seen.control("at least one racing event was accepted")
    _is_one_event(answers)
    scene.delivered([event])
    rows = len(scene.outbox(company))
    assert rows == 1, f"one event, sent by six at once, has {rows} outbox rows"
    _raced_behind_a_row(scene, company)


def _raced_behind_a_row(scene: Scene, company: str) -> None:
    """A burst in which each has looked whether the event is there before any has written it: the row of a transaction
    that is rolled back holds up whoever writes.
    """
    event, owners = new_id("event"), [company, scene.company("second")] * 4
    row = "insert into public.events (id, company_id, event_type, payload, path) values (%s, %s, %s, '{}', 'outbox')"
    with ThreadPoolExecutor(1) as beside:
        with scene.transaction() as other:
            execute(other, row, event, company, PLAIN_TYPE)
            sent = beside.submit(scene.http.burst, [scene.event_request(one, event_id=event) for one in owners])
            scene.somebody_waits(other, within_s=1.0, sessions=2)
        answers = [(one, a) for one, a in zip(owners, sent.result(), strict=True) if isinstance(a, Answer)]
    scene.seen.require(answers, "no sender of the event that was held up had an answer")
    for tenant in owners[:2]:
        own = [answer for one, answer in answers if one == tenant]
        _is_one_event(own)
        told = {str(answer.json().get("event_id")) for answer in own if answer.status == 202}
        lost = [one for one in told if not scene.count("event_outbox", tenant, "event_id = %s", one)]
        assert not lost, "of two tenants that sent one event_id at once, one was answered 202 and has no such event"


def _is_one_event(answers: Sequence[Answer]) -> None:
    """No sender met a server error, and at most one was told that its event is the first."""
    broken = [a.status for a in answers if a.status >= 500 and a.status not in BY_A_PROXY]
    assert not broken, f"racing senders of one event were answered {broken}"
    first = [a for a in answers if a.status == 202 and a.json().get("duplicate") is False]
    assert len(first) <= 1, f"{len(first)} of the racing senders were told that theirs was the first"
