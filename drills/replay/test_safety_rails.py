"""Safety rails: what a request may ask for. Every field is strict; nothing is clamped, coerced or ignored."""

import json
import uuid
from typing import Any

import pytest

from drills.workbench.bench import Bench
from drills.workbench.checks import SIGNED, Case, cases
from gates.checks.recorder import check
from gates.deployment.dialect.current import current
from gates.deployment.ids import new_id
from gates.deployment.requests import SIGNATURE, encode_body, forged_signature, signed_post_v2, token_post
from gates.evidence import Severity, Where

pytestmark = pytest.mark.beside_load


def _ids(count: int) -> list[str]:
    return [new_id("item") for _ in range(count)]


OTHER_VERSIONS = ["c232ab00-9414-11ec-b3c8-9f6bdeced846", "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"]
"""UUIDs of versions 1 and 7."""
BATCH = current().limit("batch")
LONGEST_KEY = ("k~ !" * 1000)[: current().limit("key_length") - 1] + "!"
MAXIMA: list[Case] = [
    Case("max-zero", "`max` 0 is refused.", 0),
    Case("max-negative", "A negative `max` is refused.", -1),
    Case("max-string", "`max` as a string is refused.", "10"),
    Case("max-fraction", "A fractional `max` is refused.", 10.5),
    Case("max-boolean", "`max` true is refused: it is no 1.", True),
    Case("max-null", "`max` null is refused.", None),
    Case("max-list", "`max` as a list is refused.", [10]),
]

ODD_IDS = ("dlq-ids-no-uuid", "dlq-ids-one-bad-among-good", "event-id-no-uuid")
"""Cases whose ids are only odd where ids have a form."""
FIELDS: list[Case] = [
    Case("dlq-ids-empty", "An empty list of ids is refused: it is not `all`.", {"dlq_ids": []}),
    Case("dlq-ids-no-uuid", "Ids that are no UUIDs are refused.", {"dlq_ids": ["x"]}, ("E13",)),
    Case(
        "dlq-ids-one-bad-among-good",
        "One id that is no UUID among good ones is refused, not dropped.",
        {"dlq_ids": ["00000000-0000-4000-8000-0000000000aa", "x"]},
        ("E13",),
    ),
    Case("dlq-ids-string", "Ids as one string are refused.", {"dlq_ids": "00000000-0000-4000-8000-0000000000aa"}),
    Case("dlq-ids-null", "Ids null are refused.", {"dlq_ids": None}),
    Case("dlq-ids-with-null", "A null among the ids is refused.", {"dlq_ids": [None]}),
    Case("error-type-empty", "An empty error type is refused.", {"error_type": ""}, ("E13",)),
    Case("error-type-too-long", "An error type over 200 characters is refused.", {"error_type": "x" * 201}),
    Case(
        "error-type-no-string", "An error type that is no string is refused.", {"error_type": {"like": "%"}}, ("E13",)
    ),
    Case("error-type-null", "An error type null is refused.", {"error_type": None}),
    Case("force-string", "`force` as a string is refused.", {"force": "false"}, ("F04",)),
    Case("force-number", "`force` as a number is refused.", {"force": 1}, ("F04",)),
    Case("force-null", "`force` null is refused.", {"force": None}, ("F04",)),
    Case("key-empty", "An empty idempotency key is refused.", {"idempotency_key": ""}, ("D09",)),
    Case("key-too-long", "A key over 200 characters is refused.", {"idempotency_key": "k" * 201}, ("D09",)),
    Case("key-control-character", "A key with a control character is refused.", {"idempotency_key": "a\tb"}, ("D09",)),
    Case("key-delete", "A key with the character DEL is refused.", {"idempotency_key": "a\x7f"}, ("D09",)),
    Case("key-line-end", "A key with a line end is refused.", {"idempotency_key": "a\n"}, ("D09",)),
    Case("key-not-ascii", "A key with a character outside ASCII is refused.", {"idempotency_key": "é"}, ("D09",)),
    Case("key-no-string", "A key that is no string is refused.", {"idempotency_key": 7}, ("D09",)),
    Case("key-null", "A key null is refused.", {"idempotency_key": None}, ("D09",)),
    Case("tenant-field", "A field `tenant_id` is refused.", {"tenant_id": str(uuid.UUID(int=1))}, ("A31",)),
    Case(
        "role-field", "Fields `role` and `is_admin` are refused.", {"role": "super_admin", "is_admin": True}, ("A31",)
    ),
    Case("actor-field", "A field `actor` is refused.", {"actor": "somebody"}, ("A31", "I12")),
    Case(
        "destination-field",
        "A field that names another destination is refused.",
        {"destination_url": "http://169.254.169.254/", "agent_url": "file:///etc/passwd"},
        ("E06",),
    ),
    Case("limit-field", "A misspelt `limit` is refused, not ignored; so is `_note`.", {"limit": 1}, ("E02",)),
    Case("inherited-constructor", "A field `constructor`, which objects inherit, is refused.", {"constructor": 1}),
    Case("inherited-proto", "A field `__proto__`, which objects inherit, is refused.", {"__proto__": 1}),
    Case("field-in-other-case", "A field in another case is refused, not ignored.", {"Max": 1}, ("E02",)),
]


