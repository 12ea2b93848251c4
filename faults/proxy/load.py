"""Faults of answers that only many requests show, made by a proxy: a few of them are not true."""

import itertools
import json
import uuid

from faults.catalogue import proxy
from faults.proxy.rewriting import Make, Wanted, World, acts, fields_of, with_json
from faults.proxy.server import Defect, Forward, Reply, Sent

ONE_IN = 20


def now_and_then(wanted: Wanted, answer: Make) -> Make:
    """One in so many requests of a kind is treated like that."""

    def make(world: World) -> Defect:
        count, other = itertools.count(1), answer(world)

        def defect(sent: Sent, forward: Forward) -> Reply:
            is_it = wanted(sent) and next(count) % ONE_IN == 0
            return other(sent, forward) if is_it else forward(sent)

        return defect

    return make


@acts
def accepts_only(_world: World, sent: Sent, _forward: Forward) -> Reply:
    """The event is acknowledged, and written nowhere."""
    event = fields_of(sent).get("event_id", str(uuid.uuid4()))
    said = {"event_id": event, "path": "direct", "duplicate": False}
    return Reply(202, (("Content-Type", "application/json"),), json.dumps(said).encode())


@acts
def starts_only(world: World, sent: Sent, forward: Forward) -> Reply:
    """The run is acknowledged, by what a dry run of it would take, and is never made."""
    fields = fields_of(sent)
    key = fields.pop("idempotency_key")
    dry = forward(world.with_fields(sent, {**fields, "dry_run": True}))
    said = {"status": "started", "dry_run": False, "replay_run_id": str(uuid.uuid4()), "idempotency_key": key}
    return with_json(dry, **said) if dry.status == 200 else dry


def told_before(_world: World) -> Defect:
    """The answer is the one that was given before, to another question."""
    before: list[Reply] = []

    def defect(sent: Sent, forward: Forward) -> Reply:
        before.append(forward(sent))
        return before.pop(0) if len(before) > 1 else before[0]

    return defect


@acts
def fails_for_a_few(_world: World, sent: Sent, forward: Forward) -> Reply:
    """Every replay of one company in four fails."""
    if sent.is_replay and str(fields_of(sent).get("company_id")).endswith(("3", "7", "b", "f")):
        return Reply(500, (("Content-Type", "application/problem+json"),), b'{"code": "internal_error"}')
    return forward(sent)


def _is_status(sent: Sent) -> bool:
    return sent.method == "GET" and "/events/" in sent.path


def _is_event(sent: Sent) -> bool:
    return sent.method == "POST" and sent.path.endswith("/events")


def _is_run(sent: Sent) -> bool:
    fields = fields_of(sent)
    return sent.is_replay and "idempotency_key" in fields and not fields.get("dry_run")


proxy(
    "load/an-event-in-twenty-is-acknowledged-and-lost",
    now_and_then(_is_event, accepts_only),
    ("load/events_lost/count",),
    names=("events_lost",),
)
proxy(
    "load/a-replay-in-twenty-is-acknowledged-and-lost",
    now_and_then(_is_run, starts_only),
    ("load/runs_lost/count",),
    names=("runs_lost",),
)
proxy(
    "load/the-status-of-another-event-now-and-then",
    now_and_then(_is_status, told_before),
    ("load/answers_mixed/count",),
    names=("answers_mixed",),
)
proxy(
    "load/replays-of-a-few-companies-fail",
    fails_for_a_few,
    ("load/companies_failing/count",),
    names=("companies_failing",),
)
