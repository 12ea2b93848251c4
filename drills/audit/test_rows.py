"""The audit trail: one row for each thing that was done, committed with it, saying who did it."""

import uuid
from functools import partial
from typing import Any

import pytest

from drills.workbench.checks import DELIVERS, SIGNED, SQL
from drills.workbench.credentials import REPLAY
from drills.workbench.scene import Scene
from gates.checks.recorder import check
from gates.deployment.redaction import telling
from gates.deployment.requests import SIGNATURE, Request, replay_fields, token_post
from gates.evidence import Severity

pytestmark = pytest.mark.beside_load

drill = partial(check, needs=SQL, after=SIGNED)

SNAPSHOT = """
select (select count(*) from public.agent_tasks t join public.event_outbox o using (event_id)
        where o.replay_run_id = %s and t.status = 'completed') as effects,
       (select count(*) from public.audit_logs where scope = %s and action = 'dlq_replay_completed') as ends
"""
MOVED = """
select (select count(*) from public.event_outbox where company_id = %s and replay_run_id is not null) as moved,
       (select coalesce(sum(target_count), 0) from public.replay_runs where company_id = %s) as said
"""
STARTED, COMPLETED, SUMMARY = "dlq_replay_started", "dlq_replay_completed", "dlq_replay"


@drill("drill/audit/start-of-a-run", covers=("I01", "O03"))
def test_start_of_a_run(scene: Scene) -> None:
    """A replay has exactly one dlq_replay_started row, with an actor, the tenant, the target count and the request id.

    Nobody can find out who started a replay that did harm.
    """
    company = scene.company(items=2)
    answer = scene.replay(company, control=True, max=3)
    rows = scene.audit(company, STARTED)
    assert len(rows) == 1, f"{len(rows)} rows say that the run started; 1 is due"
    row = rows[0]
    assert row["actor"], "the row names no actor"
    assert row["target_count"] == 2, f"the row's target_count is {row['target_count']}; 2 items were taken"
    assert row["request_id"], "the row has no request id"
    scene.seen.severity = Severity.WARN  # a proxy may have put an id of its own for the service's: the row is whole
    told = answer.request_ids
    assert told, "the answer has no X-Request-Id"
    assert row["request_id"] in told, f"the row's request id is {row['request_id']!r}; the answer's is among {told}"
    scene.seen.severity = None
    assert not row["success_count"], f"the start counts {row['success_count']} successes before any item was tried"
    scene.seen.count(len(rows))


@drill("drill/audit/end-of-a-run", after=DELIVERS, covers=("I01",))
def test_end_of_a_run(scene: Scene) -> None:
    """A run that ended has exactly one dlq_replay_completed row and one dlq_replay summary, with the counts of the run;
    so has the tenant's next one.

    Alerts are computed from these rows: a missing or doubled one is a wrong alert.
    """
    company = scene.company(items=5)
    for earlier, items in enumerate((3, 2)):
        run = str(scene.run(company, max=items)["replay_run_id"])
        scene.ended(run)
        for action in (COMPLETED, SUMMARY):
            rows = scene.until(
                lambda a=action, n=earlier: scene.audit(company, a)[n:],  # type: ignore[misc]
                f"the audit row {action} of the tenant's run {earlier + 1}",
            )
            assert len(rows) == 1, f"{len(rows)} rows {action} of one run; 1 is due"
            counts = (rows[0]["target_count"], rows[0]["success_count"], rows[0]["failure_count"])
            due = (items, items, 0)
            assert counts == due, f"{action} counts {counts} (target, success, failure); {items} items were delivered"
            scene.seen.count()
    stopped = scene.audit(company, "dlq_replay_stopped")
    assert not stopped, "a run that completed is also audited as stopped"


@drill("drill/audit/nothing-eligible", covers=("I01",))
def test_nothing_eligible(scene: Scene) -> None:
    """A replay that found nothing eligible is completed at once, and audited from start to end.

    Without its end in the trail, an empty replay looks like one that never ended.
    """
    company = scene.company()
    answer = scene.run(company, max=5)
    assert answer["status"] == "completed", f"a replay without items is {answer['status']!r}; due: completed"
    actions = sorted(str(r["action"]) for r in scene.audited(company))
    assert actions == sorted([STARTED, COMPLETED, SUMMARY]), f"the rows of an empty run are {actions}"
    scene.seen.count(len(actions))