@cases("drill/safety-rails", MAXIMA, where=Where.READ_ONLY, after=SIGNED, covers=("E02",))
def test_maximum(case: Case, bench: Bench) -> None:
    """`max` is an integer from 1 to 50; anything else is refused with 400.

    A typing error replays everything, or other items than intended.
    """
    bench.opens(bench.signed(bench.body(max=10)))
    bench.refused(bench.signed(bench.body(max=case.value), case.name), 400, "invalid_request")


SPELLINGS: list[Case] = [
    Case("max-float", "`max` 10.0 is refused: it is no integer.", b"10.0", ("E02",), Severity.WARN),
    Case("max-exponent", "`max` 1e1 is refused: it is no integer.", b"1e1", ("E02",), Severity.WARN),
    Case("max-not-a-number", "`max` NaN is refused.", b"NaN", ("E02",)),
    Case("max-infinite", "`max` Infinity is refused.", b"Infinity", ("E02",)),
    Case("max-minus-zero", "`max` -0 is refused.", b"-0", ("E02",), Severity.WARN),
    Case("max-leading-zero", "`max` 010 is refused: it is no number in JSON.", b"010", ("E02",)),
    Case("max-unquoted", "`max` as a bare word is refused.", b"all", ("E02",)),
]


@cases("drill/safety-rails", SPELLINGS, where=Where.READ_ONLY, after=SIGNED)
def test_maximum_spelling(case: Case, bench: Bench) -> None:
    """`max` in a form that is no JSON integer is refused with 400.

    A lenient parser reads a number that nobody meant.
    """
    body = bench.body(max=10)
    bench.opens(bench.signed(body))
    bench.refused(bench.signed(body.replace(b'"max":10', b'"max":' + case.value), case.name), 400, "invalid_request")


OVERSIZED: list[Case] = [
    Case("max-over-50", "`max` 51 is refused as too large a batch.", {"max": BATCH + 1}, ("E02",)),
    Case("max-huge", "`max` 1,000,000,000 is refused as too large a batch.", {"max": 10**9}, ("E02",)),
    Case(
        "max-beyond-all-integers",
        "`max` of 20 digits is refused, and is no server error.",
        {"max": 2**64 + 1},
        ("E02",),
    ),
    Case("dlq-ids-over-50", "51 ids are refused as too large a batch.", {"dlq_ids": _ids(BATCH + 1)}, ("E02",)),
    Case(
        "dlq-ids-over-50-for-one",
        "51 ids are refused as too large a batch, be `max` 1.",
        {"dlq_ids": _ids(BATCH + 1), "max": 1},
        ("E02",),
    ),
]


