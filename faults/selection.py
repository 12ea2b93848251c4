"""Faults of what a replay takes: which dead letters, in which order, how many, and what it says of the others."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from faults.altered import Change, altered, rewrite
from faults.catalogue import service
from faults.probe import Probe
from faults.requests import is_dry, remembering
from replay_service.claim import Selection
from replay_service.composition import build_parts
from replay_service.database import QUERIES, Connection
from replay_service.parts import Parts
from replay_service.settings import Settings
from replay_service.validation import ReplayRequest

RAILS = "drill/safety-rails"
_ORDER = "ORDER BY created_at, id\n  LIMIT"


def _items(probe: Probe, count: int = 1, columns: dict[str, Any] | None = None, **fields: Any) -> list[str]:
    """What a dry run takes of a tenant with these dead letters."""
    with probe.tenant() as company:
        probe.letters(company, count, **(columns or {}))
        return list(probe.replay(company, dry_run=True, **fields).json()["items"])


@service(lambda p: _first_of_three(p) == 2, f"{RAILS}/oldest-first", ("order", "oldest"))
def newest_first(settings: Settings) -> Parts:
    """The newest items are taken first."""
    return altered(settings, "pick_items", (_ORDER, "ORDER BY created_at DESC, id\n  LIMIT"))


@service(lambda p: _first_of_named(p) == 2, f"{RAILS}/oldest-first", "oldest")
def named_newest_first(settings: Settings) -> Parts:
    """Of named items the newest are taken first."""
    return altered(settings, "pick_items_by_id", (_ORDER, "ORDER BY created_at DESC, id\n  LIMIT"))


@service(lambda p: _by_id(p), f"{RAILS}/oldest-first", ("order", "oldest"))
def by_id_only(settings: Settings) -> Parts:
    """Items are taken by their id, not by their age."""
    return altered(settings, "pick_items", (_ORDER, "ORDER BY id\n  LIMIT"))


def _by_id(probe: Probe) -> bool:
    with probe.tenant() as company:
        ids = probe.letters(company, 8)
        taken = [probe.replay(company, dry_run=True, max_items=n).json()["items"] for n in (1, 2, 4)]
        return [sorted(found) for found in taken] == [sorted(ids)[:n] for n in (1, 2, 4)]


@service(lambda p: _tied(p, max), f"{RAILS}/ties-by-id", ("id", "tie"))
def ties_the_other_way(settings: Settings) -> Parts:
    """Among items created at the same time, the highest id is taken first."""
    return altered(settings, "pick_items", (_ORDER, "ORDER BY created_at, id DESC\n  LIMIT"))


@service(lambda p: _tied(p, min), f"{RAILS}/oldest-first", "oldest")
def ages_in_whole_seconds(settings: Settings) -> Parts:
    """Items of the same second are taken by id, not by age."""
    return altered(settings, "pick_items", (_ORDER, "ORDER BY date_trunc('second', created_at), id\n  LIMIT"))


def _tied(probe: Probe, which: Callable[[list[str]], str]) -> bool:
    """Whether of four items of one second, the lowest id a millisecond younger, this one is taken first."""
    with probe.tenant() as company:
        ids = probe.letters(company, 4)
        moment = "date_trunc('second', now()) + (id = %s)::int * interval '1 ms'"
        probe.rows(f"UPDATE dead_letter_queue SET created_at = {moment} WHERE company_id = %s", min(ids), company)
        return bool(probe.replay(company, dry_run=True, max_items=1).json()["items"] == [which(ids)])


def _first_of_three(probe: Probe) -> int:
    with probe.tenant() as company:
        ids = probe.letters(company, 3)
        return ids.index(probe.replay(company, dry_run=True, max_items=1).json()["items"][0])


def _first_of_named(probe: Probe) -> int:
    with probe.tenant() as company:
        ids = probe.letters(company, 3)
        return ids.index(probe.replay(company, dlq_ids=ids, max_items=1).json()["items"][0])


@service(lambda p: len(_items(p, 5, max_items=2)) == 5, f"{RAILS}/max-bounds-the-effect", ("max", "items"))
def max_not_a_bound(settings: Settings) -> Parts:
    """`max` does not bound the batch: 50 items move at once."""
    return altered(settings, "pick_items", ("LIMIT %(limit)s", "LIMIT greatest(%(limit)s, 50)"))


@service(
    lambda p: len(_items(p, 5, max_items=3)) == 2,
    (f"{RAILS}/max-bounds-the-effect", f"{RAILS}/default-max-25", "drill/budgets/batch-cut-to-what-is-left"),
    ("items", "3"),
)
def one_item_too_few(settings: Settings) -> Parts:
    """One item too few is taken (off by one)."""
    return altered(settings, "pick_items", ("LIMIT %(limit)s", "LIMIT greatest(%(limit)s - 1, 1)"))


@service(
    lambda p: bool(_items(p, 1, {"retry_after": "2099-01-01"})),
    (f"{RAILS}/not-due-waits", "drill/dlq/not-before-retry-after"),
    ("retry_after", "due"),
)
def retry_after_ignored(settings: Settings) -> Parts:
    """`retry_after` is ignored."""
    return altered(settings, "pick_items", ("(%(force)s OR retry_after <= now())", "(%(force)s OR true)"))


@service(
    lambda p: not _items(p, 1, {"retry_after": "2099-01-01"}, force=True), f"{RAILS}/force-ignores-retry-after", "force"
)
def force_ignored(settings: Settings) -> Parts:
    """`force` does not ignore `retry_after`."""
    return altered(settings, "pick_items", ("(%(force)s OR retry_after", "(%(force)s AND false OR retry_after"))


@service(
    lambda p: bool(_items(p, 1, {"retry_count": 5, "max_retries": 5})),
    f"{RAILS}/exhausted-not-replayed",
    ("max_retries", "exhausted", "retry_count"),
)
def max_retries_ignored(settings: Settings) -> Parts:
    """`max_retries` is ignored: exhausted items are replayed for ever."""
    return altered(settings, "pick_items", ("AND retry_count < max_retries\n", ""))


@service(
    lambda p: bool(_items(p, 1, {"retry_count": 5, "max_retries": 5})),
    f"{RAILS}/exhausted-not-replayed",
    ("max_retries", "exhausted", "retry_count"),
)
def one_retry_more(settings: Settings) -> Parts:
    """One retry more than `max_retries` is allowed (off by one)."""
    return altered(settings, "pick_items", ("retry_count < max_retries", "retry_count <= max_retries"))


@service(
    lambda p: bool(_items(p, 1, {"retry_count": 5, "max_retries": 5}, force=True)),
    "drill/safety-rails/exhausted-not-replayed",
    ("not eligible", "exhausted"),
)
def force_ignores_max_retries(settings: Settings) -> Parts:
    """`force` ignores `max_retries`, too."""
    change = ("AND retry_count < max_retries\n", "AND (%(force)s OR retry_count < max_retries)\n")
    return altered(settings, "pick_items", change)


@service(
    lambda p: _named(p, {"retry_after": "2099-01-01"}), f"{RAILS}/not-due-waits", ("before its time", "retry_after")
)
def named_ids_need_not_be_due(settings: Settings) -> Parts:
    """Named ids are taken whether they are due or not."""
    return altered(settings, "pick_items_by_id", ("(%(force)s OR retry_after <= now())", "(%(force)s OR true)"))


@service(
    lambda p: _named(p, {"retry_count": 5, "max_retries": 5}),
    (f"{RAILS}/exhausted-not-replayed", "drill/dlq/max-retries-is-the-end"),
    ("not eligible", "exhausted", "retries"),
)
def named_ids_may_be_exhausted(settings: Settings) -> Parts:
    """Named ids are taken whether they are exhausted or not."""
    return altered(settings, "pick_items_by_id", ("AND retry_count < max_retries\n", ""))


def _named(probe: Probe, columns: dict[str, Any]) -> bool:
    with probe.tenant() as company:
        ids = probe.letters(company, 1, **columns)
        return bool(probe.replay(company, dry_run=True, dlq_ids=ids).json()["items"])


@service(lambda p: bool(_items(p, 1, {"status": "discarded"})), f"{RAILS}/discarded-not-replayed", "discarded")
def discarded_replayed(settings: Settings) -> Parts:
    """Discarded items are replayed."""
    return altered(settings, "pick_items", ("status = 'pending'", "status IN ('pending', 'discarded')"))


@service(lambda p: bool(_items(p, 1, {"status": "resolved"})), f"{RAILS}/resolved-not-replayed", "resolved")
def resolved_replayed(settings: Settings) -> Parts:
    """Resolved items are replayed again."""
    return altered(settings, "pick_items", ("status = 'pending'", "status IN ('pending', 'resolved')"))


@service(
    lambda p: bool(_items(p, 1, {"status": "replaying"})),
    (f"{RAILS}/replaying-not-replayed", "drill/dlq/concurrent-replays-one-claim"),
    "replaying",
)
def replaying_taken_again(settings: Settings) -> Parts:
    """Items that a run has taken are taken by another."""
    return altered(settings, "pick_items", ("status = 'pending'", "status IN ('pending', 'replaying')"))


@service(
    lambda p: bool(_foreign(p)["items"]),
    (f"{RAILS}/foreign-ids-not-found", "drill/dry-run/foreign-ids-hidden"),
    ("foreign", "not_found", "tenant"),
)
def foreign_ids_taken(settings: Settings) -> Parts:
    """Named ids may be another tenant's."""
    return altered(
        settings, "pick_items_by_id", ("company_id = %(company_id)s::uuid", "%(company_id)s::uuid IS NOT NULL")
    )


