"""A proxy that gives the reference other paths, members, codes, headers and signatures. It does not accept the
contract's own names.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from faults.proxy.server import SIGNATURE, Forward, Headers, Reply, Sent

PATHS = {"/dlq-replay": "/functions/v1/replays", "/events": "/functions/v1/facts", "/healthz": "/alive"}
MEMBERS = {
    "company_id": "tenantId",
    "max": "batchSize",
    "idempotency_key": "requestKey",
    "dry_run": "preview",
    "dlq_ids": "jobs",
    "error_type": "failureClass",
    "replay_run_id": "runId",
    "status": "state",
    "target_count": "total",
    "duplicate": "again",
    "items": "taken",
    "event_id": "factId",
    "event_type": "kind",
    "schema_version": "schema",
}
CODES: dict[str, tuple[str, int]] = {
    "unauthenticated": ("WHO_ARE_YOU", 401),
    "invalid_request": ("BAD_BODY", 422),
    "batch_too_large": ("TOO_MANY_ITEMS", 400),
    "forbidden": ("NOT_YOURS", 403),
    "rate_limited": ("SLOW_DOWN", 420),
    "feature_disabled": ("OFF", 403),
    "idempotency_key_reused": ("KEY_TAKEN", 409),
    "in_progress": ("STILL_AT_IT", 425),
    "agents_paused": ("PAUSED", 423),
    "budget_exhausted": ("NO_BUDGET", 402),
    "body_too_large": ("TOO_BIG", 413),
    "unsupported_media_type": ("NO_JSON", 415),
    "not_found": ("NOTHING_HERE", 404),
}
STATES = {"started": "accepted", "completed": "done", "dry_run": "shown"}
KEY = "an-api-key-0123456789"
NAMES: dict[str, Any] = {
    "http": {
        "paths": PATHS,
        "headers": {SIGNATURE: "X-Hub-Signature-256", "X-Request-Id": "X-Trace"},
        "extra_headers": {"apikey": "$GATEWAY_KEY"},
        "fields": {**MEMBERS, "errors": "error.of"},
        "values": {"status": STATES},
        "codes": {ours: [theirs, status] for ours, (theirs, status) in CODES.items()},
        "code_member": "error.code",
        "signature": {"form": "sha256={hex}", "v2": "t={t},v1={hex}", "signed": "{t}:{body}"},
    }
}


@dataclass(frozen=True)
class Dialect:
    """A proxy in front of the reference, whose secret it knows."""

    secret: str

    def __call__(self, sent: Sent, forward: Forward) -> Reply:
        """It is called like a fault of the proxy, and only translates."""
        path = _path(sent.path)
        if path is None or sent.header("apikey") != KEY:
            return Reply(404, (("Content-Type", "text/plain"),), b"nothing here")
        body = _renamed(sent.body)
        headers = tuple(self._header(k, v, sent, path, body) for k, v in sent.headers if k.lower() != "apikey")
        return _answered(forward(replace(sent, path=path, headers=headers, body=body)))

    def _header(self, name: str, value: str, sent: Sent, path: str, body: bytes) -> tuple[str, str]:
        if name.lower() == SIGNATURE.lower():
            return "X-Not-Understood", "contract"
        if name.lower() != "x-hub-signature-256":
            return name, value
        is_read = sent.method == "GET"
        real, ours = (sent.path.encode(), path.encode()) if is_read else (sent.body, body)
        timed = re.fullmatch(r"t=(\d+),v1=([0-9a-f]{64})", value)
        if timed and timed[2] == self._mac(timed[1].encode() + b":" + real):
            return SIGNATURE, f"t={timed[1]},v2={self._mac(timed[1].encode() + b'.' + ours)}"
        if value == "sha256=" + self._mac(real):
            return SIGNATURE, self._mac(ours)
        return SIGNATURE, f"?{value}"

    def _mac(self, message: bytes) -> str:
        return hmac.new(self.secret.encode(), message, hashlib.sha256).hexdigest()


def _path(path: str) -> str | None:
    for ours, theirs in PATHS.items():
        if path == theirs or path.startswith((f"{theirs}/", f"{theirs}?")):
            return ours + path[len(theirs) :]
        if path.startswith(ours):
            return None
    return path


def _renamed(body: bytes) -> bytes:
    """The members under the contract's names; those names themselves are not accepted."""
    names = {f'"{theirs}"': ours for ours, theirs in MEMBERS.items()} | {f'"{ours}"': f"no_{ours}" for ours in MEMBERS}
    pattern = re.compile(b"(?:" + b"|".join(re.escape(n.encode()) for n in names) + rb")(?=\s*:)")
    renamed = pattern.sub(lambda m: f'"{names[m[0].decode()]}"'.encode(), body)
    return renamed.rstrip().ljust(len(body)) if body.endswith(b" ") else renamed  # as long as what was sent


def _answered(reply: Reply) -> Reply:
    headers: Headers = tuple(("X-Trace" if k.lower() == "x-request-id" else k, v) for k, v in reply.headers)
    try:
        found = json.loads(reply.body)
    except ValueError:
        return replace(reply, headers=headers)
    if not isinstance(found, dict):
        return replace(reply, headers=headers)
    if reply.status >= 400 and "code" in found:
        code, status = CODES.get(found["code"], (found["code"], reply.status))
        errors = [{**e, "field": MEMBERS.get(e["field"], e["field"])} for e in found.get("errors", [])]
        body = {"error": {"code": code, "message": found.get("detail", ""), **({"of": errors} if errors else {})}}
        plain = tuple((k, "application/json" if k.lower() == "content-type" else v) for k, v in headers)
        return Reply(status, plain, json.dumps(body).encode())
    return replace(reply, headers=headers, body=json.dumps(_told(found)).encode())


def _told(found: Mapping[str, Any]) -> dict[str, Any]:
    said = {MEMBERS.get(k, k): STATES.get(v, v) if k == "status" else v for k, v in found.items()}
    if "openapi" in found:
        said["paths"] = {_told_path(p): what for p, what in found["paths"].items()}
    return said


def _told_path(path: str) -> str:
    ours = next((o for o in PATHS if path == o or path.startswith(f"{o}/")), "")
    return PATHS[ours] + path[len(ours) :] if ours else path
