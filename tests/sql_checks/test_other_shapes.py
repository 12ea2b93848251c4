"""A healthy schema of another shape: what is absent fails no check, and what is there is judged."""

from typing import Any

import psycopg
import pytest

from gates.contract.names import names_of
from gates.deployment.dialect.current import use
from gates.deployment.dialect.statement import Translator
from gates.deployment.sql.database import script
from gates.deployment.sql.failures import in_words
from loadtests.engine.database import FOLDER
from sql_checks.attempts.row_level_security import probe
from sql_checks.fingerprint import compare
from sql_checks.rules.run import judge_rule
from sql_checks.spotrun import judge_spot
from tests.postgres_fixture import PgServer
from tests.sql_checks.conftest import RULES, PlantedSession, outcome_of
from tests.sql_checks.test_rls_red import verdicts
from tests.sql_checks.test_spots_red import SPOTS

FLEET_FLAGS = """
drop view public.feature_flags_status;
delete from public.feature_flags where company_id is not null;
drop policy if exists x on public.feature_flags;
alter table public.feature_flags drop column company_id cascade;
alter table public.feature_flags disable row level security, no force row level security;
alter table public.feature_flags drop constraint feature_flags_pkey, add primary key (key);
"""
FLEET = {"tables": {"feature_flags": {"absent": ["company_id"]}, "feature_flags_status": {"absent": True}}}


def judged(session: PlantedSession, name: str, names: dict[str, Any], change: str = "") -> tuple[str, str]:
    session.planted.execute("set local search_path = public, pg_catalog")
    if change:
        script(session.planted, change)
    session.planted.execute("set local search_path = pg_catalog, pg_temp")
    use(names_of(names))
    return outcome_of(lambda seen: judge_spot(SPOTS[name], session, seen))[:2]


@pytest.mark.parametrize("name", ["rls-enabled", "rls-forced", "unique-keys"])
def test_flags_for_everybody_have_no_tenants_to_keep_apart(name: str, planted: PlantedSession) -> None:
    """A table without a tenant column needs no row security, and a primary key has no NULLs."""
    assert judged(planted, name, FLEET, FLEET_FLAGS) == ("pass", "")


def test_a_table_of_tenants_that_is_open_still_fails(planted: PlantedSession) -> None:
    """The control: the tenant column exists, whatever the mapping says."""
    for number, table in enumerate(("events", "feature_flags"), 1):
        change = f"alter table public.{table} disable row level security"
        outcome, message = judged(planted, "rls-enabled", FLEET, change)
        assert outcome == "fail"
        assert f"{number} violation" in message


def test_only_flags_of_claimed_areas_are_asked(planted: PlantedSession) -> None:
    """Flags of budgets are required only if budgets are claimed."""
    off = """delete from public.feature_flags where key = 'dlq.replay.budget_control' or company_id is not null;
      update public.feature_flags set rollout_percentage = 100 where rollout_percentage > 0;
      create or replace function public.is_feature_enabled({}) returns boolean language sql stable as
      $$ select coalesce((select enabled and rollout_percentage = 100 from public.feature_flags f where f.key = $1),
                         false) $$"""
    asked = planted.planted.execute("select pg_get_function_arguments('public.is_feature_enabled'::regproc) as a")
    row = asked.fetchone()
    off = off.format(row["a"] if row else "")
    mapped = {"tables": {"events": {"absent": ["path"]}}}
    assert judged(planted, "flags-decided-by-formula", {**mapped, "unclaimed": ["budgets"]}, off) == ("pass", "")
    assert judged(planted, "flags-decided-by-formula", mapped)[0] == "fail"


FLEET_POLICY = "create policy fleet on public.feature_flags for {} to authenticated using (company_id is null)"


@pytest.mark.parametrize(("command", "outcome"), [("select", "pass"), ("update", "fail"), ("all", "fail")])
def test_rows_of_the_fleet_may_be_read_and_not_written(command: str, outcome: str, planted: PlantedSession) -> None:
    """A flag without a tenant may be read by everybody."""
    assert judged(planted, "policies-not-always-true", {}, FLEET_POLICY.format(command))[0] == outcome


def test_a_policy_on_events_without_a_tenant_is_a_leak(planted: PlantedSession) -> None:
    """The control: an event always belongs to a tenant."""
    change = FLEET_POLICY.format("select").replace("feature_flags", "events")
    assert judged(planted, "policies-not-always-true", {}, change)[0] == "fail"


