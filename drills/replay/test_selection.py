"""Safety rails: which items a replay takes. Those asked for, eligible, of that tenant, oldest first, and no other."""

from contextlib import suppress
from functools import partial
from typing import Any

import psycopg

from drills.workbench.checks import SIGNED, TENANTS, Case, cases
from drills.workbench.scene import LISTS, Scene
from gates.checks.recorder import check
from gates.deployment.dialect.current import current
from gates.deployment.ids import new_id
from gates.evidence import Severity

drill = partial(check, needs=TENANTS, after=SIGNED)


def touched(scene: Scene, company: str) -> set[str]:
    """The items of a tenant that are not as they were created: taken, or tried."""
    found = scene.rows(
        "select id::text as id, status, retry_count from public.dead_letter_queue where company_id = %s", company
    )
    return {str(r["id"]) for r in found if r["status"] in {"replaying", "resolved"} or r["retry_count"] > 0}


def took(answer: dict[str, Any]) -> set[str]:
    """The items that an answer says were taken."""
    return set(map(str, answer.get("items", [])))


@drill("drill/safety-rails/max-bounds-the-effect", covers=("E02",))
def test_max_bounds_the_effect(scene: Scene, tenant: str) -> None:
    """A replay takes at most `max` items, forced and by their ids too.

    A limit that is accepted but not applied lets one replay take every item.
    """
    ids = scene.add_items(tenant, 6)
    whole = scene.run(tenant, label="the largest batch, dry", max=current().limit("batch"), dry_run=True)
    scene.seen.require(
        len(took(whole)) == 6, f"a dry run of the largest batch shows {len(took(whole))} of 6 eligible items"
    )
    scene.reset_limit(tenant)
    ways: list[tuple[str, dict[str, Any]]] = [("", {}), (", forced", {"force": True}), (", of 6 ids", {"dlq_ids": ids})]
    for moved, (how, fields) in zip((2, 4, 6), ways, strict=True):
        answer = scene.replay(tenant, label=f"max 2{how}", max=2, **fields).json()
        scene.seen.value(len(took(answer)), 2, "items")
        assert len(took(answer)) == answer.get("target_count") == 2, f"max 2{how} took {len(took(answer))} items"
        assert scene.replayed(tenant) == moved, f"{scene.replayed(tenant)} outbox rows after max 2{how}; due: {moved}"


@drill("drill/safety-rails/default-max-25", covers=("E01", "E02"))
def test_default_max(scene: Scene, tenant: str) -> None:
    """Without `max` a replay takes 25 items at most.

    Leaving it out replays everything.
    """
    due = current().limit("default_batch")
    scene.add_items(tenant, due + 3)
    scene.replay(tenant, label="max 1, dry", control=True, max=1, dry_run=True)
    answer = scene.replay(tenant, label="no max").json()
    scene.seen.value(len(took(answer)), due, "items")
    assert len(took(answer)) == due, f"{len(took(answer))} of {due + 3} items taken without max; due: {due}"
    assert scene.replayed(tenant) == due, f"{scene.replayed(tenant)} outbox rows; due: {due}"


@drill("drill/safety-rails/max-defaults-to-the-ids", severity=Severity.WARN, covers=("E02",))
def test_max_defaults_to_ids(scene: Scene, tenant: str) -> None:
    """Without `max`, all named items are taken, also where they are as many as may be named, or weeks old.

    An operator's list is cut silently.
    """
    count = current().limit("batch")
    ids = list[str]()
    with suppress(psycopg.errors.CheckViolation):  # here the table has no partition of that time
        ids += scene.tenants.add_rows(tenant, [{"id": new_id("item"), "age_s": 50 * 86400}])
    ids += scene.add_items(tenant, count - len(ids))
    shown = scene.replay(tenant, label=f"{count} ids, dry", control=True, dlq_ids=ids, dry_run=True).json()
    assert took(shown) == set(ids), f"a dry run shows {len(took(shown))} of {count} named items"
    answer = scene.replay(tenant, label=f"{count} ids", dlq_ids=ids).json()
    scene.seen.value(len(took(answer)), count, "items")
    assert took(answer) == set(ids), f"{len(took(answer))} of {count} named items taken"


