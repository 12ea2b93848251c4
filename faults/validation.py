"""Faults of validation: what is coerced, clamped, guessed or dropped instead of refused."""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections.abc import Callable
from typing import Any

from faults.catalogue import service
from faults.probe import Probe
from faults.requests import Json, reading, requesting, without
from replay_service.composition import build_parts
from replay_service.parts import Parts
from replay_service.problems import Refusal
from replay_service.settings import Settings
from replay_service.validation import ReplayRequest, read_replay

RAILS = "drill/safety-rails"
OTHER = "00000000-0000-4000-8000-0000000000ff"


def _lets_in(**fields: Any) -> Callable[[Probe], bool]:
    """Whether a dry run with these fields is not refused by validation; for a company that is not there."""
    sent = {"company_id": OTHER, "dry_run": True} | fields

    def witness(probe: Probe) -> bool:
        return probe.send(json.dumps(sent).encode()).status_code != 400

    return witness


def _raw(text: bytes) -> Callable[[Probe], bool]:
    return lambda probe: probe.send(text).status_code != 400


@service(
    "Unknown fields are ignored: a misspelt `dryrun` is a real run.",
    _lets_in(dryrun=True),
    ("drill/dry-run/misspelt-field", f"{RAILS}/actor-field", f"{RAILS}/role-field", f"{RAILS}/tenant-field"),
    names=("400", "field"),
)
def unknown_fields_ignored(settings: Settings) -> Parts:
    known = ("company_id", "max", "idempotency_key", "dry_run", "force", "dlq_ids", "error_type")
    return reading(settings, lambda body: {name: body[name] for name in known if name in body})


@service(
    "Of a repeated key the last one counts.",
    _raw(b'{"company_id": "%s", "dry_run": true, "max": 1, "max": 2}' % OTHER.encode()),
    (f"{RAILS}/json-duplicate-key", f"{RAILS}/json-duplicate-company"),
    names=("400", "duplicate", "repeat"),
)
def repeated_keys_accepted(settings: Settings) -> Parts:
    return reading(settings, dict, json.loads)


@service(
    "null means that the field is absent.",
    _lets_in(error_type=None),
    (f"{RAILS}/max-null", f"{RAILS}/force-null", f"{RAILS}/error-type-null", "drill/dry-run/null"),
    names=("null", "400"),
)
def null_means_absent(settings: Settings) -> Parts:
    return reading(settings, lambda body: {name: value for name, value in body.items() if value is not None})


@service(
    'A number in quotes is a number: `"max": "10"`.',
    _lets_in(max="10"),
    (f"{RAILS}/max-string",),
    names=("max", "400"),
)
def max_string_accepted(settings: Settings) -> Parts:
    return _with_max(settings, lambda value: int(value) if isinstance(value, str) and value.isdigit() else value)


@service(
    "`10.0` and `10.5` are cut to 10.",
    _lets_in(max=10.5),
    (f"{RAILS}/max-float", f"{RAILS}/max-fraction", f"{RAILS}/max-exponent"),
    names=("max", "400"),
)
def max_float_cut(settings: Settings) -> Parts:
    return _with_max(settings, lambda value: int(value) if isinstance(value, float) else value)


@service(
    "`true` is 1.",
    _lets_in(max=True),
    (f"{RAILS}/max-boolean",),
    names=("max", "400"),
)
def max_boolean_accepted(settings: Settings) -> Parts:
    return _with_max(settings, lambda value: int(value) if isinstance(value, bool) else value)


@service(
    "A batch above 50 is clamped to 50 instead of refused.",
    _lets_in(max=51),
    (f"{RAILS}/max-over-50", f"{RAILS}/max-huge", "drill/proof/oversized-batch-refused"),
    names=("50", "51", "batch_too_large", "400"),
)
def max_clamped(settings: Settings) -> Parts:
    return _with_max(settings, lambda value: min(value, 50) if type(value) is int else value)


@service(
    "The largest batch is 51 (off by one).",
    _lets_in(max=51),
    (f"{RAILS}/max-over-50", "drill/proof/oversized-batch-refused"),
    names=("51", "batch_too_large", "400"),
)
def max_51_accepted(settings: Settings) -> Parts:
    def read(raw: bytes) -> ReplayRequest:
        body = json.loads(raw) if raw.startswith(b"{") and b"51" in raw else {}
        if body.get("max") != 51:
            return read_replay(raw)
        return dataclasses.replace(read_replay(json.dumps(body | {"max": 50}).encode()), max_items=51)

    return dataclasses.replace(build_parts(settings), read_replay=read)