@cases("drill/safety-rails", OVERSIZED, where=Where.READ_ONLY, after=SIGNED)
def test_oversized_batch(case: Case, bench: Bench) -> None:
    """A batch over 50 is refused with 400 `batch_too_large`, forced or not; it is never cut to size silently.

    One call floods the agents with a tenant's whole dead-letter queue.
    """
    bench.opens(bench.signed(bench.body(max=BATCH), f"a batch of {BATCH}"))
    for extra in ({}, *([] if "force" in current().lacking else [{"force": True}])):
        fields = json.loads(bench.body(**{"max": BATCH, **case.value, **extra}))
        if "max" not in case.value:
            del fields["max"]
        body = encode_body(fields)
        code = None if case.name.endswith("integers") else "batch_too_large"
        answer = bench.refused(bench.signed(body, f"{case.name} {extra or ''}".strip()), 400, code)
        if not (code or current()):
            assert answer.code in {"batch_too_large", "invalid_request"}, f"code {answer.code!r}; due: batch_too_large"


@cases("drill/safety-rails", FIELDS, where=Where.READ_ONLY, after=SIGNED)
def test_field(case: Case, bench: Bench) -> None:
    """A field of a wrong type, out of its range, or unknown is refused with 400.

    The field is ignored or guessed, and the request does what nobody asked for.
    """
    bench.opens(bench.signed(bench.body()))
    request = bench.signed(bench.body(**case.value), case.name)
    if case.name in ODD_IDS:
        bench.unnamed(request)
    else:
        bench.refused(request, 400, "invalid_request")
    if case.name == "limit-field":
        for name in ("_note", "x-note", "$schema"):
            bench.refused(bench.signed(bench.body(**{name: "n"}), f"a field `{name}`"), 400, "invalid_request")
        empty = bench.signed(bench.body(**dict.fromkeys(case.value)), f"{case.name}, null")
        bench.refused(empty, 400, "invalid_request")


COMPANIES: list[Case] = [
    Case("company-missing", "A request without a company is refused.", {}, ("E01",)),
    Case("company-null", "A company null is refused.", {"company_id": None}, ("E01",)),
    Case("company-wildcard", "`all` and `*` are no companies.", {"company_id": "all"}, ("E01",)),
    Case("company-number", "A number is no company.", {"company_id": 1}),
    Case("company-list", "A list is no company.", {"company_id": [str(uuid.UUID(int=1))]}),
    Case(
        "company-without-dashes",
        "A UUID without its dashes is refused.",
        {"company_id": uuid.UUID(int=1).hex},
        ("C06",),
    ),
    Case(
        "company-with-dashes-elsewhere",
        "36 characters of a UUID with its dashes in other places are refused.",
        {"company_id": "00000000000-0-40008-0000000-00000001"},
        ("C06",),
    ),
    Case("company-in-braces", "A UUID in braces is refused.", {"company_id": f"{{{uuid.UUID(int=1)}}}"}, ("C06",)),
    Case("company-as-urn", "A UUID as a URN is refused.", {"company_id": uuid.UUID(int=1).urn}, ("C06",)),
    Case(
        "company-with-space", "A UUID before a line end is refused.", {"company_id": f"{uuid.UUID(int=1)}\n"}, ("C06",)
    ),
]


@cases("drill/safety-rails", COMPANIES, where=Where.READ_ONLY, after=SIGNED)
def test_company(case: Case, bench: Bench) -> None:
    """The company is one UUID in its 36 characters; anything else is refused with 400.

    A request replays for every tenant, or one tenant has several names.
    """
    bench.opens(bench.signed(bench.body()))
    fields = json.loads(bench.body(max=10))
    del fields["company_id"]
    request = bench.signed(encode_body({**fields, **case.value}), case.name)
    if isinstance(case.value.get("company_id"), str):
        bench.unnamed(request)
    else:
        bench.refused(request, 400, "invalid_request")


def _with(body: bytes, more: str) -> bytes:
    return body[:-1] + b"," + more.encode("utf-8", "surrogatepass") + b"}"


