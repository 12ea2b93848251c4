"""What the doctor asks over HTTP has no effect; and how it reads the answers."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gates.contract.contract import contract
from gates.contract.names import Names
from gates.deployment.http.probes import IMPOSSIBLE
from gates.deployment.requests import Answer
from gates.deployment.target import Target
from gates.doctor.comparison.compare import NOT_SEEN, Presence, compare
from gates.doctor.comparison.http import compare_http
from gates.doctor.comparison.members import series_of
from gates.doctor.defects import defects
from gates.doctor.diagnosis import judge
from gates.doctor.reading import openapi
from gates.doctor.reading.openapi import read_document
from gates.doctor.reading.schema import Schema
from gates.doctor.reading.surface import NOWHERE, Surface, look_at
from gates.evidence import TargetKind
from gates.proof.workbench import servers
from replay_service.openapi import document as own_document
from tests.gates.gate_process import gate

Asked = list[tuple[str, str, bytes, frozenset[str]]]
OPENAPI = own_document()
FOREIGN = Path(__file__).with_name("schemas") / "foreign_openapi.json"


@contextmanager
def serving(answers: Callable[[str, str], tuple[int, Any]]) -> Iterator[tuple[str, Asked]]:
    """A target with these answers by method and path; its address, and the requests."""
    asked: Asked = []

    def answer(one: servers.Asked) -> servers.Reply:
        sent = {form for k, v in one.headers for form in (k.lower(), f"{k.lower()}: {v}")}
        asked.append((one.method, one.path, one.body, frozenset(sent)))
        status, content = answers(one.method, one.path)
        said = content if isinstance(content, bytes) else json.dumps(content).encode()
        return servers.Reply(status, (("X-Correlation-Id", "1"),), said)

    with servers.serve(answer) as url:
        yield url, asked


def target(url: str) -> Target:
    return Target(TargetKind.PRODUCTION, url, ("a-secret-that-must-not-be-used",), admin_jwt="a.b.c")


@pytest.mark.parametrize("status", [200, 401, 404, 405, 500])
def test_only_what_harms_nobody_is_asked(status: int) -> None:
    """It sends only GET and OPTIONS without credentials, and POST of a brace, which is no JSON."""
    with serving(lambda _method, _path: (status, {})) as (url, asked):
        look_at(target(url), contract())
    assert asked
    for method, _, body, headers in asked:
        assert method in {"GET", "OPTIONS", "POST"}
        assert not headers & {"authorization", "x-transbot-signature"}
        assert body == (IMPOSSIBLE if method == "POST" else b"")
    assert len([a for a in asked if a[0] == "POST"]) <= 2
    with pytest.raises(ValueError, match=r".+"):
        json.loads(IMPOSSIBLE)


@pytest.mark.parametrize(("status", "differ"), [(401, 0), (404, 2), (200, 2)])
def test_the_document_of_the_reference_has_everything(status: int, differ: int) -> None:
    """By the reference's own OpenAPI document every endpoint, member, header and code is present; but an endpoint that
    asks nobody for credentials, or that only the document has, differs.
    """

    def answers(method: str, path: str) -> tuple[int, Any]:
        if (method, path) == ("GET", "/openapi.json"):
            return 200, OPENAPI
        if path == NOWHERE:
            return 404, {"code": "not_found"}
        if path == "/metrics":
            return 200, b"outbox_pending 0\n"
        if method == "GET" and path.rpartition("/")[0]:
            return status, {}
        return (401, {"code": "unauthenticated"}) if method == "POST" else (200, {"release": "r1"})

    with serving(answers) as (url, _):
        found = compare_http(look_at(target(url), contract()), contract())
    missing = [(o.kind, o.name) for o in found.objects if o.presence not in {Presence.PRESENT, Presence.UNKNOWN}]
    reads = [("endpoint", "GET /dlq-replay/{replay_run_id}"), ("endpoint", "GET /events/{event_id}")]
    assert missing == reads[:differ]
    assert not [o.name for o in found.objects if o.kind == "endpoint" and o.presence is Presence.UNKNOWN]
    assert found.unsigned == {"POST /dlq-replay": 401, "POST /events": 401}
    assert found.code_member == "code"


def test_a_foreign_document_is_read_under_its_own_names() -> None:
    """Other paths, members, headers and codes are found in the document of a deployment of another make."""
    document = json.loads(FOREIGN.read_text(encoding="utf-8"))

    def answers(method: str, path: str) -> tuple[int, Any]:
        if path == "/swagger.json":
            return 200, document
        return (200, {"version": "1.2"}) if (method, path) == ("GET", "/health") else (404, {})

    with serving(answers) as (url, _):
        found = compare_http(look_at(target(url), contract()), contract())
    real = {f"{o.kind} {o.name}": o.real for o in found.objects if o.presence is Presence.RENAMED}
    assert real["endpoint POST /dlq-replay"] == "POST /v1/redrives"
    assert real["endpoint GET /dlq-replay/{replay_run_id}"] == "GET /v1/redrives/{redriveId}"
    assert real["endpoint POST /events"] == "POST /v1/messages"
    assert real["endpoint GET /healthz"] == "GET /health"
    assert real["body member POST /dlq-replay company_id"] == "tenantId"
    assert real["body member POST /dlq-replay dlq_ids"] == "ids"
    assert real["body member POST /dlq-replay dry_run"] == "preview"
    assert real["answer member POST /dlq-replay replay_run_id"] == "redriveId"
    assert real["refusal POST /dlq-replay unauthenticated"] == "UNAUTHENTICATED"
    assert real["header X-Transbot-Signature"] == "X-Hub-Signature-256"
    assert real["header X-Request-Id"] == "x-correlation-id"
    assert (found.envelope, found.key_headers) == ("data", ())
    replay = found.endpoints["POST /dlq-replay"].operation
    assert replay is not None
    assert replay.errors == "error.details"


def test_what_a_document_leaves_out_is_asked_for() -> None:
    """A POST endpoint that answers and that the OpenAPI document does not list is present, and not absent."""

    def answers(method: str, path: str) -> tuple[int, Any]:
        if (method, path) == ("GET", "/openapi.json"):
            return 200, {"openapi": "3.1.0", "paths": {"/healthz": {"get": {"responses": {"200": {}}}}, "/events": {}}}
        return (405, {}) if path in {"/dlq-replay", "/events"} else (200 if path == "/healthz" else 404, {})

    with serving(answers) as (url, _):
        found = compare_http(look_at(target(url), contract()), contract())
    there = {o.name: o.presence for o in found.objects if o.kind == "endpoint"}
    assert {there["POST /dlq-replay"], there["POST /events"]} == {Presence.PRESENT}


@pytest.mark.parametrize(("status", "harm"), [(202, 99), (500, 55), (400, 57), (401, 0)])
def test_an_answer_without_credentials_is_a_defect(status: int, harm: int) -> None:
    """Accepting anybody is nearly the worst defect; a refusal for another reason is reported."""

    def answers(method: str, path: str) -> tuple[int, Any]:
        if path == NOWHERE:
            return 404, {}
        return (status, {}) if method == "POST" else (200, {"status": "ok"})

    with serving(answers) as (url, _):
        http_found = compare_http(look_at(target(url), contract()), contract())
    nothing = compare(Schema(), contract())
    found = defects(Schema(), nothing, contract(), NOT_SEEN, http_found, "outbox.enabled")
    assert {d.harm for d in found if "POST /dlq-replay" in d.subject} == ({harm} if harm else set())


def test_functions_are_looked_for_where_the_gateway_has_them() -> None:
    """If a gateway answers preflights for every path, the one that differs is the endpoint."""

    def answers(method: str, path: str) -> tuple[int, Any]:
        if not path.startswith("/functions/v1/"):
            return 404, {"error": "requested path is invalid"}
        return (204 if path == "/functions/v1/dlq-replay" else 200) if method == "OPTIONS" else 404, {}

    with serving(answers) as (url, asked):
        seen = look_at(target(url), contract(), "/functions/v1")
        beside = look_at(target(f"{url}/functions/v1"), contract(), "/functions/v1")
    found = compare_http(seen, contract())
    assert found.endpoints["POST /dlq-replay"].path == "/functions/v1/dlq-replay"
    assert "POST /events" not in found.endpoints
    assert compare_http(beside, contract()).endpoints["POST /dlq-replay"].is_own
    assert {m for m, p, _, _ in asked if p.startswith("/functions/v1/") and m != "OPTIONS"} <= {"GET", "POST"}


def test_one_answer_for_every_path_proves_nothing() -> None:
    """If all paths answer alike, no endpoint is present and none is missing."""
    with serving(lambda _method, _path: (403, {"message": "no"})) as (url, _):
        found = compare_http(look_at(target(url), contract()), contract())
    assert {o.presence for o in found.objects if o.name in {"POST /dlq-replay", "GET /healthz", "GET /metrics"}} == {
        Presence.UNKNOWN
    }


def test_a_key_of_a_gateway_may_come_from_the_file_of_variables(tmp_path: Path) -> None:
    """The doctor and the status send it with every request."""
    policy = "version: 1\nnames:\n  http:\n    extra_headers: {apikey: $GATEWAY_KEY}\n"
    (tmp_path / "gate.yaml").write_text(policy, encoding="utf-8")
    with serving(lambda _method, _path: (200, {"status": "ok"})) as (url, asked):
        (tmp_path / ".env").write_text(f"BASE_URL={url}\nGATEWAY_KEY=a-key-of-the-gateway\n", encoding="utf-8")
        for command in ("doctor", "status"):
            asked.clear()
            done = gate(command, "--env-file", ".env", cwd=tmp_path)
            assert done.returncode in {0, 10}, done.stderr
            assert asked
            assert all("apikey: a-key-of-the-gateway" in headers for _, _, _, headers in asked)


def test_a_path_that_gate_yaml_says_is_not_there_is_no_endpoint() -> None:
    """The longest path in gate.yaml counts."""
    surface = Surface({("GET", "/healthz"): Answer(200, (), b"", 1.0)})
    paths = {"/openapi.json": None, "/events": "/v1/notices", "/events/{event_id}": None}
    found = compare_http(surface, contract(), paths).endpoints
    assert found["POST /events"].path == "/v1/notices"
    assert not {"GET /openapi.json", "GET /events/{event_id}"} & set(found)


def test_where_nothing_answers_everything_is_unknown() -> None:
    """A refused connection is reported once, and nothing is called absent."""
    surface = look_at(target("http://127.0.0.1:9"), contract())
    assert "refused" in surface.unreached
    assert {o.presence for o in compare_http(surface, contract()).objects} == {Presence.UNKNOWN}


_KEYS = (
    "openapi", "paths", "/dlq-replay", "post", "get", "requestBody", "content", "application/json", "schema", "$ref",
    "#/paths", "properties", "responses", "200", "401", "headers", "parameters", "security", "components", "servers",
)  # fmt: skip
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_KEYS) | st.text(max_size=5), inner),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(_KEYS), ANY_JSON))
def test_no_document_is_an_error(document: dict[str, Any]) -> None:
    """No OpenAPI document, whatever is in it, raises an error."""
    made = read_document("/openapi.json", {"openapi": "3.1.0", "paths": {}, **document})
    surface = Surface({("GET", "/healthz"): Answer(200, (), b"{}", 1.0)}, made)
    assert compare_http(surface, contract()).objects


@pytest.mark.parametrize("width", [1, 5, 1000])
def test_a_document_that_refers_to_itself_ends(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Circular references end after a fixed number of steps, of each operation and of all; an impossible status is
    none.
    """
    monkeypatch.setattr(openapi, "MOST_STEPS_OF_ALL", 2 * openapi.MOST_STEPS)
    steps, followed = iter(range(10 * openapi.MOST_STEPS)), openapi._Reader.followed
    monkeypatch.setattr(openapi._Reader, "followed", lambda *given: (next(steps), followed(*given))[1])
    circle = {"$ref": "#/components/schemas/A"}
    schema = {"properties": {f"a{n}": circle for n in range(width)}, "allOf": [circle] * width}
    responses = {"200": circle, "2" * 5000: circle, "²": circle}
    post = {"requestBody": {"content": {"application/json": {"schema": circle}}}, "responses": responses}
    paths = {"/dlq-replay": {"post": post}, **{f"/{n}": {"post": post} for n in range(9)}}
    document = {"openapi": "3.0.0", "paths": paths, "components": {"schemas": {"A": schema}}}
    made = read_document("/openapi.json", document)
    assert made is not None
    assert made.operations[0].path == "/dlq-replay"


