"""Dry run: it says exactly what the real run would do, and does nothing."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest

from drills.workbench.bench import Bench, said_beside
from drills.workbench.checks import SIGNED, TENANTS, Case, cases
from drills.workbench.credentials import Minter
from drills.workbench.scene import Scene, new_key
from gates.checks.recorder import check
from gates.deployment.dialect.current import current
from gates.deployment.dialect.exchange import real_member
from gates.deployment.requests import token_post
from gates.deployment.tenants.tenants import owned_tables
from gates.evidence import Severity, Where

pytestmark = pytest.mark.beside_load

drill = partial(check, needs=TENANTS, after=SIGNED)
RESTLESS_S = 3.0
"""A job of the deployment's own that writes a table without being asked does so at least once in this time."""

SPELLINGS: list[Case] = [
    Case("string-false", '`dry_run` "false" is refused: a string is no truth.', "false"),
    Case("string-true", '`dry_run` "true" is refused.', "true"),
    Case("number-zero", "`dry_run` 0 is refused.", 0),
    Case("number-one", "`dry_run` 1 is refused.", 1),
    Case("word-no", '`dry_run` "no" is refused.', "no"),
    Case("null", "`dry_run` null is refused.", None),
    Case("list", "`dry_run` as a list is refused.", [True]),
]


@cases("drill/dry-run", SPELLINGS, where=Where.READ_ONLY, after=SIGNED, covers=("F04",))
def test_spelling(case: Case, bench: Bench) -> None:
    """`dry_run` is true or false; anything else is refused with 400.

    A preview becomes a real replay, or a replay a preview, by how a language converts values to true or false.
    """
    bench.opens(bench.signed(bench.body(dry_run=True)))
    bench.refused(bench.signed(bench.body(dry_run=case.value), case.name), 400, "invalid_request")


@check("drill/dry-run/misspelt-field", where=Where.READ_ONLY, after=SIGNED, covers=("F05",))
def test_misspelt(bench: Bench) -> None:
    """A misspelt `dry_run` is refused, not ignored.

    An operator who writes `dryrun` wants a preview and gets a replay.
    """
    bench.opens(bench.signed(bench.body(dry_run=True)))
    for name in ("dryrun", "dryRun", "dry-run", "DRY_RUN", "dry_run "):
        if name == real_member("dry_run"):
            continue
        bench.refused(bench.signed(bench.body(**{name: True}), name), 400, "invalid_request")


@drill("drill/dry-run/answer", severity=Severity.WARN, covers=("F02",))
def test_answer(scene: Scene, tenant: str) -> None:
    """A dry run answers with status `dry_run`, its key and no run id, and says that it was dry; a real run does not.

    An operator takes a preview for a replay.
    """
    scene.add_items(tenant, 2)
    keyed = scene.known(idempotency_key=new_key())
    dry = scene.replay(tenant, label="dry run", dry_run=True, **keyed).json()
    said = {"status": "dry_run", "dry_run": True, "replay_run_id": None, "duplicate": False, **keyed}
    for field, due in said.items():
        assert dry.get(field, "absent") == due, f"{field} is {dry.get(field, 'absent')!r}; due: {due!r}"
    assert dry.get("target_count") == len(dry.get("items", [])) == 2, (
        f"target_count {dry.get('target_count')!r}; due: 2"
    )
    real = scene.run(tenant, label="real run")
    scene.seen.require(real.get("status") == "started", f"the real run is {real.get('status')!r}")


@drill("drill/dry-run/writes-nothing", covers=("F01",))
def test_writes_nothing(scene: Scene, tenant: str) -> None:
    """A dry run changes no row of any table of its tenant, row versions included, and creates no missing row. Only its
    body decides: its query and headers, which no signature covers, cannot make it a real run.

    A preview changes data.
    """
    scene.add_items(tenant, 3)
    for budget in ("no budget row", "a budget row"):
        before = scene.tables(tenant, beside=True)
        scene.replay(tenant, label=f"dry run, {budget}", dry_run=True)
        changed = _changed(before, scene.tables(tenant, beside=True))
        changed -= _restless(scene, tenant, changed.difference(owned_tables()))
        assert not changed, f"a dry run of a tenant with {budget} changed rows in {sorted(changed)}"
        scene.seen.value(len(before), unit="tables")
        scene.budget(tenant, daily_limit=100)
    scene.reset_limit(tenant)
    for request in said_beside(scene.replay_request(tenant, "dry run", dry_run=True), dry_run="false", force="true"):
        scene.http.send(request)
        assert not (moved := scene.replayed(tenant)), f"{request.label}: {moved} items were moved; allowed: 0"
        scene.seen.count()
    before = scene.tables(tenant)
    scene.replay(tenant, label="real run", control=True)
    scene.seen.require(scene.tables(tenant) != before, "the real run changed nothing either")