TEXTS: list[Case] = [
    Case("json-duplicate-key", "A body with one key twice is refused.", lambda b: _with(b, '"max":1'), ("A31", "B20")),
    Case(
        "json-duplicate-company",
        "A body with two companies is refused.",
        lambda b: _with(b, f'"company_id":"{uuid.UUID(int=1)}"'),
        ("A20", "B20"),
    ),
    Case(
        "json-equal-duplicate-key",
        "A body with one key twice is refused, also where both say the same, or one is written with an escape.",
        lambda b: _with(b, f'"company_\\u0069d":"{json.loads(b)["company_id"]}"'),
        ("A31", "B20"),
    ),
    Case(
        "json-escaped-nul",
        "A body with U+0000 in a string is refused.",
        lambda b: _with(b, '"error_type":"a\\u0000b"'),
        ("A12",),
    ),
    Case("json-lone-surrogate", "A lone surrogate is refused.", lambda b: _with(b, '"error_type":"\\ud800"'), ("A12",)),
    Case(
        "json-lone-surrogate-in-capitals",
        "A lone surrogate is refused, whichever half it is and however it is written.",
        lambda b: _with(b, '"error_type":"\\uDFFF"'),
        ("A12",),
    ),
    Case("json-trailing-text", "Text after the object is refused.", lambda b: b + b"{}"),
    Case("json-trailing-comma", "A trailing comma is refused.", lambda b: b[:-1] + b",}"),
    Case("json-single-quotes", "Single quotes are refused.", lambda b: b.replace(b'"', b"'")),
    Case("json-comment", "A comment is refused.", lambda b: b[:-1] + b"/* x */}"),
    Case("json-list", "A list instead of an object is refused.", lambda b: b"[" + b + b"]"),
    Case("json-empty", "An empty body is refused.", lambda _b: b""),
    Case("json-null", "A body null is refused.", lambda _b: b"null"),
    Case("json-string", "An object inside a string is refused.", lambda b: json.dumps(b.decode()).encode()),
]


@cases("drill/safety-rails", TEXTS, where=Where.READ_ONLY, after=SIGNED)
def test_text(case: Case, bench: Bench) -> None:
    """A body that is not one plain JSON object is refused with 400, and causes no server error.

    Two parsers read one body differently: the request that was checked is not the one that is carried out.
    """
    body = bench.body()
    bench.opens(bench.signed(body))
    bench.refused(bench.signed(case.value(body), case.name), 400, "invalid_request")


PRINTABLE = "".join(map(chr, range(0x21, 0x7F))) + " "
ACCEPTED: list[Case] = [
    Case("max-1-accepted", "`max` 1 is accepted.", {"max": 1}),
    Case("max-50-accepted", "`max` 50 is accepted.", {"max": BATCH}),
    Case(
        "key-of-200-accepted",
        "A key of 200 characters, all that are printable in ASCII, is accepted.",
        {"idempotency_key": (PRINTABLE * 100)[: current().limit("key_length")]},
    ),
    Case("error-type-of-200-accepted", "An error type of 200 characters is accepted.", {"error_type": "é" * 200}),
    Case(
        "all-fields-accepted",
        "All fields together are accepted, with UUIDs of versions 1, 4 and 7.",
        {
            "dry_run": True,
            "force": True,
            "dlq_ids": [*_ids(BATCH - 2), *(OTHER_VERSIONS if current().id_type("item") == "uuid" else _ids(2))],
        },
    ),
]


@cases("drill/safety-rails", ACCEPTED, severity=Severity.WARN, where=Where.READ_ONLY, after=SIGNED, covers=("E02",))
def test_boundary(case: Case, bench: Bench) -> None:
    """What lies just inside the limits is accepted.

    Operators cannot send requests that the contract allows.
    """
    bench.opens(bench.signed(bench.body()))
    fields = json.loads(bench.body(**case.value))
    if "dlq_ids" in fields:
        del fields["max"]
    bench.taken(bench.signed(encode_body(fields), case.name))


EVENT_FAULTS: list[Case] = [
    Case("event-without-company", "An event without a company is refused.", {"company_id": None}),
    Case("event-without-type", "An event without a type is refused.", {"event_type": None}),
    Case("event-id-no-uuid", "An event whose id is no UUID, or empty, is refused.", {"event_id": "x"}),
]


