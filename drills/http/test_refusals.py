"""The form of every refusal: a problem document with a stable code, an id, and nothing that helps an attacker."""

import re
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial

from drills.workbench.bench import Bench
from drills.workbench.checks import SIGNED
from drills.workbench.credentials import REPLAY
from drills.workbench.scene import Scene
from drills.workbench.traces import traces_in
from gates.checks.recorder import check
from gates.deployment.dialect.current import current
from gates.deployment.dialect.exchange import can_be_said, real_body, real_member
from gates.deployment.ids import ids_have_spellings
from gates.deployment.redaction import telling
from gates.deployment.requests import SIGNATURE, Answer, Request, encode_body, post, signed_get
from gates.deployment.tenants.tenants import REPLAY_FLAG
from gates.evidence import Severity, Where

drill = partial(check, after=SIGNED, where=Where.READ_ONLY, severity=Severity.WARN)

BODY_LIMIT = 65_536
GIVEN = {SIGNATURE, "Authorization"}
"""Headers that carry credentials."""
OPEN = ("/healthz", "/readyz", "/version", "/metrics", "/openapi.json")
"""Pages that anyone may read."""


def _padded(body: bytes, size: int) -> bytes:
    return body + b" " * (size - len(real_body(body)))


def _refusals(bench: Bench) -> Mapping[str, tuple[Request, int]]:
    good = bench.signed()
    of_events = {"415 of an event": (bench.event().with_header("Content-Type", "text/plain"), 415)}
    return {
        "400": (bench.signed(bench.body(max=0)), 400),
        "401": (post(REPLAY, good.body), 401),
        "403": (good, 403),
        "405": (Request("PUT", REPLAY, good.headers, good.body), 405),
        "413": (bench.signed(_padded(good.body, BODY_LIMIT + 1)), 413),
        "415": (good.with_header("Content-Type", "text/plain"), 415),
        **(of_events if current().takes_events else {}),
    }


CODES = {
    400: "invalid_request",
    401: "unauthenticated",
    403: "forbidden",
    413: "body_too_large",
    415: "unsupported_media_type",
}


BROWSER = "text/html,application/xhtml+xml,*/*;q=0.8"


@drill("drill/http-surface/problem-documents", covers=("I02",))
def test_problem_documents(bench: Bench) -> None:
    """Every refusal, of an event too, is a problem document with type, title, status, detail and its stable code, for
    browsers too.

    Clients must guess from texts what was wrong.
    """
    bench.seen.control("refusals of known kinds")
    for name, (request, status) in _refusals(bench).items():
        for sent in (request, request.with_header("Accept", BROWSER)):
            answer = bench.refused(sent.labelled(f"a refusal with {name}"), status)
            wrong = answer.unlike_a_problem()
            assert not wrong, f"{name}: {wrong}"
            due = CODES.get(status, answer.code)
            assert answer.code == due, f"{name}: code {answer.code!r}; due: {due!r}"


@check(
    "drill/http-surface/late-problem-documents",
    severity=Severity.WARN,
    needs=("database",),
    after=SIGNED,
    covers=("I02",),
)
def test_late_problem_documents(scene: Scene) -> None:
    """Refusals after validation are problem documents too, with the code of their step.

    A client that knows `rate_limited` by its code alone waits; one that must guess sends again at once.
    """
    for code, answer in _late_refusals(scene):
        wrong = answer.unlike_a_problem()
        assert not wrong, f"{code}: {wrong}"
        assert answer.code == code, f"{code}: code {answer.code!r}; due: {code!r}"
        scene.seen.count()


def _late_refusals(scene: Scene) -> Iterator[tuple[str, Answer]]:
    """One refusal of each later step, with the code that is due."""
    company, refused = scene.company("a"), scene.company("b")
    if scene.claims("flags"):
        scene.set_flag(refused, REPLAY_FLAG, enabled=False)
        yield "feature_disabled", scene.replay(refused, 403, max=1)
        scene.set_flag(refused, REPLAY_FLAG, enabled=True)
    if scene.claims("pause"):
        scene.pause(refused)
        yield "agents_paused", scene.replay(refused, 409, max=1)
        scene.pause(refused, on=False)
    if scene.claims("budgets"):
        scene.budget(refused, daily_limit=0)
        yield "budget_exhausted", scene.replay(refused, 429, "budget_exhausted", max=1)
    key = str(uuid.uuid4())
    scene.run(company, max=1, idempotency_key=key)
    yield "idempotency_key_reused", scene.replay(company, 422, max=2, idempotency_key=key)
    for _ in range(current().limit("calls") - 2):
        scene.run(company, max=1)
    yield "rate_limited", scene.replay(company, 429, max=1)
    yield "forbidden", scene.replay(str(uuid.uuid4()), 403, max=1)


