"""What is refused is on record: each refusal of steps 4 to 9, with its code, without flooding the trail."""

import math
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from drills.workbench.audit_chain import REFUSED, says
from drills.workbench.checks import SIGNED, SQL
from drills.workbench.credentials import REPLAY, Minter
from drills.workbench.scene import Scene
from drills.workbench.waiting import PATIENCE_S
from gates.checks.recorder import check
from gates.deployment.dialect.current import current
from gates.deployment.dialect.exchange import path_of
from gates.deployment.ids import new_id
from gates.deployment.requests import Answer, Request, forged_signature, replay_fields, signed_get, token_post
from gates.deployment.tenants.tenants import REPLAY_FLAG
from gates.evidence import Severity
from gates.text.foreign import count

drill = partial(check, needs=SQL, after=SIGNED, severity=Severity.WARN)

ANSWERED_S = 3.5
"""A refusal that is not answered by then waits for something: less than a lock is waited for, and more than slow is."""

BURST, A_FEW = 20, 6
"""Refusals of a burst, and how many more, by sentinels and a minute later, cannot hide that it is not counted."""


def _refusals(scene: Scene, scope: str, code: str) -> list[dict[str, Any]]:
    return [r for r in scene.audit(scope, REFUSED) if says(r, code)]


def _one_row(scene: Scene, company: str, code: str, rows: int) -> list[dict[str, Any]]:
    """Exactly one row for each of so many refusals, under the tenant, soon."""

    def probe() -> list[dict[str, Any]]:
        return found if len(found := _refusals(scene, company, code)) >= rows else []

    found = scene.until(probe, f"the audit row of refusal {rows} by {code}")
    assert len(found) == rows, f"{rows} refusals by {code} left {len(found)} audit rows"
    assert all(r["request_id"] for r in found), f"an audit row of the refusal {code} has no request id"
    scene.seen.count()
    return found


def _each_on_record(scene: Scene, company: str, code: str, refused: Callable[..., Answer], **second: object) -> None:
    """Of two refusals, one right after the other, each has its row, with the request id that the answer has; `second`:
    what the second one asks beside.
    """
    answers = (refused(), refused(**scene.known(**second)))
    told = [answer.request_ids for answer in answers]
    found = [str(row["request_id"]) for row in _one_row(scene, company, code, 2)]
    of = sorted([one in ids for ids in told] for one in found)
    assert of == [[False, True], [True, False]], (
        f"the audit rows of the refusals by {code} have the request ids {found}, the answers {told}"
    )


@drill("drill/audit/refusal-agents-paused", covers=("I02",))
def test_refusal_agents_paused(scene: Scene) -> None:
    """Each replay refused by a pause, forced dry runs too, leaves one dlq_replay_refused row of agents_paused.

    Who kept trying during the incident is the first question after it.
    """
    company = scene.company(items=1)
    scene.run(company, dry_run=True)
    scene.seen.require(not _refusals(scene, company, "agents_paused"), "an admitted replay is audited as refused")
    scene.pause(company)
    refused = partial(scene.replay, company, 409, "agents_paused", max=1)
    _each_on_record(scene, company, "agents_paused", refused, dry_run=True, force=True)


@drill("drill/audit/refusal-feature-disabled", covers=("I02",))
def test_refusal_feature_disabled(scene: Scene) -> None:
    """Each replay refused by a flag, a forced dry run too, leaves one dlq_replay_refused row of feature_disabled, also
    where they come at once.

    A flag that was switched off by mistake is found by the refusals that it causes.
    """
    company = scene.company(items=1)
    scene.run(company, dry_run=True)
    scene.set_flag(company, REPLAY_FLAG, enabled=False)
    refused = partial(scene.replay, company, 403, "feature_disabled", max=1)
    _each_on_record(scene, company, "feature_disabled", refused, dry_run=True, force=True)
    scene.reset_limit(company)
    crowd = [scene.replay_request(company, "at once", max=1) for _ in range(current().limit("calls"))]
    refusals = sum(answer.code == "feature_disabled" for answer in scene.burst(crowd))
    scene.seen.require(refusals >= min(2, len(crowd)), f"the flag refused {refusals} of {len(crowd)} calls at once")
    _one_row(scene, company, "feature_disabled", 2 + refusals)