@service(
    lambda p: bool(_foreign(p)["ineligible"]),
    (f"{RAILS}/foreign-ids-not-found", "drill/dry-run/foreign-ids-hidden"),
    ("foreign", "not_found", "ineligible"),
)
def foreign_ids_told(settings: Settings) -> Parts:
    """Foreign ids are told from unknown ones: they are `ineligible`, not `not_found`."""
    return altered(
        settings,
        "describe_items",
        ("status = 'pending'", "company_id = %(company_id)s::uuid AND status = 'pending'"),
        ("WHERE company_id = %(company_id)s::uuid AND id", "WHERE id"),
    )


def _foreign(probe: Probe) -> dict[str, Any]:
    with probe.tenant() as company, probe.tenant() as other:
        ids = probe.letters(other, 1)
        return dict(probe.replay(company, dry_run=True, dlq_ids=ids).json())


@service(
    lambda p: bool(_items(p, 1, error_type="time%")),
    (f"{RAILS}/pattern-percent", f"{RAILS}/pattern-underscore"),
    ("pattern", "error_type", "%"),
)
def error_type_is_a_pattern(settings: Settings) -> Parts:
    """`error_type` is a pattern."""
    return altered(
        settings, "pick_items", ("error_type = %(error_type)s::text)", "error_type LIKE %(error_type)s::text)")
    )