@service(
    "`max` of 0 or less means the default.",
    _lets_in(max=0),
    (f"{RAILS}/max-zero", f"{RAILS}/max-negative"),
    names=("max", "400"),
)
def max_zero_is_default(settings: Settings) -> Parts:
    return _with_max(settings, lambda value: 25 if type(value) is int and value < 1 else value)


@service(
    "The default batch is 50 instead of 25.",
    lambda p: _moved_by_default(p) == 30,
    (f"{RAILS}/default-max-25",),
    names=("25",),
)
def default_max_50(settings: Settings) -> Parts:
    return reading(settings, lambda body: body if "max" in body or "dlq_ids" in body else body | {"max": 50})


def _moved_by_default(probe: Probe) -> int:
    with probe.tenant() as company:
        probe.letters(company, 30)
        return int(probe.replay(company, dry_run=True).json()["target_count"])


@service(
    "The default of `max` is 25 also where more ids are named: the rest is left without a word.",
    lambda p: _moved_of_30_ids(p) == 25,
    (f"{RAILS}/max-defaults-to-the-ids",),
    names=("25", "ids", "30"),
    decision="hold",
)
def default_max_ignores_ids(settings: Settings) -> Parts:
    return reading(settings, lambda body: {"max": 25} | body)


def _moved_of_30_ids(probe: Probe) -> int:
    with probe.tenant() as company:
        ids = probe.letters(company, 30)
        return int(probe.replay(company, dry_run=True, dlq_ids=ids).json()["target_count"])


@service(
    'A string for `dry_run` is read by its words: `"no"` is a real run.',
    _lets_in(dry_run="true"),
    ("drill/dry-run/string-true", "drill/dry-run/string-false", "drill/dry-run/word-no"),
    names=("dry_run", "400"),
)
def dry_run_words(settings: Settings) -> Parts:
    return _with_boolean(settings, "dry_run", lambda text: text.lower() in {"true", "yes", "1", "on"})


@service(
    'A string for `force` is truthy: `"force": "false"` forces.',
    _lets_in(force="false"),
    (f"{RAILS}/force-string",),
    names=("force", "400"),
)
def force_truthy(settings: Settings) -> Parts:
    return _with_boolean(settings, "force", bool)


@service(
    "1 and 0 are booleans.",
    _lets_in(force=1),
    (f"{RAILS}/force-number", "drill/dry-run/number-one", "drill/dry-run/number-zero"),
    names=("400",),
)
def numbers_are_booleans(settings: Settings) -> Parts:
    def change(body: Json) -> Json:
        return body | {n: bool(body[n]) for n in ("force", "dry_run") if type(body.get(n)) is int}

    return reading(settings, change)


@service(
    "Without `dry_run` a request is a dry run: nothing is ever replayed by default.",
    lambda p: _absent_dry_run(p) == "dry_run",
    ("drill/dry-run/absent-means-real",),
    names=("dry_run", "dry run", "real"),
)
def dry_run_by_default(settings: Settings) -> Parts:
    return reading(settings, lambda body: {"dry_run": True} | body)


def _absent_dry_run(probe: Probe) -> str:
    with probe.tenant() as company:
        return str(probe.replay(company).json()["status"])


@service(
    "Any spelling of a UUID is read: without dashes, in braces, as a URN.",
    _lets_in(company_id=OTHER.replace("-", "")),
    (f"{RAILS}/company-without-dashes", f"{RAILS}/company-in-braces", f"{RAILS}/company-as-urn"),
    names=("company", "400"),
)
def any_uuid_spelling(settings: Settings) -> Parts:
    def change(body: Json) -> Json:
        try:
            return body | {"company_id": str(uuid.UUID(body.get("company_id")))}
        except (ValueError, TypeError, AttributeError):
            return body

    return reading(settings, change)


@service(
    "An empty list of ids means all of them.",
    _lets_in(dlq_ids=[]),
    (f"{RAILS}/dlq-ids-empty",),
    names=("dlq_ids", "400"),
)
def no_ids_mean_all(settings: Settings) -> Parts:
    return reading(settings, lambda body: without(body, "dlq_ids") if body.get("dlq_ids") == [] else body)


@service(
    "Of more than 50 ids the first 50 are taken.",
    _lets_in(dlq_ids=[str(uuid.UUID(int=n)) for n in range(51)]),
    (f"{RAILS}/dlq-ids-over-50",),
    names=("dlq_ids", "ids", "400"),
)
def ids_cut_to_50(settings: Settings) -> Parts:
    def change(body: Json) -> Json:
        ids = body.get("dlq_ids")
        return body | {"dlq_ids": ids[:50]} if isinstance(ids, list) else body

    return reading(settings, change)


