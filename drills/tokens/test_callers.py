"""What a token asks for is the named company's, and bound by the same rules, whoever its holder is."""

from collections.abc import Callable
from functools import partial
from typing import Any

from drills.workbench.audit_chain import REFUSED, says
from drills.workbench.checks import TOKEN
from drills.workbench.credentials import REPLAY, Minter
from drills.workbench.scene import Scene, new_key
from drills.workbench.tenant_data import PLAIN_TYPE
from drills.workbench.waiting import PATIENCE_S
from gates.checks.recorder import check
from gates.deployment.dialect.current import current
from gates.deployment.ids import ids_have_spellings, new_id
from gates.deployment.requests import Request, encode_body, replay_fields, token_post
from gates.deployment.tenants.tenants import OUTBOX_FLAG, REPLAY_FLAG

drill = partial(check, needs=("database", "mint"), after=TOKEN)


@drill("drill/tokens/acts-for-the-named-company", covers=("A20", "I01"))
def test_acts_for_the_named_company(scene: Scene, token: Minter) -> None:
    """What a super_admin asks for is done, counted and recorded for the company that the request names, whichever
    company the token belongs to; and a company_admin may write its own company in upper case.

    A service that takes the tenant of a row from the token replays, counts and audits one customer as another.
    """
    home, named = scene.company("home", items=1), scene.company("named", items=1)
    free = token_post(REPLAY, replay_fields(named, dry_run=True), token(), "a super_admin of no company")
    scene.expect(free, 200, control=True)
    caller = token(company_id=home)
    for label, fields in (("a dry run", {"dry_run": True}), ("a replay", {})):
        request = token_post(
            REPLAY, replay_fields(named, max=1, **fields), caller, f"{label}, by a token of another company"
        )
        before = scene.runs(named)  # that a dry run opens none is another promise
        answer = scene.expect(request, 200)
        assert answer.json().get("company_id") == named, f"{label} of {named} is answered for another company"
    scene.reset_limit(named)
    if ids_have_spellings():
        fields = replay_fields(named.upper(), dry_run=True)
        scene.expect(token_post(REPLAY, fields, token.for_company(named), "its own company, in upper case"), 200)
    if scene.claims("flags"):
        scene.set_flag(named, REPLAY_FLAG, enabled=False)
        scene.replay(named, 403, label="a signed replay that is switched off", control=True, max=1)
        scene.expect(token_post(REPLAY, replay_fields(named, max=1), caller, "a replay that is switched off"), 403)
    opened = scene.runs(named) - before
    assert opened == 1, f"{opened} runs of the named company by one replay"
    pending = [str(r["status"]) for r in scene.items(home)]
    assert (pending, scene.runs(home)) == (["pending"], 0), "the replay of one company took the items of another"
    if scene.claims("rate-limit"):
        keys = "select count(*) from public.edge_rate_limits where starts_with(key, %s)"
        assert not scene.number(keys, f"replay:{home}:"), "the calls were counted against the company of the token"
    if scene.claims("audit"):
        astray = [str(r["action"]) for r in scene.audited(home)]
        assert not astray, f"what was done for the named company is in another's trail: {astray}"
    scene.seen.count(3)


@drill("drill/tokens/rules-hold-for-every-caller", covers=("A26", "I01"))
def test_rules_hold_for_every_caller(scene: Scene, token: Minter) -> None:
    """Requests of a company_admin, of a super_admin who has another company, those signed with v2, and those signed
    beside a token are cut, charged, audited, refused, paused, switched off, forced and rate limited like all others.

    A caller who is exempt spends without limit and replays in the middle of an incident, and nobody sees it.
    """
    signed, own, any_of = scene.company("signed", items=3), scene.company("own", items=3), scene.company("any", items=3)
    _is_bound(scene, signed, "a signed call", partial(scene.signer.post, REPLAY), signs=True)
    _is_bound(scene, own, "a company_admin", partial(_by_token, token.for_company(own)))
    _is_bound(scene, any_of, "a super_admin", partial(_by_token, token(company_id=own)))
    for who, asks in (
        ("a call signed by v2", partial(scene.signer.v2, REPLAY)),
        ("a signed call with a token", partial(_signed_beside, scene, token())),
    ):
        asked = asks(encode_body(replay_fields(new_id("company"), max=1)), f"{who}, of nobody")
        if scene.http.send(asked).status != 401:  # a deployment may lack this way to sign
            _is_bound(scene, scene.company("other", items=3), who, asks)


def _by_token(token: str, body: bytes, label: str) -> Request:
    return token_post(REPLAY, body, token, label)


def _signed_beside(scene: Scene, token: str, body: bytes, label: str) -> Request:
    return scene.signer.post(REPLAY, body, label).adding_header("Authorization", f"Bearer {token}")


