"""Budgets: a tenant replays no more items than its day and its month allow, whoever races, and pays for no other."""

import uuid
from functools import partial

import pytest

from drills.workbench.checks import SIGNED, SQL
from drills.workbench.scene import Scene
from gates.checks.observation import Breach
from gates.checks.recorder import check
from gates.deployment.dialect.current import current
from gates.deployment.http.client import NoAnswer
from gates.deployment.sql.database import execute
from gates.evidence import Severity, Where

pytestmark = pytest.mark.beside_load

drill = partial(check, needs=SQL, after=SIGNED)

BUDGET_ROW = """
select daily_limit, monthly_limit, daily_used, monthly_used, day from public.replay_budgets where company_id = %s
"""


def _untouched(scene: Scene, company: str) -> bool:
    rows = scene.items(company)
    return bool(rows) and all(r["status"] == "pending" and r["retry_count"] == 0 for r in rows)


@drill("drill/budgets/charged-by-items-moved", covers=("G01",))
def test_charged_by_items_moved(scene: Scene) -> None:
    """A replay charges the day and the month by the number of items it moved, not by what was asked for, also after the
    limits were raised to a million.

    A tenant pays for items that were not replayed, or replays without paying.
    """
    company = scene.company(items=3)
    day = scene.today()
    answer = scene.run(company, max=25)
    scene.seen.require(scene.today() == day, "the UTC day changed meanwhile; run again")
    assert answer["target_count"] == 3, f"target_count {answer['target_count']} where 3 items were eligible"
    scene.seen.value(list(scene.used(company)), [3, 3], "items")
    assert scene.used(company) == (3, 3), f"daily and monthly used are {scene.used(company)}; due: 3 and 3"
    raised = "update public.replay_budgets set daily_limit = 100000, monthly_limit = 1000000 where company_id = %s"
    scene.rows(raised, company)
    batch = current().limit("batch")
    scene.add_items(company, batch)
    answer = scene.replay(company, label="a replay under raised limits", max=batch).json()
    told, due = answer["target_count"], 3 + batch
    scene.seen.require(scene.today() == day, "the UTC day changed meanwhile; run again")
    assert told == batch, f"target_count {told} where {batch} items were eligible"
    moved = scene.replayed(company)
    assert moved == due, f"{moved} outbox rows after replays of 3 and of {batch} items; due: {due}"
    used = scene.used(company)
    assert used == (due, due), f"daily and monthly used are {used} after 3 and {batch} items; due: {due} and {due}"
    scene.seen.count()


@drill("drill/budgets/batch-cut-to-what-is-left", covers=("G01",))
def test_batch_cut_to_what_is_left(scene: Scene) -> None:
    """A batch is cut to what the day's budget leaves, oldest items first.

    A batch that ignores the remainder overspends; one that is refused whole leaves budget that was paid for.
    """
    company = scene.company(items=5)
    scene.budget(company, daily_limit=3)
    oldest = [str(r["id"]) for r in scene.items(company)[:3]]
    answer = scene.replay(company, max=5).json()
    scene.seen.value(answer["target_count"], 3, "items")
    assert sorted(answer["items"]) == sorted(oldest), f"{len(answer['items'])} items taken; due: the 3 oldest of 5"
    left = [r for r in scene.items(company) if str(r["id"]) not in oldest]
    assert all(r["status"] == "pending" for r in left), "items beyond the budget were touched"
    scene.seen.count(len(left))
    scene.rows("update public.replay_budgets set daily_limit = 5 where company_id = %s", company)
    scene.run(company, max=5)


@drill("drill/budgets/exhausted-refused", covers=("G01",))
def test_exhausted_refused(scene: Scene) -> None:
    """When the day's budget is spent, be it the default or more, the next replay is 429 budget_exhausted and touches no
    item; as soon as the limit is raised, the very same request is admitted.

    One tenant replays without end, and nobody's costs are bounded; or what an operator grants comes late.
    """
    company = scene.company(items=3)
    scene.budget(company, daily_limit=1002, daily_used=1000, monthly_used=1000)
    scene.run(company, max=2)
    before = scene.used(company)
    poor = scene.replay_request(company, max=1).labelled("the daily budget is spent")
    # the second call of a tenant that nobody else uses: a `rate_limited` here is the target's own word
    scene.seen.expect(poor, scene.http.send(poor), 429, "budget_exhausted", busy=True)
    assert [r["status"] for r in scene.items(company)].count("pending") >= 1, "the last item was taken all the same"
    assert scene.used(company) == before, f"the refusal changed the ledger from {before} to {scene.used(company)}"
    scene.rows("update public.replay_budgets set daily_limit = 1003 where company_id = %s", company)
    raised = poor.labelled("the limit is raised")
    answer = scene.http.send(raised)
    assert answer.code != "budget_exhausted", "a limit that was raised does not count at the next request"
    scene.seen.expect(raised, answer, 200)
    scene.seen.count()


