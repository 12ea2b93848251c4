"""Planted defects of the selection of items, and of dry runs."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from tests.drills.defects import (
    World,
    after_replays,
    before_replays,
    company_of,
    fields_of,
    json_of,
    problem,
    rewrites,
    with_json,
)
from tests.drills.planted import Planted
from tests.drills.proxy import Defect, Forward, Reply, Sent

RAILS = "drill/safety-rails"
DRY = "drill/dry-run"

Fields = dict[str, Any]


def changes_members(wanted: Callable[[Fields], bool], **members: Any) -> Callable[[World], Defect]:
    """Members of answers are wrong."""

    def action(_world: World, _fields: Fields, reply: Reply) -> Reply | None:
        return with_json(reply, **members) if reply.status == 200 and wanted(json_of(reply)) else None

    return after_replays(action)


def company_id(fields: Fields) -> str:
    return str(fields["company_id"]).lower()


def statement(text: str) -> Callable[[World, Fields], object]:
    """A statement with the tenant's id, before each replay."""
    return lambda world, fields: world.sql(text, company_id(fields))


def forced(text: str) -> Callable[[World, Fields], object]:
    """A statement with the tenant's id, before each forced replay."""
    return lambda world, fields: world.sql(text, company_id(fields)) if fields.get("force") else None


def matches(operator: str) -> Callable[[World, Fields], Fields | None]:
    """error_type is compared by another operator than equality."""

    def change(world: World, fields: Fields) -> Fields | None:
        wanted = fields.pop("error_type", None)
        if wanted is None:
            return None
        found = world.sql(
            f"select id::text as id from public.dead_letter_queue where company_id = %s and error_type {operator}",
            company_id(fields),
            wanted,
        )
        return {**fields, "dlq_ids": [r["id"] for r in found] or [str(uuid.uuid4())]}

    return change


def replays_foreign(world: World) -> Defect:
    """Ids of other tenants are replayed, for whoever names them."""

    def defect(sent: Sent, forward: Forward) -> Reply:
        named = fields_of(sent).get("dlq_ids")
        if sent.is_replay and named:
            world.sql(
                "update public.dead_letter_queue set company_id = %s where id = any(%s::uuid[])",
                company_of(sent),
                list(named),
            )
        return forward(sent)

    return defect


def touches_all(world: World, _fields: Fields, reply: Reply) -> None:
    """A replay of one tenant writes into the rows of all."""
    if reply.status == 200:
        world.sql(
            "update public.dead_letter_queue d set retry_count = retry_count from public.companies c"
            " where c.id = d.company_id and c.name like 'drill-%%'"
        )


def really_runs(world: World) -> Defect:
    """`dry_run` is ignored, but for the answer."""

    def defect(sent: Sent, forward: Forward) -> Reply:
        fields = fields_of(sent)
        if not sent.is_replay or fields.pop("dry_run", None) is not True:
            return forward(sent)
        reply = forward(world.with_fields(sent, fields))
        return with_json(reply, status="dry_run", dry_run=True, replay_run_id=None) if reply.status == 200 else reply

    return defect


def runs_dry_by_default(world: World, fields: Fields) -> Fields | None:
    """Without `dry_run` a request is a dry run."""
    return None if "dry_run" in fields else {**fields, "dry_run": True}


def dry_runs_pass(world: World) -> Defect:
    """A dry run is answered although the real run would be refused."""

    def defect(sent: Sent, forward: Forward) -> Reply:
        reply = forward(sent)
        fields = fields_of(sent)
        refused = reply.status in {403, 409, 429} and reply.status != 200
        if not (sent.is_replay and fields.get("dry_run") and refused):
            return reply
        return with_json(problem(200, ""), status="dry_run", items=[], dry_run=True)

    return defect


def uncut_dry_runs(world: World, fields: Fields) -> object:
    """A dry run does not look at the budget."""
    limit = 1000 if fields.get("dry_run") else 2
    return world.sql(
        "update public.replay_budgets set daily_limit = %s where company_id = %s", limit, company_id(fields)
    )


def on_dry_run(text: str) -> Callable[[World], Defect]:
    """A statement with the tenant's id runs with each dry run."""

    def action(world: World, fields: Fields, _reply: Reply) -> None:
        if fields.get("dry_run") is True:
            world.sql(text, company_id(fields))

    return after_replays(action)