@drill("drill/safety-rails/oldest-first", covers=("E15",))
def test_oldest_first(scene: Scene, tenant: str) -> None:
    """A replay takes the oldest items first, by creation, then id; of named items, too, and be they weeks old, tried
    before, or of a key.

    The oldest events wait for ever behind newer ones.
    """
    # neither the order of ids nor that of insertion equals the order by age, forwards or backwards
    drawn = sorted(new_id("item") for _ in range(6))
    # microseconds apart, at two places in a millisecond: cut times are alike in one; if the column cuts, ids decide
    ages_s = (20.000501, 300.000001, 20.000503, 40 * 86400, 20.000502, 300.000002)
    # earlier tries must not change the order: nearly all items were tried, and the oldest of the three named
    tries = (0, 0, 1, 0, 0, 0)
    names = ("id", "age_s", "retry_count")
    rows = [dict(zip(names, row, strict=True)) for row in zip(drawn, ages_s, tries, strict=True)]
    taken = min(28, current().limit("batch"))
    rows += [{"id": new_id("item"), "age_s": 50 * 86400 + n, "retry_count": 2} for n in range(taken - 2)]
    ids = scene.tenants.add_rows(tenant, [{**row, "max_retries": 9} for row in rows])
    if current().has("dead_letter_queue", "aggregate_key"):  # of one that is left, and of one that is taken
        of_a_key = "update public.dead_letter_queue set aggregate_key = 'k' where id::text = any(%s)"
        scene.rows(of_a_key, [ids[0], ids[3]])
    order = [str(r["id"]) for r in scene.items(tenant)]
    dry = scene.run(tenant, label="max 1, dry", max=1, dry_run=True)
    scene.seen.require(took(dry), "a dry run of max 1 shows no item")
    answer = scene.replay(tenant, label=f"max {taken}", max=taken).json()
    due = {*order[:taken]}
    assert took(answer) == due, f"other items were taken than the {taken} oldest of {len(ids)}"
    three = [ids[4], ids[0], ids[2]]
    # ids[2] was created with a retry: it only looks touched
    assert touched(scene, tenant) == {*due, ids[2]}, "other items than the answer's were touched"
    named = scene.replay(tenant, label="max 1 of three left", max=1, dlq_ids=three).json()
    assert took(named) == {min(three, key=order.index)}, "of three named items another was taken than the oldest"


@drill("drill/safety-rails/ties-by-id", severity=Severity.WARN, covers=("E15",))
def test_ties_by_id(scene: Scene, tenant: str) -> None:
    """Items created at the same moment are taken by their ids.

    A dry run and the real run choose different items.
    """
    drawn = sorted((new_id("item") for _ in range(6)), reverse=True)  # inserted the other way round
    ids = scene.tenants.add_rows(tenant, [{"id": i, "age_s": 3600} for i in drawn])
    scene.replay(tenant, label="max 1, dry", control=True, max=1, dry_run=True)
    answer = scene.replay(tenant, label="max 3", max=3).json()
    assert took(answer) == set(sorted(ids)[:3]), "of six items of one age others were taken than the three lowest ids"


INELIGIBLE: list[Case] = [
    Case("resolved-not-replayed", "A resolved item is not replayed again.", {"status": "resolved"}, ("E08", "L04")),
    Case("discarded-not-replayed", "A discarded item is not replayed.", {"status": "discarded"}, ("E08", "L08")),
    Case(
        "replaying-not-replayed",
        "An item that is being replayed is not taken a second time.",
        {"status": "replaying"},
        ("E08",),
    ),
    Case(
        "exhausted-not-replayed",
        "An item without attempts left is not replayed.",
        {"retry_count": 3, "max_retries": 3},
        ("E05",),
    ),
]


@cases("drill/safety-rails", INELIGIBLE, needs=TENANTS, after=SIGNED)
def test_ineligible(case: Case, scene: Scene, tenant: str) -> None:
    """An item that is not eligible is left alone, by selection, by its id, and by force; a dry run does not show it.

    Events have their effect twice, or are replayed for ever.
    """
    good = scene.add_items(tenant, 1)
    bad = scene.add_items(tenant, 2, **case.value)
    read = "select id, xmin::text as version from public.dead_letter_queue where id = any(%s::uuid[]) order by id"
    before = scene.rows(read, bad)
    answer = scene.run(tenant, label="by selection", max=10)
    scene.seen.require(took(answer) == set(good) or took(answer) & set(bad), "the eligible item was not taken")
    named = scene.replay(tenant, label="by id, forced", dlq_ids=bad, force=True).json()
    answers = [answer, named, scene.replay(tenant, label="by selection, forced", max=10, force=True).json()]
    scene.reset_limit(tenant)
    if scene.claims("dry-run"):
        answers.append(scene.replay(tenant, label="a dry run, forced", max=10, force=True, dry_run=True).json())
    taken = set.union(*map(took, answers)) & set(bad)
    assert not taken, f"{len(taken)} items that are not eligible ({case.name}) were taken"
    assert scene.rows(read, bad) == before, "rows of items that are not eligible were changed"
    listed = set(map(str, named.get("ineligible", [])))
    assert listed == set(bad), f"ineligible lists {len(listed)} of the 2 named items"


