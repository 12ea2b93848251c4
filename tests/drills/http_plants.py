"""Defects of a deployment's answers and of what it does beside its database's rules, planted by the fault proxy."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from gates.deployment.database import session
from tests.drills.defects import World, fields_of
from tests.drills.proxy import Defect, Forward, Reply, Sent

Rewrite = Callable[[World, Sent, Reply], Reply]


@dataclass(frozen=True)
class HttpPlant:
    """One defect and the checks that it turns red."""

    name: str
    make: Callable[[World], Defect]
    red: tuple[str, ...]


@dataclass
class Memory:
    """What a faulty service remembers between requests."""

    kept: dict[str, Any] = field(default_factory=dict)


def after(rewrite: Rewrite) -> Callable[[World], Defect]:
    """A defect that does something to each answer."""

    def make(world: World) -> Defect:
        return lambda sent, forward: rewrite(world, sent, forward(sent))

    return make


def before(act: Callable[[World, Sent], None]) -> Callable[[World], Defect]:
    """A defect that does something before each request is handled."""

    def make(world: World) -> Defect:
        def defect(sent: Sent, forward: Forward) -> Reply:
            act(world, sent)
            return forward(sent)

        return defect

    return make


def body_of(reply: Reply) -> dict[str, Any]:
    """The JSON object of an answer; empty where it is none."""
    try:
        value = json.loads(reply.body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def with_members(reply: Reply, members: Mapping[str, Any]) -> Reply:
    """The answer with some members replaced."""
    return replace(reply, body=json.dumps({**body_of(reply), **members}).encode())


def on_path(path: str, change: Callable[[World, Sent, Reply], Reply]) -> Callable[[World], Defect]:
    """A defect of the answers of one path."""
    return after(lambda world, sent, reply: change(world, sent, reply) if sent.path == path else reply)


def keeps_its_own_trail(world: World, sent: Sent, reply: Reply) -> Reply:
    """Writes a row of its own for whatever is asked, under whatever name it is given."""
    company = fields_of(sent).get("company_id")
    if sent.is_replay and company and reply.status in {200, 400, 401, 403, 429}:
        code = body_of(reply).get("code", "")
        world.sql(
            "insert into public.audit_logs (action, actor, scope, metadata) values (%s, %s, %s, %s)",
            "dlq_replay_started" if reply.status == 200 else "dlq_replay_refused",
            sent.header("X-Actor") or "service",
            company,
            json.dumps({"code": code, "count": 1}),
        )
    return reply


def gives_back(world: World, sent: Sent) -> None:
    """A negative request gives budget back."""
    fields = fields_of(sent)
    if sent.is_replay and isinstance(fields.get("max"), int) and fields["max"] < 0:
        world.sql(
            "update public.replay_budgets set daily_used = daily_used - 1 where company_id = %s",
            fields.get("company_id"),
        )


def moves_first(world: World, sent: Sent) -> None:
    """Moves an item, and writes the business row, before anything is asked of the database's rules."""
    fields = fields_of(sent)
    if sent.is_replay and not fields.get("dry_run"):
        world.sql(
            "insert into public.event_outbox (company_id, event_type, payload) values (%s, 'drill.first', '{}')",
            fields.get("company_id"),
        )
    if sent.path == "/events" and sent.method == "POST" and fields.get("event_id"):
        world.sql(
            "insert into public.event_outbox (company_id, event_id, event_type, payload) values"
            " (%s, %s, 'drill.first', '{}')",
            fields.get("company_id"),
            fields.get("event_id"),
        )


def writes_the_event_first(world: World, sent: Sent) -> None:
    """Writes the business row in a transaction of its own, before the effect."""
    fields = fields_of(sent)
    if sent.path == "/events" and sent.method == "POST" and fields.get("event_id"):
        world.sql(
            "insert into public.events (id, company_id, event_type, payload, path)"
            " values (%s, %s, 'drill.first', '{}', 'direct')",
            fields["event_id"],
            fields.get("company_id"),
        )


def half_an_event(world: World, sent: Sent, reply: Reply) -> Reply:
    """Leaves the outbox row of an event whose request failed."""
    fields = fields_of(sent)
    if sent.path == "/events" and reply.status >= 500:
        with session(world.target.database_url) as connection:  # the drill ends sessions, this one may be next
            connection.execute(
                "insert into public.event_outbox (company_id, event_id, event_type, payload)"
                " values (%s, %s, 'drill.half', '{}')",
                (fields.get("company_id"), fields.get("event_id")),
            )
    return reply