@service(lambda p: bool(_items(p, 1, error_type="time")), f"{RAILS}/pattern-prefix", ("prefix", "error_type"))
def error_type_is_a_prefix(settings: Settings) -> Parts:
    """The beginning of an `error_type` is enough."""
    change = ("error_type = %(error_type)s::text)", "starts_with(error_type, %(error_type)s::text))")
    return altered(settings, "pick_items", change)


@service(lambda p: _named_of_other_type(p), f"{RAILS}/ids-and-error-type", ("error type", "error_type"))
def error_type_ignored_with_ids(settings: Settings) -> Parts:
    """`error_type` is ignored where ids are named."""
    return altered(
        settings, "pick_items_by_id", ("AND (%(error_type)s::text IS NULL", "AND (true OR %(error_type)s::text IS NULL")
    )


def _named_of_other_type(probe: Probe) -> bool:
    with probe.tenant() as company:
        ids = probe.letters(company, 1)
        return bool(probe.replay(company, dry_run=True, dlq_ids=ids, error_type="other").json()["items"])


@service(lambda p: _others_than_named(p), f"{RAILS}/only-the-named-ids", ("ids", "named"))
def named_ids_ignored(settings: Settings) -> Parts:
    """Named ids are ignored: the oldest are taken."""
    return altered(
        settings, "pick_items_by_id", ("AND id = ANY(%(dlq_ids)s::uuid[])", "AND %(dlq_ids)s::uuid[] IS NOT NULL")
    )