def _changed(before: Mapping[str, str], after: Mapping[str, str]) -> set[str]:
    return {table for table in before if before[table] != after.get(table)}


def _restless(scene: Scene, tenant: str, tables: set[str]) -> set[str]:
    """Those of the tables that also change while nobody asks: a job writes them, and no dry run."""
    if not tables:
        return set()
    before, found = scene.tables(tenant, beside=True), set[str]()

    def look() -> bool:
        found.update(tables & _changed(before, scene.tables(tenant, beside=True)))
        return found == tables

    scene.until_true(look, within_s=RESTLESS_S)
    return found


@drill("drill/dry-run/one-audit-row", severity=Severity.WARN, covers=("F01", "F07"))
def test_one_audit_row(scene: Scene, tenant: str) -> None:
    """A dry run leaves exactly one audit row, `dlq_replay_dry_run`, and none that says that something was replayed.

    The trail does not distinguish a preview from a replay.
    """
    scene.add_items(tenant, 2)
    scene.replay(tenant, label="dry run", control=True, dry_run=True)
    actions = [str(r["action"]) for r in scene.audited(tenant)]
    scene.seen.value(", ".join(actions), "dlq_replay_dry_run")
    assert actions == ["dlq_replay_dry_run"], f"audit rows {actions}; due: one dlq_replay_dry_run"


@drill("drill/dry-run/one-limited-call", severity=Severity.WARN, covers=("F06", "C16"))
def test_one_limited_call(scene: Scene, tenant: str) -> None:
    """A dry run counts as one call of the rate limit.

    Previews without a limit let anyone load the database.
    """
    scene.replay(tenant, label="dry run", control=True, dry_run=True)
    read = "select coalesce(sum(cardinality(hits)), 0) from public.edge_rate_limits where key like %s"
    hits = scene.number(read, f"replay:{tenant}:%")
    scene.seen.value(hits, 1, "hits")
    assert hits == 1, f"{hits} hits after one dry run; due: 1"


@drill("drill/dry-run/consumes-nothing", covers=("F06",))
def test_consumes_nothing(scene: Scene, tenant: str) -> None:
    """A dry run uses no budget and no attempt of an item.

    An operator who previews twice cannot replay any more.
    """
    scene.add_items(tenant, 3)
    scene.budget(tenant, daily_limit=3)
    scene.replay(tenant, label="dry run", dry_run=True)
    scene.charged(tenant, 0)
    tried = scene.number(
        "select coalesce(sum(retry_count), 0) from public.dead_letter_queue where company_id = %s", tenant
    )
    assert tried == 0, f"a dry run used {tried} attempts"
    real = scene.run(tenant, label="real run, of all that was shown")
    assert real.get("target_count") == 3, f"after a dry run {real.get('target_count')} of 3 items are left to take"


@drill("drill/dry-run/delivers-nothing", covers=("F08",))
def test_delivers_nothing(scene: Scene, tenant: str) -> None:
    """A dry run writes no outbox row and has no effect; the items stay pending.

    The agents act on a preview.
    """
    ids = scene.add_items(tenant, 3)
    scene.replay(tenant, label="dry run", dry_run=True)
    written = scene.count("event_outbox", tenant)
    effects = scene.count("agent_tasks", tenant)
    pending = scene.count("dead_letter_queue", tenant, "status = 'pending'")
    scene.seen.value(written + effects, 0, "rows")
    assert (written, effects) == (0, 0), f"a dry run wrote {written} outbox rows and {effects} effects"
    assert pending == len(ids), f"{pending} of {len(ids)} items are still pending after a dry run"
    scene.replay(tenant, label="real run", control=True)
    scene.seen.require(scene.replayed(tenant) == 3, "the real run wrote no outbox rows either")


