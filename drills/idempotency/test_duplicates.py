"""Idempotency: one key, one tenant, one payload, one effect; and every repetition says so."""

import re
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import psycopg
import pytest

from drills.workbench.bench import Bench, said_beside
from drills.workbench.checks import SIGNED, TENANTS, Case, cases
from drills.workbench.credentials import REPLAY
from drills.workbench.scene import Scene, new_key
from gates.checks.recorder import check
from gates.deployment.dialect.current import current
from gates.deployment.requests import encode_body, replay_fields, signed_post_v2, token_post
from gates.evidence import Severity

pytestmark = pytest.mark.beside_load

drill = partial(check, needs=TENANTS, after=SIGNED)


@drill("drill/idempotency/duplicate-one-effect", covers=("D01", "L15"))
def test_duplicate_one_effect(scene: Scene, tenant: str) -> None:
    """The same request with the same key a second time is answered 200 as a duplicate and has no second effect.

    Every retry of a lost answer replays the events again.
    """
    key = new_key()
    scene.add_items(tenant, 4)
    first = scene.run(tenant, label="first", idempotency_key=key, max=2)
    scene.seen.require(
        first.get("target_count") == 2, f"the first call took {first.get('target_count')} of 4; 2 are due"
    )
    again = scene.replay(tenant, label="again", idempotency_key=key, max=2).json()
    scene.seen.value(scene.replayed(tenant), 2, "outbox rows")
    assert scene.replayed(tenant) == 2, f"{scene.replayed(tenant)} outbox rows after a repeated call; allowed: 2"
    assert scene.runs(tenant) == 1, f"{scene.runs(tenant)} runs after a repeated call; allowed: 1"
    assert again.get("replay_run_id") == first.get("replay_run_id"), "the repeated call answers with another run"


@pytest.mark.rewrites
@drill("drill/idempotency/duplicate-same-answer", severity=Severity.WARN, covers=("D01",))
def test_duplicate_same_answer(scene: Scene, tenant: str) -> None:
    """A duplicate gets the stored body of the first answer with only `duplicate` changed, even if the batch was
    larger than the default, the run has ended since, and an item of it was cleared away.

    A client that lost the first answer never learns what was replayed.
    """
    key, batch = new_key(), min(26, current().limit("batch"))
    scene.add_items(tenant, batch)
    first = scene.run(tenant, label="first", idempotency_key=key, max=batch)
    ended = "select count(*) from public.replay_runs where id::text = %s and status <> 'started'"
    run = str(first.get("replay_run_id"))
    scene.seen.require(scene.until_true(lambda: scene.number(ended, run) > 0, within_s=30.0), "the run does not end")
    with suppress(psycopg.Error):  # where a letter is kept as long as its run
        scene.rows("delete from public.dead_letter_queue where id = %s", scene.item(tenant)["id"])
    again = scene.replay(tenant, label="again", idempotency_key=key, max=batch).json()
    differs = sorted(k for k in first if k != "duplicate" and again.get(k) != first[k])
    assert not differs, f"the duplicate's answer differs in {differs}"
    scene.seen.require(first.get("items"), "the first call took no items")


@drill("drill/idempotency/duplicate-marked", severity=Severity.WARN, covers=("D14",))
def test_duplicate_marked(scene: Scene, tenant: str) -> None:
    """A first answer says `"duplicate": false`; each repeated one `"duplicate": true` and `Idempotent-Replayed: true`,
    whether anything was replayed or not, and however long its key is. It has an X-Request-Id, too.

    Without the mark, a client cannot tell whether its call did anything.
    """
    longest = new_key().ljust(current().limit("key_length"), "~")
    for company, key in ((tenant, new_key()), (scene.company(items=1), longest)):
        first = scene.replay(company, label="first", control=company == tenant, idempotency_key=key)
        for label in ("again", "once more"):
            again = scene.replay(company, label=label, idempotency_key=key)
            header, told = (again.header("idempotent-replayed") or "").lower(), again.json().get("duplicate")
            assert told is True, f"repeated answer: duplicate is {told!r}"
            assert header == "true", f"repeated answer: Idempotent-Replayed is {header!r}; due: true"
            assert again.request_ids, "repeated answer: there is no X-Request-Id"
        told = first.json().get("duplicate")
        assert told is False, f"first answer: duplicate is {told!r}"
        marked = (first.header("idempotent-replayed") or "").lower() == "true"
        assert not marked, "the first answer is marked as a repeated one"