@drill("drill/budgets/monthly-limit-binds", covers=("G01",))
def test_monthly_limit_binds(scene: Scene) -> None:
    """The month's budget binds even where the day's leaves room, and one of 0 leaves nothing, nor does a day's of 0.

    Thirty full days cost more than the monthly limit allows; a tenant that was to replay nothing has no limit.
    """
    company, free = scene.company(items=3), scene.company(items=1)
    scene.run(free, max=1)
    scene.budget(company, daily_limit=100, monthly_limit=2)
    request = scene.replay_request(company, max=3).labelled("replay of 3 where the month leaves 2")
    answer = scene.expect(request, 200).json()
    assert answer["target_count"] == 2, f"{answer['target_count']} items taken where the month leaves 2"
    scene.replay(company, 429, "budget_exhausted", max=1)
    scene.budget(free, monthly_limit=0)
    scene.expect(scene.replay_request(free, max=1).labelled("a month's limit of 0"), 429, "budget_exhausted")
    scene.budget(free, daily_limit=0)
    scene.expect(scene.replay_request(free, max=1).labelled("a day's limit of 0"), 429, "budget_exhausted")


@drill("drill/budgets/race-never-overspends", covers=("G02",))
def test_race_never_overspends(scene: Scene) -> None:
    """Replays that race for one budget, two of them forced and of named items, together take no more than it leaves,
    and the ledger says what they took.

    A lost update lets every concurrent caller spend the same remainder.
    """
    company = scene.company(items=12)
    scene.budget(company, daily_limit=4)
    ids = [str(item["id"]) for item in scene.items(company)]
    # two of a kind, since the first of all is right whatever it reads
    ways = [scene.known(), *(scene.known(force=True, dlq_ids=ids[at : at + 3]) for at in (6, 9))]
    requests = [scene.replay_request(company, max=3, idempotency_key=str(uuid.uuid4()), **way) for way in ways]
    # all three wait for the tenant's budget row, so that none can read it after another has written
    with scene.locked("replay_budgets", company) as held:
        release = scene.released_after(held, 0.25)
        answers = scene.http.burst(requests)
        release.join(timeout=5)
    given = [a for a in answers if not isinstance(a, NoAnswer)]
    scene.seen.require(len(given) == 3, "a racing request had no answer")
    taken = sum(int(a.json().get("target_count", 0)) for a in given if a.status == 200)
    moved = scene.count("event_outbox", company)
    scene.seen.value(max(taken, moved), 4, "items")
    assert max(taken, moved) <= 4, f"{max(taken, moved)} items taken by three racing replays; the budget left 4"
    assert scene.used(company)[0] == moved, f"the ledger says {scene.used(company)[0]}, {moved} items were moved"
    if broken := sum(a.status == 500 for a in given):
        scene.seen.value(broken, 0)
        raise Breach(f"{broken} of three racing replays answered 500; due: 200 or 429", "POST /dlq-replay answered 500")
    scene.seen.require(any(a.status == 200 for a in given), "no racing replay was accepted")
    scene.seen.control("at least one racing replay was accepted")
    scene.seen.count(3)


@drill("drill/budgets/tenants-apart", covers=("G04",))
def test_tenants_apart(scene: Scene) -> None:
    """What one tenant spends leaves another tenant's budget as it was.

    A shared counter lets one tenant lock out all others.
    """
    spender, other = scene.company("a", items=3), scene.company("b", items=1)
    scene.budget(spender, daily_limit=3)
    scene.budget(other, daily_limit=3, daily_used=1, monthly_used=1)
    scene.run(spender, max=3)
    assert scene.used(other) == (1, 1), f"the other tenant's ledger went from (1, 1) to {scene.used(other)}"
    scene.seen.count()
    scene.replay(other, control=True, max=1)