def _is_bound(
    scene: Scene, company: str, who: str, asks: Callable[[bytes, str], Request], *, signs: bool = False
) -> None:
    """The rules bind this caller. What is signed is the control: what does not bind it has checks of its own."""
    refusals: set[str] = set()

    def sends(what: str, status: int, code: str | None = None, **fields: Any) -> dict[str, Any]:
        request = asks(encode_body(replay_fields(company, max=3, **fields)), f"{who}, {what}")
        answer = scene.expect(request, status, code, control=signs)
        refusals.update([answer.code] if status != 200 else [])
        return answer.json()

    def is_true(seen: bool, otherwise: str) -> None:
        if signs:
            scene.seen.require(seen, otherwise)
        assert seen, otherwise

    shown, due = scene.known(dry_run=True), 3
    if shown:
        sends("a dry run", 200, **shown)
    if scene.claims("budgets"):
        scene.budget(company, daily_limit=(due := 2))
    key = scene.known(idempotency_key=new_key())
    taken = sends("a replay", 200, **key).get("target_count")
    is_true(taken == due, f"{who} has {taken} items replayed; due: {due}")
    if scene.claims("budgets"):
        scene.charged(company, due, who)
        sends("beyond the budget", 429, "budget_exhausted")
        scene.budget(company)
    scene.reset_limit(company)
    if scene.claims("pause"):
        scene.pause(company)
        for forced in ({}, scene.known(force=True)):
            sends(f"while it is paused{', forced' * bool(forced)}", 409, "agents_paused", **forced)
        scene.pause(company, on=False)
    if scene.claims("flags"):
        scene.set_flag(company, REPLAY_FLAG, enabled=False)
        sends("while it is switched off", 403)
        scene.set_flag(company, REPLAY_FLAG, enabled=True)
        scene.reset_limit(company)
    forced = scene.known(force=True, error_type="put-off", **shown)
    if shown and len(forced) == 3:
        scene.add_items(company, 1, error_type="put-off", retry_after="2999-01-01T00:00:00Z")
        listed = sends("a forced dry run of what is put off", 200, **forced).get("target_count")
        is_true(listed == 1, f"of what is put off {who} is shown {listed} items by force; due: 1")
    if scene.claims("idempotency") and len(other := scene.known(force=True, **key)) == 2:
        scene.reset_limit(company)
        sends("another request under its key", 422, "idempotency_key_reused", **other)
    if scene.claims("audit"):
        wanted = refusals | {"dlq_replay_started"} | ({"dlq_replay_dry_run"} if shown else set())
        scene.until_true(lambda: not _not_on_record(scene, company, wanted), within_s=PATIENCE_S)
        unseen = _not_on_record(scene, company, wanted)
        is_true(not unseen, f"of what {who} did the trail has no {unseen}")
    if scene.claims("rate-limit"):
        scene.reset_limit(company)
        for call in range(1, current().limit("calls") + 1):
            sends(f"call {call}", 200, **shown)
        sends("one call too many", 429, "rate_limited", **shown)
    scene.seen.count()


def _not_on_record(scene: Scene, company: str, wanted: set[str]) -> list[str]:
    """The actions, and the codes of refusals, of which the company's trail has no row."""
    rows = [(str(r["action"]), r) for r in scene.audited(company)]
    return sorted(w for w in wanted if not any(w == a or (a == REFUSED and says(r, w)) for a, r in rows))


@drill("drill/tokens/events-of-the-named-company", covers=("A20", "K12"))
def test_events_of_the_named_company(scene: Scene, token: Minter) -> None:
    """An event that a super_admin sends is the named company's, whichever company the token itself belongs to: its
    business row, and its outbox row or its effect, by the path of signed ones, and by the outbox in a pause, also
    where the outbox is switched off. Sent again it is a duplicate; and a company_admin may write its own company in
    upper case.

    A service that takes the tenant of a row from the token files one customer's events under another.
    """
    home, named = scene.company("home"), scene.company("named")
    path = scene.emit(named, control=True).get("path")
    fields = {"company_id": named, "event_type": PLAIN_TYPE, "aggregate_key": "k", "payload": {"n": 1}}
    caller = token(company_id=home)
    event = new_id("event")
    request = token_post("/events", {**fields, "event_id": event}, caller, "an event, by a token of another company")
    told, again = (scene.expect(request, 202).json() for _ in range(2))
    assert (told.get("duplicate"), again.get("duplicate")) == (False, True), (
        "an event of a token, sent again, is another"
    )
    assert told.get("path") == path, f"an event of a token takes the path {told.get('path')!r}, a signed one {path!r}"
    if ids_have_spellings():
        fields["company_id"] = named.upper()
        scene.expect(token_post("/events", fields, token.for_company(named), "its own company, in upper case"), 202)
    if scene.claims("flags"):
        scene.set_flag(named, OUTBOX_FLAG, enabled=False)
    if scene.claims("pause"):
        scene.pause(named)
        held = token_post("/events", {**fields, "company_id": named}, caller, "an event of a paused company")
        signed = scene.emit(named).get("path")
        scene.seen.require(signed == "outbox", f"a signed event takes the path {signed!r} while its company is paused")
        path = scene.expect(held, 202).json().get("path")
        assert path == signed, f"an event of a token takes the path {path!r} while its company is paused; due: outbox"
    for table, column in (("events", "id"), ("event_outbox", "event_id"), ("agent_tasks", "event_id")):
        rows = scene.rows(f"select company_id::text as company from public.{table} where {column} = %s", event)
        owners = {str(r["company"]) for r in rows}
        scene.seen.require(owners or table != "events", f"the accepted event {event} has no business row")
        assert owners <= {named}, f"the event of {named} is in {table} as one of {sorted(owners - {named})}"
        scene.seen.count(len(rows))