@drill("drill/audit/refusal-budget-exhausted", covers=("I02",))
def test_refusal_budget_exhausted(scene: Scene) -> None:
    """A replay refused by the budget, a forced dry run too, leaves one dlq_replay_refused row of budget_exhausted.

    Operators see here that a tenant has run out of budget; without the row they learn it from a complaint.
    """
    company = scene.company(items=1)
    scene.run(company, dry_run=True)
    scene.budget(company, daily_limit=1, daily_used=1, monthly_used=1)
    refused = partial(scene.replay, company, 429, "budget_exhausted", max=1)
    _each_on_record(scene, company, "budget_exhausted", refused, dry_run=True, force=True)


@drill("drill/audit/refusal-key-reused", covers=("I02",))
def test_refusal_key_reused(scene: Scene) -> None:
    """A replay refused for a reused key leaves one dlq_replay_refused row with the code idempotency_key_reused.

    The alert on key collisions counts these rows.
    """
    company = scene.company()
    key = str(uuid.uuid4())
    scene.run(company, max=1, idempotency_key=key)
    again = partial(scene.replay, company, 422, "idempotency_key_reused", max=2, idempotency_key=key)
    _each_on_record(scene, company, "idempotency_key_reused", again)


@drill("drill/audit/refusal-forbidden", needs=("database", "mint"), covers=("I02",))
def test_refusal_forbidden(scene: Scene, token: Minter) -> None:
    """A tenant's admin who asks for another tenant has an audit row under its own company, at most one a minute; so has
    a user of the tenant whose role has no rights, and so have refusals of the tenant with another code in that minute.
    A caller who may act for any company, and asks for one that does not exist, has its row under `all`.

    An attacker's refused attempts must be seen, and must not fill the trail of the victim.
    """
    own, victim = scene.company("a"), scene.company("b")
    caller = token(role="company_admin", company_id=own)
    request = token_post("/dlq-replay", replay_fields(own, dry_run=True), caller, "own company")
    scene.expect(request, 200, control=True)
    minutes = scene.minutes()
    nobodys = token_post(REPLAY, replay_fields(victim, dry_run=True), token(role="company_admin"), "of no company")
    scene.expect(nobodys, (401, 403))
    refused: list[str] = []
    for _ in range(3):
        request = token_post("/dlq-replay", replay_fields(victim, dry_run=True), caller, "another company")
        refused += scene.expect(request, 403, "forbidden").request_ids
    rows = _refusals(scene, own, "forbidden")
    allowed = minutes()
    foreign = _refusals(scene, victim, "forbidden")
    assert not foreign, f"the refusals of a stranger are {len(foreign)} rows in the victim's trail"
    elsewhere = "select distinct scope from public.audit_logs where request_id = any(%s) and scope <> %s"
    astray = [str(r["scope"]) for r in scene.rows(elsewhere, refused, own)]
    assert not astray, f"the refusals of a company's admin are on record under {astray}; due: its own company"
    # a deployment may write the row when its minute is over: no row yet is fine, if other refusals wait, too
    assert len(rows) <= allowed, f"3 refusals of one minute left {len(rows)} audit rows; allowed: {allowed}"
    if not rows and _first_rows_come_at_once(scene):
        rows = scene.until(partial(_refusals, scene, own, "forbidden"), "the refusal's audit row under its own company")
    strange = [r["request_id"] for r in rows if r["metadata"].get("count") == 1 and r["request_id"] not in refused]
    assert not strange, f"the audit row of one refusal has the request id {strange[0]}; the answers had others"
    # a deployment that writes the first row of a minute at once does so for another code, or role, too
    if rows and current().claims("rate-limit"):
        for _ in range(current().limit("calls") - 1):
            scene.run(own, dry_run=True)
        scene.replay(own, 429, "rate_limited", dry_run=True)
        scene.until(partial(_refusals, scene, own, "rate_limited"), "the audit row of another code of that minute")
    for is_signed in (False, True) if rows else ():
        staff = scene.company("c")
        viewer = token(role="viewer", company_id=staff)
        request = token_post("/dlq-replay", replay_fields(staff, dry_run=True), viewer, "a role that may nothing")
        if is_signed:
            request = scene.replay_request(staff, "that role, signed", dry_run=True)
            request = request.adding_header("Authorization", f"Bearer {viewer}")
        scene.expect(request, 403, "forbidden")
        scene.until(partial(_refusals, scene, staff, "forbidden"), "the audit row of a role that was refused")
    unknown, minute_ago = new_id("company"), scene.value("select now() - interval '61 seconds'")
    scene.replay(unknown, 403, "forbidden", label="signed, a company that does not exist", max=1)
    of_nobody = token_post("/dlq-replay", replay_fields(unknown, dry_run=True), token(), "a super_admin, for that one")
    scene.expect(of_nobody, 403, "forbidden")
    assert not scene.audit(unknown), "a company that does not exist has an audit trail, of the refusals of its name"
    if rows:  # the first row of a minute comes at once: this one, or another's within the minute
        of_all = "select metadata from public.audit_logs where scope = 'all' and action = %s and created_at > %s"
        scene.until(
            lambda: any(says(row, "forbidden") for row in scene.rows(of_all, REFUSED, minute_ago)),
            "the audit row, under `all`, of a company that does not exist",
        )
    scene.seen.count(4)