@drill("drill/budgets/force-does-not-ignore-it", covers=("G09",))
def test_force_does_not_ignore_it(scene: Scene) -> None:
    """`force` does not get past a spent budget, nor does it where the item is named.

    A budget that any request can lift with one field limits nobody. Only a changed limit may lift it.
    """
    company = scene.company(items=1)
    scene.budget(company, daily_limit=1, daily_used=1, monthly_used=1)
    scene.replay(company, 429, "budget_exhausted", max=1, force=True)
    named = scene.known(dlq_ids=[str(scene.item(company)["id"])])
    scene.replay(company, 429, "budget_exhausted", label="forced and named", force=True, **named)
    assert _untouched(scene, company), "the item was taken all the same"
    scene.rows("update public.replay_budgets set daily_limit = 2 where company_id = %s", company)
    scene.replay(company, control=True, max=1, force=True)


@drill("drill/budgets/negative-spend-refused", covers=("G06",))
def test_negative_spend_refused(scene: Scene) -> None:
    """A negative or overflowing `max` is refused and gives no budget back.

    Subtracting a negative number adds budget.
    """
    company = scene.company(items=2)
    scene.budget(company, daily_limit=5, daily_used=3, monthly_used=3)
    for wrong in (-1, -50, 0):
        scene.replay(company, 400, "invalid_request", max=wrong)
    for huge in (2**31, 2**63):
        scene.replay(company, 400, max=huge)
    assert scene.used(company) == (3, 3), f"refused requests changed the ledger from (3, 3) to {scene.used(company)}"
    scene.replay(company, control=True, max=1)


@drill("drill/budgets/lowered-limit-leaves-nothing", covers=("G01",))
def test_lowered_limit_leaves_nothing(scene: Scene) -> None:
    """A limit may be lowered below what is used, and then leaves nothing.

    If the database refuses this, no operator can restrict a tenant; a negative remainder may take anything.
    """
    company = scene.company(items=2)
    scene.budget(company, daily_limit=10, daily_used=6, monthly_used=6)
    for column in ("monthly_limit", "daily_limit"):
        lower = f"update public.replay_budgets set {column} = 4 where company_id = %s"
        assert not scene.refused_by_database(lower, company), f"a {column} of 4 is refused where 6 are used"
    scene.rows(lower, company)
    for shown in ({}, scene.known(dry_run=True)):
        scene.replay(company, 429, "budget_exhausted", max=1, **shown)
    assert _untouched(scene, company), "an item was taken although nothing was left"
    scene.rows("update public.replay_budgets set daily_limit = 7 where company_id = %s", company)
    answer = scene.run(company, max=2)
    assert answer["target_count"] == 1, f"{answer['target_count']} items taken where 1 is left"


@drill("drill/budgets/database-refuses-overspending", covers=("G01",))
def test_database_refuses_overspending(scene: Scene) -> None:
    """The database itself refuses to raise `used` above its limit, but allows lowering a `used` that is above it.

    It is the last guard when a release forgets the budget. A guard that refuses refunds keeps the stopped run open.
    """
    company = scene.company()
    scene.budget(company, daily_limit=5, monthly_limit=5)
    scene.rows("update public.replay_budgets set daily_used = 5, monthly_used = 5 where company_id = %s", company)
    scene.seen.control("raising used to the limit is allowed")
    for column in ("daily_used", "monthly_used"):
        refused = scene.refused_by_database(
            f"update public.replay_budgets set {column} = 6 where company_id = %s", company
        )
        assert refused, f"{column} was raised to 6 where the limit is 5"
        scene.seen.count()
    scene.rows("update public.replay_budgets set daily_limit = 2, monthly_limit = 2 where company_id = %s", company)
    refund = "update public.replay_budgets set daily_used = 4, monthly_used = 4 where company_id = %s"
    assert not scene.refused_by_database(refund, company), "a refund was refused where the limit is below what is used"


