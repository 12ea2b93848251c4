"""Faults of idempotency, made by a proxy."""

import uuid
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import unquote

from faults.catalogue import proxy
from faults.proxy.rewriting import Fields, Make, World, after_replays, json_of, remembers, rewrites, with_json
from faults.proxy.server import Reply

KEY = "drill/idempotency"


def scope_of(fields: Fields) -> object:
    """Key and tenant, as they should be."""
    return fields.get("idempotency_key"), str(fields.get("company_id")).lower()


def keyed(change: Callable[[str], str]) -> Make:
    """Keys are compared by what is made of them."""

    def changed(_world: World, fields: Fields) -> Fields:
        key = fields.get("idempotency_key")
        return {**fields, "idempotency_key": change(key)} if isinstance(key, str) else fields

    return rewrites(changed)


def on_duplicates(change: Callable[[Reply], Reply]) -> Make:
    """The answers to duplicates are other than they should be."""
    return after_replays(lambda _w, _f, reply: change(reply) if json_of(reply).get("duplicate") is True else None)


IGNORED = (
    *("duplicate-one-effect", "duplicate-same-answer", "duplicate-marked", "duplicate-not-audited"),
    *(
        "other-payload-refused",
        "payload-*",
        "beside-ids-*",
        "defaults-are-equal",
        "spelling-is-equal",
        "other-credentials-same-key",
    ),
    *("v2-resend-is-duplicate", "race-same-request", "race-other-body", "race-from-many-sources"),
    *("beside-ids-*", "late-retry-keeps-the-run"),
)
proxy(
    "idempotency/keys-are-ignored",
    rewrites(lambda _w, f: {**f, "idempotency_key": uuid.uuid4().hex}),
    tuple(f"{KEY}/{name}" for name in IGNORED),
    green=(f"{KEY}/scope-is-the-tenant",),
)
proxy(
    "idempotency/the-payload-is-no-part-of-the-key",
    remembers(scope_of, lambda reply: reply.status == 200),
    (f"{KEY}/other-payload-refused", f"{KEY}/payload-*", f"{KEY}/dry-run-*"),
    green=(f"{KEY}/duplicate-one-effect", f"{KEY}/scope-is-the-tenant"),
)
proxy(
    "idempotency/every-answer-is-stored",
    remembers(scope_of, lambda _reply: True),
    (f"{KEY}/refusal-*", f"{KEY}/rate-limited-not-stored"),
    green=(f"{KEY}/duplicate-same-answer",),
)
proxy(
    "idempotency/crashes-are-stored",
    remembers(scope_of, lambda reply: reply.status >= 500),
    (f"{KEY}/crash-leaves-no-key",),
)
proxy(
    "idempotency/requests-without-a-key-share-one",
    rewrites(lambda _w, f: None if "idempotency_key" in f else {**f, "idempotency_key": "none"}),
    (f"{KEY}/key-generated",),
)
for _name, _breaks, _change, _check in (
    ("key-case-folded", "Keys are compared without their case: `INC-a` and `INC-A` are one.", str.lower, "in-case"),
    ("key-truncated", "Keys are cut to 64 characters: two long ones are one.", lambda key: key[:64], "at-the-end"),
    ("key-trimmed", "Keys are trimmed: ` a` and `a` are one.", lambda key: key.lstrip() or "k", "in-spaces"),
    (
        "key-padded",
        "Keys are compared as if padded: `a ` and `a` are one.",
        lambda k: k.rstrip() or "k",
        "in-a-last-space",
    ),
    ("key-squeezed", "Spaces of a key are one space.", lambda key: " ".join(key.split()) or "k", "in-inner-spaces"),
):
    proxy(f"idempotency/{_name}", keyed(_change), (f"{KEY}/keys-differ-{_check}",), _breaks)
proxy(
    "idempotency/duplicate-not-marked",
    on_duplicates(lambda reply: with_json(reply, duplicate=False)),
    (f"{KEY}/duplicate-marked", "drill/proof/duplicate-short-circuits"),
    "A duplicate is not marked.",
    decision="rollback",
)
proxy(
    "idempotency/duplicate-without-header",
    on_duplicates(lambda reply: reply.without("Idempotent-Replayed")),
    (f"{KEY}/duplicate-marked",),
    "A duplicate has no Idempotent-Replayed header.",
)
proxy(
    "idempotency/duplicate-of-a-started-run-without-header",
    on_duplicates(lambda r: r.without("Idempotent-Replayed") if json_of(r).get("status") == "started" else r),
    (f"{KEY}/duplicate-marked",),
    "A duplicate of a replay that moved items has no Idempotent-Replayed header.",
)
proxy(
    "idempotency/duplicate-without-request-id",
    on_duplicates(lambda reply: reply.without("X-Request-Id")),
    (f"{KEY}/duplicate-marked",),
    "A duplicate has no X-Request-Id.",
)
proxy(
    "idempotency/duplicate-is-a-conflict",
    on_duplicates(lambda reply: replace(reply, status=409)),
    (
        *(f"{KEY}/duplicate-{name}" for name in ("one-effect", "same-answer", "marked")),
        "drill/proof/duplicate-short-circuits",
    ),
    "A duplicate is answered with 409.",
)
proxy(
    "idempotency/keys-are-unescaped",
    keyed(unquote),
    (f"{KEY}/keys-differ-in-escapes",),
    "An escape in a key is read as the character that it stands for.",
)
proxy(
    "idempotency/keys-end-at-a-colon",
    keyed(lambda key: key.partition(":")[0] or key),
    (f"{KEY}/keys-differ-at-the-end",),
    "What follows a colon is no part of a key.",
)
