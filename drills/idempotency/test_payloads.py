"""The payload of a key: which two requests are one, and which are another."""

import json
from functools import partial
from typing import Any

import pytest

from drills.workbench.bench import Bench
from drills.workbench.checks import SIGNED, TENANTS, Case, cases
from drills.workbench.credentials import REPLAY
from drills.workbench.scene import Scene, new_key
from gates.checks.recorder import check
from gates.deployment.dialect.current import current
from gates.deployment.ids import ids_have_spellings, new_id
from gates.deployment.requests import replay_fields
from gates.evidence import Severity

pytestmark = pytest.mark.beside_load

drill = partial(check, needs=TENANTS, after=SIGNED)

MANY = range(current().limit("batch") + 1)
PLAIN: dict[str, Any] = {"max": 1, "error_type": "none-such"}
PAYLOADS: list[Case] = [
    Case(
        "payload-max",
        "Another `max` is another payload, also where what stands beside it makes up for the digit.",
        [
            (PLAIN, {**PLAIN, "max": 2}),
            ({"max": 1, "error_type": "1x"}, {"max": 11, "error_type": "x"}),
            ({"max": 1, "error_type": "x1"}, {"max": 11, "error_type": "x"}),
        ],
    ),
    Case("payload-force", "Another `force` is another payload.", [(PLAIN, {**PLAIN, "force": True})]),
    Case(
        "payload-error-type",
        "Another `error_type` is another payload, be it in another case, a space longer, other at the end, beyond ASCII"
        " alone, made of other characters that look alike, or the word for none.",
        [
            ({"max": 1, "error_type": "x" * 199}, {"max": 1, "error_type": "x" * 198 + "y"}),
            # in UTF-8 three bytes each: a cut after some number of bytes goes through one
            ({"max": 1, "error_type": "€" * 66}, {"max": 1, "error_type": "€" * 65 + "y"}),
            ({"max": 1, "error_type": "\u00e9"}, {"max": 1, "error_type": "e\u0301"}),
            *((PLAIN, {**PLAIN, "error_type": kind}) for kind in ("another", "None-such", "none-such ", "none-such€")),
            *(({"max": 1}, {"max": 1, "error_type": none}) for none in ("None", "null")),
        ],
    ),
    Case(
        "payload-dlq-ids",
        "Other `dlq_ids` are another payload, also where they are as many and begin or end alike.",
        [
            (PLAIN, {**PLAIN, "dlq_ids": [1]}),
            ({**PLAIN, "dlq_ids": [1]}, {**PLAIN, "dlq_ids": [2]}),
            ({**PLAIN, "dlq_ids": MANY[:-1]}, {**PLAIN, "dlq_ids": [*MANY[:-2], MANY[-1]]}),
            ({**PLAIN, "dlq_ids": MANY[:-1]}, {**PLAIN, "dlq_ids": MANY[1:]}),
        ],
    ),
]


NAMED: list[Case] = [
    Case("beside-ids-max", "Another `max` beside the same items is another payload.", {"max": 2}),
    Case("beside-ids-force", "Another `force` beside the same items is another payload.", {"force": True}),
    Case(
        "beside-ids-error-type",
        "Another `error_type` beside the same items is another payload.",
        {"error_type": "another"},
    ),
]


def _with_ids(fields: dict[str, Any], item: str) -> dict[str, Any]:
    """Each number of `dlq_ids` as an id of the deployment's type that no item has; they differ in their last digits."""
    ids = [f"{item[:-4]}{number:04}" for number in fields.get("dlq_ids", ())]
    return fields | ({"dlq_ids": ids} if ids else {})


@cases("drill/idempotency", PAYLOADS, needs=TENANTS, after=SIGNED, covers=("D02",))
def test_payload_difference(case: Case, scene: Scene, tenant: str) -> None:
    """A key with a payload that differs in one field is refused with 422.

    The payload comparison leaves this field out: a different request is taken for a repetition.
    """
    item = new_id("item")
    for pair in case.value:
        (first, other), key = (_with_ids(fields, item) for fields in pair), new_key()
        scene.replay(tenant, label=f"first, {first}", control=True, idempotency_key=key, **first)
        scene.replay(tenant, 422, "idempotency_key_reused", label=f"then {other}", idempotency_key=key, **other)
        scene.reset_limit(tenant)


@cases("drill/idempotency", NAMED, needs=TENANTS, after=SIGNED, covers=("D02",))
def test_payload_beside_named_items(case: Case, scene: Scene, tenant: str) -> None:
    """The same with `dlq_ids`: the other fields still count in the comparison.

    A comparison of the ids alone takes a different request for a repetition.
    """
    base: dict[str, Any] = {"error_type": "none-such", "dlq_ids": [new_id("item")], "idempotency_key": new_key()}
    scene.replay(tenant, label="first", control=True, **base)
    scene.replay(tenant, 422, "idempotency_key_reused", label=case.name, **{**base, **case.value})


@drill("drill/idempotency/defaults-are-equal", severity=Severity.WARN, covers=("D17",))
def test_defaults_are_equal(scene: Scene, tenant: str) -> None:
    """Leaving a field out and giving its default are the same payload, also where ids are named: then the default of
    `max` is their number.

    Two versions of one client refuse each other's retries.
    """
    key = new_key()
    scene.replay(tenant, label="defaults left out", control=True, idempotency_key=key)
    whole: dict[str, Any] = {"max": current().limit("default_batch"), "dry_run": False, "force": False}
    again = scene.replay(tenant, label="defaults given", idempotency_key=key, **whole).json()
    assert again.get("duplicate") is True, "the request with its defaults spelt out is not taken for the same"
    if "dlq_ids" not in current().lacking:
        scene.reset_limit(tenant)
        named: dict[str, Any] = {"dlq_ids": scene.add_items(tenant, 2), "idempotency_key": new_key()}
        scene.replay(tenant, label="ids without max", **named)
        again = scene.replay(tenant, label="their number as max", **named, max=2).json()
        assert again.get("duplicate") is True, "with the number of its ids as max a request is not taken for the same"


@drill("drill/idempotency/spelling-is-equal", severity=Severity.WARN, covers=("D17",))
def test_spelling_is_equal(scene: Scene, bench: Bench, tenant: str) -> None:
    """Spaces, the order of members and the case of the company id do not change the payload.

    A retry through another JSON library is refused.
    """
    fields = replay_fields(tenant, max=3, idempotency_key=new_key())
    both_cases = tenant[:18].upper() + tenant[18:]
    scene.replay(tenant, label="first", control=True, **{k: v for k, v in fields.items() if k != "company_id"})
    for label, spelt in (
        ("reordered and spaced", json.dumps(dict(reversed(fields.items())), indent=1)),
        *([("company in both cases", json.dumps({**fields, "company_id": both_cases}))] * ids_have_spellings()),
    ):
        request = bench.signer.post(REPLAY, spelt.encode(), label)
        answer = scene.expect(request, 200)
        assert answer.json().get("duplicate") is True, f'{label}: not answered as a duplicate; due: "duplicate": true'
