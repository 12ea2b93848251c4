"""Planted defects of the HTTP surface and of validation."""

from __future__ import annotations

import gzip
from dataclasses import replace

from tests.drills.defects import (
    World,
    answers,
    company_of,
    fields_of,
    problem,
    refuses,
    whenever,
    with_json,
)
from tests.drills.planted import Planted
from tests.drills.proxy import Defect, Forward, Reply, Sent, no_defect

HTTP_SURFACE = "drill/http-surface"


def reads_any_media_type(_world: World) -> Defect:
    def defect(sent: Sent, forward: Forward) -> Reply:
        return forward(sent.having("Content-Type", "application/json") if sent.is_replay else sent)

    return defect


def normalises_paths(world: World) -> Defect:
    """Another spelling of the path is routed past authentication, and past the limit."""

    def defect(sent: Sent, forward: Forward) -> Reply:
        if sent.method != "POST" or sent.path == "/dlq-replay" or "replay" not in sent.path.lower().replace("%2d", "-"):
            return forward(sent)
        world.forget(company_of(sent))
        return forward(world.signed(replace(sent, path="/dlq-replay")))

    return defect


def obeys_override(_world: World) -> Defect:
    def defect(sent: Sent, forward: Forward) -> Reply:
        names = ("X-HTTP-Method-Override", "X-Method-Override", "X-HTTP-Method")
        method = next((v for v in map(sent.header, names) if v), sent.method)
        return forward(replace(sent, method=method))

    return defect


def echoes_trace(_world: World) -> Defect:
    def defect(sent: Sent, forward: Forward) -> Reply:
        if sent.method != "TRACE":
            return forward(sent)
        return Reply(
            200, (("Content-Type", "message/http"),), "\r\n".join(f"{k}: {v}" for k, v in sent.headers).encode()
        )

    return defect


def has_no_size_limit(world: World) -> Defect:
    """Bodies of any size are read, and compressed ones unfolded."""

    def defect(sent: Sent, forward: Forward) -> Reply:
        body = gzip.decompress(sent.body) if sent.header("Content-Encoding") == "gzip" else sent.body
        if len(body) <= 65_536:
            return forward(sent)
        return forward(world.signed(replace(sent.without("Content-Encoding"), body=body.strip())))

    return defect


def needs_signature_first(_world: World) -> Defect:
    def defect(sent: Sent, forward: Forward) -> Reply:
        missing = sent.is_replay and not sent.signature and not sent.header("Authorization")
        return problem(401, "unauthenticated") if missing else forward(sent)

    return defect


def validates_before_authentication(world: World) -> Defect:
    def defect(sent: Sent, forward: Forward) -> Reply:
        if sent.is_replay and not sent.signature:
            reply = forward(world.signed(sent))
            if reply.status == 400:
                return reply
        return forward(sent)

    return defect


def authorises_before_validation(_world: World) -> Defect:
    def defect(sent: Sent, forward: Forward) -> Reply:
        reply = forward(sent)
        return problem(403, "forbidden") if reply.status == 400 and company_of(sent) else reply

    return defect


def _plain(sent: Sent) -> bool:
    fields = fields_of(sent)
    return sent.is_replay and set(fields) - {"company_id"} == {"max"} and fields["max"] == 10


