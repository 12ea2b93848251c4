"""The rollout function: sticky, monotone, uniform, the same for every caller, and safe where a row is missing.

The service and the worker decide flags by `is_feature_enabled` alone, so what it answers is what they do. All rows are
written in transactions that are rolled back.
"""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial

import psycopg
import pytest

from drills.workbench.checks import SQL
from drills.workbench.scene import Scene, new_key
from drills.workbench.tenant_data import BUDGET_FLAG
from gates.checks.recorder import check
from gates.deployment.dialect.current import AbsentColumn, current
from gates.deployment.ids import id_of, new_id
from gates.deployment.requests import bucket
from gates.deployment.sql.database import Connection, execute, value
from gates.deployment.tenants.tenants import OUTBOX_FLAG
from gates.evidence import Where

pytestmark = pytest.mark.beside_load

drill = partial(check, needs=SQL)

MANY, FEWER = 10_000, 2000
AT_ONCE = 1000
"""Companies that one statement asks about: a login may have a short `statement_timeout`, and the server much to do."""

UPSERT = """
insert into public.feature_flags (key, company_id, enabled, rollout_percentage) values (%s, %s, true, 100)
on conflict (key, company_id) do update set enabled = excluded.enabled
"""

ENABLED = """
select company::text from unnest(%s::uuid[]) company where public.is_feature_enabled(%s, company)
"""


LONG_AGO = "update public.feature_flags set updated_at = now() - interval '2 years' where key = %s"


@cache
def companies_of(number: int) -> list[str]:
    """The same ids in every run: what passed once passes again."""
    return [id_of(f"rollout-{n}") for n in range(number)]


@contextmanager
def _rollout(scene: Scene, key: str, percentage: int, *, enabled: bool = True) -> Iterator[Connection]:
    with scene.undone() as connection:
        execute(
            connection,
            "insert into public.feature_flags (key, company_id, enabled, rollout_percentage) values (%s, null, %s, %s)",
            key,
            enabled,
            percentage,
        )
        yield connection


def _on(connection: Connection, key: str, companies: list[str]) -> set[str]:
    parts = (companies[first : first + AT_ONCE] for first in range(0, len(companies), AT_ONCE))
    return {str(r["company"]) for part in parts for r in execute(connection, ENABLED, part, key)}


def _on_at(scene: Scene, percentage: int, companies: list[str], key: str = "") -> set[str]:
    own = key or new_key()  # two drills with one key would wait for each other's transaction
    with _rollout(scene, own, percentage) as connection:
        return _on(connection, own, companies)


def _both_ways(scene: Scene) -> None:
    """Control: the function says yes and no where it must."""
    scene.seen.require(len(_on_at(scene, 100, companies_of(20))) == 20, "a flag on at 100 is not on for everybody")
    scene.seen.require(not _on_at(scene, 0, companies_of(20)), "a flag at 0 is on for somebody")
    scene.seen.control("on at 100 for all, on at 0 for none")


@drill("drill/flags/bucket-formula", covers=("H01",))
def test_bucket_formula(scene: Scene) -> None:
    """Which of 10,000 companies are on at 10 percent, and which of 2,000 at 1, 50 and 99, is what the contract's
    formula says.

    Another formula moves tenants in and out of the canary when the service that computes it is replaced.
    """
    key = f"Drill.Rollout.CASED-{uuid.uuid4()}"  # without a capital I, whose lower case is another in Turkish
    for percentage in (1, 10, 50, 99):
        companies = companies_of(MANY if percentage == 10 else FEWER)
        with _rollout(scene, key, percentage) as connection:
            on = _on(connection, key, companies)
        if current().own_buckets:  # a formula of the deployment's own must at least be one: it says the same again
            due = _on_at(scene, percentage, companies, key)
        else:
            due = {c for c in companies if bucket(key, c) < percentage}
        wrong = on ^ due
        scene.seen.witness = sorted(wrong)[:5] or None  # type: ignore[assignment]
        assert not wrong, f"at {percentage} %, {len(wrong)} of {len(companies)} companies are not what the formula says"
        scene.seen.count(len(companies))
    scene.seen.control("companies on either side of the percentage were seen")


@drill("drill/flags/monotone", covers=("H01",))
def test_monotone(scene: Scene) -> None:
    """A company that is on at 10 percent is on at 50, and one that is on at 50 is on at 100.

    A step of the rollout that switches a tenant off again is a rollback for that tenant.
    """
    _both_ways(scene)
    key = new_key()
    ten, fifty, full = (_on_at(scene, p, companies_of(FEWER), key) for p in (10, 50, 100))
    lost = (ten - fifty) | (fifty - full)
    scene.seen.value(len(lost), 0, "companies")
    assert not lost, f"{len(lost)} companies were on and are off at the next step, e.g. {min(lost)}"
    assert len(full) == FEWER, f"{FEWER - len(full)} companies are off at 100 %"
    scene.seen.count(FEWER)