def _first_rows_come_at_once(scene: Scene) -> bool:
    """Whether the first refusal of a minute is on record before its minute is over: so is a call over the limit."""
    if not current().claims("rate-limit"):
        return False
    company, shown = scene.company("d"), scene.known(dry_run=True)
    for _ in range(current().limit("calls")):
        scene.run(company, **shown)
    scene.replay(company, 429, "rate_limited", **shown)
    return scene.until_true(lambda: bool(_refusals(scene, company, "rate_limited")), within_s=PATIENCE_S)


@drill("drill/audit/rate-limited-once-a-minute", covers=("I02",))
def test_rate_limited_once_a_minute(scene: Scene) -> None:
    """However many replays are rate limited within a minute, at once or in turn, the trail gets one row at most.

    A trail that grows with every refused request is a way to fill the disk.
    """
    company = scene.company()
    for _ in range(current().limit("calls")):
        scene.run(company, dry_run=True)
    minutes, request = scene.minutes(), scene.replay_request(company, dry_run=True)
    for answer in scene.burst([request] * 6):
        scene.seen.expect(request, answer, 429, "rate_limited")
    scene.replay(company, 429, "rate_limited", dry_run=True)
    rows = _refusals(scene, company, "rate_limited")
    allowed = minutes()
    scene.seen.value(len(rows), allowed, "rows")
    assert len(rows) <= allowed, f"7 refusals within a minute left {len(rows)} audit rows; allowed: {allowed}"
    counted = [r for r in rows if isinstance(r["metadata"], dict) and "count" in r["metadata"]]
    assert len(counted) == len(rows), "a row of rate-limited refusals has no metadata.count"
    scene.seen.count(7)


@pytest.mark.waits(65)
@drill("drill/audit/burst-is-counted", covers=("I02",), deep=True)
def test_burst_is_counted(scene: Scene) -> None:
    """When its minute is over, the rows of a burst of refusals by the limit, and by the rights of a tenant's admin, say
    how many there were, and count each once. Those of signed requests for no company are counted under `all`.

    If the count is lost, or grows by itself, an attack looks like a slip, or a slip like an attack.
    """
    company, victim = scene.company(), scene.company("b")
    for _ in range(current().limit("calls")):
        scene.run(company, dry_run=True)
    limited = scene.replay_request(company, "over the limit", dry_run=True)
    asked = [(limited, "rate_limited", 429, company)]
    if own := scene.token_of(company):
        fields = replay_fields(victim, dry_run=True)
        asked.append((token_post("/dlq-replay", fields, own, "another company"), "forbidden", 403, company))
    nobody = scene.replay_request(new_id("company"), "signed, a company that does not exist", max=1)
    of_all = (nobody, "forbidden", 403, "all")
    found = _burst_is_counted(scene, [*asked, of_all])
    # others are refused under `all`, too, and could hide that this burst is not counted: a later minute has fewer
    for _ in range(2):
        if found > BURST + A_FEW:
            found = _burst_is_counted(scene, [of_all])