@drill("drill/http-surface/validation-names-the-field")
def test_validation_names_the_field(bench: Bench) -> None:
    """A refusal for an invalid body, of a replay or of an event, names the field and says why.

    An operator in an incident must guess which of his arguments is wrong.
    """
    bench.opens(bench.signed())
    odd_ids = "x" if not ids_have_spellings() else ["x"]  # where ids are text, x is one
    odd = {"max": 0, "dry_run": "yes", "dlq_ids": odd_ids, "idempotency_key": ""}
    bodies = {field: bench.body(**{field: value}) for field, value in odd.items()}
    asked = {field: bench.signed(body, f"a replay, {field}") for field, body in bodies.items() if can_be_said(body)}
    if current().takes_events:
        untyped = {"company_id": bench.company, "aggregate_key": "k", "payload": {"n": 1}}
        asked["event_type"] = bench.event(encode_body(untyped)).labelled("an event without event_type")
    for field, request in asked.items():
        found = bench.refused(request, 400, "invalid_request").json().get("errors")
        errors = [e for e in found if isinstance(e, dict)] if isinstance(found, list) else []
        named = [str(e.get("field", "")) for e in errors]
        is_named = any(re.search(rf"\b({field}|{re.escape(real_member(field))})\b", one) for one in named)
        assert is_named, f"{field}: the errors name {named}; due: {field}"
        assert all(e.get("message") for e in errors), f"{field}: an error has no message"


@drill("drill/http-surface/request-ids", covers=("D14",))
def test_request_ids(bench: Bench) -> None:
    """Every answer has an X-Request-Id of its own, also that of a page that anyone may read.

    Without it nobody finds the audit row of the request that a user reports.
    """
    bench.seen.control("accepted and refused requests alike")
    read = [(bench.signed_read(), 404)] if current().shows_runs else []
    found = [bench.refused(request, status).request_ids for request, status in [*_refusals(bench).values(), *read]]
    pages = [bench.http.send(Request("GET", path)) for path in OPEN]
    found += [page.request_ids for page in pages if page.status == 200]
    times = Counter(one for ids in found for one in {*ids})
    own = [ids for ids in found if ids and all(times[one] == 1 for one in ids)]
    bench.seen.value(len(own), len(found), "answers with ids of their own")
    assert all(found), f"{found.count([])} of {len(found)} answers have no X-Request-Id"
    assert len(own) == len(found), "two answers have the same X-Request-Id"


@check("drill/http-surface/refusals-leak-nothing", where=Where.READ_ONLY, after=SIGNED, covers=("O08", "O12"))
def test_refusals_leak_nothing(bench: Bench) -> None:
    """No refusal carries a stack trace, a secret, or the caller's credentials; nor has a page that anyone may read a
    secret.

    An error message is the first step of an attack, and a page about the service's settings the last one.
    """
    bench.opens(bench.signed())
    bench.guarded()
    hostile: list[Request] = [r for r, _ in _refusals(bench).values()]
    bodies = {
        "deep nesting": b"[" * 3000,
        "a long number": b'{"company_id": 1' + b"0" * 400 + b"}",
        "no UTF-8": b"\xff\xfe{}",
        "SQL": bench.body(idempotency_key="' || pg_sleep(0) --"),
    }
    hostile += [
        *(bench.signed(body, label) for label, body in bodies.items() if can_be_said(body)),
        bench.with_token("e30." + "A" * 400 + ".e30", label="a strange token"),
        *(
            signed_get(f"{REPLAY}/{strange}", bench.signer.secret, bench.clock.now(), f"a strange id, {strange}")
            for strange in ("not-a-uuid'", "%00", "%C3%BC", "%FF")
        ),
    ]
    if bench.target.admin_jwt:
        hostile.append(bench.with_token(bench.target.admin_jwt, label="an administrator, no such company"))
    secrets = telling(bench.target)
    for request in hostile:
        answer = bench.http.send(request)
        bench.seen.expect(request, answer, (400, 401, 403, 404, 405, 413, 415, 422))
        leaked = traces_in(answer.body)
        assert not leaked, f"{request.label or request.method}: the answer shows {leaked}"
        given = [value.rpartition(" ")[2] for name, value in request.headers if name in GIVEN]
        assert not any(answer.says(s) for s in (*secrets, *given) if s), (
            f"{request.label or request.method}: the answer shows a secret"
        )
    for path in OPEN:
        page = bench.http.send(Request("GET", path))
        shown = sorted({name for secret, name in secrets.items() if page.says(secret)})
        assert not shown, f"GET {path}, which needs no credentials, shows a secret: {', '.join(shown)}"
    bench.seen.count(len(OPEN))


@check("drill/http-surface/foreign-pages", where=Where.READ_ONLY, after=SIGNED, severity=Severity.WARN, covers=("A29",))
def test_foreign_pages(bench: Bench) -> None:
    """No answer, be it to a replay, an event or a read, lets an arbitrary web page read it with its visitor's
    credentials (CORS).

    As soon as the service accepts a cookie or client certificate, every site on the web can use it.
    """
    good = bench.opens(bench.signed())
    bench.guarded()
    for origin in ("https://pages.example", "null"):
        sent = [
            bench.signed(),
            *[bench.event()] * current().takes_events,
            *[bench.signed_read()] * current().shows_runs,
        ]
        asked = [one.adding_header("Origin", origin).labelled(f"from a page of {origin}") for one in sent]
        asked += [Request("OPTIONS", REPLAY, (("Origin", origin), ("Access-Control-Request-Method", "POST")))]
        for request in asked:
            answer = bench.http.send(request)
            if request is asked[0]:
                bench.seen.expect(request, answer, good.status)
            allowed = (answer.header("access-control-allow-origin") or "").strip()
            credentials = (answer.header("access-control-allow-credentials") or "").strip().lower()
            said = f"{request.method} from {origin}: allowed origin {allowed!r}, credentials {credentials!r}"
            assert credentials != "true" or allowed not in {origin, "*"}, (
                f"{said}; due: no credentials, or no such page"
            )
