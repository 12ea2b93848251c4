"""Faults of validation, made by a proxy: what is coerced, clamped, guessed or dropped instead of refused."""

import uuid
from collections.abc import Callable
from typing import Any

from faults.catalogue import proxy
from faults.proxy.rewriting import Fields, Make, fields_of, problem, refuses, rereads, rewrites, whenever, with_json
from faults.proxy.server import Reply

RAILS, DRY = "drill/safety-rails", "drill/dry-run"
TOO_LARGE = (f"{RAILS}/max-over-50", "drill/proof/oversized-batch-refused")
KNOWN = ("company_id", "max", "idempotency_key", "dry_run", "force", "dlq_ids", "error_type")
YES = {"true", "yes", "1", "on"}


def reading(change: Callable[[Fields], Fields]) -> Make:
    """The service reads other fields than were sent."""
    return rewrites(lambda _world, fields: change(fields))


def member(name: str, change: Callable[[Any], Any]) -> Make:
    """The service reads another value of one field, where that is there."""
    return reading(lambda f: {**f, name: change(f[name])} if name in f else f)


def any_spelling(company: Any) -> Any:
    try:
        return str(uuid.UUID(company))
    except (ValueError, TypeError, AttributeError):
        return company


def printable(key: Any) -> Any:
    return "".join(c for c in key if " " <= c <= "~") or "k" if isinstance(key, str) else key


def plausible(ids: Any) -> Any:
    kept = [i for i in ids if isinstance(i, str) and len(i) == 36] if isinstance(ids, list) else []
    return kept or ids


def cut(value: Any) -> Any:
    return value[:200] if isinstance(value, str) else value


def as_invalid(reply: Reply) -> Reply:
    return problem(400, "invalid_request", errors=[]) if b"batch_too_large" in reply.body else reply


def long_key(fields: Fields) -> bool:
    return isinstance(key := fields.get("idempotency_key"), str) and 128 < len(key) <= 200


