"""The HTTP surface: methods, media types, sizes, paths, and the form of every refusal."""

import re
import time
import uuid
from functools import partial

from drills.workbench.bench import Bench
from drills.workbench.checks import SIGNED, Case, cases
from drills.workbench.credentials import REPLAY, spellings
from gates.checks.recorder import Observer, check
from gates.deployment.dialect.current import current
from gates.deployment.http import probes
from gates.deployment.http.client import HttpDoor
from gates.deployment.requests import Answer, Request
from gates.evidence import Severity, Where

drill = partial(check, after=SIGNED, where=Where.READ_ONLY, severity=Severity.WARN)

READY = "drill/http-surface/ready"
READY_WITHIN_S = 3.0
OPEN_ROUTES = ("/healthz", "/readyz", "/version", "/metrics", "/openapi.json")


@check(READY, severity=Severity.WARN, where=Where.READ_ONLY, phase="first")
def test_ready(http: HttpDoor, seen: Observer) -> None:
    """The target is alive and says that it is ready.

    The release does not run, or its database, schema or worker is not there.
    """
    alive = Request("GET", "/healthz", label="alive")
    seen.expect(alive, http.send(alive), 200, control=True)
    ready = Request("GET", "/readyz", label="ready")
    deadline = time.monotonic() + READY_WITHIN_S
    answer = http.send(ready)
    while answer.status != 200 and time.monotonic() < deadline:
        time.sleep(0.1)
        answer = http.send(ready)
    seen.expect(ready, answer, 200, busy=answer.status != 429)


# --- every route needs credentials -------------------------------------------------------------------------------


def _routes(http: HttpDoor) -> list[tuple[str, str]]:
    """Method and path of the contract's protected routes, and of other writing routes that the target documents."""
    known = [("POST", REPLAY), ("GET", f"{REPLAY}/{{id}}"), ("POST", "/events"), ("GET", "/events/{id}")]
    shapes = {(m, "/".join("{}" if s.startswith("{") else s for s in p.split("/"))) for m, p in known}
    documented = http.send(Request("GET", "/openapi.json")).json().get("paths")
    for path, operations in (documented if isinstance(documented, dict) else {}).items():
        place = path[path.find(REPLAY) :] if REPLAY in path else path
        shape = "/".join("{}" if s.startswith("{") else s for s in place.split("/"))
        for method in operations if isinstance(operations, dict) else ():
            verb = str(method).upper()
            if verb in {"POST", "PUT", "PATCH", "DELETE"} and not any(
                shape.endswith(s) and verb == m for m, s in shapes
            ):
                known.append((verb, place))
    return known


@check("drill/http-surface/every-route-needs-credentials", where=Where.READ_ONLY, after=SIGNED, covers=("A02",))
def test_every_route(bench: Bench) -> None:
    """Every route but the five open ones refuses a request without credentials.

    One forgotten route lets anyone read or write what the others protect.
    """
    bench.opens(bench.signed())
    routes = _routes(bench.http)
    for index, (method, path) in enumerate(routes):
        filled = "/".join(str(uuid.uuid4()) if s.startswith("{") else s for s in path.split("/"))
        body = b"" if method in {"GET", "DELETE"} else probes.IMPOSSIBLE
        headers = (("Content-Type", "application/json"),) if body else ()
        request = Request(method, filled, headers, body, f"{method} {path} without credentials")
        bench.refused(request, 401 if index < 4 else (401, 403, 404, 405, 415))
    bench.seen.value(len(routes), unit="routes")


@drill("drill/http-surface/open-routes", after=(READY,), covers=("A02",))
def test_open_routes(http: HttpDoor, seen: Observer) -> None:
    """The five routes for machines answer without credentials.

    Probes and monitoring get no answers, and take a healthy release for a dead one.
    """
    for path in OPEN_ROUTES:
        request = Request("GET", path, label=path)
        seen.expect(request, http.send(request), 200)
    seen.control(f"{len(OPEN_ROUTES)} routes asked without credentials")


# --- media type ---------------------------------------------------------------------------------------------------

MEDIA_TYPES = [
    Case("media-type-text", "A signed body sent as text/plain is refused with 415.", "text/plain"),
    Case("media-type-form", "A signed body sent as a form is refused with 415.", "application/x-www-form-urlencoded"),
    Case(
        "media-type-multipart",
        "A signed body sent as multipart is refused with 415.",
        "multipart/form-data; boundary=x",
    ),
    Case("media-type-missing", "A signed body without a content type is refused with 415.", None),
    Case("media-type-look-alike", "A media type that only begins like JSON is refused with 415.", "application/jsonx"),
]


@cases("drill/http-surface", MEDIA_TYPES, severity=Severity.WARN, where=Where.READ_ONLY, after=SIGNED, covers=("A21",))
def test_media_type(case: Case, bench: Bench) -> None:
    """Only application/json is read.

    A web page can send such a request without asking the browser's permission.
    """
    good = bench.signed()
    bench.opens(good)
    bare = good.without_header("Content-Type").labelled(case.name)
    bench.refused(bare if case.value is None else bare.adding_header("Content-Type", case.value), 415)