@drill("drill/safety-rails/not-due-waits", covers=("E08",))
def test_not_due(scene: Scene, tenant: str) -> None:
    """An item whose `retry_after` has not come is left alone, and two hundred of them hide no younger one that is due.

    A failing event is retried at once, again and again; or postponed items block all others from being replayed.
    """
    later = scene.add_items(tenant, 200, retry_after="2999-01-01T00:00:00Z")
    due = scene.add_items(tenant, 1, age_s=60)
    answer = scene.run(tenant, label="unforced", max=10)
    assert took(answer) == set(due), f"{len(took(answer))} items taken; due: the one whose retry_after is past"
    named = scene.replay(tenant, label="unforced, by id", dlq_ids=later[:1]).json()
    assert not took(named), "an item was taken before its retry_after"
    assert not touched(scene, tenant) & set(later), "an item was changed before its retry_after"


@drill("drill/safety-rails/force-ignores-retry-after", severity=Severity.WARN, covers=("E08",))
def test_force(scene: Scene, tenant: str) -> None:
    """`force` takes an item whose `retry_after` has not come.

    An operator in an incident cannot replay what has just failed.
    """
    later = scene.add_items(tenant, 1, retry_after="2999-01-01T00:00:00Z")
    unforced = scene.run(tenant, label="unforced", max=10)
    scene.seen.require(not took(unforced), "the item was taken without force")
    forced = scene.replay(tenant, label="forced", max=10, force=True).json()
    assert took(forced) == set(later), "force did not take the item whose retry_after lies ahead"


FORCED: list[Case] = [
    Case(
        "force-respects-pause",
        "`force` does not ignore a pause.",
        (lambda s, c: s.pause(c), 409, "agents_paused"),
        ("E03",),
    ),
    Case(
        "force-respects-budget",
        "`force` does not ignore the budget.",
        (lambda s, c: s.budget(c, daily_limit=0), 429, "budget_exhausted"),
        ("G01",),
    ),
    Case(
        "force-respects-flags",
        "`force` does not ignore a flag that is off.",
        (lambda s, c: s.set_flag(c, "dlq.replay.enabled", enabled=False), 403, "feature_disabled"),
        ("E03",),
    ),
]


@cases("drill/safety-rails", FORCED, needs=TENANTS, after=SIGNED)
def test_force_respects(case: Case, scene: Scene, tenant: str) -> None:
    """`force` ignores `retry_after` and nothing else.

    One word in a request switches off every safety rail.
    """
    hinder, status, code = case.value
    scene.add_items(tenant, 3)
    scene.replay(tenant, label="forced, nothing in its way", control=True, max=1, force=True)
    hinder(scene, tenant)
    before = touched(scene, tenant)
    scene.replay(tenant, status, code, label=case.name, max=1, force=True)
    assert touched(scene, tenant) == before, "a refused replay touched items"


@drill("drill/safety-rails/foreign-ids-not-found", covers=("L13", "A27"))
def test_foreign_ids(scene: Scene, tenant: str, other: str) -> None:
    """Foreign ids are reported as not found, in whatever state they are, like unknown ones, and untouched; the rest is
    replayed.

    One tenant replays, or finds out about, another's events.
    """
    own, foreign = scene.add_items(tenant, 1), scene.add_of_each_kind(other)
    before = scene.digest(other)
    unknown = [new_id("item"), new_id("item")]
    answer = scene.run(tenant, label="own, foreign and unknown ids", dlq_ids=[*foreign, *own, *unknown])
    assert scene.digest(other) == before, "rows of another tenant were changed"
    stolen = took(answer) - set(own)
    assert not stolen, f"the answer lists {len(stolen)} items of another tenant as taken"
    scene.seen.require(took(answer), "the tenant's own item was not taken")
    listed = set(map(str, answer.get("not_found", [])))
    assert listed == {*foreign, *unknown}, f"not_found lists {len(listed)}; due: the 3 foreign and 2 unknown ids"
    assert not answer.get("ineligible"), "a foreign id is listed as ineligible: it is known to exist"


