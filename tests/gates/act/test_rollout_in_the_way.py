"""Steps with obstacles: triggers of the flag's table, odd rows, a machine without threads."""

import itertools
from dataclasses import replace
from typing import Any

import pytest

from gates.act import acting, rollout
from gates.act.flag import look_at
from gates.act.rollout import act
from gates.verdict import Action, Decision, Verdict
from tests.gates.act.flagged import FLAG, FLAGS_AT_COMMIT, ROLLBACK, Database, on_change, order

ONCE_MORE = (
    "if current_setting('t.seen', true) is distinct from '1' then perform set_config('t.seen', '1', true);"
    " set constraints all deferred; update public.feature_flags set key = key; return null; end if;"
)
"""For a deferred trigger: it fires a second time, after the gate's last look."""
UNIQUE = """
select format('alter table public.feature_flags drop constraint %I cascade', conname) as drop from pg_constraint
where conrelid = 'public.feature_flags'::regclass and contype in ('u', 'p')
union all
select format('drop index %s', indexrelid::regclass) from pg_index i
where indrelid = 'public.feature_flags'::regclass and indisunique
  and not exists (select from pg_constraint c where c.conindid = i.indexrelid)
"""
PROMOTE = Verdict(Decision.PROMOTE, "all passed")


def step(url: str) -> Action:
    return act(PROMOTE, replace(order(), seen=look_at(url, FLAG)), url)


def audited(database: Database) -> list[dict[str, Any]]:
    return database.execute("select * from public.audit_logs where action = 'flag_promoted'").fetchall()


@pytest.mark.parametrize("hides", [False, True], ids=["at its commit", "after the look that comes before it"])
@pytest.mark.parametrize(
    ("then", "at", "said"),
    [
        ("update public.feature_flags set rollout_percentage = 77 where not rollout_percentage = 77", 77, "at 77 %"),
        ("update public.feature_flags set enabled = false where enabled", 0, "off"),
        ("delete from public.feature_flags", None, "gone"),
    ],
)
def test_a_step_that_its_commit_would_change_is_none(
    then: str, at: int | None, said: str, hides: bool, migrated_url: str, database: Database
) -> None:
    """Deferred triggers fire before the commit; if one still changes the flag, the report has its real state."""
    on_change(database, FLAGS_AT_COMMIT, f"{ONCE_MORE * hides} {then}; return null;")
    action = step(migrated_url)
    kept = ("promote", at, "changed", True) if hides else ("none", 10, "changed", True)
    assert (action.kind, action.to_percent, action.result, action.holds) == kept
    later = f"was set to 50 %, and a moment later it was {said}"
    at_once = {77: "was set to 50 % and stood at 77 %", 0: "was set to 50 % and was off", None: "in the moment of"}[at]
    assert (later if hides else at_once) in action.message
    if not hides:
        assert audited(database) == []


def test_a_commit_that_the_server_refuses_is_no_lost_connection(migrated_url: str, database: Database) -> None:
    """A trigger that raises after the last look refuses the commit: that is said, and the flag is where it was."""
    on_change(database, FLAGS_AT_COMMIT, f"{ONCE_MORE} raise 'not today'; return null;")
    action = step(migrated_url)
    assert (action.kind, action.to_percent, action.result, action.holds) == ("none", 10, "failed", True)
    assert "the server refused the commit of the step (failed inside your function" in action.message
    assert "not today" in action.message
    assert audited(database) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("alter version drop not null, disable trigger user", "no value for version (NULL)"),
        ("alter rollout_percentage drop not null", "no value for rollout_percentage (NULL)"),
        ("disable trigger user", "it has 2 global rows"),
    ],
)
def test_a_row_that_says_nothing_takes_no_step(change: str, said: str, migrated_url: str, database: Database) -> None:
    """Without its value, or beside a second global row, nobody knows from where to step; a rollback goes on."""
    for row in database.execute(UNIQUE).fetchall():
        database.execute(row["drop"])
    database.execute(f"alter table public.feature_flags {change}".encode())
    if "2" in said:
        database.execute(
            "insert into public.feature_flags (key, enabled, rollout_percentage) values (%s, true, 50)", (FLAG,)
        )
    else:
        column = said.split()[3]
        database.execute(f"update public.feature_flags set {column} = null".encode())
    held = step(migrated_url)
    assert (held.result, held.holds) == ("failed", True), held
    assert said in held.message
    assert act(ROLLBACK, order(), migrated_url).flag == "off"


@pytest.mark.parametrize(("opened", "to"), [(1, 10), (2, 50)])
def test_a_step_without_a_thread_is_told_all_the_same(
    opened: int, to: int, migrated_url: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No thread for the session, or none to read the step back: nothing is claimed, and nothing is raised."""
    seen, opening, numbers = look_at(migrated_url, FLAG), acting.session, itertools.count(1)

    def session(*given: Any, **more: Any) -> Any:
        if next(numbers) >= opened:
            raise RuntimeError("can't start new thread")
        return opening(*given, **more)

    monkeypatch.setattr(rollout, "SETTLE_S", 0)
    monkeypatch.setattr(rollout, "session", session)
    action = act(PROMOTE, replace(order(), seen=seen), migrated_url)
    assert (action.result, action.holds) == ("failed" if to == 10 else "unknown", True)
    assert "can't start new thread" in action.message
    assert database.execute("select rollout_percentage as at from feature_flags").fetchall() == [{"at": to}]


@pytest.mark.parametrize(
    ("then", "what"),
    [
        (
            "update public.feature_flags set enabled = false where key = 'dlq.replay.budget_control'",
            "the flag dlq.replay",
        ),
        ("delete from public.feature_flags where key = 'dlq.replay.enabled'", "the flag dlq.replay.enabled"),
        (
            "insert into public.feature_flags (key, company_id) values ('outbox.enabled', gen_random_uuid())",
            "tenants' rows of outbox.enabled",
        ),
        (
            "delete from public.feature_flags where company_id = '00000000-0000-4000-8000-000000001400'",
            "tenants' rows of outbox.enabled",
        ),
        ("insert into public.feature_flags (key, company_id) values ('of.one', gen_random_uuid())", "the flag of.one"),
        ("update public.feature_flags set enabled = true where key = 'other2050'", "other rows"),
    ],
)
def test_step_that_takes_other_rows_along_is_none(then: str, what: str, migrated_url: str, database: Database) -> None:
    """If a trigger changes other rows as well, nothing is committed."""
    database.execute(
        "insert into public.feature_flags (key, enabled) values"
        " ('dlq.replay.budget_control', true), ('dlq.replay.enabled', true) on conflict do nothing;"
        "insert into public.feature_flags (key, enabled) select 'other' || n, false from generate_series(1001, 2100) n;"
        "insert into public.feature_flags (key, company_id, enabled, rollout_percentage) select 'outbox.enabled',"
        " ('00000000-0000-4000-8000-00000000' || n)::uuid, true, 100 from generate_series(1001, 2100) n"
    )
    before = database.execute("select key, company_id, enabled, version from public.feature_flags").fetchall()
    once = "statement when (pg_trigger_depth() = 0)"
    on_change(database, "after update on public.feature_flags", f"{then}; return null;", once)
    action = step(migrated_url)
    assert (action.kind, action.result, action.holds) == ("none", "changed", True)
    assert f"would have changed {what}" in action.message
    assert database.execute("select key, company_id, enabled, version from public.feature_flags").fetchall() == before
    assert audited(database) == []