@drill("drill/flags/uniform", covers=("H01",))
def test_uniform(scene: Scene) -> None:
    """At 10 percent about a tenth of 10,000 companies is on, at 50 about half of 2,000.

    A skewed rollout tries the release on more, or fewer, tenants than the operator chose.
    """
    _both_ways(scene)
    for percentage, companies, spread in ((10, companies_of(MANY), 180), (50, companies_of(FEWER), 134)):
        on, due = len(_on_at(scene, percentage, companies)), len(companies) * percentage // 100
        scene.seen.value(on, due, "companies")
        seen = f"{on} of {len(companies)} companies are on at {percentage} %"
        assert abs(on - due) <= spread, f"{seen}; allowed: {due} ± {spread}, six standard deviations"
        scene.seen.count(len(companies))


@drill("drill/flags/sticky", covers=("H01",))
def test_sticky(scene: Scene) -> None:
    """The same company gets the same answer every time, and after a change that is not about it.

    A tenant that flips between two paths has its events on both.
    """
    key = new_key()
    _both_ways(scene)
    some = companies_of(1000)
    with _rollout(scene, key, 50) as connection:
        first = _on(connection, key, some)
        execute(connection, "update public.feature_flags set description = 'touched' where key = %s", key)
        second = _on(connection, key, some)
        third = _on(connection, key, list(reversed(some)))
    flipped = (first ^ second) | (first ^ third)
    assert not flipped, f"{len(flipped)} of {len(some)} companies changed sides without a change of the rollout"
    scene.seen.count(len(some))


@drill("drill/flags/same-answer-for-every-caller", covers=("H01", "H06"))
def test_same_answer_for_every_caller(scene: Scene) -> None:
    """Every caller that may ask gets the same answer, whoever's claims it carries.

    A function that reads flags through row-level security answers for the caller, not for the company in question.
    """
    key = new_key()
    company, other = scene.company("a"), scene.company("b")
    # one override that says yes where nothing else does, one that says no where the canary says yes
    scene.set_flag(company, key, enabled=True)
    scene.set_flag(company, OUTBOX_FLAG, enabled=False)
    ask = "select public.is_feature_enabled(%s, %s::uuid)::text || public.is_feature_enabled(%s, %s::uuid)::text"
    question = (key, company, OUTBOX_FLAG, company)
    own = scene.value(ask, *question)
    scene.seen.require(own == "truefalse", f"the overrides that were written do not count: {own}")
    scene.seen.control("the drill's own login sees the overrides")
    answers: dict[str, object] = {}
    for name, role, claims in (
        ("its tenant", "authenticated", company),
        ("another tenant", "authenticated", other),
        ("anon", "anon", ""),
    ):
        try:
            with scene.as_tenant(claims, role=role) as connection:
                answers[name] = value(connection, ask, *question)
                scene.seen.count()
        except (psycopg.errors.InsufficientPrivilege, AbsentColumn):
            continue  # a caller that may not ask, or that there is none of, gets no wrong answer
    scene.seen.require(answers, "no role but the drill's own may ask is_feature_enabled")
    wrong = {n: a for n, a in answers.items() if a != own}
    assert not wrong, f"the same question is answered {wrong} to others and {own} to the drill's login"


@drill("drill/flags/missing-row-is-off", covers=("H02", "H10"))
def test_missing_row_is_off(scene: Scene) -> None:
    """A flag without a row is off, never null, for a company that exists or not, and asking creates no row.

    If the default is on, a typing error in a key releases a feature.
    """
    _both_ways(scene)
    key = f"drill.missing.{uuid.uuid4()}"
    for company in (scene.company(), new_id("company"), None):
        answer = scene.value("select public.is_feature_enabled(%s, %s::uuid)", key, company)
        assert answer is False, f"is_feature_enabled of a flag without a row is {answer!r} for company {company}"
        scene.seen.count()
    rows = scene.number("select count(*) from public.feature_flags where key = %s", key)
    assert rows == 0, f"asking for an unknown flag created {rows} rows"


@drill("drill/flags/missing-budget-control-is-on", covers=("H02",), where=Where.DISRUPTIVE, phase="last")
def test_missing_budget_control_is_on(scene: Scene) -> None:
    """Where no row of `dlq.replay.budget_control` is global or the tenant's own, the budget is controlled.

    This flag's safe value is on: losing the row would lift all budgets. The row is deleted in a transaction that is
    never committed, and locked for that long.
    """
    company, other = scene.company("a"), scene.company("b")
    off_for = (
        "insert into public.feature_flags (key, company_id, enabled, rollout_percentage) values (%s, %s, false, 100)"
    )
    with scene.transaction() as connection:
        execute(connection, "delete from public.feature_flags where key = %s", BUDGET_FLAG)
        execute(connection, off_for, BUDGET_FLAG, other)
        missing = value(connection, "select public.is_feature_enabled(%s, %s::uuid)", BUDGET_FLAG, company)
        execute(connection, off_for, BUDGET_FLAG, None)
        off = value(connection, "select public.is_feature_enabled(%s, %s::uuid)", BUDGET_FLAG, company)
    scene.seen.require(off is False, "a row that switches budget control off does not count")
    scene.seen.control("a row that says off switches it off")
    assert missing is True, f"without a row of its own or a global one, budget control is {missing!r}"
    scene.seen.count()