@drill("drill/idempotency/duplicate-not-audited", severity=Severity.WARN, covers=("D01",))
def test_duplicate_not_audited(scene: Scene, tenant: str) -> None:
    """A duplicate leaves no audit row: it has no effect.

    The trail counts replays that never happened.
    """
    key = new_key()
    scene.replay(tenant, label="first", control=True, idempotency_key=key)
    before = len(scene.audited(tenant))
    scene.seen.require(before, "the first call left no audit row")
    scene.replay(tenant, label="again", idempotency_key=key)
    after = len(scene.audited(tenant))
    assert after == before, f"{after - before} audit rows for a duplicate; allowed: 0"


@drill("drill/idempotency/other-payload-refused", covers=("D02",))
def test_other_payload_refused(scene: Scene, tenant: str) -> None:
    """The same key with another payload is refused with 422, has no effect, and leaves the first result as it was.

    A key that was used by mistake silently swallows, or repeats, another request.
    """
    key = new_key()
    scene.add_items(tenant, 4)
    first = scene.run(tenant, label="first", idempotency_key=key, max=1)
    scene.replay(tenant, 422, "idempotency_key_reused", label="same key, max 3", idempotency_key=key, max=3)
    assert scene.replayed(tenant) == 1, f"{scene.replayed(tenant)} outbox rows; allowed: 1 of the first call"
    again = scene.replay(tenant, label="first again", idempotency_key=key, max=1).json()
    assert again.get("replay_run_id") == first.get("replay_run_id"), "the first request, sent again, names another run"


@drill("drill/idempotency/other-credentials-same-key", covers=("D01",))
def test_other_credentials(scene: Scene, bench: Bench, tenant: str) -> None:
    """A repeated request is a duplicate whoever sends it, and however it is signed: the key belongs to the tenant. So
    is one that is sent again byte for byte, with its v2 signature.

    An operator who repeats a script's call by hand replays the events again. A script that heard no answer is told that
    it is nobody, and never learns what was replayed.
    """
    fields = replay_fields(tenant, max=2, idempotency_key=new_key())
    scene.add_items(tenant, 4)
    request = bench.signer.post(REPLAY, encode_body(fields), "first, signed")
    scene.expect(request, 200, control=True)
    scene.reset_limit(tenant)
    repeated = [token_post(REPLAY, fields, bench.admin(tenant), "again, by the admin token")]
    if scene.claims("authentication"):
        repeated += [bench.signer.v2(REPLAY, encode_body(fields), "again, signed by v2")] * 2
    for again in repeated:
        answer = scene.expect(again, 200)
        assert scene.replayed(tenant) == 2, f"{again.label}: {scene.replayed(tenant)} outbox rows; allowed: 2"
        assert answer.json().get("duplicate") is True, f"{again.label}: not taken for the same request"


@drill("drill/idempotency/scope-is-the-tenant", covers=("D06",))
def test_scope_is_the_tenant(scene: Scene, tenant: str, other: str) -> None:
    """The same key in another tenant is a new request, with its own effect, and shows nothing of the first.

    Tenants block each other, or read each other's answers.
    """
    key = new_key()
    scene.add_items(tenant, 2)
    mine = scene.add_items(other, 2)
    first = scene.run(tenant, label="one tenant", idempotency_key=key)
    second = scene.replay(other, label="another tenant, same key", idempotency_key=key).json()
    assert second.get("duplicate") is False, "another tenant's key is taken for a repeated one"
    assert set(second.get("items", [])) == set(mine), f"answered with items {second.get('items')}; due: its own two"
    assert second.get("replay_run_id") != first.get("replay_run_id"), "two tenants share a run"