CHARSET = re.compile(r"charset\s*=\s*[\"']?([^\s;\"']+)")


@drill("drill/http-surface/charset", covers=("A21",))
def test_charset(bench: Bench) -> None:
    """`application/json; charset=utf-8`, also spelt as `;charset=UTF-8`, is accepted and `charset=utf-16` refused; no
    JSON answer claims another charset than UTF-8.

    Common clients are locked out, or signed bytes, or answers, are decoded as other text.
    """
    good = bench.signed()
    answers = [bench.opens(good), bench.http.send(Request("GET", "/version"))]
    for spelt in ("; charset=utf-8", ";charset=UTF-8"):
        bench.taken(good.with_header("Content-Type", f"application/json{spelt}").labelled(f"application/json{spelt}"))
    for answer in answers:
        kind = (answer.header("content-type") or "").lower()
        named = CHARSET.search(kind) if "json" in kind else None
        assert not named or named[1] in {"utf-8", "utf8"}, f"an answer in JSON is {kind!r}; due: UTF-8 (RFC 8259)"
    wide = bench.signed(bench.body().decode().encode("utf-16-le")).with_header(
        "Content-Type", "application/json; charset=utf-16"
    )
    bench.refused(wide.labelled("a body in utf-16 that says so"), (400, 415))


def _is_read(answer: Answer) -> bool:
    """Whether the endpoint has read a valid request.

    A front end's page for any path, or its refusal of one that it takes for malformed, is not the endpoint.
    """
    replayed = answer.status < 300 and answer.json().get("status") is not None
    return replayed or answer.code in {"forbidden", "rate_limited", "feature_disabled"}


# --- methods ------------------------------------------------------------------------------------------------------


@drill("drill/http-surface/other-methods", covers=("A29",))
def test_other_methods(bench: Bench) -> None:
    """Other methods on the endpoints of replays and of events are refused with 405 and `Allow`, even if correctly
    signed.

    A method that nobody thought of bypasses the checks.
    """
    good, empty = bench.signed(), bench.signed(b"")
    bench.opens(good)
    bodiless = {"GET", "HEAD", "DELETE"}
    asked = [(m, REPLAY, empty if m in bodiless else good) for m in (*sorted(bodiless), "PUT", "PATCH")]
    if current().takes_events:
        asked += [(m, "/events", bench.event(b"" if m == "DELETE" else None)) for m in ("PUT", "DELETE", "PATCH")]
    for method, path, signed in asked:
        answer = bench.refused(Request(method, path, signed.headers, signed.body, f"{method} {path}"), 405)
        allowed = answer.header("allow") or ""
        assert "POST" in allowed.upper(), f"{method} {path}: Allow is {allowed!r}; due: a list with POST"
    for method in ("OPTIONS", "DELETE", "QUERY"):  # a gateway may answer them itself
        request = Request(method, REPLAY, good.headers, good.body, f"{method} {REPLAY} with a body")
        answer = bench.http.send(request)
        is_obeyed = _is_read(answer) or (method == "DELETE" and answer.status < 300)
        bench.seen.expect(request, answer, 405 if is_obeyed else answer.status)


@drill("drill/http-surface/trace", covers=("A29",))
def test_trace(bench: Bench) -> None:
    """TRACE is refused and echoes nothing.

    TRACE shows a caller's credentials to anyone who can read the answer.
    """
    good = bench.signed()
    bench.opens(good)
    answer = bench.refused(Request("TRACE", REPLAY, good.headers, b"", "TRACE"), (400, 401, 403, 404, 405, 501))
    assert bench.mac(good.body).encode() not in answer.body, "the answer to TRACE echoes the signature"


@drill("drill/http-surface/method-override", covers=("A29",))
def test_method_override(bench: Bench) -> None:
    """No header turns one method into another.

    Behind a proxy that allows only reads, writes get through.
    """
    good = bench.signed()
    bench.opens(good)
    for name in ("X-HTTP-Method-Override", "X-Method-Override", "X-HTTP-Method"):
        read = Request("GET", REPLAY, good.headers, b"", f"GET with {name}: POST").adding_header(name, "POST")
        bench.refused(read, 405)
        bench.taken(good.adding_header(name, "DELETE").labelled(f"POST with {name}: DELETE"))


# --- paths --------------------------------------------------------------------------------------------------------


@check("drill/http-surface/path-variants", where=Where.READ_ONLY, after=SIGNED, covers=("A30",))
def test_path_variants(bench: Bench) -> None:
    """No other spelling of the path, of replays or of events, bypasses authentication.

    A doubled slash opens what the exact path protects.
    """
    bench.opens(bench.signed())
    for right in (bench.signed(), *[bench.event()] * current().takes_events):
        for path in spellings(right.path):
            bare = Request("POST", path, (("Content-Type", "application/json"),), right.body, f"POST {path}, unsigned")
            answer = bench.http.send(bare)
            bench.seen.expect(bare, answer, answer.status if not _is_read(answer) and answer.status < 500 else 401)
