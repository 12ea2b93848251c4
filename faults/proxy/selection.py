"""Faults of the selection of items, and of dry runs, made by a proxy."""

from faults.catalogue import proxy
from faults.proxy.rewriting import Fields, World, acts, after_replays, fields_of, json_of, rewrites, with_json
from faults.proxy.server import Forward, Reply, Sent

RAILS = "drill/safety-rails"
DRY = "drill/dry-run"


def touches_all(world: World, _fields: Fields, reply: Reply) -> None:
    """A replay of one tenant writes into the rows of all."""
    if reply.status == 200:
        world.rows(
            "update dead_letter_queue d set retry_count = retry_count from companies c"
            " where c.id = d.company_id and c.name like 'drill-%'"
        )


@acts
def really_runs(world: World, sent: Sent, forward: Forward) -> Reply:
    """`dry_run` is ignored, but for the answer."""
    fields = fields_of(sent)
    if not sent.is_replay or fields.pop("dry_run", None) is not True:
        return forward(sent)
    reply = forward(world.with_fields(sent, fields))
    return with_json(reply, status="dry_run", dry_run=True, replay_run_id=None) if reply.status == 200 else reply


def uses_attempts(world: World, fields: Fields, _reply: Reply) -> None:
    if fields.get("dry_run") is True:
        world.rows(
            "update dead_letter_queue set retry_count = retry_count + 1 where company_id = %s", fields["company_id"]
        )


def first_ten(_world: World, _fields: Fields, reply: Reply) -> Reply | None:
    """`not_found` and `ineligible` list only their first ten ids."""
    pages = {name: ids[:10] for name, ids in json_of(reply).items() if name in {"not_found", "ineligible"}}
    return with_json(reply, **pages) if reply.status == 200 else None


def empty_lists(reply: Reply) -> list[str]:
    """The members of an answer that are empty lists."""
    return [name for name, value in json_of(reply).items() if value == []]


proxy(
    "selection/force-takes-one-more",
    rewrites(lambda _w, f: {**f, "max": f["max"] + 1} if f.get("force") and "max" in f else None),
    (f"{RAILS}/max-bounds-the-effect",),
)
proxy("selection/all-tenants-are-touched", after_replays(touches_all), (f"{RAILS}/other-tenants-untouched",))
proxy(
    "selection/the-error-type-is-ignored",
    rewrites(lambda _w, f: {k: v for k, v in f.items() if k != "error_type"}),
    (f"{RAILS}/pattern-*", f"{RAILS}/ids-and-error-type"),
)
proxy(
    "selection/dry-runs-are-real",
    really_runs,
    (
        *(f"{DRY}/{name}" for name in ("writes-nothing", "one-audit-row", "consumes-nothing", "delivers-nothing")),
        *(f"{DRY}/{name}" for name in ("same-items-as-the-real-run", "opens-no-run")),
        "drill/proof/dry-run-changes-nothing",
    ),
)
proxy(
    "selection/dry-runs-look-real",
    after_replays(lambda _w, _f, reply: with_json(reply, status="started") if json_of(reply).get("dry_run") else None),
    (f"{DRY}/answer", "drill/proof/dry-run-changes-nothing"),
)
proxy(
    "selection/dry-runs-use-attempts",
    after_replays(uses_attempts),
    (f"{DRY}/consumes-nothing", f"{DRY}/writes-nothing"),
    green=(f"{DRY}/one-audit-row",),
)
proxy("selection/ten-of-what-was-not-taken", after_replays(first_ten), (f"{RAILS}/answer-adds-up",))
proxy(
    "selection/empty-lists-are-null",
    after_replays(
        lambda _w, _f, reply: with_json(reply, **dict.fromkeys(empty_lists(reply))) if empty_lists(reply) else None
    ),
    (f"{RAILS}/answer-adds-up",),
)