@drill("drill/idempotency/each-tenant-has-its-own-answer", covers=("D06", "D02"))
def test_each_tenant_has_its_own_answer(scene: Scene, tenant: str, other: str) -> None:
    """Of two tenants that have used one key, each is given its own answer when it asks again.

    If runs are looked up by key alone, a tenant is compared with, or shown, another tenant's run.
    """
    key = new_key()
    for company in (tenant, other):
        scene.add_items(company, 2)
    stored = {
        c: scene.replay(c, label="the first time", control=True, idempotency_key=key).json() for c in (tenant, other)
    }
    for company, first in stored.items():
        again = scene.replay(company, label="once more", idempotency_key=key).json()
        told, due = ((a.get("duplicate"), a.get("replay_run_id")) for a in (again, {**first, "duplicate": True}))
        assert told == due, f"once more, of two tenants with that key: (duplicate, run) is {told}; due: {due}"


@drill("drill/idempotency/key-generated", covers=("D08",))
def test_key_generated(scene: Scene, bench: Bench, tenant: str) -> None:
    """A request without a key gets a generated key in the answer and has its own effect, even if the same bytes are
    signed by v1. Sent again with that key it is a duplicate.

    Separate requests without a key are taken for repetitions, and nobody can ask for their answer again.
    """
    scene.add_items(tenant, 4)
    token = bench.admin(tenant)
    calls = [token_post(REPLAY, replay_fields(tenant, max=1), token, f"call {n} without a key") for n in (1, 2)]
    first = scene.seen.expect(calls[0], scene.http.send(calls[0]), 200, control=True).json()
    second = scene.seen.expect(calls[1], scene.http.send(calls[1]), 200).json()
    keys = [first.get("idempotency_key"), second.get("idempotency_key")]
    assert all(isinstance(k, str) and k for k in keys), f"keys {keys}; due: a generated key in each answer"
    assert keys[0] != keys[1], "two requests without a key got the same one"
    again = token_post(REPLAY, replay_fields(tenant, max=1, idempotency_key=keys[0]), token, "the first with its key")
    repeated = scene.seen.expect(again, scene.http.send(again), 200).json()
    assert repeated.get("duplicate") is True, "the first request, with the key of its answer, is not a duplicate"
    assert scene.replayed(tenant) == 2, f"{scene.replayed(tenant)} outbox rows after two requests; due: 2"
    scene.reset_limit(tenant)
    alike = [scene.replay(tenant, label="signed by v1, without a key", max=1).json() for _ in range(2)]
    assert not any(a.get("duplicate") for a in alike), "two v1 requests without a key are taken for one"
    assert scene.replayed(tenant) == 4, f"{scene.replayed(tenant)} outbox rows after four requests; due: 4"


@drill("drill/idempotency/v2-resend-is-duplicate", covers=("A19",))
def test_v2_resend(scene: Scene, bench: Bench, tenant: str) -> None:
    """A captured v2 request without a key, sent again byte for byte, is a duplicate: its key is `sig-` and its MAC. A
    key added in its query or in a header, which no signature covers, gives it no second effect. One that a pause
    refused is carried out when it is sent again after the pause, and then once, be it forced and its items named.

    An attacker who captures one request can repeat its effect for five minutes.
    """
    named = scene.add_items(tenant, 4)[3:]
    body = encode_body(replay_fields(tenant, max=2))
    request = signed_post_v2(REPLAY, body, bench.target.hmac_secret, bench.clock.now(), "v2 without a key")
    first = scene.expect(request, 200, control=True).json()
    again = scene.expect(request, 200)
    assert scene.replayed(tenant) == 2, f"{scene.replayed(tenant)} outbox rows after a re-send; allowed: 2"
    assert again.json().get("duplicate") is True, "the re-send is not taken for a duplicate"
    marked = "Idempotent-Replayed" in current().lacking or again.header("idempotent-replayed") == "true"
    assert marked, f"the re-send's Idempotent-Replayed is {again.header('idempotent-replayed')!r}; due: true"
    scene.reset_limit(tenant)
    for other in said_beside(request, idempotency_key=new_key()):
        scene.http.send(other)
        assert scene.replayed(tenant) == 2, f"{other.label}, sent again: {scene.replayed(tenant)} rows; allowed: 2"
    if scene.claims("pause"):
        scene.reset_limit(tenant)
        body = encode_body(replay_fields(tenant, max=1, **scene.known(force=True, dlq_ids=named)))
        held = signed_post_v2(
            REPLAY, body, bench.target.hmac_secret, bench.clock.now(), "v2, refused by a pause before"
        )
        scene.pause(tenant)
        scene.expect(held, 409, "agents_paused")
        scene.pause(tenant, on=False)
        told = [scene.expect(held, 200).json().get("duplicate") for _ in range(2)]
        assert told[0] is False, "what a pause refused is taken for done"
        assert told[1] is True, "a forced v2 request of named items is not taken for a duplicate when it is sent again"
    mac = re.search(r"[0-9a-f]{64}", dict(request.headers)["X-Transbot-Signature"])
    if mac is None:
        return  # only of a signature in hex does the contract say how its key begins
    due = f"sig-{mac[0][:32]}"
    scene.seen.value(str(first.get("idempotency_key")), due)
    assert first.get("idempotency_key") == due, f"key {first.get('idempotency_key')!r}; due: {due!r}"
    scene.reset_limit(tenant)
    again_told = scene.replay(tenant, label="under that key", idempotency_key=due, max=2).json().get("duplicate")
    assert again_told is True, "the same request under the key of the answer is not taken for a duplicate"


