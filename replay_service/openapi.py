"""GET /openapi.json: the OpenAPI 3.1 document of the routes, with the base path that this process serves under."""

from collections.abc import Mapping
from typing import Any

Schema = dict[str, Any]


def document(base_path: str = "") -> dict[str, Any]:
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "DLQ replay and outbox",
            "version": "1.0.0",
            "summary": "Replays dead letters through the transactional outbox, once.",
        },
        "servers": [{"url": base_path or "/"}],
        "paths": PATHS,
        "components": {"headers": HEADERS, "securitySchemes": CREDENTIALS, "schemas": SCHEMAS},
    }


def _named(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(properties: Mapping[str, Schema], required: tuple[str, ...] | None = None, **more: object) -> Schema:
    """An object that has all of these properties, or only those `required`."""
    must = list(properties if required is None else required)
    return {"type": "object", **more, "required": must, "properties": dict(properties)}


STRING, BOOLEAN, COUNT = {"type": "string"}, {"type": "boolean"}, {"type": "integer", "minimum": 0}
UUID, TIME = {"type": "string", "format": "uuid"}, {"type": "string", "format": "date-time"}
UUIDS = {"type": "array", "items": UUID}
TIME_OR_NULL = {"type": ["string", "null"], "format": "date-time"}
UUID_SENT = {
    **UUID,
    "pattern": "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$",
    "minLength": 36,
    "maxLength": 36,
}
WORDS = {"type": "string", "minLength": 1, "maxLength": 200, "pattern": r"^[^\x00]+$"}
NO_NUL = {"pattern": r"^[^\x00]*$"}

HEADERS = {"RequestId": {"description": "Also in the audit row of the request.", "schema": STRING}}
CREDENTIALS = {
    "signature": {
        "type": "apiKey",
        "in": "header",
        "name": "X-Transbot-Signature",
        "description": (
            'Hex HMAC-SHA256 of the raw body (v1), or `t=<unix seconds>,v2=<hex HMAC-SHA256 of "<t>.<raw body>">`. '
            "A GET takes v2 only, over `<t>.<path from /dlq-replay/ or /events/ on>`."
        ),
    },
    "token": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "HS256 with exp, sub and role.",
    },
}
SCHEMAS: dict[str, Schema] = {
    "ReplayRequest": _object(
        {
            "company_id": UUID_SENT,
            "max": {
                "type": "integer",
                "enum": list(range(1, 51)),
                "description": "Default 25, or the number of dlq_ids. An integer literal: 10.0 and 1e1 are refused.",
            },
            "idempotency_key": {"type": "string", "minLength": 1, "maxLength": 200, "pattern": r"^[\x20-\x7E]+$"},
            "dry_run": {"type": "boolean", "default": False},
            "force": {"type": "boolean", "default": False, "description": "Ignores retry_after only."},
            "dlq_ids": {"type": "array", "minItems": 1, "maxItems": 50, "items": UUID_SENT},
            "error_type": WORDS,
        },
        ("company_id",),
        additionalProperties=False,
    ),
    "ReplayAnswer": _object(
        {
            "status": {"enum": ["started", "completed", "dry_run", "stopped", "failed"]},
            "replay_run_id": {"type": ["string", "null"], "format": "uuid"},
            "idempotency_key": STRING,
            "company_id": UUID,
            "dry_run": BOOLEAN,
            "duplicate": BOOLEAN,
            "target_count": COUNT,
            "items": UUIDS,
            "not_found": UUIDS,
            "ineligible": UUIDS,
        }
    ),
    "Run": _object(
        {
            "replay_run_id": UUID,
            "company_id": UUID,
            "idempotency_key": STRING,
            "status": {"enum": ["started", "completed", "stopped", "failed"]},
            "target_count": COUNT,
            "success_count": COUNT,
            "failure_count": COUNT,
            "requested_at": TIME,
            "completed_at": TIME_OR_NULL,
        }
    ),
    "JsonValue": {
        "anyOf": [
            {"type": ["boolean", "null"]},
            {"type": "number", "minimum": -1e300, "maximum": 1e300},
            {"type": "string", **NO_NUL},
            {"type": "array", "items": {"type": ["boolean", "integer", "string", "null"], **NO_NUL}},
            _named("JsonObject"),
        ]
    },
    "JsonObject": {"type": "object", "propertyNames": NO_NUL, "additionalProperties": _named("JsonValue")},
    "EventRequest": _object(
        {
            "company_id": UUID_SENT,
            "event_type": WORDS,
            "aggregate_key": {**WORDS, "description": "Events of one key are delivered in order; absent: unordered."},
            "payload": _named("JsonObject"),
            "event_id": {**UUID_SENT, "description": "Makes the request idempotent."},
        },
        ("company_id", "event_type", "payload"),
        additionalProperties=False,
    ),
    "EventAnswer": _object({"event_id": UUID, "path": {"enum": ["outbox", "direct"]}, "duplicate": BOOLEAN}),
    "Event": _object(
        {
            "status": {"enum": ["pending", "in_flight", "processed", "dead"]},
            "committed_at": TIME,
            "effect_at": TIME_OR_NULL,
        }
    ),
    "Checks": _object({"database": BOOLEAN, "migrations": BOOLEAN, "worker": BOOLEAN}),
    "Version": _object(
        {
            "release": STRING,
            "commit": STRING,
            "schema_version": {"type": ["string", "null"]},
            "drill_agent": BOOLEAN,
            "instance": STRING,
        }
    ),
    "Problem": _object(
        {
            "type": STRING,
            "title": STRING,
            "status": {"type": "integer"},
            "detail": STRING,
            "code": STRING,
            "errors": {"type": "array", "items": _object({"field": STRING, "message": STRING})},
            "flag": STRING,
            "checks": _named("Checks"),
        },
        ("type", "title", "status", "detail", "code"),
    ),
}