@drill("drill/safety-rails/other-tenants-untouched", covers=("J26", "E01"))
def test_other_tenants_untouched(scene: Scene, tenant: str, other: str) -> None:
    """A replay of one tenant changes no row of another, forced or of an error type, either.

    A replay for one tenant is a replay for all.
    """
    scene.add_items(other, 3, error_type="Timeout")
    scene.add_items(other, 1, retry_after="2999-01-01T00:00:00Z")
    before = scene.digest(other)
    for fields in ({}, {"force": True}, {"error_type": "Timeout"}):
        due = scene.add_items(tenant, 1, error_type="Timeout")
        answer = scene.run(tenant, label=f"one tenant, {fields}", max=current().limit("batch"), **fields)
        assert scene.digest(other) == before, f"rows of another tenant were changed by a replay, {fields or 'plain'}"
        scene.seen.require(took(answer) == set(due), f"{fields}: {len(took(answer))} items taken; due: the tenant's 1")


@drill("drill/safety-rails/only-the-named-ids", covers=("E01",))
def test_only_named(scene: Scene, tenant: str) -> None:
    """With `dlq_ids` only the named items are taken, each once, however often it is named.

    A selection by hand replays what was not selected.
    """
    ids = scene.add_items(tenant, 5)
    chosen = [ids[3], ids[1]]
    answer = scene.run(tenant, label="two of five, one twice", dlq_ids=[*chosen, chosen[0], chosen[1].upper()])
    assert took(answer) == set(chosen), f"{len(took(answer))} items taken; due: the 2 named"
    assert len(answer.get("items", [])) == answer.get("target_count") == 2, f"target_count {answer.get('target_count')}"
    assert touched(scene, tenant) == set(chosen), "other items than the named were touched"
    assert scene.replayed(tenant) == 2, f"{scene.replayed(tenant)} outbox rows; allowed: 2"


@drill("drill/safety-rails/ids-and-error-type", severity=Severity.WARN, covers=("E13", "L03"))
def test_ids_and_error_type(scene: Scene, tenant: str) -> None:
    """`dlq_ids` and `error_type` together take what fits both, the type as it is spelt.

    One of two filters is silently ignored.
    """
    wanted = scene.add_items(tenant, 2, error_type="timeout")
    others = [i for kind in ("refused", "Timeout") for i in scene.add_items(tenant, 1, error_type=kind)]
    answer = scene.run(tenant, label="ids of both, one type", dlq_ids=[*wanted, *others], error_type="timeout")
    assert took(answer) == set(wanted), f"{len(took(answer) & set(others))} items of another error type were taken"


PATTERNS: list[Case] = [
    Case("pattern-percent", "`%` in an error type is a character.", ("%", ["%"], ["abc", "%%", "", "x%"])),
    Case("pattern-underscore", "`_` in an error type is a character.", ("a_c", ["a_c"], ["abc", "a__c"])),
    Case("pattern-star", "`*` and `.` in an error type are characters.", ("a.*", ["a.*"], ["abc", "a", "a."])),
    Case(
        "pattern-quote",
        "Quotes in an error type are characters.",
        ("o'x\" or 1=1 --", ["o'x\" or 1=1 --"], ["o", "ox"]),
    ),
    Case(
        "pattern-placeholder",
        "`$1` and `%s` in an error type are characters.",
        ("$1 %s {0}", ["$1 %s {0}"], ["$1", "1"]),
    ),
    Case(
        "pattern-backslash", "A backslash in an error type is a character.", ("a\\c", ["a\\c"], ["ac", "a\\\\c", "a%c"])
    ),
    Case(
        "pattern-case",
        "The case and the accents of an error type count, and how they are written.",
        (
            "D\u00e9lai \U0001f98a",
            ["D\u00e9lai \U0001f98a"],
            [f"{word} \U0001f98a" for word in ("d\u00e9lai", "D\u00c9LAI", "Delai", "De\u0301lai")]
            + ["D\u00e9lai \U0001f98b"],
        ),
    ),
    Case(
        "pattern-prefix",
        "Part of an error type is not the type.",
        ("time ", ["time "], ["time", "time out", "a time ", "time  ", " time "]),
    ),
    Case("pattern-number", "An error type of digits is text.", ("0", ["0"], ["00", "0.0", "unknown", "null"])),
    Case("pattern-json-path", "A JSON path in an error type is text.", ("$.a[*]", ["$.a[*]"], ["a", "$.a[0]"])),
]