for _name, _breaks, _make, _checks in (
    (
        "unknown-fields-ignored",
        "Unknown fields are ignored: a misspelt `dryrun` is a real run.",
        reading(lambda f: {n: f[n] for n in KNOWN if n in f}),
        (f"{DRY}/misspelt-field", f"{RAILS}/actor-field", f"{RAILS}/role-field", f"{RAILS}/tenant-field"),
    ),
    (
        "inherited-names-are-known",
        "Names that every object of a language inherits pass for known fields.",
        reading(lambda f: {n: v for n, v in f.items() if n not in {"constructor", "__proto__"}}),
        (f"{RAILS}/inherited-constructor", f"{RAILS}/inherited-proto"),
    ),
    (
        "dashes-anywhere",
        "A UUID may have its dashes anywhere.",
        member("company_id", any_spelling),
        (f"{RAILS}/company-with-dashes-elsewhere",),
    ),
    (
        "repeated-keys-accepted",
        "Of a repeated key the last one counts.",
        rereads(lambda w, sent: w.with_fields(sent, fields_of(sent)) if sent.is_replay and fields_of(sent) else sent),
        (f"{RAILS}/json-duplicate-key", f"{RAILS}/json-equal-duplicate-key", f"{RAILS}/json-duplicate-company"),
    ),
    (
        "null-means-absent",
        "null means that the field is absent.",
        reading(lambda f: {n: v for n, v in f.items() if v is not None}),
        (f"{RAILS}/max-null", f"{RAILS}/force-null", f"{RAILS}/error-type-null", f"{DRY}/null"),
    ),
    (
        "max-string-accepted",
        'A number in quotes is a number: `"max": "10"`.',
        member("max", lambda v: int(v) if isinstance(v, str) and v.isdigit() else v),
        (f"{RAILS}/max-string",),
    ),
    (
        "max-float-cut",
        "`10.0` and `10.5` are cut to 10.",
        member("max", lambda v: int(v) if isinstance(v, float) else v),
        (f"{RAILS}/max-float", f"{RAILS}/max-fraction", f"{RAILS}/max-exponent"),
    ),
    (
        "max-boolean-accepted",
        "`true` is 1.",
        member("max", lambda v: int(v) if isinstance(v, bool) else v),
        (f"{RAILS}/max-boolean",),
    ),
    (
        "max-clamped",
        "A batch above 50 is clamped to 50 instead of refused.",
        member("max", lambda v: min(v, 50) if type(v) is int else v),
        (f"{RAILS}/max-huge", *TOO_LARGE),
    ),
    (
        "max-51-accepted",
        "The largest batch is 51 (off by one).",
        member("max", lambda v: 50 if v == 51 else v),
        TOO_LARGE,
    ),
    (
        "max-zero-is-default",
        "`max` of 0 or less means the default.",
        member("max", lambda v: 25 if type(v) is int and v < 1 else v),
        (f"{RAILS}/max-zero", f"{RAILS}/max-negative"),
    ),
    (
        "default-max-50",
        "The default batch is 50 instead of 25.",
        reading(lambda f: f if "max" in f or "dlq_ids" in f else {**f, "max": 50}),
        (f"{RAILS}/default-max-25",),
    ),
    (
        "default-max-ignores-ids",
        "The default of `max` is 25 also where more ids are named: the rest is left without a word.",
        reading(lambda f: {"max": 25, **f}),
        (f"{RAILS}/max-defaults-to-the-ids",),
    ),
    (
        "dry-run-words",
        'A string for `dry_run` is read by its words: `"no"` is a real run.',
        member("dry_run", lambda v: v.lower() in YES if isinstance(v, str) else v),
        (f"{DRY}/string-true", f"{DRY}/string-false", f"{DRY}/word-no"),
    ),
    (
        "force-truthy",
        'A string for `force` is truthy: `"force": "false"` forces.',
        member("force", lambda v: bool(v) if isinstance(v, str) else v),
        (f"{RAILS}/force-string",),
    ),
    (
        "numbers-are-booleans",
        "1 and 0 are booleans.",
        reading(lambda f: {n: bool(v) if n in {"force", "dry_run"} and type(v) is int else v for n, v in f.items()}),
        (f"{RAILS}/force-number", f"{DRY}/number-one", f"{DRY}/number-zero"),
    ),
    (
        "dry-run-by-default",
        "Without `dry_run` a request is a dry run: nothing is ever replayed by default.",
        reading(lambda f: {"dry_run": True, **f}),
        (f"{DRY}/absent-means-real",),
    ),
    (
        "any-uuid-spelling",
        "Any spelling of a UUID is read: without dashes, in braces, as a URN.",
        member("company_id", any_spelling),
        (f"{RAILS}/company-without-dashes", f"{RAILS}/company-in-braces", f"{RAILS}/company-as-urn"),
    ),
    (
        "a-line-end-is-no-part-of-an-id",
        "A line end after a UUID is overlooked.",
        member("company_id", lambda v: v.removesuffix("\n") if isinstance(v, str) else v),
        (f"{RAILS}/company-with-space",),
    ),
    (
        "no-ids-mean-all",
        "An empty list of ids means all of them.",
        reading(lambda f: {n: v for n, v in f.items() if (n, v) != ("dlq_ids", [])}),
        (f"{RAILS}/dlq-ids-empty",),
    ),
    (
        "ids-cut-to-50",
        "Of more than 50 ids the first 50 are taken.",
        member("dlq_ids", lambda v: v[:50] if isinstance(v, list) else v),
        (f"{RAILS}/dlq-ids-over-50",),
    ),
    (
        "odd-ids-dropped",
        "Ids that are no UUIDs are dropped.",
        member("dlq_ids", plausible),
        (f"{RAILS}/dlq-ids-one-bad-among-good",),
    ),
    (
        "long-text-cut",
        "Strings longer than 200 characters are cut.",
        reading(lambda f: {n: cut(v) if n in {"idempotency_key", "error_type"} else v for n, v in f.items()}),
        (f"{RAILS}/key-too-long", f"{RAILS}/error-type-too-long"),
    ),
    (
        "key-limit-too-small",
        "The longest key has 128 characters.",
        refuses(lambda sent: long_key(fields_of(sent)), 400),
        (f"{RAILS}/key-of-200-accepted",),
    ),
    (
        "odd-key-characters-dropped",
        "Characters that are no printable ASCII are dropped from the key.",
        member("idempotency_key", printable),
        tuple(f"{RAILS}/key-{end}" for end in ("not-ascii", "control-character", "delete", "line-end")),
    ),
    (
        "too-large-is-invalid",
        "A batch that is too large is `invalid_request`: clients cannot tell that a smaller one would do.",
        whenever(400, as_invalid),
        TOO_LARGE,
    ),
    (
        "field-not-named",
        "A 400 does not say which field is wrong.",
        whenever(400, lambda reply: with_json(reply, errors=[])),
        ("drill/http-surface/validation-names-the-field",),
    ),
    (
        "error-type-lowered",
        "The `error_type` is compared without its case.",
        member("error_type", lambda v: v.lower() if isinstance(v, str) else v),
        (f"{RAILS}/pattern-case",),
    ),
):
    proxy(f"validation/{_name}", _make, _checks, _breaks)
