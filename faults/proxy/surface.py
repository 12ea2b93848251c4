"""Faults of the HTTP surface and of validation, made by a proxy."""

import gzip
import itertools
import json
import uuid
from collections.abc import Callable
from dataclasses import replace

from faults.catalogue import proxy
from faults.proxy.rewriting import (
    Fields,
    Make,
    World,
    acts,
    after,
    answers,
    company_of,
    fields_of,
    json_of,
    problem,
    refuses,
    rereads,
    whenever,
    with_json,
)
from faults.proxy.server import Defect, Forward, Reply, Sent, framed_carelessly

SURFACE = "drill/http-surface"
RAILS = "drill/safety-rails"


def normalises_paths(world: World, sent: Sent) -> Sent:
    """Another spelling of the path is routed past authentication, and past the limit."""
    if sent.method != "POST" or sent.path == "/dlq-replay" or "replay" not in sent.path.lower().replace("%2d", "-"):
        return sent
    world.forget(company_of(sent))
    return world.signed(replace(sent, path="/dlq-replay"))


def echoes_trace(_world: World, sent: Sent, _reply: Reply) -> Reply | None:
    if sent.method != "TRACE":
        return None
    return Reply(200, (("Content-Type", "message/http"),), "\r\n".join(f"{k}: {v}" for k, v in sent.headers).encode())


def has_no_size_limit(world: World, sent: Sent) -> Sent:
    """Bodies of any size are read, and compressed ones unfolded."""
    body = gzip.decompress(sent.body) if sent.header("Content-Encoding") == "gzip" else sent.body
    if len(body) <= 65_536:
        return sent
    return world.signed(replace(sent.without("Content-Encoding"), body=body.strip()))


@acts
def validates_before_authentication(world: World, sent: Sent, forward: Forward) -> Reply:
    if sent.is_replay and not sent.signature:
        reply = forward(world.signed(sent))
        if reply.status == 400:
            return reply
    return forward(sent)


def _is_plain(sent: Sent) -> bool:
    fields = fields_of(sent)
    return sent.is_replay and set(fields) - {"company_id", "dry_run"} == {"max"} and fields["max"] == 10


def with_header(name: str, value: str | None) -> Make:
    """Every answer has this header; None: no answer has it."""
    return after(lambda _w, _sent, reply: reply.having(name, value) if value else reply.without(name))


def refusing(change: Callable[[World, Fields], Fields]) -> Make:
    """Problem documents are other than they should be."""

    def changed(world: World, _sent: Sent, reply: Reply) -> Reply | None:
        is_problem = reply.status >= 400 and reply.body.startswith(b"{")
        return replace(reply, body=json.dumps(change(world, json_of(reply))).encode()) if is_problem else None

    return after(changed)


def on_version(change: Callable[[Fields], Fields]) -> Make:
    """/version has these members replaced."""
    return answers(
        lambda sent: sent.path == "/version",
        lambda reply: replace(reply, body=json.dumps(change(json_of(reply))).encode()),
    )


def _with_settings(world: World, reply: Reply) -> Reply:
    return with_json(reply, settings=world.environ["TRANSBOT_HMAC_SECRET"])


def takes_turns(world: World) -> Defect:
    """/version names another release at every second request, as during a half-finished deployment."""
    turns = itertools.count()
    old = {"release": "0.0.0-before", "instance": "old"}
    return on_version(lambda said: {**said, **old} if next(turns) % 2 else said)(world)


def obeys_override(_world: World, sent: Sent) -> Sent:
    names = ("X-HTTP-Method-Override", "X-Method-Override", "X-HTTP-Method")
    return replace(sent, method=next(filter(None, map(sent.header, names)), sent.method))


def page_for_browsers(_world: World, sent: Sent, reply: Reply) -> Reply | None:
    wanted = reply.status >= 400 and "text/html" in (sent.header("Accept") or "")
    return replace(reply.having("Content-Type", "text/html"), body=b"<h1>No</h1>") if wanted else None


def on_ready(status: int) -> Make:
    """/readyz always answers with this status."""
    return answers(lambda sent: sent.path == "/readyz", lambda reply: replace(reply, status=status))


def _opened_to(origin: str, reply: Reply) -> Reply:
    named = reply.having("Access-Control-Allow-Origin", origin) if origin else reply
    return named.having("Access-Control-Allow-Credentials", "true")