def _burst_is_counted(scene: Scene, asked: list[tuple[Request, str, int, str]]) -> int:
    """A burst of refusals of each kind, and one a minute later, are in the counts of their rows, and not more under a
    tenant. Returns how many were found of the last kind.
    """
    since, began = scene.value("select now()"), scene.minutes()

    def refused(times: int) -> None:
        for request, code, status, _ in asked * times:
            scene.expect(request, status, code)

    def counted() -> list[int]:
        return [_counted(scene, scope, code, since) for _, code, _, scope in asked]

    refused(BURST)
    # wait for two minute changes: clocks may differ, and by then the next minute has begun for all
    scene.until_true(lambda: began() > 2 or min(counted()) >= BURST, within_s=70)
    # the next refusal may write the rest of the minute's count; its own row may come even later
    refused(1)
    scene.until_true(lambda: min(counted()) >= BURST, within_s=PATIENCE_S)
    for (request, code, _, scope), found in zip(asked, counted(), strict=True):
        scene.seen.value(found, BURST + 1, "refusals")
        most = math.inf if scope == "all" else BURST + 1
        assert BURST <= found <= most, (
            f"{request.label}: {BURST} refusals by {code} at once, and one a minute later, are {found} in the counts of"
            " their rows"
        )
        scene.seen.count(BURST)
    return found


def _counted(scene: Scene, scope: str, code: str, since: object) -> int:
    """How many refusals with a code are on record under a scope since then."""
    read = "select metadata from public.audit_logs where scope = %s and action = %s and created_at >= %s"
    found = [row["metadata"] for row in scene.rows(read, scope, REFUSED, since) if says(row, code)]
    return sum(count(m.get("count")) for m in found if isinstance(m, dict))


@drill("drill/audit/bad-requests-leave-no-row", covers=("I02",))
def test_bad_requests_leave_no_row(scene: Scene) -> None:
    """Requests that are not authenticated or not valid leave no audit row.

    If they did, anyone on the network could fill the tenant's trail.
    """
    company = scene.company()
    unsigned = scene.replay_request(company).with_header("X-Transbot-Signature", forged_signature())
    scene.expect(unsigned, 401)
    scene.replay(company, 400, "invalid_request", max="10")
    early = scene.audited(company)
    assert not early, f"a 401 and a 400 left {[r['action'] for r in early]} in the tenant's trail"
    scene.run(company, dry_run=True)
    scene.seen.require(scene.audited(company), "an admitted dry run left no audit row")


@check("drill/audit/refusal-waits-for-no-replay", needs=SQL, after=SIGNED, covers=("I02",))
def test_refusal_waits_for_no_replay(scene: Scene) -> None:
    """A refusal is answered and audited while a replay of the same tenant is still in its transaction.

    If the longest replay locks the trail, it stops the whole tenant.
    """
    company, free = scene.company(items=2), scene.company(items=1)
    scene.run(company, dry_run=True)
    scene.budget(company, daily_limit=5)
    scene.set_flag(free, REPLAY_FLAG, enabled=False)
    scene.replay(free, 403, "feature_disabled", control=True, max=1)
    kept = scene.until_true(lambda: bool(_refusals(scene, free, "feature_disabled")), within_s=PATIENCE_S)
    scene.seen.require(kept, "a refusal leaves no audit row while no replay runs, either")
    # the replay waits for the budget row, as it would for a slow neighbour
    with scene.locked("replay_budgets", company) as held:
        running = scene.in_background(scene.replay_request(company, max=1))
        scene.seen.require(scene.somebody_waits(held, within_s=2.0), "the replay does not wait for its budget")
        scene.set_flag(company, REPLAY_FLAG, enabled=False)
        request = scene.replay_request(company, max=1)
        # it needs the database, too, but neither the tenant nor the trail
        read = signed_get(path_of(f"{REPLAY}/{new_id('run')}", free), scene.signer.secret, scene.signer.clock.now())
        refused, beside = scene.in_background(request), scene.in_background(read)
        answered = scene.until_true(refused.done, within_s=ANSWERED_S)
        still_running = not running.done()
        # a service that does one thing at a time, or has one session, gives the held replay up sooner or later
        prompt = answered or (beside.done() and scene.prompt())
        held.commit()
    held_back = running.result()
    answer = refused.result()
    scene.seen.require(still_running or answered, "the held replay ended before its lock was released")
    scene.seen.require(prompt, f"a refusal was not answered in {ANSWERED_S:g} s, and neither was anything else")
    assert answered, (
        f"a refusal was not answered in {ANSWERED_S:g} s while a replay of the same tenant was in its transaction"
    )
    scene.seen.expect(request, answer, 403, "feature_disabled")
    # a replay that was retried, as under serializable isolation, is refused by the flag, too
    _one_row(scene, company, "feature_disabled", 1 + (held_back.code == "feature_disabled"))