@drill("drill/dry-run/same-items-as-the-real-run", covers=("F02",))
def test_same_items(scene: Scene, tenant: str) -> None:
    """A dry run lists the very items that the real run with the same arguments then takes.

    The preview does not show what the replay would do.
    """
    for spent in ({"status": "resolved"}, {"status": "discarded"}, {"retry_count": 3, "max_retries": 3}):
        scene.add_items(tenant, 1, error_type="wanted", **spent)
    scene.add_items(tenant, 1, error_type="wanted", retry_after="2999-01-01T00:00:00Z")
    scene.add_items(tenant, 4, error_type="wanted")
    scene.add_items(tenant, 2, error_type="other")
    arguments: dict[str, Any] = {"max": 3, "error_type": "wanted"}
    dry = scene.replay(tenant, label="dry run", dry_run=True, **arguments).json()
    real = scene.run(tenant, label="real run", **arguments)
    scene.seen.require(dry.get("items") or real.get("items"), "neither the dry nor the real run has any item")
    for field in ("items", "not_found", "ineligible"):
        assert sorted(dry.get(field, [])) == sorted(real.get(field, [])), f"{field} differs between dry and real run"
    # put off and named: what takes them is `force`, and fewer are wanted than are named
    named = scene.company("named")
    ids = scene.add_items(named, 3, retry_after="2999-01-01T00:00:00Z")
    arguments = scene.known(max=2, force=True, dlq_ids=ids)
    dry = scene.replay(named, label="dry run, forced, of named items", dry_run=True, **arguments).json()
    real = scene.run(named, label="real run, forced, of named items", **arguments)
    assert sorted(dry.get("items", [])) == sorted(real.get("items", [])), (
        f"of {len(ids)} named items a forced dry run lists {len(dry.get('items', []))} where the real run takes"
        f" {len(real.get('items', []))}, or others"
    )


@drill("drill/dry-run/absent-means-real", covers=("F03",))
def test_absent_means_real(scene: Scene, tenant: str) -> None:
    """Without `dry_run` a request is a real run.

    An operator in an incident replays nothing, although the answer is 200.
    """
    scene.add_items(tenant, 2)
    scene.replay(tenant, label="dry run", control=True, dry_run=True)
    real = scene.replay(tenant, label="dry_run left out").json()
    assert real.get("status") == "started", f"status {real.get('status')!r} without dry_run; due: started"
    assert scene.replayed(tenant) == 2, f"{scene.replayed(tenant)} outbox rows without dry_run; due: 2"


Hinder = Callable[[Scene, str], None]

HINDRANCES: list[Case] = [
    Case(
        "paused-like-real",
        "A dry run of a paused tenant is refused like a real one.",
        (lambda s, c: s.pause(c), 409, "agents_paused"),
    ),
    Case(
        "flag-off-like-real",
        "A dry run of a tenant that is switched off is refused like a real one.",
        (lambda s, c: s.set_flag(c, "dlq.replay.enabled", enabled=False), 403, "feature_disabled"),
    ),
    Case(
        "no-budget-like-real",
        "A dry run of a tenant without budget is refused like a real one.",
        (lambda s, c: s.budget(c, daily_limit=0), 429, "budget_exhausted"),
    ),
    Case(
        "no-monthly-budget-like-real",
        "A dry run of a tenant that has spent its month is refused like a real one.",
        (lambda s, c: s.budget(c, monthly_limit=5, monthly_used=5), 429, "budget_exhausted"),
    ),
]