def counts_held_rows(world: World, _sent: Sent, reply: Reply) -> Reply:
    """Shows the age of the oldest row, held or not."""
    row = world.sql(
        "select coalesce(extract(epoch from max(now() - inserted_at)), 0)::float as lag from public.event_outbox"
        " where processed_at is null and dead_at is null"
    )[0]
    text = re.sub(rb"(?m)^outbox_lag_seconds.*$", f"outbox_lag_seconds {row['lag']}".encode(), reply.body)
    return replace(reply, body=text)


def stands_still(memory: Memory) -> Rewrite:
    """Shows for ever what it showed first."""

    def change(_world: World, _sent: Sent, reply: Reply) -> Reply:
        return replace(reply, body=memory.kept.setdefault("body", reply.body))

    return change


def sums_everything(_world: World, _sent: Sent, reply: Reply) -> Reply:
    """Shows one number of requests, whatever became of them, and no other counter."""
    total = sum(
        float(line.rsplit(b" ", 1)[1]) for line in reply.body.splitlines() if line.startswith(b"replay_requests_total")
    )
    kept = [line for line in reply.body.splitlines() if b"_total" not in line and b"_count" not in line]
    return replace(reply, body=b"\n".join([*kept, f"replay_requests_total {total}".encode()]) + b"\n")


def takes_turns(memory: Memory) -> Rewrite:
    """Says another release at every second request, as a half-finished deployment does."""

    def change(_world: World, _sent: Sent, reply: Reply) -> Reply:
        memory.kept["n"] = memory.kept.get("n", 0) + 1
        if memory.kept["n"] % 2:
            return reply
        return with_members(reply, {"release": "the-old-one", "commit": "0000000"})

    return change


def undocumented(_world: World, _sent: Sent, reply: Reply) -> Reply:
    """Documents everything but the replay endpoint."""
    paths = {p: v for p, v in body_of(reply).get("paths", {}).items() if "dlq-replay" not in p}
    return with_members(reply, {"paths": paths})


def shows_debug(_world: World, sent: Sent, reply: Reply) -> Reply:
    """Has a debug route."""
    return replace(reply, status=200, body=b"pprof") if sent.path == "/debug" else reply


def finds_every_run(_world: World, sent: Sent, reply: Reply) -> Reply:
    """Answers for a run that does not exist."""
    found = sent.path.startswith("/dlq-replay/") and reply.status == 404
    return replace(reply, status=200, body=b'{"status": "completed"}') if found else reply


def forgets_ids(_world: World, sent: Sent, reply: Reply) -> Reply:
    """Leaves out of the answer what was not found."""
    return with_members(reply, {"not_found": []}) if sent.is_replay and reply.status == 200 else reply


def always_done(_world: World, sent: Sent, reply: Reply) -> Reply:
    """Says of every event that it had its effect."""
    if not sent.path.startswith("/events/") or reply.status != 200:
        return reply
    return with_members(reply, {"effect_at": body_of(reply).get("committed_at")})


def always_ready(_world: World, sent: Sent, reply: Reply) -> Reply:
    """Is ready, whatever is the matter."""
    return replace(reply, status=200) if sent.path == "/readyz" else reply


def appended(line: str) -> Rewrite:
    """Adds a line to the metrics."""
    return lambda _world, _sent, reply: replace(reply, body=reply.body.rstrip(b"\n") + b"\n" + line.encode() + b"\n")


def renamed(_world: World, _sent: Sent, reply: Reply) -> Reply:
    """Calls the lag something else."""
    return replace(reply, body=reply.body.replace(b"outbox_lag_seconds", b"outbox_delay_seconds"))


def showing(name: str, number: int) -> Rewrite:
    """Shows always the same number for every series of a family."""

    def change(_world: World, _sent: Sent, reply: Reply) -> Reply:
        body = re.sub(rb"(?m)^(%s(?:\{.*\})? ).*$" % name.encode(), rb"\g<1>%d" % number, reply.body)
        return replace(reply, body=body)

    return change


def plain_json(_world: World, _sent: Sent, reply: Reply) -> Reply:
    """Refuses in plain JSON where there is too much."""
    return reply.having("Content-Type", "application/json") if reply.status == 429 else reply