def test_the_probe_takes_rows_of_the_fleet_for_no_leak(pg_server: PgServer, seeded_db: str) -> None:
    """A policy that shows the flags of everybody leaves every check of the probe green."""
    with pg_server.database(seeded_db) as name:
        with psycopg.connect(pg_server.url(name)) as connection:
            connection.execute(FLEET_POLICY.format("select").encode())
        assert set(verdicts(probe(pg_server.url(name))).values()) == {"pass"}


def test_ids_are_of_the_type_of_the_column_that_they_go_into() -> None:
    """A dead letter's id may be a number while a tenant's is text."""
    names = names_of({"ids": {"company_id": "text", "dead_letter_queue.id": "bigint"}})
    text, _ = Translator(names).of((FOLDER / "new_items.sql").read_text(encoding="utf-8"), ("x", ["1"], ["a"]))
    assert "unnest(%s::bigint[], %s::text[])" in text
    companies, _ = Translator(names).of((FOLDER / "new_companies.sql").read_text(encoding="utf-8"), (["a"], ["n"]))
    assert "unnest(%s::text[], %s::text[])" in companies


def test_the_gates_own_login_is_no_drift() -> None:
    """Only its own later policies and rights are ignored; other changes are drift."""
    own = {"t.gate_sees_all": "r permissive to gate using (true) check ()"}
    for_all = {"t.p": "r permissive to gate, authenticated using (true) check ()"}
    assert compare("policies", {}, own, "gate") == []
    assert [d.name for d in compare("policies", {}, for_all, "gate")] == ["t.p"]
    assert [d.name for d in compare("policies", own, {}, "gate")] == ["t.gate_sees_all"]
    assert compare("grants", {}, {"t to gate": "SELECT"}, "gate") == []
    assert [d.name for d in compare("grants", {}, {"t to authenticated": "SELECT"}, "authenticated")]


def test_a_value_of_an_enum_is_no_type_of_an_id(planted: PlantedSession) -> None:
    """The message names the setting that maps it."""
    planted.planted.execute("create type pg_temp.state as enum ('open')")
    with pytest.raises(psycopg.Error) as raised:
        planted.planted.execute("select 'replaying'::pg_temp.state")
    assert "{values: {COLUMN:" in in_words(raised.value)


@pytest.mark.parametrize(("lag", "outcome"), [("0.6 seconds", "pass"), ("2 seconds", "unknown")])
def test_a_first_hour_has_nothing_before_it(planted: PlantedSession, lag: str, outcome: str) -> None:
    """Fast deliveries are no degradation; slow ones need others for comparison."""
    planted.planted.execute("delete from public.event_outbox where processed_at <= now() - interval '10 minutes'")
    late = "update public.event_outbox set inserted_at = processed_at - %s::interval where processed_at is not null"
    planted.planted.execute(late, [lag])
    assert outcome_of(lambda seen: judge_rule(RULES["performance-degradation"], planted, seen))[0] == outcome


def test_times_without_a_zone_are_of_the_sessions(planted: PlantedSession) -> None:
    """A queue whose times bear no zone, in a database of UTC, is judged like any other."""
    planted.planted.execute("set local search_path = public, pg_catalog")
    brin = "event_outbox_processed_idx, event_outbox_inserted_idx"  # of the type that was
    script(planted.planted, f"drop index {brin}, event_outbox_lag_idx")
    script(
        planted.planted, "alter table event_outbox alter inserted_at type timestamp, alter processed_at type timestamp"
    )
    planted.planted.execute("set local search_path = pg_catalog, pg_temp")
    assert outcome_of(lambda seen: judge_rule(RULES["performance-degradation"], planted, seen))[:2] == ("pass", "")


@pytest.mark.parametrize(("counted", "outcome"), [("deleted_at is null", "pass"), ("status <> 'stopped'", "fail")])
@pytest.mark.parametrize("name", ["replay-runs-unique", "idempotency-constraints"])
def test_runs_that_are_deleted_softly_may_share_a_key(
    name: str, counted: str, outcome: str, planted: PlantedSession
) -> None:
    """The unique key of the runs may leave out those that do not count, and no others."""
    change = f"""
    alter table public.replay_runs add deleted_at timestamptz;
    alter table public.replay_runs drop constraint replay_runs_idempotency_key_company_id_key;
    create unique index k on public.replay_runs (company_id, idempotency_key) where {counted};
    """
    names = {"tables": {"replay_runs": {"rows": "deleted_at is null"}}}
    assert judged(planted, name, names, change)[0] == outcome
