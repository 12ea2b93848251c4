"""Planted defects of budgets, flags and pauses."""

from __future__ import annotations

from tests.drills.sql_plants import FLAG, PAUSED, Plant, answers, flag_function, meddler

VIEW_OF_BUDGETS = """
alter view replay_budgets_status rename to kept_budgets_status;
create view replay_budgets_status as
select company_id, daily_limit, monthly_limit, daily_limit - daily_used as a, monthly_limit - monthly_used as b
from public.replay_budgets;
"""
BUDGETS = [
    Plant(
        "the view counts what was used yesterday",
        VIEW_OF_BUDGETS,
        "drop view replay_budgets_status; alter view kept_budgets_status rename to replay_budgets_status;",
        ("drill/budgets/view-forgets-past-periods",),
    ),
    Plant(
        "limits cannot be lowered",
        "alter table public.replay_budgets add constraint planted check (daily_used <= daily_limit);",
        "alter table public.replay_budgets drop constraint planted;",
        ("drill/budgets/lowered-limit-leaves-nothing",),
    ),
    meddler(
        "nothing is charged",
        "replay_budgets",
        "update",
        "if session_user = 'replay_service' then"
        " new.daily_used := old.daily_used; new.monthly_used := old.monthly_used; end if;",
        (
            "drill/budgets/charged-by-items-moved",
            "drill/budgets/exhausted-refused",
            "drill/budgets/monthly-limit-binds",
            "drill/budgets/race-never-overspends",
            "drill/budgets/no-row-means-the-defaults",
            "drill/budgets/duplicate-charges-nothing",
            "drill/lifecycle/stop-refunds-the-rest",
            "drill/statemachine/kept-programs",
            "drill/statemachine/random-programs",
        ),
        first=True,
    ),
    meddler(
        "limits are ignored",
        "replay_budgets",
        "insert or update",
        "new.daily_limit := 100000; new.monthly_limit := 1000000;",
        (
            "drill/budgets/batch-cut-to-what-is-left",
            "drill/budgets/spent-today-stays-spent",
            "drill/budgets/force-does-not-ignore-it",
            "drill/budgets/lowered-limit-leaves-nothing",
            "drill/budgets/dry-run-shows-what-is-left",
            "drill/budgets/database-refuses-overspending",
            "drill/audit/refusal-budget-exhausted",
        ),
        first=True,
    ),
    meddler(
        "periods never end",
        "replay_budgets",
        "insert or update",
        "new.day := (now() at time zone 'UTC')::date;"
        " new.month := date_trunc('month', now() at time zone 'UTC')::date;",
        ("drill/budgets/new-day-starts-at-zero", "drill/budgets/new-month-starts-at-zero"),
    ),
    meddler(
        "one counter for all",
        "replay_budgets",
        "update",
        "if pg_trigger_depth() = 1 and session_user = 'replay_service' then update public.replay_budgets b"
        " set daily_used = b.daily_used + 1"
        " where b.company_id <> new.company_id and b.daily_used < b.daily_limit; end if;",
        ("drill/budgets/tenants-apart",),
        timing="after",
    ),
]