def _in_utf16(reply: Reply) -> Reply | None:
    kind = next((value for name, value in reply.headers if name.lower() == "content-type"), "")
    return reply.having("Content-Type", f"{kind}; charset=utf-16") if "json" in kind else None


def _accepted(reply: Reply) -> Reply:
    said = {"event_id": str(uuid.uuid4()), "path": "outbox", "duplicate": False}
    kept = reply.having("Content-Type", "application/json")
    return replace(kept, status=202, body=json.dumps(said).encode()) if reply.status >= 500 else reply


DEBUG = ("/debug", "/debug/vars", "/env", "/config", "/actuator/env", "/_debug")
TRACE = 'Traceback (most recent call last):\n  File "/app/replay_service/replay.py", line 71, in replay'

proxy(
    "surface/no-request-id",
    with_header("X-Request-Id", None),
    (f"{SURFACE}/request-ids", "drill/observability/request-id-in-the-trail"),
    "Answers have no X-Request-Id.",
)
proxy(
    "surface/same-request-id",
    with_header("X-Request-Id", "00000000-0000-4000-8000-00000000cafe"),
    (f"{SURFACE}/request-ids", "drill/observability/request-id-in-the-trail"),
    "Every answer has the same X-Request-Id.",
)
proxy(
    "surface/what-is-not-found-has-no-request-id",
    whenever(404, lambda reply: reply.without("X-Request-Id")),
    (f"{SURFACE}/request-ids",),
    "The answer that something is not there has no X-Request-Id.",
)
proxy(
    "surface/what-is-accepted-or-read-has-no-request-id",
    after(lambda _w, sent, reply: None if sent.is_replay or reply.status > 202 else reply.without("X-Request-Id")),
    ("drill/observability/request-id-in-the-trail",),
    "An accepted event, and the status of a run, have no X-Request-Id.",
)
proxy(
    "surface/any-page",
    after(lambda _w, sent, reply: _opened_to(sent.header("Origin") or "", reply)),
    (f"{SURFACE}/foreign-pages",),
    "A page of anybody's may read answers with the credentials of whoever looks at it.",
)
proxy(
    "surface/any-page-reads",
    after(lambda _w, sent, reply: _opened_to(sent.header("Origin") or "", reply) if sent.method == "GET" else None),
    (f"{SURFACE}/foreign-pages",),
    "A page of anybody's may read runs and events with the credentials of whoever looks at it.",
)
proxy(
    "surface/errors-of-the-commit-are-nobody's",
    answers(lambda sent: sent.path.endswith("/events"), _accepted),
    ("drill/outbox/commit-that-fails",),
    "An event that the database refuses at the commit is answered as accepted.",
    production=False,
)
proxy(
    "surface/heads-are-answered-as-if-they-were-reads",
    answers(lambda sent: (sent.method, sent.path) == ("HEAD", "/dlq-replay"), lambda reply: replace(reply, status=200)),
    (f"{SURFACE}/other-methods",),
)
proxy("surface/no-allow", with_header("Allow", None), (f"{SURFACE}/other-methods",), "A 405 has no Allow.")
proxy(
    "surface/other-methods-are-not-found",
    whenever(405, lambda _reply: problem(404, "not_found")),
    (f"{SURFACE}/other-methods",),
    "Another method is answered 404, as by a router that looks for method and path together.",
)
proxy(
    "surface/no-allow-at-the-events",
    after(lambda _w, sent, reply: reply.without("Allow") if sent.path.endswith("/events") else None),
    (f"{SURFACE}/other-methods",),
    "A 405 of the events has no Allow.",
)
proxy(
    "surface/problems-are-json",
    after(lambda _w, _s, reply: reply.having("Content-Type", "application/json") if reply.status >= 400 else None),
    (f"{SURFACE}/problem-documents", f"{SURFACE}/late-problem-documents"),
    "Problems are sent as plain application/json.",
)
proxy(
    "surface/problems-without-code",
    refusing(lambda _w, said: {n: v for n, v in said.items() if n != "code"}),
    (f"{SURFACE}/problem-documents", f"{SURFACE}/late-problem-documents", "drill/proof/oversized-batch-refused"),
    "Problems have no `code`.",
    decision="rollback",
)
proxy(
    "surface/stack-traces",
    refusing(lambda _w, said: {**said, "detail": TRACE}),
    (f"{SURFACE}/refusals-leak-nothing",),
    "Errors carry a stack trace.",
)
proxy(
    "surface/database-url-in-errors",
    refusing(lambda world, said: {**said, "debug": world.environ["DATABASE_URL"]}),
    (f"{SURFACE}/refusals-leak-nothing",),
    "Errors quote the database.",
)
proxy(
    "surface/settings-on-a-page",
    after(lambda w, sent, reply: _with_settings(w, reply) if sent.path == "/version" else None),
    (f"{SURFACE}/refusals-leak-nothing",),
    "/version shows the settings of the service, its secrets among them, to anyone.",
    names=("/version",),
)
proxy(
    "surface/always-ready",
    on_ready(200),
    ("drill/identity/not-ready-without-database", "drill/identity/not-ready-without-worker"),
    "/readyz says ready although the database is gone, or every worker.",
    production=False,
)
proxy(
    "surface/never-ready",
    on_ready(503),
    (f"{SURFACE}/ready", "preflight/ready"),
    "/readyz says 503 although all is well.",
    decision="hold",
)
proxy("surface/readiness-is-broken", on_ready(500), ("drill/identity/alive-and-ready",))
proxy(
    "surface/other-release",
    on_version(lambda said: {**said, "release": "0.0.0-forgotten"}),
    ("preflight/release", "drill/identity/one-release-on-every-instance"),
    "/version says another release than was deployed.",
)
proxy(
    "surface/mixed-releases",
    takes_turns,
    ("preflight/release", "drill/identity/one-release-on-every-instance"),
    "Of the instances one in two still runs the release before.",
)
proxy(
    "surface/version-without-schema",
    on_version(lambda said: {n: v for n, v in said.items() if n != "schema_version"}),
    ("drill/identity/version-says-what-it-is",),
    "/version tells no schema version.",
)
proxy(
    "surface/any-media-type",
    rereads(lambda _w, sent: sent.having("Content-Type", "application/json") if sent.is_replay else sent),
    (f"{SURFACE}/media-type-*",),
    "The media type is not looked at.",
)
proxy(
    "surface/events-of-any-media-type",
    rereads(lambda _w, sent: sent.having("Content-Type", "application/json") if sent.path == "/events" else sent),
    (f"{SURFACE}/problem-documents",),
    "The media type of an event is not looked at.",
)
proxy(
    "surface/method-override",
    rereads(obeys_override),
    (f"{SURFACE}/method-override",),
    "X-HTTP-Method-Override is obeyed.",
)
proxy(
    "surface/deletes-are-obeyed",
    answers(
        lambda sent: (sent.method, sent.path) == ("DELETE", "/dlq-replay") and bool(sent.body),
        lambda reply: replace(reply, status=204, body=b""),
    ),
    (f"{SURFACE}/other-methods",),
    "A DELETE with a signed body clears the dead letters of its company.",
)
proxy(
    "surface/debug-route",
    answers(lambda sent: sent.path in DEBUG, lambda reply: replace(reply, status=200, body=b'{"pool": 12}')),
    ("drill/identity/no-debug-routes",),
    "A debug route shows the configuration.",
)
proxy(
    "surface/metrics-need-credentials",
    answers(lambda sent: sent.path == "/metrics", lambda _reply: problem(401, "unauthenticated")),
    (f"{SURFACE}/open-routes",),
)
proxy(
    "surface/a-charset-is-not-understood",
    refuses(lambda sent: sent.header("Content-Type") == "application/json;charset=UTF-8", 415),
    (f"{SURFACE}/charset",),
)
proxy(
    "surface/answers-say-another-charset",
    after(lambda _w, _s, reply: _in_utf16(reply)),
    (f"{SURFACE}/charset",),
    "Answers in JSON say that they are UTF-16: who believes it reads other text.",
)
proxy(
    "surface/brackets-in-a-text-are-nesting",
    refuses(lambda sent: sent.body.count(b"[") + sent.body.count(b"{") > 64, 400),
    (f"{SURFACE}/signs-in-text",),
)
proxy(
    "surface/nesting-of-64-is-refused",
    refuses(lambda sent: sent.path == "/events" and sent.body.count(b"[") + sent.body.count(b"{") == 64, 400),
    (f"{SURFACE}/nesting",),
)
proxy(
    "surface/a-page-for-browsers",
    after(page_for_browsers),
    (f"{SURFACE}/problem-documents",),
    "A browser is told of a refusal by a page, not by a problem document.",
)
proxy("surface/trace-echoes", after(echoes_trace), (f"{SURFACE}/trace",))
proxy(
    "surface/other-spellings-of-the-path-lead-around-the-checks",
    rereads(normalises_paths),
    (f"{SURFACE}/path-variants", "drill/rate-limit/path-variants-share"),
)
proxy(
    "surface/the-limit-of-size-is-one-byte-short",
    refuses(lambda sent: len(sent.body) >= 65_536, 413),
    (f"{SURFACE}/body-at-the-limit",),
)
proxy(
    "surface/bodies-have-no-limit",
    rereads(has_no_size_limit),
    (
        *(f"{SURFACE}/{name}" for name in ("body-over-the-limit", "body-of-1-mebibyte")),
        *(f"{SURFACE}/{name}" for name in ("chunked-body-over-the-limit", "compressed-bomb")),
    ),
)
proxy(
    "surface/framed-carelessly",
    lambda _world: framed_carelessly,
    tuple(f"{SURFACE}/{name}" for name in ("length-and-chunks", "two-lengths", "odd-chunked", "bad-chunk-size")),
    "The ends of bodies are read from the wrong header: one request can be hidden in another.",
)
proxy(
    "surface/refusals-show-a-stack-of-another-language",
    whenever(400, lambda reply: with_json(reply, trace="Error: no\n    at serve (/srv/app/server.js:52:27)")),
    (f"{SURFACE}/refusals-leak-nothing",),
)
proxy(
    "surface/late-refusals-have-other-codes",
    whenever(429, lambda reply: with_json(reply, code="too_many_requests")),
    (f"{SURFACE}/late-problem-documents",),
)
proxy(
    "surface/nothing-is-validated",
    whenever(400, lambda _reply: problem(403, "forbidden")),
    (
        *(f"{RAILS}/{name}" for name in ("max-zero", "max-neg*", "max-s*", "max-fr*", "max-boo*", "max-null")),
        *(f"{RAILS}/{name}" for name in ("max-list", "max-float", "max-exp*", "max-not*", "max-inf*", "max-min*")),
        *(f"{RAILS}/{name}" for name in ("max-unq*", "max-over*", "max-huge", "max-beyond*", "dlq-ids-*")),
        *(f"{RAILS}/{name}" for name in ("error-type-empty", "error-type-too*", "error-type-n*", "force-string")),
        *(f"{RAILS}/{name}" for name in ("force-nu*", "key-e*", "key-too*", "key-control*", "key-line*", "key-no*")),
        *(f"{RAILS}/{name}" for name in ("key-null", "*-field", "field-in-*", "company-*", "json-*", "event-*")),
        *(f"drill/dry-run/{name}" for name in ("string-*", "number-*", "word-no", "null", "list", "misspelt-field")),
        f"{RAILS}/validation-before*",
        "drill/proof/oversized-batch-refused",
    ),
)
proxy(
    "surface/only-the-plainest-replay-is-accepted",
    refuses(
        lambda sent: sent.is_replay and bool(sent.signature) and bool(fields_of(sent)) and not _is_plain(sent), 400
    ),
    tuple(f"{RAILS}/{n}" for n in ("max-1-acc*", "max-50-acc*", "key-of-200*", "error-type-of*", "all-fields*")),
)
proxy(
    "surface/the-signature-is-asked-for-first",
    refuses(lambda sent: sent.is_replay and not sent.signature and not sent.header("Authorization")),
    (f"{RAILS}/media-type-before-authentication",),
)
proxy(
    "surface/bodies-are-validated-before-they-are-authenticated",
    validates_before_authentication,
    (f"{RAILS}/authentication-before-validation", "drill/rate-limit/unsigned-do-not-count"),
    decision="rollback",
)
proxy(
    "surface/companies-are-authorised-before-bodies-are-validated",
    after(lambda _w, sent, reply: problem(403, "forbidden") if reply.status == 400 and company_of(sent) else None),
    (f"{RAILS}/validation-before-authorisation",),
)