@drill("drill/audit/start-and-effect-together", covers=("I03",))
def test_start_and_effect_together(scene: Scene) -> None:
    """The run, its outbox rows and its dlq_replay_started row are written by one transaction (equal txid), and no
    snapshot shows more outbox rows of runs than the runs count.

    Two transactions leave, after a crash, an effect without a trace or a trace without an effect.
    """
    company = scene.company(items=6)
    half: list[dict[str, Any]] = []
    for _ in range(3):
        request = scene.replay_request(company, max=2)
        running = scene.in_background(request)
        while not running.done():  # which has the time limit of a request
            now = scene.one(MOVED, company, company)
            half += [now] if now["moved"] > now["said"] else []
        scene.seen.expect(request, running.result(), 200, control=True)
    assert not half, f"in one snapshot there are {half[0]['moved']} outbox rows of runs that say {half[0]['said']}"
    audit = {str(r["txid"]) for r in scene.audit(company, STARTED)}
    own = {str(r["txid"]) for r in scene.rows("select txid from public.replay_runs where company_id = %s", company)}
    moved = "select txid from public.event_outbox where company_id = %s and replay_run_id is not null"
    outbox = {str(r["txid"]) for r in scene.rows(moved, company)}
    scene.seen.require(own and outbox, "the runs or their outbox rows are gone")
    assert audit, "the runs have no audit row"
    assert audit == own == outbox, f"transactions: audit {audit}, runs {own}, outbox {outbox}; due: one a run"
    scene.seen.count(len(outbox) + 2)


@drill("drill/audit/end-and-effect-together", after=DELIVERS, covers=("I03",))
def test_end_and_effect_together(scene: Scene) -> None:
    """The last effect of a run and the audit row that records its end were written by one transaction.

    An audit row committed before its effect says that something happened which may not have; one committed after it
    may be lost.
    """
    company = scene.company(items=1)
    run = str(scene.run(company, max=1)["replay_run_id"])

    def snapshot() -> dict[str, object]:
        # one statement is one snapshot: whatever is seen here was committed at one moment
        return scene.one(SNAPSHOT, run, company)

    half: list[dict[str, object]] = []

    def probe() -> bool:
        now = snapshot()
        if now["effects"] != now["ends"]:
            half.append(now)
        return now["effects"] == 1 == now["ends"]

    scene.until(probe, "effect and audit row of the run's end", every_s=0)
    assert not half, f"effect and audit row were not committed together: {half[0]} was seen in one snapshot"
    effect = scene.number(
        "select t.xmin::text::bigint from public.agent_tasks t join public.event_outbox o using (event_id)"
        " where o.replay_run_id = %s and t.status = 'completed'",
        run,
    )
    end = scene.number(
        "select xmin::text::bigint from public.audit_logs where scope = %s and action = %s", company, COMPLETED
    )
    # a savepoint gives rows of one transaction different, but never earlier, numbers than the transaction's own
    own = scene.number(
        "select txid::text::bigint %% 4294967296 from public.audit_logs where scope = %s and action = %s",
        company,
        COMPLETED,
    )
    assert effect >= own, f"the effect was written by transaction {effect}, before {own}, which wrote the audit row"
    scene.seen.details["written by"] = {"effect": effect, "audit": end, "transaction": own}
    scene.seen.count(2)


@drill("drill/audit/dry-run", covers=("I01", "F07"), severity=Severity.WARN)
def test_dry_run(scene: Scene) -> None:
    """A dry run, also one that finds nothing, leaves exactly one audit row, dlq_replay_dry_run, with its request id,
    and none that says that something was replayed.

    Previews that look like replays make the trail useless.
    """
    for items in (1, 0):
        company = scene.company(items=items)
        told = scene.replay(company, control=True, max=1, dry_run=True).request_ids
        rows = scene.audited(company)
        actions = [str(r["action"]) for r in rows]
        assert actions == ["dlq_replay_dry_run"], f"a dry run of {items} items is audited as {actions}"
        noted = rows[0]["request_id"]
        assert noted in told, f"the request id of a dry run's row is {noted!r}; the answer's is among {told}"
        scene.seen.count()


@drill("drill/audit/duplicate-leaves-no-row", covers=("I01",))
def test_duplicate_leaves_no_row(scene: Scene) -> None:
    """A duplicate of a finished request has no effect, and no audit row of a second replay.

    With such a row, a client's retry looks like an operator's second replay.
    """
    company = scene.company()
    key = str(uuid.uuid4())
    scene.run(company, max=1, idempotency_key=key)
    before = len(scene.audited(company))
    scene.replay(company, max=1, idempotency_key=key)
    after = [str(r["action"]) for r in scene.audited(company)][before:]
    assert not after, f"the duplicate left the audit rows {after}"
    scene.seen.require(before, "the first request left no audit row")
    scene.seen.count()


@drill("drill/audit/refused-leaves-no-success-row", covers=("I04",))
def test_refused_leaves_no_success_row(scene: Scene) -> None:
    """A refused replay leaves no row that says that a replay started or ended.

    A row written before the decision records what never happened.
    """
    company = scene.company(items=1)
    scene.pause(company)
    scene.replay(company, 409, "agents_paused", max=1)
    false = scene.audit(company, STARTED, COMPLETED, SUMMARY)
    assert not false, f"the refused replay is audited as {[r['action'] for r in false]}"
    scene.seen.count()
    scene.pause(company, on=False)
    scene.run(company, max=1)