def _others_than_named(probe: Probe) -> bool:
    with probe.tenant() as company:
        ids = probe.letters(company, 3)
        return bool(probe.replay(company, dry_run=True, dlq_ids=ids[2:]).json()["items"] != ids[2:])


def _describing(settings: Settings, **changes: Any) -> Parts:
    release = build_parts(settings)

    async def twin(conn: Connection, request: ReplayRequest, items: Sequence[str], limit: int) -> Selection:
        return dataclasses.replace(await release.describe(conn, request, items, limit), **changes)

    return dataclasses.replace(release, describe=twin)


@service(
    lambda p: not _unknown(p)["not_found"],
    (f"{RAILS}/answer-adds-up", "drill/dlq/every-id-is-accounted-for", f"{RAILS}/foreign-ids-not-found"),
    "not_found",
)
def unknown_ids_not_reported(settings: Settings) -> Parts:
    """Ids that are not there are not reported."""
    return _describing(settings, not_found=())


def _unknown(probe: Probe) -> dict[str, Any]:
    with probe.tenant() as company:
        return dict(probe.replay(company, dry_run=True, dlq_ids=["00000000-0000-4000-8000-0000000000ee"]).json())


@service(
    lambda p: not _ineligible(p),
    (f"{RAILS}/answer-adds-up", "drill/dlq/every-id-is-accounted-for"),
    ("ineligible", "accounted for", "named ids"),
)
def ineligible_ids_not_reported(settings: Settings) -> Parts:
    """Ids that are not eligible are not reported."""
    return _describing(settings, ineligible=())


def _ineligible(probe: Probe) -> bool:
    with probe.tenant() as company:
        ids = probe.letters(company, 1, status="discarded")
        return bool(probe.replay(company, dry_run=True, dlq_ids=ids).json()["ineligible"])


@service(lambda p: _first_of_three(p) == 2, "drill/dry-run/same-items-as-the-real-run", ("items", "order", "oldest"))
def dry_run_looks_elsewhere(settings: Settings) -> Parts:
    """A dry run looks at the newest items, the real run takes the oldest."""
    return looking(settings, (_ORDER, "ORDER BY created_at DESC, id\n  LIMIT"))


@service(
    lambda p: bool(_items(p, 1, {"retry_count": 5, "max_retries": 5})),
    "drill/dry-run/same-items-as-the-real-run",
    ("items differs", "dry"),
)
def dry_run_shows_exhausted(settings: Settings) -> Parts:
    """A dry run shows exhausted items, too, that the real run leaves."""
    return looking(settings, ("AND retry_count < max_retries\n", ""))


def looking(settings: Settings, change: Change) -> Parts:
    """The service whose dry runs, and only they, pick with another statement."""
    release = remembering(settings)
    text = rewrite(QUERIES["pick_items"], change)

    async def twin(conn: Connection, request: ReplayRequest, limit: int) -> tuple[str, ...]:
        if not is_dry() or request.dlq_ids is not None:
            return await release.pick(conn, request, limit)
        values = {"company_id": request.company_id, "force": request.force, "error_type": request.error_type}
        rows = await (await conn.execute(text, values | {"limit": limit})).fetchall()
        return tuple(row[0] for row in rows)

    return dataclasses.replace(release, pick=twin)