SURFACE = [
    Planted(
        "the target is never ready",
        answers(lambda sent: sent.path == "/readyz", lambda reply: replace(reply, status=503)),
        (f"{HTTP_SURFACE}/ready",),
    ),
    Planted(
        "metrics need credentials",
        answers(lambda sent: sent.path == "/metrics", lambda _reply: problem(401, "unauthenticated")),
        (f"{HTTP_SURFACE}/open-routes",),
    ),
    Planted("any media type is read", reads_any_media_type, (f"{HTTP_SURFACE}/media-type-*",)),
    Planted(
        "a charset is not understood",
        refuses(lambda sent: "charset" in (sent.header("Content-Type") or ""), 415),
        (f"{HTTP_SURFACE}/charset",),
    ),
    Planted(
        "Allow is not sent", whenever(405, lambda reply: reply.without("Allow")), (f"{HTTP_SURFACE}/other-methods",)
    ),
    Planted("TRACE echoes", echoes_trace, (f"{HTTP_SURFACE}/trace",)),
    Planted("a header changes the method", obeys_override, (f"{HTTP_SURFACE}/method-override",)),
    Planted(
        "other spellings of the path lead around the checks",
        normalises_paths,
        (f"{HTTP_SURFACE}/path-variants", "drill/rate-limit/path-variants-share"),
    ),
    Planted(
        "the limit of size is one byte short",
        refuses(lambda sent: len(sent.body) >= 65_536, 413),
        (f"{HTTP_SURFACE}/body-at-the-limit",),
    ),
    Planted(
        "bodies have no limit",
        has_no_size_limit,
        (
            f"{HTTP_SURFACE}/body-over-the-limit",
            f"{HTTP_SURFACE}/body-of-1-mebibyte",
            f"{HTTP_SURFACE}/chunked-body-over-the-limit",
            f"{HTTP_SURFACE}/compressed-bomb",
        ),
    ),
    Planted(
        "bodies are framed carelessly",
        lambda _world: no_defect,
        (
            f"{HTTP_SURFACE}/length-and-chunks",
            f"{HTTP_SURFACE}/two-lengths",
            f"{HTTP_SURFACE}/odd-chunked",
            f"{HTTP_SURFACE}/bad-chunk-size",
        ),
    ),
    Planted(
        "refusals are plain JSON",
        whenever(415, lambda reply: reply.having("Content-Type", "application/json")),
        (f"{HTTP_SURFACE}/problem-documents",),
    ),
    Planted(
        "all answers have one id",
        answers(lambda _sent: True, lambda reply: reply.having("X-Request-Id", "1")),
        (f"{HTTP_SURFACE}/request-ids",),
    ),
    Planted(
        "refusals name no field",
        whenever(400, lambda reply: with_json(reply, errors=[])),
        (f"{HTTP_SURFACE}/validation-names-the-field",),
        ("drill/safety-rails/max-zero",),
    ),
    Planted(
        "refusals show a stack",
        whenever(400, lambda reply: with_json(reply, detail='Traceback (most recent call last):\n  File "/x"')),
        (f"{HTTP_SURFACE}/refusals-leak-nothing",),
    ),
    Planted(
        "refusals show a stack of another language",
        whenever(400, lambda reply: with_json(reply, trace="Error: no\n    at serve (/srv/app/server.js:52:27)")),
        (f"{HTTP_SURFACE}/refusals-leak-nothing",),
    ),
    Planted(
        "refusals show the service's database",
        whenever(400, lambda reply: with_json(reply, debug="postgresql://replay_service:hidden@db:5432/replay")),
        (f"{HTTP_SURFACE}/refusals-leak-nothing",),
    ),
    Planted(
        "nothing is validated",
        whenever(400, lambda _reply: problem(403, "forbidden")),
        (
            "drill/safety-rails/max-zero",
            *(f"drill/safety-rails/{p}" for p in ("max-neg*", "max-s*", "max-fr*", "max-boo*", "max-null", "max-list")),
            *(
                f"drill/safety-rails/{p}"
                for p in ("max-float", "max-exp*", "max-not*", "max-inf*", "max-min*", "max-unq*")
            ),
            *(
                f"drill/safety-rails/{p}"
                for p in ("max-over*", "max-huge", "max-beyond*", "dlq-ids-*", "error-type-empty")
            ),
            *(
                f"drill/safety-rails/{p}"
                for p in ("error-type-too*", "error-type-n*", "force-string", "force-nu*", "key-e*")
            ),
            *(
                f"drill/safety-rails/{p}"
                for p in ("key-too*", "key-control*", "key-line*", "key-no*", "key-null", "*-field")
            ),
            *(
                f"drill/safety-rails/{p}"
                for p in ("field-in-*", "company-*", "json-*", "event-*", "validation-before*")
            ),
            *(f"drill/dry-run/{p}" for p in ("string-*", "number-*", "word-no", "null", "list", "misspelt-field")),
            "drill/proof/oversized-batch-refused",
        ),
    ),
    Planted(
        "only the plainest replay is accepted",
        refuses(lambda sent: sent.is_replay and bool(fields_of(sent)) and not _plain(sent), 400),
        (
            *(
                f"drill/safety-rails/{p}"
                for p in ("max-1-acc*", "max-50-acc*", "key-of-200*", "error-type-of*", "all-fields*")
            ),
        ),
    ),
    Planted(
        "the signature is asked for first",
        needs_signature_first,
        ("drill/safety-rails/media-type-before-authentication",),
    ),
    Planted(
        "bodies are validated before they are authenticated",
        validates_before_authentication,
        ("drill/safety-rails/authentication-before-validation",),
    ),
    Planted(
        "companies are authorised before bodies are validated",
        authorises_before_validation,
        ("drill/safety-rails/validation-before-authorisation",),
    ),
]