@cases("drill/safety-rails", EVENT_FAULTS, severity=Severity.WARN, where=Where.READ_ONLY, after=SIGNED)
def test_event(case: Case, bench: Bench) -> None:
    """An event with a missing or malformed field is refused with 400.

    Events without an owner or a type reach the agents.
    """
    fields: dict[str, Any] = {
        "company_id": bench.company,
        "event_type": "drill.plain",
        "aggregate_key": "k",
        "payload": {"n": 1},
    }
    bench.opens(bench.signer.post("/events", encode_body(fields), "a good event"))
    bad = {k: v for k, v in {**fields, **case.value}.items() if v is not None}
    request = bench.signer.post("/events", encode_body(bad), case.name)
    if case.name in ODD_IDS:
        bench.unnamed(request)
        bench.unnamed(bench.signer.post("/events", encode_body({**fields, "event_id": ""}), "an empty id"))
    else:
        bench.refused(request, 400, "invalid_request")


@check("drill/safety-rails/events-need-credentials", where=Where.READ_ONLY, after=SIGNED, covers=("A02",))
def test_events_need_credentials(bench: Bench) -> None:
    """An event without credentials, with a forged or a stale signature, one of the future, that of other bytes, or with
    a wrong one of two credentials is refused with 401.

    Anyone writes business events for any tenant.
    """
    fields = {"company_id": bench.company, "event_type": "drill.plain", "aggregate_key": "k", "payload": {"n": 1}}
    good = bench.signer.post("/events", encode_body(fields), "a signed event")
    bench.opens(good)
    bench.shut(good.without_header(SIGNATURE).labelled("an unsigned event"))
    bench.shut(good.with_header(SIGNATURE, forged_signature()).labelled("a forged event"))
    bench.refused(good.adding_header(SIGNATURE, forged_signature()).labelled("an event signed twice"), (400, 401))
    for other in (good.body + b"\n", json.dumps(json.loads(good.body), indent=1).encode()):
        bench.shut(good.with_body(other).labelled("an event of other bytes than were signed"))
    if current().claims("authentication"):
        fresh, stale, future = (
            signed_post_v2(
                "/events", good.body, bench.signer.secret, bench.clock.now() - age_s, f"signed {age_s} s ago"
            )
            for age_s in (0, 4000, -4000)
        )
        bench.opens(fresh)
        bench.shut(stale)
        bench.shut(future)
    if current().claims("tokens") and bench.target.admin_jwt:
        bench.shut(good.adding_header("Authorization", "Bearer e30.e30.AAAA").labelled("signed, and a wrong token"))
        good = token_post("/events", fields, bench.admin(), "an event with a token")
        bench.opens(good)
        bench.shut(good.adding_header(SIGNATURE, forged_signature()).labelled("a token, and a wrong signature"))


ORDER: list[Case] = [
    Case("authentication-before-validation", "An invalid body without credentials gets 401.", (True, {"max": 0}, 401)),
    Case(
        "validation-before-authorisation", "An invalid body for an unknown company gets 400.", (False, {"max": 0}, 400)
    ),
]


@cases("drill/safety-rails", ORDER, severity=Severity.WARN, where=Where.READ_ONLY, after=SIGNED, covers=("A25", "C15"))
def test_order(case: Case, bench: Bench) -> None:
    """The checks of a request come in their documented order.

    A later check tells a stranger what an earlier one should have hidden.
    """
    bare, fields, status = case.value
    bench.opens(bench.signed())
    request = bench.signed(bench.body(**fields), case.name)
    bench.refused(request.without_header("X-Transbot-Signature") if bare else request, status)


@check(
    "drill/safety-rails/media-type-before-authentication", severity=Severity.WARN, where=Where.READ_ONLY, after=SIGNED
)
def test_media_type_first(bench: Bench) -> None:
    """A wrong media type, method or size is refused as such, whatever the credentials.

    The order of the checks is not the documented one.
    """
    good = bench.signed()
    bench.opens(good)
    bare = good.without_header(SIGNATURE)
    bench.refused(bare.with_header("Content-Type", "text/plain").labelled("text/plain, unsigned"), 415)
    bench.refused(bare.with_body(bench.body() + b" " * 70_000).labelled("70 KB, unsigned"), 413)
