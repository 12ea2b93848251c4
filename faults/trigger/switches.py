"""Faults of budgets, flags, pauses and logins, planted in the database."""

from faults.trigger.planting import function, planted, released, trigger, yes_or_no

BUDGETS, FLAGS, PAUSE = "drill/budgets", "drill/flags", "drill/pause"
ENABLED, PAUSED = "is_feature_enabled", "is_company_paused"
BUCKET = "public.feature_bucket($1, $2)"
OWN_ROW = "FROM public.feature_flags f WHERE f.key = $1 AND f.company_id = $2"
OFF_IS_OFF = "  IF NOT is_on OR percentage <= 0 THEN\n    RETURN false;\n  END IF;\n"

planted(
    "budgets/the-view-counts-what-was-used-yesterday",
    """alter view replay_budgets_status rename to kept_budgets_status;
       create view replay_budgets_status as
       select company_id, daily_limit, monthly_limit, daily_limit - daily_used as a, monthly_limit - monthly_used as b
       from replay_budgets""",
    "drop view replay_budgets_status; alter view kept_budgets_status rename to replay_budgets_status",
    "from pg_views where viewname = 'kept_budgets_status'",
    (f"{BUDGETS}/view-forgets-past-periods",),
)
trigger(
    "budgets/a-raised-limit-begins-anew",
    "update on replay_budgets",
    "if new.daily_limit > old.daily_limit then new.daily_used := 0; new.monthly_used := 0; end if;",
    (f"{BUDGETS}/charged-by-items-moved",),
    "Whoever raises a limit sets what was used to nothing.",
)
trigger(
    "budgets/begins-anew-after-the-control-was-off",
    "update on feature_flags",
    "if new.key = 'dlq.replay.budget_control' and old.enabled and not new.enabled then update replay_budgets"
    " set daily_used = 0, monthly_used = 0 where company_id = new.company_id; end if;",
    ("drill/flags/budget-switch-is-wired",),
    "Where budget control was switched off and on again, what was used is forgotten.",
    timing="after",
    names=("switched on again",),
)
planted(
    "budgets/limits-cannot-be-lowered",
    "alter table replay_budgets add constraint planted check (daily_used <= daily_limit)",
    "alter table replay_budgets drop constraint planted",
    "from pg_constraint where conname = 'planted'",
    (f"{BUDGETS}/lowered-limit-leaves-nothing",),
)
trigger(
    "budgets/nothing-is-charged",
    "update on replay_budgets",
    "if session_user = 'replay_service' then"
    " new.daily_used := old.daily_used; new.monthly_used := old.monthly_used; end if;",
    (
        *(f"{BUDGETS}/{name}" for name in ("charged-by-items-moved", "exhausted-refused", "monthly-limit-binds")),
        *(f"{BUDGETS}/{name}" for name in ("race-never-overspends", "no-row-means-the-defaults")),
        f"{BUDGETS}/duplicate-charges-nothing",
        "drill/lifecycle/stop-refunds-the-rest",
        "drill/statemachine/kept-programs",
        "drill/statemachine/random-programs",
    ),
    first=True,
)
trigger(
    "budgets/limits-are-ignored",
    "insert or update on replay_budgets",
    "new.daily_limit := 100000; new.monthly_limit := 1000000;",
    (
        *(f"{BUDGETS}/{name}" for name in ("batch-cut-to-what-is-left", "spent-today-stays-spent")),
        *(f"{BUDGETS}/{name}" for name in ("force-does-not-ignore-it", "lowered-limit-leaves-nothing")),
        *(f"{BUDGETS}/{name}" for name in ("dry-run-shows-what-is-left", "database-refuses-overspending")),
        "drill/audit/refusal-budget-exhausted",
    ),
    first=True,
)
trigger(
    "budgets/one-counter-for-all",
    "update on replay_budgets",
    "if pg_trigger_depth() = 1 and session_user = 'replay_service' then update public.replay_budgets b"
    " set daily_used = b.daily_used + 1"
    " where b.company_id <> new.company_id and b.daily_used < b.daily_limit; end if;",
    (f"{BUDGETS}/tenants-apart",),
    timing="after",
)