@drill("drill/audit/actor-cannot-be-set", covers=("I12",))
def test_actor_cannot_be_set(scene: Scene) -> None:
    """No header and no field of the body sets the actor of an audit row.

    A caller that chooses the actor can put its deeds on somebody else.
    """
    company = scene.company()
    spoof = f"spoofed-{uuid.uuid4()}"
    request = scene.replay_request(company, max=1)
    for name in ("X-Actor", "X-User", "X-User-Id", "X-Forwarded-User", "X-Audit-Actor", "Actor"):
        request = request.adding_header(name, spoof)
    scene.expect(request, 200, control=True)
    rows = scene.audited(company)
    scene.seen.require(rows, "the replay left no audit row")
    taken = [r["action"] for r in rows if spoof in str(r["actor"])]
    assert not taken, f"the actor of {taken} is what the caller's header said"
    scene.replay(company, 400, "invalid_request", max=1, actor=spoof)
    scene.seen.count(len(rows))


@drill("drill/audit/database-clock", covers=("I15",), severity=Severity.WARN)
def test_database_clock(scene: Scene) -> None:
    """The time of an audit row is the database's time of the action, whatever time the caller states.

    A trail in the clients' time cannot be put in order.
    """
    company = scene.company()
    before = scene.value("select date_trunc('milliseconds', clock_timestamp())")
    request = scene.replay_request(company, max=1).adding_header("Date", "Mon, 01 Jan 2001 00:00:00 GMT")
    scene.expect(request, 200, control=True)
    after = scene.value("select clock_timestamp()")
    rows = scene.audit(company, STARTED)
    scene.seen.require(rows, "the replay left no dlq_replay_started row: drill/audit/start-of-a-run")
    at = rows[0]["created_at"]
    assert before <= at <= after, f"the row's time is {at}; by the database the request ran from {before} to {after}"
    scene.seen.count()


@drill("drill/audit/tenant-reads-only-its-own", covers=("I13",))
def test_tenant_reads_only_its_own(scene: Scene) -> None:
    """A tenant reads its own audit rows and nobody else's.

    The trail of another company says who its operators are and what failed.
    """
    own, other = scene.company("a"), scene.company("b")
    scene.run(own, max=1)
    scene.run(other, max=1)
    with scene.as_tenant(own) as connection:
        rows = connection.execute("select scope, count(*) as n from public.audit_logs group by scope").fetchall()
    seen = {str(r["scope"]): int(str(r["n"])) for r in rows}
    scene.seen.require(seen.get(own), "the tenant does not see its own audit rows")
    scene.seen.control("the tenant sees its own audit rows")
    foreign = sorted(set(seen) - {own})
    assert not foreign, f"the tenant sees the rows of {len(foreign)} other scopes, e.g. {foreign[0] if foreign else ''}"
    scene.seen.count(sum(seen.values()))


@drill("drill/audit/no-secret-in-it", covers=("I14", "I02", "O08"))
def test_no_secret_in_it(scene: Scene) -> None:
    """No signature, token, payload or secret that was sent is found in the audit trail, the metrics or an error.

    What is written to an append-only table cannot be taken back.
    """
    canary = uuid.uuid4().hex
    company = scene.company()
    scene.tenants.add_items(company, 1, payload=f'{{"password": "payload-{canary}"}}')
    sent = scene.replay_request(company, max=1, idempotency_key=canary)
    good = scene.expect(sent, 200, control=True)
    if scene.target.admin_jwt:
        with_token = token_post(REPLAY, replay_fields(company, max=1, dry_run=True), scene.target.admin_jwt)
        scene.http.send(with_token)  # an admin of one company only is refused here, and that is audited, too
    answers = [good]
    if scene.claims("pause"):
        scene.pause(company)
        answers.append(scene.replay(company, 409, "agents_paused", max=1))
    bad = [
        good_request.with_header("X-Transbot-Signature", f"signature-{canary}")
        for good_request in [scene.replay_request(company, max=1)]
    ]
    bad += [bad[0].without_header("X-Transbot-Signature").adding_header("Authorization", f"Bearer token-{canary}")]
    for request in bad:
        answer = scene.http.send(request)
        scene.seen.expect(request, answer, 401)
        answers.append(answer)
    invalid = scene.replay_request(company, max=1, secret=f"body-{canary}")
    answers.append(scene.expect(invalid, 400))
    answers.append(scene.http.send(Request("GET", "/metrics")))
    rows = scene.rows(
        "select row_to_json(a)::text as line from public.audit_logs a where scope in (%s, 'all')"
        " and created_at > now() - interval '10 minutes'",
        company,
    )
    text = "\n".join(str(r["line"]) for r in rows)
    scene.seen.require(company in text, "the tenant's requests left no audit row")
    for word in ("payload", "signature", "token", "body"):
        assert f"{word}-{canary}" not in text, f"the {word} that was sent is in the audit trail"
    signature = next(value for name, value in sent.headers if name == SIGNATURE)
    assert signature not in text, "the signature of an accepted request is in the audit trail"
    for secret, name in telling(scene.target).items():
        assert secret not in text, f"a secret of the deployment is in the audit trail ({name})"
        for answer in answers:
            assert not answer.says(secret), f"an answer {answer.status} holds a secret of the deployment ({name})"
    told = [a for a in answers[2:4] + answers[5:] if a.says(canary)]
    assert not told, f"an answer {told[0].status if told else ''} repeats the credential that was sent"
    scene.seen.count(len(rows))
