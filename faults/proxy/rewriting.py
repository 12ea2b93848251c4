"""What the faults behind the proxy are made of: rewritten requests, rewritten answers, statements beside them.

A fault is a function of its world (World -> Defect), so that each installation begins with a memory of its own.
"""

import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from faults.probe import Probe
from faults.proxy.server import SIGNATURE, Defect, Forward, Reply, Sent

Fields = dict[str, Any]
Wanted = Callable[[Sent], bool]


class World(Probe):
    """What a faulty service knows: its own secrets and its own database."""

    def signed(self, sent: Sent) -> Sent:
        """The request as if its sender had signed it correctly."""
        bare = sent.without(SIGNATURE, "Authorization", "Cookie").having("Content-Type", "application/json")
        return bare.having(SIGNATURE, self.sign(sent.body))

    def is_signed(self, sent: Sent) -> bool:
        """Whether the first signature is the right one of version 1."""
        return sent.signature == self.sign(sent.body)

    def is_signed_v2(self, sent: Sent) -> bool:
        """Whether the first signature is the right one of version 2, of whatever time."""
        sent_at = sent.signature.partition(",")[0].removeprefix("t=")
        return sent_at.isascii() and sent_at.isdigit() and sent.signature == self.sign_v2(sent.body, int(sent_at))

    def as_admin(self, sent: Sent) -> Sent:
        """The request as if the admin token had been sent."""
        return sent.without(SIGNATURE, "Authorization").having("Authorization", f"Bearer {self.environ['ADMIN_JWT']}")

    def with_fields(self, sent: Sent, fields: Mapping[str, Any]) -> Sent:
        """The request with another body, for which the sender's signature holds if it held for the first one."""
        changed = replace(sent, body=json.dumps(fields).encode())
        return self.signed(changed) if self.is_signed(sent) or self.is_signed_v2(sent) else changed

    def forget(self, company: str) -> None:
        """Reset a tenant's rate limit."""
        self.rows("delete from edge_rate_limits where key like %s", f"replay:{company.lower()}:%")


Make = Callable[[World], Defect]


def fields_of(sent: Sent) -> Fields:
    """The JSON object of a body; empty where there is none."""
    try:
        value = json.loads(sent.body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def company_of(sent: Sent) -> str:
    """The company that a body names."""
    return str(fields_of(sent).get("company_id", "")).lower()


def json_of(reply: Reply) -> Fields:
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
    body = {"type": "about:blank", "title": code, "status": status, "detail": code, "code": code, **members}
    headers = (("Content-Type", "application/problem+json"), ("X-Request-Id", uuid.uuid4().hex))
    return Reply(status, headers, json.dumps(body).encode())


def acts(act: Callable[[World, Sent, Forward], Reply]) -> Make:
    """What stands before the service does this with each request."""
    return lambda world: partial(act, world)


def after(change: Callable[[World, Sent, Reply], Reply | None]) -> Make:
    """Something happens after each request; an answer that it gives replaces the service's."""

    @acts
    def make(world: World, sent: Sent, forward: Forward) -> Reply:
        reply = forward(sent)
        return change(world, sent, reply) or reply

    return make


def before(act: Callable[[World, Sent], object]) -> Make:
    """Something happens before each request is handled."""

    @acts
    def make(world: World, sent: Sent, forward: Forward) -> Reply:
        act(world, sent)
        return forward(sent)

    return make


def answers(wanted: Wanted, change: Callable[[Reply], Reply]) -> Make:
    """The answers to requests of this kind are changed."""
    return after(lambda _world, sent, reply: change(reply) if wanted(sent) else None)


def whenever(status: int, change: Callable[[Reply], Reply]) -> Make:
    """Answers with this status are changed."""
    return after(lambda _world, _sent, reply: change(reply) if reply.status == status else None)


def after_replays(act: Callable[[World, Fields, Reply], Reply | None]) -> Make:
    """Something happens after each replay request; an answer that it gives replaces the service's."""
    return after(lambda world, sent, reply: act(world, fields_of(sent), reply) if sent.is_replay else None)


def before_replays(act: Callable[[World, Fields], object]) -> Make:
    """Something happens in the database before each replay request."""
    return before(lambda world, sent: act(world, fields_of(sent)) if sent.is_replay and company_of(sent) else None)


def refuses(wanted: Wanted, status: int = 401) -> Make:
    """Requests of this kind are refused, whatever they are."""
    return lambda _world: lambda sent, forward: problem(status, "unauthenticated") if wanted(sent) else forward(sent)


def rereads(change: Callable[[World, Sent], Sent]) -> Make:
    """The service is given another request than was sent."""
    return lambda world: lambda sent, forward: forward(change(world, sent))


def rewrites(change: Callable[[World, Fields], Fields | None]) -> Make:
    """The service reads other fields than were sent (None, or the same: as they are); the caller's signature holds."""

    def reread(world: World, sent: Sent) -> Sent:
        fields = fields_of(sent) if sent.is_replay else {}
        changed = change(world, dict(fields)) if fields else None
        is_same = changed is None or json.dumps(changed) == json.dumps(fields)
        return sent if changed is None or is_same else world.with_fields(sent, changed)

    return rereads(reread)


def excuses(wanted: Callable[[World, Sent], bool]) -> Make:
    """Requests of this kind that authentication refused are let in."""

    @acts
    def make(world: World, sent: Sent, forward: Forward) -> Reply:
        reply = forward(sent)
        if reply.status not in {400, 401, 404} or not wanted(world, sent):
            return reply
        return forward(world.as_admin(sent)) if sent.method == "GET" else forward(world.signed(sent))

    return make


def remembers(key_of: Callable[[Fields], object], stored: Callable[[Reply], bool]) -> Make:
    """A cache in front of the service: answers are stored under a key of the request and repeated."""

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