def _answer(
    description: str, schema: Schema, media: str = "application/json", headers: Mapping[str, Schema] | None = None
) -> Schema:
    every = {"X-Request-Id": {"$ref": "#/components/headers/RequestId"}}
    return {"description": description, "headers": {**every, **(headers or {})}, "content": {media: {"schema": schema}}}


def _problem(description: str, headers: Mapping[str, Schema] | None = None) -> Schema:
    return _answer(description, _named("Problem"), "application/problem+json", headers)


OPEN = {
    "405": _problem("Another method.", {"Allow": {"schema": STRING}}),
    "500": _problem("The service failed."),
    "503": _problem("`unavailable`: the database cannot be asked; nothing was done."),
}
"""What every route may answer."""
READ = {
    "401": _problem("`unauthenticated`."),
    "403": _problem("A role without rights."),
    "404": _problem("`not_found`: unknown or foreign."),
    **OPEN,
}
POSTED = {
    "400": _problem("`invalid_request` with `errors`, or `batch_too_large`."),
    "401": READ["401"],
    "403": _problem("`forbidden` or `feature_disabled`."),
    "408": _problem("The body did not arrive in time."),
    "413": _problem("`body_too_large`: over 64 KiB."),
    "415": _problem("`unsupported_media_type`: not plain application/json."),
    **OPEN,
}
SIGNED: list[dict[str, list[str]]] = [{"signature": []}, {"token": []}, {"signature": [], "token": []}]


def _route(name: str, summary: str, responses: Mapping[str, Schema], *, signed: bool = False, **more: object) -> Schema:
    security = SIGNED if signed else []
    return {"operationId": name, "summary": summary, "security": security, **more, "responses": dict(responses)}


def _post(name: str, summary: str, body: str, responses: Mapping[str, Schema]) -> Schema:
    sent = {"required": True, "content": {"application/json": {"schema": _named(body)}}}
    return {"post": _route(name, summary, {**responses, **POSTED}, signed=True, requestBody=sent)}


def _get(name: str, summary: str, answer: Schema) -> Schema:
    return {"get": _route(name, summary, {"200": answer, **OPEN})}


def _get_one(name: str, summary: str, member: str, answer: Schema) -> Schema:
    sent = [{"name": member, "in": "path", "required": True, "schema": UUID_SENT}]
    return {"get": _route(name, summary, {"200": answer, **READ}, signed=True, parameters=sent)}


REPLAYED = {
    "description": "`true` where the stored answer of an earlier request is given.",
    "schema": {"type": "string", "enum": ["true"]},
}
RETRY_AFTER = {"description": "Whole seconds.", "schema": {"type": "integer", "minimum": 1, "maximum": 300}}
PATHS = {
    "/dlq-replay": _post(
        "replay",
        "Replay dead letters of a company.",
        "ReplayRequest",
        {
            "200": _answer(
                "Started, completed, or what a dry run would take.",
                _named("ReplayAnswer"),
                headers={"Idempotent-Replayed": REPLAYED},
            ),
            "409": _problem("`in_progress` or `agents_paused`."),
            "422": _problem("`idempotency_key_reused`."),
            "429": _problem("`rate_limited` or `budget_exhausted`.", {"Retry-After": RETRY_AFTER}),
        },
    ),
    "/dlq-replay/{replay_run_id}": _get_one(
        "readRun", "Status and counts of a run.", "replay_run_id", _answer("The run.", _named("Run"))
    ),
    "/events": _post(
        "emitEvent",
        "Emit an event.",
        "EventRequest",
        {"202": _answer("Stored.", _named("EventAnswer")), "409": _problem("`event_id_reused`.")},
    ),
    "/events/{event_id}": _get_one(
        "readEvent", "Where an event stands.", "event_id", _answer("The event.", _named("Event"))
    ),
    "/healthz": _get("health", "The process is alive.", _answer("Alive.", _object({"status": {"const": "alive"}}))),
    "/readyz": _get(
        "readiness",
        "Database reachable, migrations applied, worker alive.",
        _answer("Ready.", _object({"status": {"const": "ready"}, "checks": _named("Checks")})),
    ),
    "/version": _get("version", "What runs here.", _answer("The release.", _named("Version"))),
    "/metrics": _get("metrics", "Prometheus metrics of this instance.", _answer("Text format.", STRING, "text/plain")),
    "/openapi.json": _get("openapi", "This document.", _answer("OpenAPI 3.1.", {"type": "object"})),
}