def test_what_travels_beside_the_body_is_found() -> None:
    """A replay with its tenant in the path, and members in the query and in a header, is found under other names."""
    integer = {"type": "integer", "maximum": 20}
    parameters = [
        {"name": "merchant", "in": "path", "schema": {"type": "string"}},
        {"name": "simulate", "in": "query", "schema": {"type": "boolean"}},
        {"name": "Idempotency-Key", "in": "header", "schema": {"type": "string", "maxLength": 80}},
    ]
    body = {"content": {"application/json": {"schema": {"properties": {"limit": integer}}}}}
    post = {
        "parameters": parameters,
        "requestBody": body,
        "responses": {"202": {}, "429": {"description": "SLOW_DOWN"}},
        "security": [{"signed": []}],
    }
    schemes = {"signed": {"type": "apiKey", "in": "header", "name": "X-Relay-Signature"}}
    paths = {"/merchants/{merchant}/redrives": {"post": post}}
    document = {"openapi": "3.1.0", "paths": paths, "components": {"securitySchemes": schemes}}
    made = read_document("/openapi.json", document)
    assert made is not None
    surface = Surface({("GET", "/healthz"): Answer(200, (), b"{}", 1.0)}, made)
    objects = compare_http(surface, contract()).objects
    found = {o.name.removeprefix("POST /dlq-replay "): o.real for o in objects if o.real}
    assert found["POST /dlq-replay"] == "POST /merchants/{merchant}/redrives"
    assert found["company_id"] == "path:merchant"
    assert found["dry_run"] == "query:simulate"
    assert found["idempotency_key"] == "header:Idempotency-Key"
    assert found["rate_limited"] == "SLOW_DOWN"
    assert found["X-Transbot-Signature"] == "X-Relay-Signature"
    assert made.operations[0].bounds["header:Idempotency-Key"] == {"maxLength": 80}


@pytest.mark.parametrize("late", [True, False])
def test_what_has_no_answer_in_time_is_not_complete(late: bool) -> None:
    """A question that was not answered leaves something to do, whatever else is there."""
    seen = Surface({("GET", "/healthz"): Answer(200, (), b"{}", 1.0)}, late=late)
    assert judge(None, seen, contract(), Names(), "outbox.enabled").is_whole is not late


def test_metrics_without_an_answer_are_not_called_unlike() -> None:
    """Where /metrics did not answer in time, no series is said to be missing from it."""
    late, empty = (next(series_of(a, contract())) for a in (None, Answer(200, (), b"", 0.0)))
    assert (late.detail, empty.detail.startswith("no series")) == ("GET /metrics gave no answer within the time", True)