FLAGS = [
    answers(
        "every flag is on",
        FLAG,
        "begin return $1 <> 'security.signing_v2_required'; end",
        (
            "drill/flags/replay-switch-is-wired",
            "drill/flags/outbox-switch-stops-replays",
            "drill/flags/outbox-off-takes-direct-path",
            "drill/flags/budget-switch-is-wired",
            "drill/flags/refused-before-anything-else",
            "drill/flags/change-seen-by-every-instance",
            "drill/flags/global-switch-is-wired",
            "drill/held/switched-off-is-not-delivered",
            "drill/audit/refusal-feature-disabled",
        ),
    ),
    answers(
        "overrides are inverted",
        FLAG,
        flag_function(answer="(f.enabled and b < f.rollout_percentage) is distinct from (f.company_id is not null)"),
        ("drill/flags/outbox-on-takes-outbox", "drill/flags/tenant-row-wins"),
    ),
    answers(
        "an override switches everybody off",
        FLAG,
        "begin return not exists (select from public.feature_flags x where x.key = $1 and not x.enabled"
        " and x.company_id is not null); end",
        ("drill/flags/override-touches-only-its-tenant",),
    ),
    answers(
        "another formula",
        FLAG,
        flag_function(bucket="abs(hashtext($1 || $2::text)) % 100"),
        ("drill/flags/bucket-formula",),
    ),
    answers(
        "half of the buckets are empty",
        FLAG,
        flag_function(bucket="public.feature_bucket($1, $2) / 2"),
        ("drill/flags/uniform",),
    ),
    answers(
        "dice are rolled",
        FLAG,
        flag_function(bucket="floor(random() * 100)::integer"),
        ("drill/flags/sticky", "drill/flags/monotone"),
        options="volatile",
    ),
    answers(
        "a missing row is on",
        FLAG,
        flag_function(missing="true"),
        ("drill/flags/missing-row-is-off",),
    ),
    answers(
        "a missing row is off, budget control too",
        FLAG,
        flag_function(missing="false"),
        ("drill/flags/missing-budget-control-is-on",),
    ),
    answers(
        "the percentage decides alone",
        FLAG,
        flag_function(answer="b < f.rollout_percentage"),
        ("drill/flags/disabled-is-off-at-any-percentage",),
    ),
    answers(
        "v1 is never refused",
        FLAG,
        flag_function(answer="f.enabled and b < f.rollout_percentage and $1 <> 'security.signing_v2_required'"),
        ("drill/flags/signing-v2-required",),
    ),
    Plant(
        "flags answered by who asks",
        f"alter function public.{FLAG} security invoker;"
        "grant execute on function public.feature_bucket(text, uuid) to authenticated",
        f"alter function public.{FLAG} security definer",
        ("drill/flags/same-answer-for-every-caller",),
    ),
    Plant(
        "any percentage",
        "alter table public.feature_flags drop constraint feature_flags_rollout_range",
        "alter table public.feature_flags add constraint feature_flags_rollout_range"
        " check (rollout_percentage between 0 and 100)",
        ("drill/flags/percentage-out-of-range-refused",),
    ),
    Plant(
        "nulls are distinct",
        "alter table public.feature_flags drop constraint feature_flags_key_company_key;"
        "alter table public.feature_flags add constraint feature_flags_key_company_key unique (key, company_id)",
        "alter table public.feature_flags drop constraint feature_flags_key_company_key;"
        "alter table public.feature_flags add constraint feature_flags_key_company_key"
        " unique nulls not distinct (key, company_id)",
        ("drill/flags/one-global-row",),
    ),
    Plant(
        "versions stand still",
        "alter table public.feature_flags disable trigger feature_flags_touch",
        "alter table public.feature_flags enable always trigger feature_flags_touch",
        ("drill/flags/version-grows",),
    ),
    Plant(
        "tenants write their flags",
        "grant insert, update, delete on feature_flags to authenticated;"
        "create policy planted on feature_flags for all to authenticated using (true) with check (true)",
        "drop policy planted on feature_flags; revoke insert, update, delete on feature_flags from authenticated",
        ("drill/flags/tenants-cannot-write",),
    ),
]

PAUSES = [
    answers(
        "nobody is paused",
        PAUSED,
        "begin return false; end",
        (
            "drill/pause/refuses-replay",
            "drill/pause/counts-from-the-next-request",
            "drill/pause/force-does-not-ignore-it",
            "drill/pause/dry-run-refused-too",
            "drill/pause/burns-no-key",
            "drill/pause/events-go-to-the-outbox",
            "drill/pause/switched-off-and-paused-go-to-the-outbox",
            "drill/pause/fleet",
            "drill/audit/refused-leaves-no-success-row",
            "drill/audit/refusal-agents-paused",
        ),
    ),
    answers(
        "any row pauses",
        PAUSED,
        "begin return exists (select from public.agent_controls a where a.company_id = $1); end",
        ("drill/pause/a-row-that-says-no-is-no-pause",),
    ),
    answers(
        "an own row hides the pause of everybody",
        PAUSED,
        "begin return coalesce((select a.agents_paused from public.agent_controls a where a.company_id = $1"
        " or a.company_id is null order by a.company_id nulls last limit 1), false); end",
        ("drill/pause/fleet",),
    ),
    answers(
        "one pause stops all",
        PAUSED,
        "begin return exists (select from public.agent_controls a where a.agents_paused); end",
        ("drill/pause/touches-only-its-tenant",),
    ),
    meddler(
        "no pause is kept",
        "agent_controls",
        "insert or update",
        "new.agents_paused := false;",
        ("drill/pause/stops-a-running-replay", "drill/pause/refuses-replay"),
    ),
    meddler(
        "a pause shuffles",
        "event_outbox",
        "update",
        "if new.processed_at is not null then"
        " new.processed_at := new.processed_at + random() * interval '1 second'; end if;",
        (
            "drill/pause/held-events-follow-in-order",
            "drill/held/delivered-when-on-again",
            "drill/outbox/order-within-a-key",
            "drill/outbox/order-of-interleaved-keys",
        ),
    ),
]

LOGINS = [
    Plant(
        "the service's login bypasses row security",
        "alter role replay_service bypassrls",
        "alter role replay_service nobypassrls",
        ("drill/identity/service-login-is-bound",),
    ),
    Plant(
        "the service's login may act as the owner",
        "grant replay_owner to replay_service",
        "revoke replay_owner from replay_service",
        ("drill/identity/service-login-is-bound",),
    ),
]