SELECTION = [
    Planted(
        "max is ignored",
        rewrites(lambda _w, f: {**f, "max": 50}),
        tuple(f"{RAILS}/{n}" for n in ("max-bounds-the-effect", "default-max-25", "oldest-first", "ties-by-id")),
    ),
    Planted(
        "force takes one more",
        rewrites(lambda _w, f: {**f, "max": f["max"] + 1} if f.get("force") and "max" in f else None),
        (f"{RAILS}/max-bounds-the-effect",),
    ),
    Planted(
        "batches of any size are accepted",
        rewrites(lambda _w, f: {**f, "max": 50} if f.get("max", 0) > 50 else None),
        (f"{RAILS}/max-over-50", f"{RAILS}/max-huge", "drill/proof/oversized-batch-refused"),
    ),
    Planted(
        "max is always 25",
        rewrites(lambda _w, f: {"max": 25, **f}),
        (f"{RAILS}/max-defaults-to-the-ids",),
        (f"{RAILS}/default-max-25",),
    ),
    Planted(
        "the newest come first",
        before_replays(
            statement(
                "update public.dead_letter_queue set created_at = '2000-01-01'::timestamptz + (now() - created_at)"
                " where company_id = %s and created_at > '2020-01-01'"
            )
        ),
        (f"{RAILS}/oldest-first",),
    ),
    Planted(
        "ties are broken by luck",
        before_replays(
            statement(
                "update public.dead_letter_queue set created_at = created_at -"
                " make_interval(secs => 1 + ascii(id::text))"
                " where company_id = %s"
            )
        ),
        (f"{RAILS}/ties-by-id",),
    ),
    Planted(
        "status and attempts are not looked at",
        before_replays(
            statement(
                "update public.dead_letter_queue set status = 'pending', retry_count = 0 where company_id = %s"
                " and (status <> 'pending' or retry_count > 0)"
            )
        ),
        (
            f"{RAILS}/resolved-not-replayed",
            f"{RAILS}/discarded-not-replayed",
            f"{RAILS}/replaying-not-replayed",
            f"{RAILS}/exhausted-not-replayed",
        ),
        (f"{RAILS}/not-due-waits",),
    ),
    Planted(
        "every replay is forced",
        rewrites(lambda _w, f: {**f, "force": True}),
        (f"{RAILS}/not-due-waits",),
        (f"{RAILS}/resolved-not-replayed",),
    ),
    Planted("force is ignored", rewrites(lambda _w, f: {**f, "force": False}), (f"{RAILS}/force-ignores-retry-after",)),
    Planted(
        "force lifts max_retries",
        before_replays(
            forced(
                "update public.dead_letter_queue set max_retries = 99 where company_id = %s and"
                " retry_count >= max_retries"
            )
        ),
        (f"{RAILS}/exhausted-not-replayed",),
        (f"{RAILS}/discarded-not-replayed",),
    ),
    Planted(
        "force ignores a pause",
        before_replays(forced("update public.agent_controls set agents_paused = false where company_id = %s")),
        (f"{RAILS}/force-respects-pause",),
    ),
    Planted(
        "force ignores the budget",
        before_replays(forced("update public.replay_budgets set daily_limit = 100 where company_id = %s")),
        (f"{RAILS}/force-respects-budget",),
    ),
    Planted(
        "force ignores flags",
        before_replays(forced("update public.feature_flags set enabled = true where company_id = %s")),
        (f"{RAILS}/force-respects-flags",),
    ),
    Planted(
        "foreign ids are replayed", replays_foreign, (f"{RAILS}/foreign-ids-not-found", f"{DRY}/foreign-ids-hidden")
    ),
    Planted("all tenants are touched", after_replays(touches_all), (f"{RAILS}/other-tenants-untouched",)),
    Planted(
        "ids are ignored",
        rewrites(lambda _w, f: {k: v for k, v in f.items() if k != "dlq_ids"}),
        (f"{RAILS}/only-the-named-ids",),
    ),
    Planted(
        "the error type is ignored",
        rewrites(lambda _w, f: {k: v for k, v in f.items() if k != "error_type"}),
        (f"{RAILS}/pattern-*", f"{RAILS}/ids-and-error-type"),
    ),
    Planted(
        "the error type is a LIKE pattern",
        rewrites(matches("like %s")),
        (f"{RAILS}/pattern-percent", f"{RAILS}/pattern-underscore", f"{RAILS}/pattern-backslash"),
        (f"{RAILS}/pattern-case", f"{RAILS}/pattern-prefix"),
    ),
    Planted(
        "the case of the error type is ignored",
        rewrites(matches("ilike %s")),
        (f"{RAILS}/pattern-case",),
        (f"{RAILS}/pattern-prefix",),
    ),
    Planted(
        "what was not found is not said",
        changes_members(lambda _j: True, not_found=[]),
        (f"{RAILS}/answer-adds-up",),
    ),
    Planted(
        "empty runs stay open",
        changes_members(lambda j: j.get("target_count") == 0, status="started"),
        (f"{RAILS}/nothing-eligible-completes",),
    ),
]

DRY_RUN = [
    Planted(
        "dry runs are real",
        really_runs,
        tuple(
            f"{DRY}/{n}"
            for n in (
                *("writes-nothing", "one-audit-row", "consumes-nothing", "delivers-nothing"),
                *("same-items-as-the-real-run", "opens-no-run"),
            )
        ),
    ),
    Planted("dry runs of the short drill are real", really_runs, ("drill/proof/dry-run-changes-nothing",)),
    Planted("runs are dry by default", rewrites(runs_dry_by_default), (f"{DRY}/absent-means-real",)),
    Planted(
        "dry runs look real",
        changes_members(lambda j: j.get("dry_run") is True, status="started"),
        (f"{DRY}/answer", "drill/proof/dry-run-changes-nothing"),
    ),
    Planted(
        "dry runs are never refused",
        dry_runs_pass,
        (f"{DRY}/paused-like-real", f"{DRY}/flag-off-like-real", f"{DRY}/no-budget-like-real"),
    ),
    Planted("dry runs ignore the budget", before_replays(uncut_dry_runs), (f"{DRY}/cut-by-the-budget",)),
    Planted(
        "dry runs are free",
        on_dry_run("delete from public.edge_rate_limits where key like 'replay:' || %s || ':%%'"),
        (f"{DRY}/one-limited-call",),
    ),
    Planted(
        "dry runs use attempts",
        on_dry_run("update public.dead_letter_queue set retry_count = retry_count + 1 where company_id = %s"),
        (f"{DRY}/consumes-nothing", f"{DRY}/writes-nothing"),
        (f"{DRY}/one-audit-row",),
    ),
]