@drill("drill/flags/disabled-is-off-at-any-percentage", covers=("H01",))
def test_disabled_is_off_at_any_percentage(scene: Scene) -> None:
    """A flag that is not enabled is off for everybody, whatever its percentage; enabled at 0 is off, too.

    A rollback sets `enabled` alone and leaves the percentage as it was.
    """
    key = new_key()
    _both_ways(scene)
    for percentage in (10, 100):
        with _rollout(scene, key, percentage, enabled=False) as connection:
            on = _on(connection, key, companies_of(1000))
        assert not on, f"{len(on)} of 1000 companies are on with enabled = false at {percentage} %"
        scene.seen.count(1000)


@drill("drill/flags/tenant-row-wins", covers=("H06",))
def test_tenant_row_wins(scene: Scene) -> None:
    """A tenant's row wins over the global row, both ways and however old it is, and its own percentage counts.

    Without working overrides, no single customer can be excluded.
    """
    key = new_key()
    company = scene.company()
    insert = "insert into public.feature_flags (key, company_id, enabled, rollout_percentage) values (%s, %s, %s, %s)"
    ask = "select public.is_feature_enabled(%s, %s::uuid)"
    own = bucket(key, company)
    table = [(True, 100, False, 100, False), (False, 100, True, 100, True), (True, 0, True, 100, True)]
    table.append((True, 100, True, 0, False))
    if not current().own_buckets:
        table.append((True, 100, True, own, False))
    for global_on, global_at, tenant_on, tenant_at, due in table:
        with _rollout(scene, key, global_at, enabled=global_on) as connection:
            before = value(connection, ask, key, company)
            execute(connection, insert, key, company, tenant_on, tenant_at)
            after = value(connection, ask, key, company)
            execute(connection, LONG_AGO, key)
            later = value(connection, ask, key, company)
        everybody = global_on and global_at > 0
        scene.seen.require(
            before is everybody, f"without an override the flag is {before!r}; the global row says {everybody}"
        )
        scene.seen.control("without the override, the global row counts")
        told = f"global enabled={global_on} at {global_at}, tenant enabled={tenant_on} at {tenant_at}"
        assert after is due, f"{told}: the flag is {after!r}, due is {due}"
        assert later is due, f"{told}, both of two years ago: the flag is {later!r}, due is {due}"
        scene.seen.count()


@drill("drill/flags/percentage-out-of-range-refused", covers=("H03",))
def test_percentage_out_of_range_refused(scene: Scene) -> None:
    """The database refuses a percentage under 0 or over 100.

    110 typed for 10 releases the feature to everybody.
    """
    key = new_key()
    insert = "insert into public.feature_flags (key, enabled, rollout_percentage) values (%s, true, %s)"
    for good in (0, 100):
        refused = scene.refused_by_database(insert, key, good)
        scene.seen.require(not refused, f"a percentage of {good} is refused")
    scene.seen.control("0 and 100 are accepted")
    for wrong in (-1, 101, 110):
        assert scene.refused_by_database(insert, key, wrong), f"a rollout percentage of {wrong} was accepted"
        scene.seen.count()


@drill("drill/flags/one-global-row", covers=("H03",))
def test_one_global_row(scene: Scene) -> None:
    """A flag has at most one global row: the database refuses a second, although its company is null.

    With two global rows a rollback may switch off the one that nobody reads.
    """
    key = new_key()
    insert = (
        "insert into public.feature_flags (key, company_id, enabled, rollout_percentage) values (%s, null, true, 100)"
    )
    with scene.undone() as connection:
        execute(connection, insert, key)
        scene.seen.control("the first global row is accepted")
        try:
            execute(connection, insert, key)
        except psycopg.errors.IntegrityError:
            scene.seen.count()
            return
    raise AssertionError("a second global row of the same flag was accepted; unique nulls not distinct is due")


@drill("drill/flags/version-grows", covers=("H07",))
def test_version_grows(scene: Scene) -> None:
    """Whatever statement changes a flag, its version grows.

    The gate writes a flag only at the version that it read; if that stands still, it overwrites a human.
    """
    company = scene.company()
    key = "drill.version"
    scene.set_flag(company, key, enabled=False, percentage=10)
    last = scene.value("select version from public.feature_flags where key = %s and company_id = %s", key, company)
    scene.seen.control("a fresh row has a version")
    for statement in (
        "update public.feature_flags set enabled = true where key = %s and company_id = %s",
        "update public.feature_flags set rollout_percentage = 50 where key = %s and company_id = %s",
        "update public.feature_flags set description = 'another' where key = %s and company_id = %s",
        "update public.feature_flags set version = 0, enabled = false where key = %s and company_id = %s",
        UPSERT,
    ):
        try:
            scene.rows(statement, key, company)
        except psycopg.errors.InvalidColumnReference:
            continue  # its unique key has another shape: nobody can upsert so
        now = scene.value("select version from public.feature_flags where key = %s and company_id = %s", key, company)
        assert now > last, f"the version went from {last} to {now} with: {statement[:60]}"
        last = now
        scene.seen.count()