def another_word(_world: World, _sent: Sent, reply: Reply) -> Reply:
    """Calls the limit something else."""
    return replace(reply, body=reply.body.replace(b'"rate_limited"', b'"too_many_requests"'))


BROKEN_HISTOGRAM = 'x_bucket{le="1"} 5\nx_bucket{le="+Inf"} 3\nx_count 5'

TABLE = [
    HttpPlant(
        "a trail of its own",
        after(keeps_its_own_trail),
        (
            "drill/audit/actor-cannot-be-set",
            "drill/audit/bad-requests-leave-no-row",
            "drill/audit/duplicate-leaves-no-row",
            "drill/audit/rate-limited-once-a-minute",
            "drill/audit/refusal-forbidden",
        ),
    ),
    HttpPlant("negative spending", before(gives_back), ("drill/budgets/negative-spend-refused",)),
    HttpPlant(
        "moved before it is allowed",
        before(moves_first),
        (
            "drill/budgets/unreadable-starts-nothing",
            "drill/flags/unreadable-starts-nothing",
            "drill/outbox/refused-leaves-nothing",
            "drill/recovery/replay-session-ended",
            "drill/recovery/service-killed-in-a-replay",
        ),
    ),
    HttpPlant("half an event", after(half_an_event), ("drill/recovery/event-session-ended",)),
    HttpPlant("lists that shrink", after(forgets_ids), ("drill/dlq/every-id-is-accounted-for",)),
    HttpPlant("held rows are lag", on_path("/metrics", counts_held_rows), ("drill/held/does-not-count-as-lag",)),
    HttpPlant("every run is found", after(finds_every_run), ("drill/lifecycle/unknown-run-is-not-found",)),
    HttpPlant("every event is done", after(always_done), ("drill/outbox/status-of-an-event",)),
    HttpPlant(
        "two releases",
        on_path("/version", takes_turns(Memory())),
        ("drill/identity/one-release-on-every-instance", "drill/identity/version-says-what-it-is"),
    ),
    HttpPlant(
        "a broken readiness",
        on_path("/readyz", lambda _w, _s, reply: replace(reply, status=500)),
        ("drill/identity/alive-and-ready",),
    ),
    HttpPlant("always ready", after(always_ready), ("drill/identity/not-ready-without-database",)),
    HttpPlant(
        "an undocumented route", on_path("/openapi.json", undocumented), ("drill/identity/documented-is-served",)
    ),
    HttpPlant("a debug route", after(shows_debug), ("drill/identity/no-debug-routes",)),
    HttpPlant("a renamed series", on_path("/metrics", renamed), ("drill/observability/series-are-there",)),
    HttpPlant(
        "tenants in labels",
        on_path("/metrics", appended(f'requests_by_tenant{{tenant="{uuid.UUID(int=7)}"}} 1')),
        ("drill/observability/no-tenants-in-labels",),
    ),
    HttpPlant(
        "a broken histogram",
        on_path("/metrics", appended(BROKEN_HISTOGRAM)),
        ("drill/observability/histograms-are-sound",),
    ),
    HttpPlant(
        "metrics that stand still",
        on_path("/metrics", stands_still(Memory())),
        ("drill/observability/replays-are-counted", "drill/observability/dlq-depth-is-the-tables"),
    ),
    HttpPlant(
        "the event is written before its effect",
        before(writes_the_event_first),
        ("drill/flags/direct-effect-with-its-event",),
    ),
    HttpPlant(
        "no lag is ever shown",
        on_path("/metrics", showing("outbox_lag_seconds", 0)),
        ("drill/observability/waiting-events-show",),
    ),
    HttpPlant(
        "nothing ever waits",
        on_path("/metrics", showing("outbox_pending", 3)),
        ("drill/observability/waiting-events-show",),
    ),
    HttpPlant(
        "effects are not counted",
        on_path("/metrics", showing("agent_tasks_total", 9)),
        ("drill/observability/effects-are-counted",),
    ),
    HttpPlant("late refusals are plain JSON", after(plain_json), ("drill/http-surface/late-problem-documents",)),
    HttpPlant("late refusals have other codes", after(another_word), ("drill/http-surface/late-problem-documents",)),
    HttpPlant(
        "refusals are not told apart",
        on_path("/metrics", sums_everything),
        ("drill/observability/refusals-are-counted",),
    ),
]