@cases("drill/dry-run", HINDRANCES, severity=Severity.WARN, needs=TENANTS, after=SIGNED, covers=("F02", "F09"))
def test_hindered_like_real(case: Case, scene: Scene, tenant: str) -> None:
    """A dry run passes the same checks as the real run, forced and of named items, too.

    The preview promises what the replay then refuses.
    """
    hinder, status, code = case.value
    ids = scene.add_items(tenant, 2)
    scene.replay(tenant, label="dry run, nothing in its way", control=True, dry_run=True)
    hinder(scene, tenant)
    scene.replay(tenant, status, code, label="the real run", control=True)
    scene.reset_limit(tenant)
    for more in ({}, scene.known(force=True, dlq_ids=ids)):
        scene.replay(tenant, status, code, label=" and ".join((case.name, *more)), dry_run=True, **more)


@drill("drill/dry-run/cut-by-the-budget", severity=Severity.WARN, covers=("F02",))
def test_cut_by_the_budget(scene: Scene, tenant: str) -> None:
    """A dry run is cut to what the budget of the day or month leaves, like the real one, forced and of named items too.

    The preview lists items that will not be replayed.
    """
    ids = scene.add_items(tenant, 4)
    whole = scene.run(tenant, label="dry run, whole budget", dry_run=True)
    scene.seen.require(len(whole.get("items", [])) == 4, "a dry run with budget does not show the 4 items")
    month = "monthly_limit" if current().has("replay_budgets", "monthly_limit") else "daily_limit"
    named = scene.known(force=True, dlq_ids=ids)
    for label, more, limit in ("forced, of named items", named, "daily_limit"), ("plain", {}, month):
        scene.budget(tenant, **{limit: 2})
        cut = scene.replay(tenant, label=f"dry run, {label}, budget of 2", dry_run=True, **more).json()
        shown = cut.get("items", [])
        assert sorted(shown) == sorted(ids[:2]), f"{label}: {len(shown)} items shown; due: the 2 oldest"
    scene.reset_limit(tenant)
    real = scene.replay(tenant, label="real run, budget of 2").json()
    assert sorted(real.get("items", [])) == sorted(cut.get("items", [])), "the real run took other items"


@drill("drill/dry-run/same-authorisation", needs=("tenants", "mint"), covers=("F09",))
def test_same_authorisation(scene: Scene, tenant: str, other: str, token: Minter) -> None:
    """A dry run for a foreign tenant is refused, and shows nothing of it.

    The preview shows data of other tenants.
    """
    fields = {"company_id": tenant, "dry_run": True}
    scene.add_items(tenant, 1)
    own = token_post("/dlq-replay", fields, token.for_company(tenant), "own company, dry run")
    scene.expect(own, 200, control=True)
    foreign = token_post("/dlq-replay", fields, token.for_company(other), "foreign company, dry run")
    scene.expect(foreign, 403)


@drill("drill/dry-run/foreign-ids-hidden", covers=("F09",))
def test_foreign_ids_hidden(scene: Scene, tenant: str, other: str) -> None:
    """A dry run reports ids of other tenants as not found, and the tenant's own ids that it would not replay as
    ineligible, in whichever case an id is written, and each once if it is written in two.

    The preview tells which ids exist in other tenants, or hides which of the tenant's own will be left.
    """
    own, foreign = scene.add_items(tenant, 2), scene.add_of_each_kind(other)
    done = scene.add_items(tenant, 1, status="resolved")
    spelled = [one.upper() for one in (*own, *done)] if current().id_type("item") == "uuid" else [*own, *done]
    answer = scene.run(tenant, label="own and foreign ids", dlq_ids=[*own[:1], *spelled, *foreign], dry_run=True)
    for name, due in (("items", own), ("not_found", foreign), ("ineligible", done)):
        told = sorted(str(one).lower() for one in answer.get(name) or [])
        assert told == sorted(one.lower() for one in due), f"{name} {answer.get(name)}; due: {due}"


@drill("drill/dry-run/opens-no-run", covers=("F06",))
def test_run_not_opened(scene: Scene, tenant: str) -> None:
    """A dry run opens no run.

    Runs that never happened stay `started` for ever.
    """
    scene.add_items(tenant, 1)
    scene.replay(tenant, label="dry run", dry_run=True)
    assert scene.runs(tenant) == 0, f"{scene.runs(tenant)} runs after a dry run; allowed: 0"
    scene.replay(tenant, label="real run", control=True)
    scene.seen.require(scene.runs(tenant) == 1, "the real run opened no run either")