function(
    "flags/one-percent-is-nobody",
    ENABLED,
    released(ENABLED, ("percentage <= 0", "percentage <= 1")),
    (f"{FLAGS}/bucket-formula",),
    breaks="At 1 percent a flag is on for nobody.",
)
function(
    "flags/an-old-override-lapses",
    ENABLED,
    released(ENABLED, (OWN_ROW, f"{OWN_ROW} AND f.updated_at > now() - interval '90 days'")),
    (f"{FLAGS}/tenant-row-wins",),
    breaks="A tenant's override counts for 90 days.",
)
function(
    "flags/an-override-is-cut-to-the-rollout",
    ENABLED,
    released(
        ENABLED,
        (
            "  IF NOT is_on OR",
            (
                "  percentage := least(percentage, (SELECT g.rollout_percentage FROM public.feature_flags g"
                " WHERE g.key = $1 AND g.company_id IS NULL));\n  IF NOT is_on OR"
            ),
        ),
    ),
    (f"{FLAGS}/tenant-row-wins",),
    breaks="A tenant's override counts within everybody's percentage alone.",
)
function(
    "flags/every-flag-is-on",
    ENABLED,
    yes_or_no(ENABLED, "return $1 <> 'security.signing_v2_required';"),
    (
        *(f"{FLAGS}/{name}" for name in ("replay-switch-is-wired", "outbox-switch-stops-replays")),
        *(f"{FLAGS}/{name}" for name in ("outbox-off-takes-direct-path", "budget-switch-is-wired")),
        *(f"{FLAGS}/{name}" for name in ("refused-before-anything-else", "change-seen-by-every-instance")),
        f"{FLAGS}/global-switch-is-wired",
        "drill/held/switched-off-is-not-delivered",
        "drill/audit/refusal-feature-disabled",
    ),
)
function(
    "flags/overrides-are-inverted",
    ENABLED,
    released(
        ENABLED,
        (OFF_IS_OFF, ""),
        ("percentage >= 100 OR ", "("),
        ("< percentage;", f"< percentage AND is_on) <> EXISTS (SELECT {OWN_ROW});"),
    ),
    (f"{FLAGS}/outbox-on-takes-outbox", f"{FLAGS}/tenant-row-wins"),
)
function(
    "flags/an-override-switches-everybody-off",
    ENABLED,
    yes_or_no(
        ENABLED,
        "return not exists (select from public.feature_flags x where x.key = $1 and not x.enabled"
        " and x.company_id is not null);",
    ),
    (f"{FLAGS}/override-touches-only-its-tenant",),
)
function(
    "flags/half-of-the-buckets-are-empty", ENABLED, released(ENABLED, (BUCKET, f"{BUCKET} / 2")), (f"{FLAGS}/uniform",)
)
function(
    "flags/the-percentage-decides-alone",
    ENABLED,
    released(ENABLED, ("NOT is_on OR ", "")),
    (f"{FLAGS}/disabled-is-off-at-any-percentage",),
)
planted(
    "flags/the-answer-depends-on-who-asks",
    f"alter function {ENABLED} security invoker; grant execute on function feature_bucket to authenticated",
    f"alter function {ENABLED} security definer",
    f"from pg_proc where proname = '{ENABLED}' and not prosecdef",
    (f"{FLAGS}/same-answer-for-every-caller",),
)