@drill("drill/budgets/dry-run-shows-what-is-left", covers=("G08",), severity=Severity.WARN)
def test_dry_run_shows_what_is_left(scene: Scene) -> None:
    """A dry run answers with exactly what the ledger in the database leaves, and spends none of it.

    A cached remainder shows the operator a batch that the real run will not take.
    """
    company = scene.company(items=5)
    scene.budget(company, daily_limit=10, daily_used=8, monthly_used=8)
    answer = scene.run(company, max=5, dry_run=True)
    scene.seen.value(answer["target_count"], 2, "items")
    assert answer["target_count"] == 2, f"the dry run shows {answer['target_count']} items; the ledger leaves 2"
    assert scene.used(company) == (8, 8), f"the dry run changed the ledger to {scene.used(company)}"
    scene.rows("update public.replay_budgets set daily_limit = 11 where company_id = %s", company)
    again = scene.run(company, max=5, dry_run=True)
    assert again["target_count"] == 3, (
        f"after the limit was raised, {again['target_count']} items are shown; 3 are left"
    )


@drill("drill/budgets/no-row-means-the-defaults", covers=("G01",))
def test_no_row_means_the_defaults(scene: Scene) -> None:
    """A tenant without a budget row replays under the default limits and is charged, even where its first two replays
    run at once; its dry run shows a whole batch.

    A missing row read as nothing, or as little, locks new tenants out; read as no limit, it lets them run free.
    """
    batch = current().limit("batch")
    company, known = scene.company(items=batch), scene.company(items=1)
    scene.budget(known, daily_limit=100)
    scene.run(known, max=1)
    scene.rows("delete from public.replay_budgets where company_id = %s", company)
    shown = scene.replay(company, max=batch, dry_run=True).json()["target_count"]
    assert shown == batch, f"a dry run without a budget row shows {shown} of {batch} items; the defaults leave all"
    firsts = [scene.replay_request(company, "one of two first replays", max=1) for _ in range(2)]
    # both find no row, and insert one as soon as a third session, whose own row is gone, has ended
    with scene.transaction() as other:
        execute(other, "insert into public.replay_budgets (company_id) values (%s)", company)
        execute(other, "delete from public.replay_budgets where company_id = %s", company)
        release = scene.released_after(other, 0.25)
        answers = scene.burst(firsts)
        release.join(timeout=5)
    for request, answer in zip(firsts, answers, strict=True):
        scene.seen.expect(request, answer, 200, busy=answer.code == "budget_exhausted")
    row = scene.one(BUDGET_ROW, company)
    assert row, "the replay of a tenant without a budget row was charged nowhere"
    limits = (row["daily_limit"], row["monthly_limit"])
    assert limits == (500, 10_000), f"the limits are {limits}; the defaults are 500 and 10000"
    assert scene.used(company) == (2, 2), f"the ledger says {scene.used(company)} after 2 items"
    scene.seen.count()


@drill("drill/budgets/duplicate-charges-nothing", covers=("G03",), severity=Severity.WARN)
def test_duplicate_charges_nothing(scene: Scene) -> None:
    """A duplicate of a finished request is charged nothing, and neither is a refused one.

    A retrying client would pay twice for one effect.
    """
    company = scene.company(items=2)
    key = str(uuid.uuid4())
    scene.run(company, max=1, idempotency_key=key)
    scene.replay(company, max=1, idempotency_key=key)
    assert scene.used(company) == (1, 1), f"the ledger says {scene.used(company)} after one item and its duplicate"
    scene.replay(company, 422, "idempotency_key_reused", max=2, idempotency_key=key)
    assert scene.used(company) == (1, 1), f"a refused request changed the ledger to {scene.used(company)}"
    scene.seen.count(2)


@drill("drill/budgets/unreadable-starts-nothing", covers=("G10",), where=Where.STAGING, deep=True)
def test_unreadable_starts_nothing(scene: Scene) -> None:
    """While the tenant's budget row cannot be read or charged, no item is moved.

    A budget that fails open is no budget on the day the database is slow.
    """
    company = scene.company(items=2)
    scene.budget(company, daily_limit=2)
    with scene.locked("replay_budgets", company) as held:
        answer = scene.moves_nothing_while(held, company, within_s=2.5, what="the budget row was")
    scene.seen.require(answer.status in {200, 429, 500, 503}, f"the replay ended with {answer.status}")
    scene.reset_limit(company)
    scene.rows("update public.replay_budgets set daily_limit = 9 where company_id = %s", company)
    scene.replay(company, control=True, dry_run=True)