@service(
    "Ids that are no UUIDs are dropped.",
    _lets_in(dlq_ids=[OTHER, "nonsense"]),
    (f"{RAILS}/dlq-ids-one-bad-among-good",),
    names=("dlq_ids", "400"),
)
def odd_ids_dropped(settings: Settings) -> Parts:
    def change(body: Json) -> Json:
        ids = body.get("dlq_ids")
        kept = [i for i in ids if isinstance(i, str) and len(i) == 36] if isinstance(ids, list) else []
        return body | {"dlq_ids": kept} if kept else body

    return reading(settings, change)


@service(
    "Strings longer than 200 characters are cut.",
    _lets_in(idempotency_key="k" * 201),
    (f"{RAILS}/key-too-long", f"{RAILS}/error-type-too-long"),
    names=("400",),
)
def long_text_cut(settings: Settings) -> Parts:
    def change(body: Json) -> Json:
        texts = {n: body[n][:200] for n in ("idempotency_key", "error_type") if isinstance(body.get(n), str)}
        return body | texts

    return reading(settings, change)


@service(
    "The longest key has 128 characters.",
    lambda p: not _lets_in(idempotency_key="k" * 200)(p),
    (f"{RAILS}/key-of-200-accepted",),
    names=("key", "200"),
    decision="hold",
)
def key_limit_too_small(settings: Settings) -> Parts:
    def read(raw: bytes) -> ReplayRequest:
        request = read_replay(raw)
        if len(request.idempotency_key or "") > 128:
            raise Refusal("invalid_request", "See errors.", members={"errors": []})
        return request

    return dataclasses.replace(build_parts(settings), read_replay=read)


@service(
    "Characters that are no printable ASCII are dropped from the key.",
    _lets_in(idempotency_key="k\u00e9\n"),
    (f"{RAILS}/key-not-ascii", f"{RAILS}/key-control-character", f"{RAILS}/key-line-end"),
    names=("key", "400"),
)
def odd_key_characters_dropped(settings: Settings) -> Parts:
    def change(body: Json) -> Json:
        key = body.get("idempotency_key")
        if not isinstance(key, str):
            return body
        return body | {"idempotency_key": "".join(c for c in key if " " <= c <= "~") or "k"}

    return reading(settings, change)


@service(
    "A batch that is too large is `invalid_request`: clients cannot tell that a smaller one would do.",
    lambda p: p.replay(OTHER, max_items=51).json()["code"] == "invalid_request",
    (f"{RAILS}/max-over-50", "drill/proof/oversized-batch-refused"),
    names=("batch_too_large",),
)
def too_large_is_invalid(settings: Settings) -> Parts:
    def read(raw: bytes) -> ReplayRequest:
        try:
            return read_replay(raw)
        except Refusal as refusal:
            raise Refusal("invalid_request", refusal.detail, members={"errors": []}) from None

    return dataclasses.replace(build_parts(settings), read_replay=read)


@service(
    "A 400 does not say which field is wrong.",
    lambda p: not p.replay(OTHER, max_items=0).json().get("errors"),
    ("drill/http-surface/validation-names-the-field",),
    names=("field", "errors"),
    decision="hold",
)
def field_not_named(settings: Settings) -> Parts:
    def read(raw: bytes) -> ReplayRequest:
        try:
            return read_replay(raw)
        except Refusal as refusal:
            refusal.members.pop("errors", None)
            raise

    return dataclasses.replace(build_parts(settings), read_replay=read)


@service(
    "The `error_type` is compared without its case.",
    lambda p: _of_type(p, "TIMEOUT") == 1,
    (f"{RAILS}/pattern-case",),
    names=("error_type", "case"),
)
def error_type_lowered(settings: Settings) -> Parts:
    def lowered(request: ReplayRequest) -> ReplayRequest:
        return dataclasses.replace(request, error_type=request.error_type.lower()) if request.error_type else request

    return requesting(settings, lowered)


def _of_type(probe: Probe, error_type: str) -> int:
    with probe.tenant() as company:
        probe.letters(company, 1)
        return int(probe.replay(company, dry_run=True, error_type=error_type).json()["target_count"])


def _with_max(settings: Settings, change: Callable[[Any], Any]) -> Parts:
    return reading(settings, lambda body: body | {"max": change(body["max"])} if "max" in body else body)


def _with_boolean(settings: Settings, name: str, change: Callable[[str], bool]) -> Parts:
    def changed(body: Json) -> Json:
        value = body.get(name)
        return body | {name: change(value)} if isinstance(value, str) else body

    return reading(settings, changed)
