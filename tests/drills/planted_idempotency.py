"""Planted defects of idempotency."""

from __future__ import annotations

import threading
import uuid
from collections import defaultdict
from collections.abc import Callable

from tests.drills.defects import (
    World,
    after_replays,
    before_replays,
    fields_of,
    json_of,
    remembers,
    rewrites,
    with_json,
)
from tests.drills.planted import Planted
from tests.drills.planted_effects import Fields, changes_members, company_id
from tests.drills.proxy import Defect, Forward, Reply, Sent

KEY = "drill/idempotency"


def tells_the_run_as_it_is(world: World) -> Defect:
    """A duplicate gets the status that the run has by now."""

    def defect(sent: Sent, forward: Forward) -> Reply:
        reply = forward(sent)
        shown = json_of(reply)
        if reply.status != 200 or shown.get("duplicate") is not True:
            return reply
        return with_json(
            reply, **world.sql("select status from public.replay_runs where id = %s", shown["replay_run_id"])[0]
        )

    return defect


def scope_of(fields: Fields) -> object:
    """Key and tenant, as they should be."""
    return fields.get("idempotency_key"), str(fields.get("company_id")).lower()


def waits_for_the_first(_world: World) -> Defect:
    """A request waits until another one with its key has ended."""
    locks: defaultdict[object, threading.Lock] = defaultdict(threading.Lock)

    def defect(sent: Sent, forward: Forward) -> Reply:
        with locks[scope_of(fields_of(sent)) if sent.is_replay else uuid.uuid4()]:
            return forward(sent)

    return defect


def repeats(statement: str) -> Callable[[World], Defect]:
    """A statement with the tenant's id runs whenever a duplicate is answered."""

    def action(world: World, _fields: Fields, reply: Reply) -> None:
        if json_of(reply).get("duplicate") is True:
            world.sql(statement, json_of(reply)["company_id"])

    return after_replays(action)


def stores_crashes(world: World) -> Defect:
    """A server error is stored under its key, and given again."""
    return remembers(scope_of, lambda reply: reply.status >= 500)(world)


IDEMPOTENCY = [
    Planted(
        "keys are ignored",
        rewrites(lambda _w, f: {**f, "idempotency_key": uuid.uuid4().hex}),
        tuple(
            f"{KEY}/{name}"
            for name in (
                *("duplicate-one-effect", "duplicate-same-answer", "duplicate-marked", "duplicate-not-audited"),
                *("other-payload-refused", "payload-*", "defaults-are-equal", "spelling-is-equal"),
                *("other-credentials-same-key", "v2-resend-is-duplicate", "race-same-request", "race-other-body"),
                *("race-from-many-sources", "late-retry-keeps-the-run"),
            )
        ),
        (f"{KEY}/scope-is-the-tenant",),
    ),
    Planted(
        "the payload is no part of the key",
        remembers(scope_of, lambda reply: reply.status == 200),
        (f"{KEY}/other-payload-refused", f"{KEY}/payload-*", f"{KEY}/dry-run-*"),
        (f"{KEY}/duplicate-one-effect", f"{KEY}/scope-is-the-tenant"),
    ),
    Planted(
        "keys are compared loosely",
        rewrites(lambda _w, f: {**f, "idempotency_key": str(f.get("idempotency_key")).strip().lower()[:100]}),
        (f"{KEY}/keys-differ-*",),
        (f"{KEY}/duplicate-one-effect", f"{KEY}/ids-are-a-set"),
    ),
    Planted(
        "the order of ids matters",
        rewrites(lambda _w, f: f if "dlq_ids" not in f else {**f, "error_type": "".join(f["dlq_ids"])[:199]}),
        (f"{KEY}/ids-are-a-set",),
        (f"{KEY}/duplicate-one-effect",),
    ),
    Planted(
        "keys are forgotten after a day",
        before_replays(
            lambda w, f: w.sql(
                "update public.replay_runs set idempotency_key = id::text where company_id = %s"
                " and requested_at < now() - interval '1 day'",
                company_id(f),
            )
        ),
        (f"{KEY}/old-key-is-known",),
        (f"{KEY}/duplicate-one-effect",),
    ),
    Planted(
        "keys are shared by tenants",
        remembers(lambda f: f.get("idempotency_key"), lambda reply: reply.status == 200),
        (f"{KEY}/scope-is-the-tenant",),
        (f"{KEY}/duplicate-one-effect",),
    ),
    Planted(
        "refusals are stored",
        remembers(scope_of, lambda _reply: True),
        (f"{KEY}/refusal-*", f"{KEY}/rate-limited-not-stored"),
        (f"{KEY}/duplicate-same-answer",),
    ),
    Planted("crashes are stored", stores_crashes, (f"{KEY}/crash-leaves-no-key",)),
    Planted(
        "requests without a key share one",
        rewrites(lambda _w, f: None if "idempotency_key" in f else {**f, "idempotency_key": "none"}),
        (f"{KEY}/key-generated",),
    ),
    Planted("a duplicate tells the run as it is", tells_the_run_as_it_is, (f"{KEY}/duplicate-same-answer",)),
    Planted("the same key waits", waits_for_the_first, (f"{KEY}/in-progress",)),
    Planted(
        "a late retry opens the run again",
        repeats("update public.replay_runs set status = 'started', completed_at = null where company_id = %s"),
        (f"{KEY}/late-retry-keeps-the-run",),
    ),
    Planted(
        "duplicates are not marked",
        changes_members(lambda j: j.get("duplicate") is True, duplicate=False),
        (f"{KEY}/duplicate-marked", "drill/proof/duplicate-short-circuits"),
    ),
]