@drill("drill/idempotency/v2-resend-beside-a-token", needs=("tenants", "mint"), covers=("A19", "A20"))
def test_v2_resend_beside_a_token(scene: Scene, bench: Bench, tenant: str) -> None:
    """A v2 request without a key that also has a token is a duplicate when it is sent again.

    The token gives rights, the signature identifies the request: a captured one must not run twice.
    """
    scene.add_items(tenant, 4)
    body = encode_body(replay_fields(tenant, max=2))
    request = signed_post_v2(REPLAY, body, bench.target.hmac_secret, bench.clock.now(), "v2 and a token, without a key")
    request = request.adding_header("Authorization", f"Bearer {bench.admin(tenant)}")
    scene.expect(request, 200, control=True)
    again = scene.expect(request, 200).json()
    assert again.get("duplicate") is True, "the re-send is not taken for a duplicate"
    assert scene.replayed(tenant) == 2, f"{scene.replayed(tenant)} outbox rows after a re-send; allowed: 2"


WRITES_NOTHING = "drill/dry-run/writes-nothing"


@drill("drill/idempotency/dry-run-stores-no-key", covers=("D13",))
def test_dry_run_stores_no_key(scene: Scene, tenant: str) -> None:
    """A dry run does not use up its key: the real run with the same key has its effect.

    An operator who previews with a key, then replays with it, replays nothing and is told that all is done.
    """
    key = new_key()
    scene.add_items(tenant, 2)
    items = scene.items(tenant)
    scene.replay(tenant, label="dry run", control=True, idempotency_key=key, dry_run=True)
    scene.seen.require(scene.items(tenant) == items, "the dry run changed its items", by=WRITES_NOTHING)
    real = scene.replay(tenant, label="real run, same key", idempotency_key=key).json()
    assert real.get("duplicate") is False, "the real run is taken for a repetition of the dry run"
    assert scene.replayed(tenant) == 2, f"{scene.replayed(tenant)} outbox rows; due: 2"


@drill("drill/idempotency/dry-run-looks-up-no-key", severity=Severity.WARN, covers=("D13",))
def test_dry_run_looks_up_no_key(scene: Scene, tenant: str) -> None:
    """A dry run with a used key, or one without a key that is sent again, is a dry run: it shows the present state, not
    an earlier answer.

    The preview shows an old answer instead of what a replay would do now.
    """
    key = new_key()
    scene.add_items(tenant, 2)
    timed = scene.signer.v2(REPLAY, encode_body(replay_fields(tenant, max=2, dry_run=True)), "dry run without a key")
    scene.expect(timed, 200, control=True)
    scene.replay(tenant, label="real run", control=True, idempotency_key=key, max=1)
    dry = scene.replay(tenant, label="dry run, same key", idempotency_key=key, max=2, dry_run=True).json()
    scene.reset_limit(tenant)
    for one in (dry, scene.expect(timed.labelled("the dry run without a key, sent again"), 200).json()):
        assert one.get("status") == "dry_run", f"status {one.get('status')!r}; due: dry_run"
        assert one.get("duplicate") is False, "a dry run is answered as a duplicate"
        assert one.get("target_count") == 1, f"a dry run shows {one.get('target_count')} items; 1 is left"