function(
    "pause/nobody-is-paused",
    PAUSED,
    yes_or_no(PAUSED, "return false;"),
    (
        *(f"{PAUSE}/{name}" for name in ("refuses-replay", "counts-from-the-next-request", "dry-run-refused-too")),
        *(f"{PAUSE}/{name}" for name in ("force-does-not-ignore-it", "burns-no-key", "events-go-to-the-outbox")),
        *(f"{PAUSE}/{name}" for name in ("switched-off-and-paused-go-to-the-outbox", "fleet")),
        "drill/audit/refused-leaves-no-success-row",
        "drill/audit/refusal-agents-paused",
    ),
)
function(
    "pause/any-row-pauses",
    PAUSED,
    released(PAUSED, ("a.company_id = $1 AND a.agents_paused", "a.company_id = $1")),
    (f"{PAUSE}/a-row-that-says-no-is-no-pause",),
)
function(
    "pause/a-pause-lapses",
    PAUSED,
    released(PAUSED, ("a.company_id = $1 AND", "a.company_id = $1 AND a.updated_at > now() - interval '1 hour' AND")),
    (f"{PAUSE}/refuses-replay",),
    breaks="A pause ends by itself after an hour.",
)
function(
    "pause/a-pause-needs-a-reason",
    PAUSED,
    released(PAUSED, ("a.company_id = $1 AND a.agents_paused", "a.company_id = $1 AND length(a.pause_reason) > 0")),
    (f"{PAUSE}/refuses-replay",),
    "A pause without a reason, as in the emergency procedure, does not pause.",
)
function(
    "pause/one-pause-stops-all",
    PAUSED,
    released(PAUSED, ("a.company_id = $1 AND ", "")),
    (f"{PAUSE}/touches-only-its-tenant",),
)
trigger(
    "pause/the-end-of-everybodys-pause-ends-all",
    "update on agent_controls",
    "if new.company_id is null and old.agents_paused and not new.agents_paused then"
    " update agent_controls set agents_paused = false where company_id is not null; end if;",
    (f"{PAUSE}/fleet",),
    "Where everybody's pause ends, so does that of a tenant that was paused for a reason of its own.",
    timing="after",
    names=("paused before everybody was",),
)
trigger(
    "pause/no-pause-is-kept",
    "insert or update on agent_controls",
    "new.agents_paused := false;",
    (f"{PAUSE}/stops-a-running-replay", f"{PAUSE}/refuses-replay"),
)
trigger(
    "pause/what-is-put-off-is-due-after-a-pause",
    "update on agent_controls",
    "if old.agents_paused and not new.agents_paused then update event_outbox set next_attempt_at = now()"
    " where company_id = new.company_id and processed_at is null and dead_at is null; end if;",
    (f"{PAUSE}/held-events-follow-in-order",),
    "The end of a pause makes all events of its tenant due, whatever their next attempt is.",
)
trigger(
    "pause/a-pause-shuffles",
    "update on event_outbox",
    "if new.processed_at is not null then"
    " new.processed_at := new.processed_at + random() * interval '1 second'; end if;",
    (
        *(f"{PAUSE}/held-events-follow-in-order", "drill/held/delivered-when-on-again"),
        *("drill/outbox/order-within-a-key", "drill/outbox/order-of-interleaved-keys"),
    ),
)
planted(
    "identity/the-service-may-act-as-the-owner",
    "grant replay_owner to replay_service",
    "revoke replay_owner from replay_service",
    "where pg_has_role('replay_service', 'replay_owner', 'member')",
    ("drill/identity/service-login-is-bound",),
)
trigger(
    "residue/rows-come-back",
    "delete on companies",
    "insert into public.agent_tasks (company_id, status) values (old.id, 'completed');"
    " update public.feature_flags set description = clock_timestamp()::text where company_id is null;"
    " update public.agent_controls set pause_reason = clock_timestamp()::text where company_id is null;",
    tuple(f"drill/residue/{name}" for name in ("no-rows-left", "flags-as-found", "pauses-as-found")),
    timing="after",
)
function(
    "budgets/what-is-above-the-limit-stands",
    "replay_budgets_cap",
    released("replay_budgets_cap", *((f"> {period}_before", f"<> {period}_before") for period in ("daily", "monthly"))),
    ("drill/budgets/database-refuses-overspending",),
    "What is used and above the limit cannot be lowered: a run cannot give back.",
)
function(
    "flags/another-tenants-row-ends-the-control",
    ENABLED,
    released(
        ENABLED,
        (
            "'dlq.replay.budget_control', false)",
            "'dlq.replay.budget_control' AND NOT EXISTS (SELECT FROM public.feature_flags f WHERE f.key = $1), false)",
        ),
    ),
    (f"{FLAGS}/missing-budget-control-is-on",),
    "The budget control is on where nobody has a row of it: another tenant's row ends it for all without one.",
    production=False,
)
