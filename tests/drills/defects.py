"""Defects of a replay service, each a small rewriting of requests or answers, some with one SQL statement."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from gates.deployment.database import Connection, connect, execute
from gates.deployment.requests import SIGNATURE, encode_body, sign_v1
from gates.deployment.target import Target
from tests.drills.proxy import Defect, Forward, Reply, Sent

Wanted = Callable[[Sent], bool]


@dataclass
class World:
    """What a faulty service knows: its own secrets and its own database."""

    target: Target
    lock: threading.RLock = field(default_factory=threading.RLock)
    connection: Connection | None = None

    def sql(self, statement: str, *params: object) -> list[dict[str, Any]]:
        """Run one statement as the owner of the database."""
        with self.lock:
            if self.connection is None:
                self.connection = connect(self.target.database_url)
            return execute(self.connection, statement, *params)

    def signed(self, sent: Sent) -> Sent:
        """The request as if its sender had signed it correctly."""
        bare = sent.without(SIGNATURE, "Authorization", "Cookie").having("Content-Type", "application/json")
        return bare.having(SIGNATURE, sign_v1(self.target.hmac_secret, sent.body))

    def as_admin(self, sent: Sent) -> Sent:
        """The request as if the admin token had been sent."""
        return sent.without(SIGNATURE, "Authorization").having("Authorization", f"Bearer {self.target.admin_jwt}")

    def with_fields(self, sent: Sent, fields: Mapping[str, Any]) -> Sent:
        """The request with another body, correctly signed."""
        return self.signed(replace(sent, body=encode_body(fields)))

    def forget(self, company: str) -> None:
        """Reset a tenant's rate limit."""
        self.sql("delete from public.edge_rate_limits where key like %s", f"replay:{company.lower()}:%")


def fields_of(sent: Sent) -> dict[str, Any]:
    """The JSON object of a body; empty where it is none."""
    try:
        value = json.loads(sent.body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def company_of(sent: Sent) -> str:
    """The company that a body names."""
    return str(fields_of(sent).get("company_id", "")).lower()


def json_of(reply: Reply) -> dict[str, Any]:
    """The JSON object of an answer."""
    try:
        value = json.loads(reply.body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def with_json(reply: Reply, **members: Any) -> Reply:
    """The answer with members replaced."""
    return replace(reply, body=json.dumps({**json_of(reply), **members}).encode())


def problem(status: int, code: str, **members: Any) -> Reply:
    """A problem document."""
    body = {"type": "about:blank", "title": code, "status": status, "detail": code, "code": code, **members}
    headers = (("Content-Type", "application/problem+json"), ("X-Request-Id", uuid.uuid4().hex))
    return Reply(status, headers, json.dumps(body).encode())


# --- authentication -----------------------------------------------------------------------------------------------


def excuses(wanted: Wanted) -> Callable[[World], Defect]:
    """Requests of this kind that authentication refused are let in."""

    def make(world: World) -> Defect:
        def defect(sent: Sent, forward: Forward) -> Reply:
            reply = forward(sent)
            if reply.status not in {400, 401, 404} or not wanted(sent):
                return reply
            return forward(world.as_admin(sent)) if sent.method == "GET" else forward(world.signed(sent))

        return defect

    return make


def refuses(wanted: Wanted, status: int = 401) -> Callable[[World], Defect]:
    """Requests of this kind are refused, whatever they are."""

    def make(_world: World) -> Defect:
        def defect(sent: Sent, forward: Forward) -> Reply:
            return problem(status, "unauthenticated") if wanted(sent) else forward(sent)

        return defect

    return make


def answers(wanted: Wanted, change: Callable[[Reply], Reply]) -> Callable[[World], Defect]:
    """The answers to requests of this kind are changed."""

    def make(_world: World) -> Defect:
        def defect(sent: Sent, forward: Forward) -> Reply:
            reply = forward(sent)
            return change(reply) if wanted(sent) else reply

        return defect

    return make


def whenever(status: int, change: Callable[[Reply], Reply]) -> Callable[[World], Defect]:
    """Answers with this status are changed."""

    def make(_world: World) -> Defect:
        def defect(sent: Sent, forward: Forward) -> Reply:
            reply = forward(sent)
            return change(reply) if reply.status == status else reply

        return defect

    return make


# --- requests -----------------------------------------------------------------------------------------------------


def rewrites(change: Callable[[World, dict[str, Any]], dict[str, Any] | None]) -> Callable[[World], Defect]:
    """The service reads other fields than were sent (None: as they are); the caller's signature holds."""

    def make(world: World) -> Defect:
        def defect(sent: Sent, forward: Forward) -> Reply:
            changed = change(world, dict(fields_of(sent))) if sent.is_replay else None
            return forward(sent) if changed is None else forward(world.with_fields(sent, changed))

        return defect

    return make


def before_replays(action: Callable[[World, dict[str, Any]], object]) -> Callable[[World], Defect]:
    """Something happens in the database before each replay request."""

    def make(world: World) -> Defect:
        def defect(sent: Sent, forward: Forward) -> Reply:
            if sent.is_replay and company_of(sent):
                action(world, fields_of(sent))
            return forward(sent)

        return defect

    return make


def after_replays(action: Callable[[World, dict[str, Any], Reply], Reply | None]) -> Callable[[World], Defect]:
    """Something happens after each replay request; an answer that it gives replaces the service's."""

    def make(world: World) -> Defect:
        def defect(sent: Sent, forward: Forward) -> Reply:
            reply = forward(sent)
            return (action(world, fields_of(sent), reply) or reply) if sent.is_replay else reply

        return defect

    return make


def remembers(key_of: Callable[[dict[str, Any]], object], stored: Callable[[Reply], bool]) -> Callable[[World], Defect]:
    """A memory of answers before the service: an answer is stored under a key of the request and given again."""

    def make(_world: World) -> Defect:
        memory: dict[object, Reply] = {}

        def defect(sent: Sent, forward: Forward) -> Reply:
            fields = fields_of(sent)
            if not sent.is_replay or not fields.get("idempotency_key"):
                return forward(sent)
            key = key_of(fields)
            if key in memory:
                kept = memory[key]
                return with_json(kept, duplicate=True) if kept.status == 200 else kept
            reply = forward(sent)
            if stored(reply):
                memory[key] = reply
            return reply

        return defect

    return make