@drill("drill/idempotency/duplicate-while-refused", covers=("D02", "D10"))
def test_duplicate_while_refused(scene: Scene, tenant: str) -> None:
    """A duplicate gets the first answer even if its tenant is paused or out of budget by now; another request under its
    key is still refused for the key.

    A client that lost the answer is told that nothing happened, although all was replayed.
    """
    key = new_key()
    scene.add_items(tenant, 2)
    first = scene.replay(tenant, label="the first time", control=True, idempotency_key=key, max=1).json()
    if scene.claims("pause"):
        scene.pause(tenant)
    scene.budget(tenant, daily_limit=0)
    if scene.claims("pause") or scene.claims("budgets"):  # else nothing is refused after a look at the keys
        scene.replay(tenant, (409, 429), label="a new key", control=True, max=1)
    again = scene.replay(tenant, label="again, while new ones are refused", idempotency_key=key, max=1).json()
    assert again.get("duplicate") is True, f"duplicate is {again.get('duplicate')!r}; due: true"
    assert again.get("items") == first.get("items"), f"the items are {again.get('items')}; stored: {first.get('items')}"
    scene.reset_limit(tenant)
    scene.replay(tenant, 422, "idempotency_key_reused", label="another under that key", idempotency_key=key, max=2)


Hinder = Callable[[Scene, str, bool], Any]

REFUSALS: list[Case] = [
    Case(
        "refusal-by-pause-not-stored",
        "A key refused by a pause works after it.",
        (lambda s, c, on: s.pause(c, on=on), 409),
    ),
    Case(
        "refusal-by-flag-not-stored",
        "A key refused by a flag works once the flag is on.",
        (lambda s, c, on: s.set_flag(c, "dlq.replay.enabled", enabled=not on), 403),
    ),
    Case(
        "refusal-by-budget-not-stored",
        "A key refused by the budget works once there is budget.",
        (lambda s, c, on: s.budget(c, daily_limit=0 if on else 10), 429),
    ),
]


@cases("drill/idempotency", REFUSALS, needs=TENANTS, after=SIGNED, covers=("D10",))
def test_refusal_not_stored(case: Case, scene: Scene, tenant: str) -> None:
    """A refusal is not stored under its key: the retry, once the reason is gone, has its effect, once.

    A key that was refused during a pause stays refused: the operator's retries never work.
    """
    hinder, status = case.value
    key = new_key()
    scene.add_items(tenant, 2)
    hinder(scene, tenant, True)
    scene.replay(tenant, status, label="while hindered", control=True, idempotency_key=key)
    hinder(scene, tenant, False)
    scene.replay(tenant, label="afterwards, another key", control=True, max=1)
    answer = scene.replay(tenant, label="afterwards, same key", idempotency_key=key).json()
    assert answer.get("duplicate") is False, "the retry is answered as a duplicate of the refusal"
    assert answer.get("target_count") == 1, f"the retry took {answer.get('target_count')} of 1 item"


@drill("drill/idempotency/rate-limited-not-stored", covers=("D10",))
def test_rate_limited_not_stored(scene: Scene, tenant: str) -> None:
    """A key refused by the rate limit works when the limit is open again.

    A client that retries as Retry-After says is refused for ever.
    """
    key = new_key()
    calls = current().limit("calls")
    for number in range(1, calls + 1):
        scene.replay(tenant, label=f"call {number}", control=True, max=1)
    scene.replay(tenant, 429, "rate_limited", label=f"call {calls + 1}", control=True, idempotency_key=key)
    scene.reset_limit(tenant)
    scene.replay(tenant, label="afterwards, another key", control=True, max=1)
    scene.add_items(tenant, 1)
    request = scene.replay_request(tenant, "afterwards, same key", idempotency_key=key)
    sent = scene.http.send(request)
    answer = scene.seen.expect(request, sent, 200, busy=sent.code == "rate_limited").json()
    assert answer.get("target_count") == 1, f"the retry took {answer.get('target_count')} of 1 item"
