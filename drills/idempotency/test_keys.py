"""Idempotency keys taken exactly: which two keys are one, for how long, and in what order ids may come."""

import pytest

from drills.workbench.checks import SIGNED, TENANTS, Case, cases
from drills.workbench.scene import Scene, new_key
from gates.checks.recorder import check
from gates.deployment.dialect.current import current
from gates.deployment.ids import ids_have_spellings, new_id
from gates.deployment.sql.database import execute
from gates.evidence import Severity

pytestmark = pytest.mark.beside_load

KEY_LENGTH = current().limit("key_length")
PARTED = ":/|#?&,;=@"
"""What some would part a key at."""
NEAR_KEYS: list[Case] = [
    Case("keys-differ-in-case", "Two keys that differ in case only are two keys.", lambda key: (key, key.upper())),
    Case("keys-of-digits", "The keys `007`, `7` and `0` are three: a key is a text.", lambda _key: ("007", "7", "0")),
    Case(
        "keys-differ-in-spaces",
        "A key with a space before it is another key, and a space alone is one.",
        lambda key: (key, f" {key}", " "),
    ),
    Case("keys-differ-in-a-last-space", "A key with a space after it is another key.", lambda key: (key, f"{key} ")),
    Case("keys-differ-in-inner-spaces", "Two spaces in a key are not one.", lambda key: (f"{key} a", f"{key}  a")),
    Case(
        "keys-differ-at-the-end",
        "Two keys of 200 characters that differ in the last one are two keys, whatever stands before it.",
        lambda key: tuple(f"{key}{PARTED}".ljust(KEY_LENGTH - 1, "x") + last for last in "12"),
    ),
    Case(
        "keys-differ-in-escapes",
        "An escape or a wildcard in a key is no other character.",
        lambda key: (f"{key}A", f"{key}%41", f"{key}_"),
    ),
]


@cases("drill/idempotency", NEAR_KEYS, needs=TENANTS, after=SIGNED, covers=("D09",))
def test_near_keys(case: Case, scene: Scene, tenant: str) -> None:
    """Keys that differ only slightly each start a run of their own, and are answered with that run again.

    A replay is answered as already done, and never happens.
    """
    key, *others = case.value(new_key())
    scene.add_items(tenant, len(others) + 1)
    runs = [scene.run(tenant, label="first", idempotency_key=key, max=1).get("replay_run_id")]
    label = f"a key that nearly looks alike: {case.name}"
    # a target may refuse a key with a space as not printable: then it mixes up no keys
    for near in others:
        scene.reset_limit(tenant)
        answer = scene.replay(tenant, (200, 400) if " " in near else 200, label=label, idempotency_key=near, max=1)
        if answer.status == 400:
            return
        assert answer.json().get("duplicate") is False, "another key is answered as a duplicate"
        runs.append(answer.json().get("replay_run_id"))
    started = scene.runs(tenant)
    assert started == len(runs), f"{started} runs after {len(runs)} requests with as many keys; due: one each"
    scene.reset_limit(tenant)
    again = scene.replay(tenant, label=f"{label}, again", idempotency_key=others[-1], max=1).json()
    assert again.get("replay_run_id") == runs[-1], "a key that was used is answered with the run of another key"


@check("drill/idempotency/ids-are-a-set", severity=Severity.WARN, needs=TENANTS, after=SIGNED, covers=("D17",))
def test_ids_are_a_set(scene: Scene, tenant: str) -> None:
    """The same ids reordered, repeated or in upper case are the same request, with the same answer for each id.

    Clients that keep their ids in a set cannot retry, or do not learn which ids were not replayed.
    """
    key = new_key()
    ids = [*scene.add_items(tenant, 2), *scene.add_items(tenant, 1, status="discarded"), new_id("item")]
    first = scene.run(tenant, label="first", idempotency_key=key, dlq_ids=ids)
    spellings = [("the ids in reverse order", ids[::-1]), ("one of the ids twice", [*ids, ids[0]])]
    if ids_have_spellings():
        spellings = [spellings[0], ("one of the ids twice, in upper case", [*ids[1:], ids[0].upper(), ids[0]])]
    for label, spelt in spellings:
        again = scene.replay(tenant, label=label, idempotency_key=key, dlq_ids=spelt).json()
        assert again.get("duplicate") is True, f"{label}: they are not taken for the same request"
        lists = ("items", "not_found", "ineligible")
        differs = [name for name in lists if sorted(again.get(name) or ()) != sorted(first.get(name) or ())]
        assert not differs, f"{label}: the answer differs from the first one in {differs}"


@check("drill/idempotency/old-key-is-known", severity=Severity.WARN, needs=TENANTS, after=SIGNED, covers=("D12",))
def test_old_key_is_known(scene: Scene, tenant: str) -> None:
    """A key whose run is forty days old is still a key that was used: its request is a duplicate, and another is
    refused. The run is still shown.

    A job that is retried after a weekend, or next month, replays everything a second time.
    """
    key = new_key()
    scene.add_items(tenant, 2)
    first = scene.run(tenant, label="first", idempotency_key=key, max=1)
    scene.seen.require(first.get("replay_run_id"), "the first call names no run: there is none to compare with")
    execute(
        scene.db,
        "update public.replay_runs set requested_at = requested_at - interval '40 days' where company_id = %s",
        tenant,
    )
    again = scene.replay(tenant, label="forty days later", idempotency_key=key, max=1).json()
    assert again.get("replay_run_id") == first.get("replay_run_id"), "the same request has started another run"
    scene.replay(tenant, 422, "idempotency_key_reused", label="another, forty days later", idempotency_key=key, max=2)
    if current().shows_runs:
        scene.seen.expect(*scene.get_run(str(first["replay_run_id"]), tenant), 200)


@pytest.mark.rewrites
@check("drill/idempotency/stored-key-is-known", needs=TENANTS, after=SIGNED, covers=("D12", "D01"))
def test_stored_key_is_known(scene: Scene, tenant: str) -> None:
    """A key of a run in the table counts as used, whichever process stored it: its request starts no second run.

    After a restart, or on another instance, a request replays its items again.
    """
    key, stored = new_key(), new_key()
    scene.add_items(tenant, 2)
    first = scene.run(tenant, label="first", idempotency_key=key, max=1)
    scene.seen.require(first.get("replay_run_id"), "the first call names no run: there is none to compare with")
    execute(
        scene.db,
        "update public.replay_runs set idempotency_key = %s where company_id = %s and idempotency_key = %s",
        stored,
        tenant,
        key,
    )
    # 422: a target that hashes the key into the payload has at least seen that the key is used
    answer = scene.replay(tenant, (200, 422), label="the key of the stored run", idempotency_key=stored, max=1)
    again = answer.json().get("replay_run_id")
    assert answer.status == 422 or again == first.get("replay_run_id"), (
        "the request of a stored run has started another"
    )
