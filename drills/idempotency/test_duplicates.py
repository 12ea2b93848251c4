"""Idempotency: one key, one tenant, one payload, one effect; and every repetition says so."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

from drills.workbench.bench import REPLAY, Bench
from drills.workbench.cases import Case, cases
from drills.workbench.effects import Replays
from drills.workbench.scene import Scene
from gates.checks.recorder import check
from gates.deployment.requests import encode_body, replay_fields, signed_post_v2, token_post
from gates.evidence import Severity

SIGNED = ("drill/authentication/signed-accepted",)
SQL = ("tenants",)


def new_key() -> str:
    """A key that nobody used before."""
    return f"drill-{uuid.uuid4()}"


@check("drill/idempotency/duplicate-one-effect", needs=SQL, after=SIGNED, covers=("D01", "L15"))
def test_duplicate_one_effect(replays: Replays, tenant: str) -> None:
    """The same request with the same key a second time is answered 200 as a duplicate and has no second effect.

    Otherwise every retry of a lost answer replays the events again.
    """
    key = new_key()
    replays.items(tenant, 4)
    first = replays.control(tenant, "first", idempotency_key=key, max=2).json()
    replays.seen.require(
        first.get("target_count") == 2, f"the first call took {first.get('target_count')} of 4; 2 are due"
    )
    again = replays.send(tenant, "again", idempotency_key=key, max=2).json()
    replays.seen.value(replays.outbox(tenant), 2, "outbox rows")
    assert replays.outbox(tenant) == 2, f"{replays.outbox(tenant)} outbox rows after a repeated call; allowed: 2"
    assert replays.runs(tenant) == 1, f"{replays.runs(tenant)} runs after a repeated call; allowed: 1"
    assert again.get("replay_run_id") == first.get("replay_run_id"), "the repeated call answers with another run"


@check("drill/idempotency/duplicate-same-answer", severity=Severity.WARN, needs=SQL, after=SIGNED, covers=("D01",))
def test_duplicate_same_answer(replays: Replays, scene: Scene, tenant: str) -> None:
    """A duplicate gets the stored body of the first answer, but for `duplicate`, also when the run has ended since.

    Otherwise a client that lost the first answer never learns what was replayed.
    """
    key = new_key()
    replays.items(tenant, 2)
    first = replays.control(tenant, "first", idempotency_key=key).json()
    ended = "select count(*) from public.replay_runs where id::text = %s and status <> 'started'"
    run = str(first.get("replay_run_id"))
    scene.seen.require(scene.until_true(lambda: scene.number(ended, run) > 0, within_s=6.0), "the run does not end")
    again = replays.send(tenant, "again", idempotency_key=key).json()
    differs = sorted(k for k in first if k != "duplicate" and again.get(k) != first[k])
    assert not differs, f"the duplicate's answer differs in {differs}"
    replays.seen.require(first.get("items"), "the first call took no items")


@check("drill/idempotency/duplicate-marked", severity=Severity.WARN, needs=SQL, after=SIGNED, covers=("D14",))
def test_duplicate_marked(replays: Replays, tenant: str) -> None:
    """A first answer says `"duplicate": false`; a repeated one `"duplicate": true` and `Idempotent-Replayed: true`.

    Otherwise a client cannot tell whether its call did anything.
    """
    key = new_key()
    first = replays.control(tenant, "first", idempotency_key=key)
    again = replays.send(tenant, "again", idempotency_key=key)
    header = (again.header("idempotent-replayed") or "").lower()
    assert first.json().get("duplicate") is False, f"first answer: duplicate is {first.json().get('duplicate')!r}"
    assert again.json().get("duplicate") is True, f"repeated answer: duplicate is {again.json().get('duplicate')!r}"
    assert header == "true", f"repeated answer: Idempotent-Replayed is {header!r}; due: true"
    marked = (first.header("idempotent-replayed") or "").lower() == "true"
    assert not marked, "the first answer is marked as a repeated one"


@check("drill/idempotency/duplicate-not-audited", severity=Severity.WARN, needs=SQL, after=SIGNED, covers=("D01",))
def test_duplicate_not_audited(replays: Replays, tenant: str) -> None:
    """A duplicate leaves no audit row: it has no effect.

    Otherwise the trail counts replays that never were.
    """
    key = new_key()
    replays.control(tenant, "first", idempotency_key=key)
    before = replays.number("select count(*) from public.audit_logs where scope = %s", tenant)
    replays.seen.require(before, "the first call left no audit row")
    replays.send(tenant, "again", idempotency_key=key)
    after = replays.number("select count(*) from public.audit_logs where scope = %s", tenant)
    assert after == before, f"{after - before} audit rows for a duplicate; allowed: 0"


@check("drill/idempotency/other-payload-refused", needs=SQL, after=SIGNED, covers=("D02",))
def test_other_payload_refused(replays: Replays, tenant: str) -> None:
    """The same key with another payload is refused with 422, has no effect, and leaves the first result as it was.

    Otherwise a key that was used by mistake silently swallows, or repeats, another request.
    """
    key = new_key()
    replays.items(tenant, 4)
    first = replays.control(tenant, "first", idempotency_key=key, max=1).json()
    replays.send(tenant, "same key, max 3", 422, "idempotency_key_reused", idempotency_key=key, max=3)
    assert replays.outbox(tenant) == 1, f"{replays.outbox(tenant)} outbox rows; allowed: 1 of the first call"
    again = replays.send(tenant, "first again", idempotency_key=key, max=1).json()
    assert again.get("replay_run_id") == first.get("replay_run_id"), "the first result is lost"


PAYLOADS: list[Case] = [
    Case("payload-max", "Another `max` is another payload.", {"max": 2}),
    Case("payload-force", "Another `force` is another payload.", {"force": True}),
    Case("payload-error-type", "Another `error_type` is another payload.", {"error_type": "another"}),
    Case(
        "payload-dlq-ids", "Other `dlq_ids` are another payload.", {"dlq_ids": ["00000000-0000-4000-8000-0000000000aa"]}
    ),
]


@cases("drill/idempotency", PAYLOADS, needs=SQL, after=SIGNED, covers=("D02",))
def test_payload_difference(case: Case, replays: Replays, tenant: str) -> None:
    """A key with a payload that differs in one field is refused with 422.

    Otherwise that field is no part of the payload: a different request passes for a repeated one.
    """
    key = new_key()
    base = {"max": 1, "error_type": "none-such", "idempotency_key": key}
    replays.control(tenant, "first", **base)
    replays.send(tenant, case.name, 422, "idempotency_key_reused", **{**base, **case.value})


@check("drill/idempotency/defaults-are-equal", severity=Severity.WARN, needs=SQL, after=SIGNED, covers=("D17",))
def test_defaults_are_equal(replays: Replays, tenant: str) -> None:
    """Leaving a field out and giving its default are the same payload.

    Otherwise two versions of one client refuse each other's retries.
    """
    key = new_key()
    replays.control(tenant, "defaults left out", idempotency_key=key)
    again = replays.send(tenant, "defaults given", idempotency_key=key, max=25, dry_run=False, force=False).json()
    assert again.get("duplicate") is True, "the request with its defaults spelt out is not taken for the same"


@check("drill/idempotency/spelling-is-equal", severity=Severity.WARN, needs=SQL, after=SIGNED, covers=("D17",))
def test_spelling_is_equal(replays: Replays, bench: Bench, tenant: str) -> None:
    """Spaces, the order of keys and the case of the company id make no other payload.

    Otherwise a retry through another JSON library is refused.
    """
    fields = replay_fields(tenant, max=3, idempotency_key=new_key())
    replays.control(tenant, "first", **{k: v for k, v in fields.items() if k != "company_id"})
    for label, spelt in (
        ("reordered and spaced", json.dumps(dict(reversed(fields.items())), indent=1)),
        ("company in upper case", json.dumps({**fields, "company_id": tenant.upper()})),
    ):
        request = bench.signer.post(REPLAY, spelt.encode(), label)
        answer = replays.seen.expect(request, replays.http.send(request), 200)
        assert answer.json().get("duplicate") is True, f"{label}: not taken for the same request"


@check("drill/idempotency/other-credentials-same-key", needs=SQL, after=SIGNED, covers=("D01",))
def test_other_credentials(replays: Replays, bench: Bench, tenant: str) -> None:
    """A repeated request is a duplicate whoever sends it: the key belongs to the tenant.

    Otherwise an operator who repeats a script's call by hand replays the events again.
    """
    fields = replay_fields(tenant, max=2, idempotency_key=new_key())
    replays.items(tenant, 4)
    request = bench.signer.post(REPLAY, encode_body(fields), "first, signed")
    replays.seen.expect(request, replays.http.send(request), 200, control=True)
    second = token_post(REPLAY, fields, bench.admin(tenant), "again, by the admin token")
    answer = replays.seen.expect(second, replays.http.send(second), 200)
    assert replays.outbox(tenant) == 2, f"{replays.outbox(tenant)} outbox rows; allowed: 2 of the first call"
    assert answer.json().get("duplicate") is True, "not taken for the same request"


@check("drill/idempotency/scope-is-the-tenant", needs=SQL, after=SIGNED, covers=("D06",))
def test_scope_is_the_tenant(replays: Replays, tenant: str, other: str) -> None:
    """The same key in another tenant is a new request, with its own effect, and shows nothing of the first.

    Otherwise tenants block each other, or read each other's answers.
    """
    key = new_key()
    replays.items(tenant, 2)
    mine = replays.items(other, 2)
    first = replays.control(tenant, "one tenant", idempotency_key=key).json()
    second = replays.send(other, "another tenant, same key", idempotency_key=key).json()
    assert second.get("duplicate") is False, "another tenant's key is taken for a repeated one"
    assert set(second.get("items", [])) == set(mine), f"answered with items {second.get('items')}; due: its own two"
    assert second.get("replay_run_id") != first.get("replay_run_id"), "two tenants share a run"


@check("drill/idempotency/key-generated", needs=SQL, after=SIGNED, covers=("D08",))
def test_key_generated(replays: Replays, bench: Bench, tenant: str) -> None:
    """Without a key each request gets one of its own, returned in the answer, and has its own effect.

    Otherwise requests without a key are taken for repetitions of each other.
    """
    replays.items(tenant, 2)
    token = bench.admin(tenant)
    calls = [token_post(REPLAY, replay_fields(tenant, max=1), token, f"call {n} without a key") for n in (1, 2)]
    first = replays.seen.expect(calls[0], replays.http.send(calls[0]), 200, control=True).json()
    second = replays.seen.expect(calls[1], replays.http.send(calls[1]), 200).json()
    keys = [first.get("idempotency_key"), second.get("idempotency_key")]
    assert all(isinstance(k, str) and k for k in keys), f"keys {keys}; due: a generated key in each answer"
    assert keys[0] != keys[1], "two requests without a key got the same one"
    assert replays.outbox(tenant) == 2, f"{replays.outbox(tenant)} outbox rows after two requests; due: 2"


@check("drill/idempotency/v2-resend-is-duplicate", needs=SQL, after=SIGNED, covers=("A19",))
def test_v2_resend(replays: Replays, bench: Bench, tenant: str) -> None:
    """A captured v2 request without a key, sent again byte for byte, is a duplicate: its key is `sig-` and its MAC.

    Otherwise whoever captures one request repeats its effect for five minutes.
    """
    replays.items(tenant, 4)
    body = encode_body(replay_fields(tenant, max=2))
    request = signed_post_v2(REPLAY, body, bench.target.hmac_secret, bench.clock.now(), "v2 without a key")
    first = replays.seen.expect(request, replays.http.send(request), 200, control=True).json()
    again = replays.seen.expect(request, replays.http.send(request), 200).json()
    assert replays.outbox(tenant) == 2, f"{replays.outbox(tenant)} outbox rows after a re-send; allowed: 2"
    assert again.get("duplicate") is True, "the re-send is not taken for a duplicate"
    due = "sig-" + dict(request.headers)["X-Transbot-Signature"].partition("v2=")[2][:32]
    replays.seen.value(str(first.get("idempotency_key")), due)
    assert first.get("idempotency_key") == due, f"key {first.get('idempotency_key')!r}; due: {due!r}"


@check("drill/idempotency/dry-run-stores-no-key", needs=SQL, after=SIGNED, covers=("D13",))
def test_dry_run_stores_no_key(replays: Replays, tenant: str) -> None:
    """A dry run does not use up its key: the real run with the same key has its effect.

    Otherwise whoever looks first with the key of the incident replays nothing, and is told that all is done.
    """
    key = new_key()
    replays.items(tenant, 2)
    replays.control(tenant, "dry run", idempotency_key=key, dry_run=True)
    real = replays.send(tenant, "real run, same key", idempotency_key=key).json()
    assert real.get("duplicate") is False, "the real run is taken for a repetition of the dry run"
    assert replays.outbox(tenant) == 2, f"{replays.outbox(tenant)} outbox rows; due: 2"


@check("drill/idempotency/dry-run-looks-up-no-key", severity=Severity.WARN, needs=SQL, after=SIGNED, covers=("D13",))
def test_dry_run_looks_up_no_key(replays: Replays, tenant: str) -> None:
    """A dry run with a used key is a dry run, with the present state, not the stored answer.

    Otherwise a preview shows what was, not what would be.
    """
    key = new_key()
    replays.items(tenant, 2)
    replays.control(tenant, "real run", idempotency_key=key, max=1)
    dry = replays.send(tenant, "dry run, same key", idempotency_key=key, max=2, dry_run=True).json()
    assert dry.get("status") == "dry_run", f"status {dry.get('status')!r}; due: dry_run"
    assert dry.get("duplicate") is False, "a dry run is answered as a duplicate"


Hinder = Callable[[Replays, str, bool], Any]

REFUSALS: list[Case] = [
    Case(
        "refusal-by-pause-not-stored",
        "A key refused by a pause works after it.",
        (lambda r, c, on: r.pause(c, on=on), 409),
    ),
    Case(
        "refusal-by-flag-not-stored",
        "A key refused by a flag works once the flag is on.",
        (lambda r, c, on: r.flag(c, "dlq.replay.enabled", on=not on), 403),
    ),
    Case(
        "refusal-by-budget-not-stored",
        "A key refused by the budget works once there is budget.",
        (lambda r, c, on: r.budget(c, 0 if on else 10), 429),
    ),
]


@cases("drill/idempotency", REFUSALS, needs=SQL, after=SIGNED, covers=("D10",))
def test_refusal_not_stored(case: Case, replays: Replays, tenant: str) -> None:
    """A refusal is not stored under its key: the retry, once the reason is gone, has its effect, once.

    Otherwise a key that met a pause is dead, and the operator's retry reports a refusal for ever.
    """
    hinder, status = case.value
    key = new_key()
    replays.items(tenant, 2)
    hinder(replays, tenant, True)
    refused = replays.signed(tenant, label="while hindered", idempotency_key=key)
    replays.seen.expect(refused, replays.http.send(refused), status, control=True)
    hinder(replays, tenant, False)
    answer = replays.send(tenant, "afterwards, same key", idempotency_key=key).json()
    assert answer.get("duplicate") is False, "the retry is answered as a duplicate of the refusal"
    assert answer.get("target_count") == 2, f"the retry took {answer.get('target_count')} of 2 items"


@check("drill/idempotency/rate-limited-not-stored", needs=SQL, after=SIGNED, covers=("D10",))
def test_rate_limited_not_stored(replays: Replays, tenant: str) -> None:
    """A key refused by the rate limit works when the limit is open again.

    Otherwise a client that retries as Retry-After says is refused for ever.
    """
    key = new_key()
    for number in (1, 2, 3):
        replays.control(tenant, f"call {number}", max=1)
    refused = replays.signed(tenant, label="call 4", idempotency_key=key)
    replays.seen.expect(refused, replays.http.send(refused), 429, "rate_limited", control=True)
    replays.items(tenant, 1)
    replays.reset_limit(tenant)
    request = replays.signed(tenant, label="afterwards, same key", idempotency_key=key)
    sent = replays.http.send(request)
    answer = replays.seen.expect(request, sent, 200, busy=sent.code == "rate_limited").json()
    assert answer.get("target_count") == 1, f"the retry took {answer.get('target_count')} of 1 item"
