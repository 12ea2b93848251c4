"""Every exchange of the drills has left in the database what the contract says, and nothing else."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import psycopg
import pytest

from drills.ledger.sweep import MOST_TOLD, events
from drills.workbench.audit_chain import REFUSED, says
from drills.workbench.checks import SIGNED, SQL
from drills.workbench.credentials import REPLAY
from drills.workbench.database import query
from drills.workbench.journal import EVENTS, Entry, Journal
from drills.workbench.scene import LISTS, Scene
from drills.workbench.traces import traces_in
from drills.workbench.waiting import DUE_S
from gates.checks.recorder import check
from gates.deployment.dialect.current import current
from gates.deployment.ids import new_id
from gates.deployment.requests import Answer
from gates.evidence import Severity, Where

drill = partial(check, needs=SQL, severity=Severity.WARN, phase="last")

STARTED, DRY_RUN = "dlq_replay_started", "dlq_replay_dry_run"
ENDS = ("dlq_replay_completed", "dlq_replay")
COUNTS = ("target_count", "success_count", "failure_count")
EXACT = 2**53
ENDED = f"select scope, action, {', '.join(COUNTS)} from public.audit_logs where scope = any(%s) and action = any(%s)"
ON_RECORD = {"feature_disabled": 403, "agents_paused": 409, "budget_exhausted": 429, "idempotency_key_reused": 422}
"""Refusals that each have an audit row, by their code. Others share one of their minute."""
UNHEARD = (400, 401, 405, 413, 415)
SHARED_ONE_IN = 100
"""Ids that are drawn may meet by chance; those that are unique in one process or for one second alone meet often."""

Rows = dict[str, list[dict[str, Any]]]


@pytest.mark.usefixtures("round_on_record")
@drill("drill/ledger/replays-on-record", after=("drill/audit/start-of-a-run",), covers=("I01",))
def test_replays_on_record(scene: Scene, journal: Journal) -> None:
    """Each replay that any drill started has one dlq_replay_started row, under its tenant, with the request id and the
    target count of its answer; each that was seen completed has a dlq_replay_completed row and a summary with its
    counts.

    Nobody can find out who started a replay that is missing in the trail, and the alerts count its end.
    """
    started = [e for e in journal.entries(REPLAY) if e.is_first and not e.is_dry]
    due = Counter((e.company, action, *_counts(e.row)) for e in started if _is_completed(e) for action in ENDS)
    told = Counter(tuple(r.values()) for r in scene.rows(ENDED, sorted({company for company, *_ in due}), [*ENDS]))
    missing = due - told

    def wrong(rows: Sequence[dict[str, Any]], entry: Entry) -> str:
        lost = [a for a in ENDS if _is_completed(entry) and (entry.company, a, *_counts(entry.row)) in missing]
        return f"it is completed, and has no row {lost[0]} with its counts" if lost else _one(rows, STARTED, entry)

    _on_record(scene, started, wrong)


@pytest.mark.usefixtures("round_on_record")
@drill("drill/ledger/dry-runs-on-record", after=("drill/audit/dry-run",), covers=("I01",))
def test_dry_runs_on_record(scene: Scene, journal: Journal) -> None:
    """Each dry run of any drill has one audit row, dlq_replay_dry_run, with the request id of its answer, and no other.

    Who looked at what before a replay is part of its story.
    """
    dry = [e for e in journal.entries(REPLAY) if e.is_first and e.is_dry]
    _on_record(scene, dry, lambda rows, e: _one(rows, DRY_RUN, e) or _only(rows, DRY_RUN))


@pytest.mark.usefixtures("round_on_record")
@drill("drill/ledger/refusals-on-record", after=("drill/audit/refusal-agents-paused",), covers=("I02",))
def test_refusals_on_record(scene: Scene, journal: Journal) -> None:
    """Each replay of any drill that a flag, a pause, the budget or a reused key refused has one dlq_replay_refused row
    with its code and the request id of its answer.

    The alerts count these rows.
    """
    refused = [e for e in journal.entries(REPLAY) if ON_RECORD.get(e.code) == e.status]

    def wrong(rows: Sequence[dict[str, Any]], entry: Entry) -> str:
        told = [r for r in rows if r["action"] == REFUSED and says(r, entry.code)]
        return f"{len(told)} refusals by {entry.code} on record; 1 is due" if len(told) != 1 else _only(rows, REFUSED)

    _on_record(scene, refused, wrong)


@pytest.mark.usefixtures("round_on_record")
@drill("drill/ledger/nothing-else-on-record", after=("drill/audit/duplicate-leaves-no-row",), covers=("I02", "D01"))
def test_nothing_else_on_record(scene: Scene, journal: Journal) -> None:
    """No duplicate, and no request of any drill that was invalid or not authenticated, has a row in the trail; no
    refusal has one that says that something was replayed.

    The trail shows replays that never happened.
    """
    asked = journal.entries(REPLAY)
    silent = [e for e in asked if e.status in UNHEARD or e.answer.get("duplicate") is True]
    refused = [e for e in asked if e.status in {403, 409, 422, 429}]
    unheard = {id(e) for e in silent}
    _on_record(
        scene, [*silent, *refused], lambda rows, e: _only(rows, "no row at all" if id(e) in unheard else REFUSED)
    )


@pytest.mark.usefixtures("round_on_record")
@drill("drill/ledger/runs-as-answered", after=SIGNED, covers=("E01", "D01"))
def test_runs_as_answered(scene: Scene, journal: Journal) -> None:
    """Each replay that any drill started has a run with the tenant, the key and the target count of its answer, no
    more outbox rows and settled items than that, and no outbox row with another type or payload than its dead letter;
    as many are delivered as it counts, each with an effect and a resolved letter.

    The caller is told something other than what was done.
    """
    started = [e for e in journal.entries(REPLAY) if e.is_first and e.row is not None]

    def wrong(entry: Entry) -> str:
        row, answer = entry.row or {}, entry.answer
        if entry.is_dry:
            return "a dry run has a run" if row else ""
        key = {"key": answer["idempotency_key"]} if "idempotency_key" in answer else {}
        if unlike := _unlike({"company": entry.company, "target_count": _count(entry), **key}, row):
            return unlike
        most, settled, rows = row["target_count"], row["success_count"] + row["failure_count"], row["outbox_rows"]
        if settled > most or (row["status"] == "completed" and settled < most):
            return f"{settled} of {most} items are settled, and it is {row['status']}"
        if row.get("altered"):
            return f"{row['altered']} of its {rows} outbox rows have another type or payload than their dead letters"
        if row.get("delivered") != row.get("counted"):
            return f"it counts {row['counted']} successes, and {row['delivered']} outbox rows are processed"
        if row.get("unresolved") or row.get("without_effect"):
            lacking = {"no resolved letter": row["unresolved"], "no effect": row["without_effect"]}
            return f"of {row['delivered']} processed outbox rows so many have: {lacking}"
        return f"it has {rows} outbox rows for {most} items" if rows > most else ""

    _judge(scene, started, wrong)


@pytest.mark.usefixtures("round_on_record")
@drill("drill/ledger/answers-add-up", after=("drill/safety-rails/answer-adds-up",), covers=("E01",))
def test_answers_add_up(scene: Scene, journal: Journal) -> None:
    """The answer to each replay of any drill names its tenant and key, counts its items, takes no more than it may,
    and puts no id in two lists or an id that was not asked for. Of the replays with one key exactly one is no
    duplicate, and the others get its answer, marked in body and header. No more than one in a hundred answers shares
    its request id; each has one. Each refusal with a code is a problem document.

    Callers act upon these members.
    """
    asked, shared = journal.entries(REPLAY), journal.of_shared_ids()
    scene.seen.witness = [str(entry) for entry in shared[:MOST_TOLD]]
    some = len(asked) / SHARED_ONE_IN
    assert len(shared) <= some, f"{len(shared)} answers share their X-Request-Id with another; allowed: {some:.0f}"
    nameless = journal.without_ids() if asked and current().claims("http") else []
    assert not nameless, f"{len(nameless)} answers have no X-Request-Id: {nameless[0]}"
    unlike = [
        e for e in (*asked, *journal.entries(EVENTS)) if e.unlike and e.status >= 400 and current().claims("http")
    ]
    assert not unlike, f"{len(unlike)} refusals are no problem documents: {unlike[0]}: {unlike[0].unlike}"
    unmarked = [e for e in asked if e.unlike and e.status < 300 and "Idempotent-Replayed" not in current().lacking]
    assert not unmarked, f"{len(unmarked)} answers are wrongly marked: {unmarked[0]}: {unmarked[0].unlike}"
    answered = [e for e in asked if e.status == 200]
    firsts: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for entry in answered:
        if entry.is_first and not entry.is_dry:
            firsts[_key(entry)].append(entry)

    def wrong(entry: Entry) -> str:
        began = firsts[_key(entry)]
        if len(began) > 1:
            return "its key began two runs"
        if began and entry.answer.get("duplicate") and entry.answer | {"duplicate": False} != began[0].answer:
            return _unlike(began[0].answer | {"duplicate": True}, entry.answer)
        return _inconsistent(entry)

    _judge(scene, answered, wrong)


@drill(
    "drill/ledger/events-as-sent", after=("drill/outbox/event-as-sent",), severity=Severity.PAGE, covers=("K01", "K03")
)
def test_events_as_sent(scene: Scene, journal: Journal) -> None:
    """Each event that was accepted from any drill has its row as it was sent, with an outbox row on the outbox's path
    and none on the direct path; a finished event has one effect, and none has two. No event is accepted from another
    company's token, nor called a duplicate that came without an id.

    An event that was accepted and is not there, or another one, is lost.
    """
    taken = events(scene, journal)
    scene.seen.witness = list(taken[:MOST_TOLD])
    assert not taken, f"{len(taken)} events were taken from another company: {taken[0]}"
    given = [e for e in journal.entries(EVENTS) if e.status < 300]
    accepted = [e for e in given if e.row is not None or not (e.is_first or "event_id" in e.asked)]

    def wrong(entry: Entry) -> str:
        if not entry.is_first:
            return "its sender gave it no id, and is told that it is a duplicate"
        row, asked = entry.row or {}, entry.asked
        told = {name: asked.get(name) for name in ("event_type", "aggregate_key", "payload")}
        path, rows, effects = entry.answer.get("path"), row.get("outbox_rows"), row.get("effects", 0)
        if row and (path == "direct") != (rows == 0):
            return f"it took the path {path}, and has {rows} outbox rows"
        if row and (effects > 1 or (not effects and (path == "direct" or row["processed"]))):
            return f"it took the path {path}, is {'done' if row['processed'] else 'not done'} and has {effects} effects"
        return _unlike({"company": entry.company, "path": path, **told}, row)

    _judge(scene, accepted, wrong)


@pytest.mark.usefixtures("round_on_record")
@drill("drill/ledger/no-answer-shows-insides", after=SIGNED, covers=("O08", "O12"))
def test_no_answer_shows_insides(scene: Scene, journal: Journal) -> None:
    """No answer to a POST of any drill shows a stack trace, a connection string or a text of the database, and no
    refusal names a tenant that is not the caller's.

    Database messages name objects and quote rows: they help the next attack. Who shares a deployment is nobody's
    business.
    """
    asked = [*journal.entries(REPLAY), *journal.entries(EVENTS)]
    told = {one for entry in asked for one in entry.strangers}
    names = {one for one in told if one.startswith("drill-")}
    ids = f"{{{','.join(told - names)}}}"  # whatever the column's type
    kept = scene.rows("select id::text as id from public.companies where id = any(%s)", ids) if told - names else []
    tenants = {*names, *(entry.company for entry in asked), *(str(row["id"]) for row in kept)}

    def wrong(entry: Entry) -> str:
        if named := tenants.intersection(entry.strangers):
            return f"it names {len(named)} other tenants"
        return f"it shows {entry.shows!r}" if entry.shows else ""

    _judge(scene, asked, wrong)


@drill("drill/ledger/no-error-shows-insides", after=SIGNED, where=Where.REFERENCE, covers=("O08", "O12"))
def test_no_error_shows_insides(scene: Scene) -> None:
    """No answer to an event, a replay or a read of a run that the database refuses shows a stack trace, a connection
    string or a text of the database.

    Unforeseen errors carry texts that nobody has chosen or reviewed.
    """
    answers = _refused_by_the_database(scene)
    failed = [answer.status for answer in answers if answer.status >= 500]
    due = 2 + current().shows_runs
    scene.seen.require(len(failed) == due, f"of {due} requests that the database refuses {len(failed)} ended in a 5xx")
    scene.seen.control(f"{due} requests were refused by the database")
    shown = [f"{answer.status} shows {found[0]!r}" for answer in answers if (found := traces_in(answer.body))]
    scene.seen.witness = list(shown)
    scene.seen.count(len(answers))
    assert not shown, f"an answer {shown[0]}"


def _refused_by_the_database(scene: Scene) -> list[Answer]:
    """What is answered to an event, a replay and a read of a run that the database refuses for a missing right."""
    company, answers = scene.company("refused", items=1), list[Answer]()
    sent: list[tuple[str, Callable[[], Answer]]] = [
        ("insert on public.events", lambda: scene.http.send(scene.event_request(company))),
        ("insert on public.replay_runs", lambda: scene.http.send(scene.replay_request(company, max=1))),
    ]
    if current().shows_runs:
        sent.append(("select on public.replay_runs", lambda: scene.get_run(new_id("run"), company)[1]))
    for right, send in sent:
        try:
            scene.rows(f"revoke {right} from replay_service")
        except psycopg.Error:  # a login without that right, or a schema of another make
            continue
        try:
            answers.append(send())
        finally:
            scene.rows(f"grant {right} to replay_service")
    return answers


def _on_record(scene: Scene, entries: Sequence[Entry], wrong: Callable[[list[dict[str, Any]], Entry], str]) -> None:
    """Judge exchanges by their audit rows. What is missing is waited for."""
    companies = sorted({e.company for e in entries})

    def of_requests() -> Rows:
        rows: Rows = defaultdict(list)
        for row in scene.rows(query("audit_of_requests"), companies):
            rows[str(row["request_id"])].append(row)
        return rows

    def of(rows: Rows, entry: Entry) -> list[dict[str, Any]]:
        return [row for one in dict.fromkeys(entry.request_ids) for row in rows[one]]

    def all_right() -> bool:
        rows = of_requests()
        return not any(wrong(of(rows, e), e) for e in entries)

    scene.until_true(all_right, within_s=DUE_S)
    rows = of_requests()
    _judge(scene, entries, lambda e: wrong(of(rows, e), e))


def _judge(scene: Scene, entries: Sequence[Entry], wrong: Callable[[Entry], str]) -> None:
    """Assert that none of these exchanges is wrong."""
    scene.seen.require(entries, "no such exchange was seen")
    scene.seen.control(f"{len(entries)} exchanges of {len({e.check for e in entries})} checks were looked at")
    scene.seen.count(len(entries))
    found = [(entry, said) for entry in entries if (said := wrong(entry))]
    scene.seen.witness = [f"{entry}: {said}" for entry, said in found[:MOST_TOLD]]
    assert not found, f"{len(found)} of {len(entries)}: {found[0][0]}: {found[0][1]}"


def _one(rows: Sequence[dict[str, Any]], action: str, entry: Entry) -> str:
    """What is wrong with the one row of this action that is due."""
    told = [row for row in rows if row["action"] == action]
    if len(told) != 1:
        return f"{len(told)} rows {action} with its request id; 1 is due"
    if not told[0]["actor"]:
        return f"its row {action} names no actor"
    return _unlike({"scope": entry.company, "target_count": _count(entry)}, told[0])


def _only(rows: Sequence[dict[str, Any]], action: str) -> str:
    """What is wrong where no row of another action is due."""
    others = sorted({str(row["action"]) for row in rows} - {action})
    return f"{', '.join(others)} on record; due: {action}" if others else ""


def _unlike(told: dict[str, Any], row: dict[str, Any]) -> str:
    """Which of these members a row does not have."""
    if not row:
        return "it has no row"
    return "; ".join(f"{k} is {row.get(k)!r}; due: {v!r}" for k, v in told.items() if _read(row.get(k)) != _read(v))


def _read(value: Any) -> Any:
    """JSON as many languages read it: an integer beyond 2^53 is a double, which may have lost digits."""
    if isinstance(value, dict):
        return {name: _read(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_read(one) for one in value]
    return float(value) if isinstance(value, int) and abs(value) > EXACT else value


def _is_completed(entry: Entry) -> bool:
    """Whether its run was completed when its check ended."""
    return (entry.row or {}).get("status") == "completed"


def _counts(row: dict[str, Any] | None) -> tuple[Any, ...]:
    return tuple((row or {}).get(name) for name in COUNTS)


def _key(entry: Entry) -> tuple[str, str]:
    return entry.company, str(entry.answer.get("idempotency_key") or entry.request_ids)


def _count(entry: Entry) -> Any:
    return entry.answer.get("target_count")


def _inconsistent(entry: Entry) -> str:
    """What of the answer to a replay does not fit the request, or the rest of the answer."""
    answer, asked = entry.answer, entry.asked
    ids = {name: [str(one).lower() for one in answer.get(name) or ()] for name in LISTS}
    every = [one for found in ids.values() for one in found]
    wanted = {str(one).lower() for one in asked.get("dlq_ids") or ()}
    told = {"company_id": entry.company, "dry_run": entry.is_dry, "idempotency_key": asked.get("idempotency_key")}
    if len(every) != len(set(every)):
        return "an id stands twice in its lists"
    if (wanted and not wanted.issuperset(every)) or (not wanted and (ids["not_found"] or ids["ineligible"])):
        return "it tells of ids that were not asked for"
    if len(ids["items"]) > (most := asked.get("max") or len(wanted) or current().limit("default_batch")):
        return f"it took {len(ids['items'])} items; allowed: {most}"
    if answer.get("target_count") != len(ids["items"]):
        return f"target_count is {answer.get('target_count')} of {len(ids['items'])} items"
    return _unlike({name: due for name, due in told.items() if due is not None and name in answer}, answer)