@cases("drill/safety-rails", PATTERNS, needs=TENANTS, after=SIGNED, covers=("E13", "L03"))
def test_pattern(case: Case, scene: Scene, tenant: str) -> None:
    """An error type is matched exactly, never as a pattern.

    One character in a filter replays everything, or allows SQL injection.
    """
    wanted, equal, others = case.value
    rows = [{"error_type": text} for text in (*equal, *others) if text]
    ids = scene.tenants.add_rows(tenant, rows)
    due = {i for i, row in zip(ids, rows, strict=True) if row["error_type"] in equal}
    whole = scene.run(tenant, label="no filter, dry", dry_run=True)
    scene.seen.require(took(whole) == set(ids), f"without a filter {len(took(whole))} of {len(ids)} items are shown")
    taken = took(scene.replay(tenant, label=f"error_type {wanted!r}", error_type=wanted).json())
    said = f"{len(taken - due)} items of other types, and {len(taken & due)} of the {len(due)} due"
    assert taken == due, f"error_type {wanted!r} took {said}"
    blank = took(scene.run(tenant, label="a blank error_type, dry", error_type=" ", dry_run=True))
    assert not blank, f"error_type ' ', which no item has, shows {len(blank)} items"


@drill("drill/safety-rails/answer-adds-up", severity=Severity.WARN, covers=("L10",))
def test_answer_adds_up(scene: Scene, tenant: str) -> None:
    """Each named id is in exactly one of `items`, `not_found` and `ineligible`; these are lists even when empty, and
    `target_count` counts the items.

    An id without an outcome is overlooked; a client fails on null where a list is due.
    """
    unknown = [new_id("item") for _ in range(current().limit("batch"))]
    told = scene.replay(tenant, label="unknown ids", dlq_ids=unknown).json()
    assert sorted(told.get("not_found", [])) == sorted(unknown), (
        f"not_found lists {len(told.get('not_found', []))} of {len(unknown)} ids that are not there"
    )
    bare = scene.replay(tenant, label="nothing eligible", control=True).json()
    odd = {name: bare[name] for name in LISTS if name in bare and not isinstance(bare[name], list)}
    assert not odd, f"where nothing was eligible the answer says {odd}; due: lists"
    good, done = scene.add_items(tenant, 2), scene.add_items(tenant, 24, status="resolved")
    named = [*good, *done, *(new_id("item") for _ in range(24))]
    answer = scene.run(tenant, label="fifty ids", dlq_ids=named)
    lists = [[str(i) for i in answer.get(k, [])] for k in LISTS]
    assert sorted(i for one in lists for i in one) == sorted(named), (
        f"items, not_found and ineligible list {[len(x) for x in lists]} ids; due: the 50 named, each once"
    )
    counted = answer.get("target_count")
    assert counted == len(lists[0]), f"target_count is {counted}, items lists {len(lists[0])}"
    assert answer.get("company_id") == tenant, f"company_id is {answer.get('company_id')!r}; due: the tenant's"
    assert answer.get("dry_run") is False, f"dry_run is {answer.get('dry_run')!r}; due: false"


@drill("drill/safety-rails/nothing-eligible-completes", severity=Severity.WARN, covers=("E08",))
def test_nothing_eligible(scene: Scene, tenant: str) -> None:
    """A run with nothing to replay is completed at once; one with items is started.

    Empty runs stay open for ever, or runs with items are taken for finished.
    """
    empty = scene.run(tenant, label="nothing eligible")
    assert empty.get("status") == "completed", f"status {empty.get('status')!r}; due: completed"
    assert empty.get("target_count") == 0, f"target_count {empty.get('target_count')!r}; due: 0"
    absent = scene.known(dlq_ids=[new_id("item")])
    named = scene.run(tenant, label="nothing that is named is there", **absent).get("status")
    assert named == "completed", f"status {named!r} where nothing that is named is there; due: completed"
    scene.add_items(tenant, 1)
    full = scene.replay(tenant, label="one item").json()
    assert full.get("status") == "started", f"status {full.get('status')!r}; due: started"
