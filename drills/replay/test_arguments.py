"""Safety rails: the arguments of a replay together. What each means, it means beside all others."""

import itertools
from collections.abc import Sequence
from typing import Any

import pytest

from drills.workbench.checks import SIGNED, SQL, TENANTS
from drills.workbench.scene import LISTS, Scene, new_key
from gates.checks.recorder import check
from gates.deployment.dialect.current import current
from gates.deployment.ids import new_id
from gates.deployment.requests import BUSY

pytestmark = pytest.mark.beside_load

WANTED = "e\u0301%".ljust(200, "x")
OTHERS = (WANTED.replace("e\u0301", "\u00e9"), f"{WANTED[:-1]}y", WANTED.replace("%", " "))
"""An error type is compared as it is: others look the same, differ in the last character, or fit it as a pattern."""
DUE, LATER = "2000-01-01T00:00:00Z", "2999-01-01T00:00:00Z"
ITEMS: tuple[dict[str, Any], ...] = tuple(
    {"status": status, "error_type": error_type, "retry_after": due, "retry_count": tries, "max_retries": allowed}
    for status, tries, allowed in (
        ("pending", 0, 3),
        ("pending", 2, 3),
        ("pending", 3, 3),
        ("pending", 7, 9),
        ("resolved", 0, 3),
        ("discarded", 0, 3),
    )
    for error_type in (WANTED, *OTHERS)
    for due in (LATER, DUE)
)
"""One of each kind, the oldest first."""
ARGUMENTS: tuple[dict[str, Any], ...] = tuple(
    dict(zip(("force", "error_type", "max", "named"), values, strict=True))
    for values in itertools.product((False, True), (None, WANTED), (None, 2), (False, True))
)


def _eligible(rows: Sequence[dict[str, Any]], asked: dict[str, Any]) -> list[str]:
    """The ids that a replay with these arguments takes, by the words of the contract."""
    found = [
        str(r["id"])
        for r in rows
        if r["status"] == "pending"
        and r["retry_count"] < r["max_retries"]
        and (asked["force"] or r["retry_after"] == DUE)
        and asked["error_type"] in (None, r["error_type"])
    ]
    return found[: asked["max"] or current().limit("batch" if asked["named"] else "default_batch")]


@check("drill/safety-rails/arguments-together", needs=TENANTS, after=SIGNED, covers=("E08", "E11", "E15", "F02"))
def test_arguments_together(scene: Scene, tenant: str, other: str) -> None:
    """Combined, `force`, `error_type`, `max` and `dlq_ids` each have the same meaning as alone, in a dry run and in a
    real one, whose duplicate lists what its first answer did.

    If one argument is lost beside another, a carefully limited replay takes items that nobody asked for.
    """
    foreign, unknown = scene.add_items(other, 1)[0], new_id("item")
    some = ITEMS[: current().limit("batch") - 2]  # all are named at once, beside two that are not there
    # those that were tried most come from a clock that is ahead
    items = [{**item, "age_s": 3600 - n if item["retry_count"] < 7 else -60 - n} for n, item in enumerate(some)]
    rows = [{"id": i, **item} for i, item in zip(scene.tenants.add_rows(tenant, items), items, strict=True)]
    named = [*(r["id"] for r in rows), foreign, unknown]
    for asked in ARGUMENTS:
        scene.reset_limit(tenant)
        told, fields = _fields(asked, named)
        shown = scene.replay(tenant, label=f"a dry run of {told}", control=True, dry_run=True, **fields).json()
        due = _eligible(rows, asked)
        assert set(shown["items"]) == set(due), f"{told}: {len(shown['items'])} items are shown; due: {len(due)} others"
        missing = {foreign, unknown} if asked["named"] else set()
        assert set(shown["not_found"]) == missing, (
            f"{told}: not_found names {len(shown['not_found'])} of {len(missing)}"
        )
        scene.seen.count()
    for word in ("all", "any", "*"):
        scene.reset_limit(tenant)
        shown = scene.replay(tenant, label=f"a dry run of {word}", dry_run=True, error_type=word).json()["items"]
        assert not shown, f"error_type {word!r} shows {len(shown)} items of other types; due: none"
    scene.reset_limit(tenant)
    asked = ARGUMENTS[-1]
    told, fields = _fields(asked, named)
    key = scene.known(idempotency_key=new_key()) if scene.claims("idempotency") else {}
    taken = scene.replay(tenant, label=f"a real run of {told}", **fields, **key).json()
    assert set(taken["items"]) == set(_eligible(rows, asked)), f"{told}: a real run took others than a dry one showed"
    if key:
        again = scene.replay(tenant, label=f"{told}, asked for again", **fields, **key).json()
        differs = [n for n in LISTS if again.get(n) != taken.get(n)]
        assert not differs, f"{told}: the duplicate differs from the first answer in {differs}"


def _fields(asked: dict[str, Any], named: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The arguments in words, and as fields of a request."""
    fields = {n: v for n, v in asked.items() if v and n != "named"} | ({"dlq_ids": named} if asked["named"] else {})
    return " and ".join(fields) or "nothing", fields


@check("drill/budgets/named-items-are-cut-and-charged", needs=SQL, after=SIGNED, covers=("G01", "E11"))
def test_named_items_are_cut_and_charged(scene: Scene) -> None:
    """Named items are cut to what the budget leaves, and charged by the number moved, like all others. Replays that
    come at once take what each of them names.

    An operator's list is refused whole, or charged for more items than it moved, or another's is replayed instead, and
    nobody notices soon.
    """
    company = scene.company(items=5)
    scene.budget(company, daily_limit=3)
    ids = [str(r["id"]) for r in scene.items(company)]
    scene.run(company, dry_run=True)
    named = [*reversed(ids), new_id("item")]
    answer = scene.replay(company, label="named items, of which one is unknown", dlq_ids=named).json()
    assert sorted(answer["items"]) == sorted(ids[:3]), (
        f"{len(answer['items'])} of 5 named items taken; due: the 3 oldest"
    )
    scene.charged(company, 3)
    scene.rows("update public.replay_budgets set daily_limit = 100 where company_id = %s", company)
    scene.replay(company, dlq_ids=[*ids, new_id("item")])
    scene.charged(company, 5)
    scene.reset_limit(company)
    more = scene.add_items(company, min(3, current().limit("calls")))
    requests = [scene.replay_request(company, "one of several at once", dlq_ids=[one]) for one in more]
    for one, request, given in zip(more, requests, scene.burst(requests), strict=True):
        if given.status in BUSY:
            continue
        told = scene.seen.expect(request, given, 200).json().get("items")
        assert told == [one], f"of several replays at once, one names {one} and is answered with the items {told}"
    scene.charged(company, scene.count("dead_letter_queue", company, "status <> 'pending'"))
    scene.seen.count(5)
