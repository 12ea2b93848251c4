"""Faults of what the tables take: rows that the contract allows and the schema refuses, and the other way round."""

from faults.trigger.planting import function, planted, released, trigger

WRITES = "sql/writes"
BUCKET = "public.feature_bucket($1, $2)"

planted(
    "writes/column-that-nobody-fills",
    "alter table dead_letter_queue add region text not null default 'eu';"
    " alter table dead_letter_queue alter region drop default",
    "alter table dead_letter_queue drop region",
    "from pg_attribute where attrelid = 'public.dead_letter_queue'::regclass and attname = 'region'",
    (f"{WRITES}/contract-rows-are-taken",),
    "A migration adds a column to the letters that must be given: what other producers write is refused.",
    decision="hold",
)
planted(
    "writes/letters-of-no-time",
    "alter table dead_letter_queue alter retry_after drop default, alter retry_after drop not null",
    "update dead_letter_queue set retry_after = now() where retry_after is null;"
    " alter table dead_letter_queue alter retry_after set default now(), alter retry_after set not null",
    "from pg_attribute where attrelid = 'public.dead_letter_queue'::regclass and attname = 'retry_after'"
    " and not atthasdef",
    (f"{WRITES}/contract-rows-are-taken", "sql/manifest/columns"),
    "A dead letter that does not say when it is due is never due: the default is gone.",
)
planted(
    "writes/refused-at-the-commit",
    "create function zz_planted_order() returns trigger language plpgsql set search_path = '' as $p$ begin"
    " if new.event_type not like 'order.%' then raise exception 'no order' using errcode = 'check_violation'; end if;"
    " return null; end $p$;"
    " create constraint trigger zz_planted_order after insert on events deferrable initially deferred"
    " for each row execute function zz_planted_order()",
    "drop trigger zz_planted_order on events; drop function zz_planted_order()",
    "from pg_trigger where tgname = 'zz_planted_order'",
    (f"{WRITES}/contract-rows-are-taken",),
    "A constraint that waits for the commit refuses events of most types.",
    decision="hold",
)
planted(
    "writes/payloads-in-an-index",
    "create index zz_planted_payload on dead_letter_queue (payload)",
    "drop index zz_planted_payload",
    "from pg_class where relname = 'zz_planted_payload'",
    (f"{WRITES}/contract-rows-are-taken", "sql/manifest/indexes"),
    "An index over payloads refuses the letters of large events.",
    decision="hold",
)
planted(
    "writes/one-override-of-a-flag",
    "create unique index zz_planted_flag on feature_flags (key) where company_id is not null",
    "drop index zz_planted_flag",
    "from pg_class where relname = 'zz_planted_flag'",
    (f"{WRITES}/contract-rows-are-taken",),
    "A flag can have a row of one tenant alone: whoever switches a second tenant off is refused.",
    decision="hold",
)
planted(
    "writes/types-of-small-letters",
    "alter table event_outbox add constraint zz_planted_type check (event_type ~ '^[a-z0-9._-]+$') not valid",
    "alter table event_outbox drop constraint zz_planted_type",
    "from pg_constraint where conname = 'zz_planted_type'",
    (f"{WRITES}/contract-rows-are-taken",),
    "The outbox refuses events of types that are not written in small letters.",
    decision="hold",
)
trigger(
    "writes/old-letters-are-discarded",
    "update on dead_letter_queue",
    "if new.status = 'pending' and old.created_at < now() - interval '7 days' then new.status := 'discarded'; end if;",
    (f"{WRITES}/contract-rows-are-taken",),
    "A letter that is older than a week and fails again is discarded by a trigger: nobody replays it any more.",
    decision="hold",
)
planted(
    "writes/budget-of-the-day-alone",
    released("replay_budgets_cap", ("IF NEW.monthly_used > NEW.monthly_limit AND", "IF false AND")),
    released("replay_budgets_cap"),
    "from pg_proc where proname = 'replay_budgets_cap' and prosrc like '%IF false AND%'",
    (f"{WRITES}/budget-is-kept", "sql/manifest/functions"),
    "The trigger on the budgets lets what is used of a month go above its limit.",
)
planted(
    "writes/next-month-without-limit",
    released("replay_budgets_cap", ("IF NEW.monthly_used >", "IF NEW.month = OLD.month AND NEW.monthly_used >")),
    released("replay_budgets_cap"),
    "from pg_proc where proname = 'replay_budgets_cap' and prosrc like '%IF NEW.month = OLD.month AND%'",
    (f"{WRITES}/budget-is-kept", "sql/manifest/functions"),
    "The trigger on the budgets looks at no limit where a new month begins.",
)
planted(
    "writes/what-is-overdrawn-may-grow",
    released("replay_budgets_cap", ("NEW.daily_limit AND", "NEW.daily_limit AND daily_before <= NEW.daily_limit AND")),
    released("replay_budgets_cap"),
    "from pg_proc where proname = 'replay_budgets_cap' and prosrc like '%daily_before <= NEW.daily_limit%'",
    (f"{WRITES}/budget-is-kept", "sql/manifest/functions"),
    "The trigger on the budgets looks at the step over the limit alone: what is above it already may grow.",
)
planted(
    "writes/keys-without-case",
    "create extension citext schema pg_catalog; alter table replay_runs alter idempotency_key type citext",
    "alter table replay_runs alter idempotency_key type text; drop extension citext",
    "from pg_extension where extname = 'citext'",
    (f"{WRITES}/keys-are-told-apart", "sql/manifest/columns"),
    "Two idempotency keys that differ in the case of a letter are one: the second replay never runs.",
)
planted(
    "writes/keys-of-128-letters",
    "alter table replay_runs add constraint zz_planted_key check (length(idempotency_key) <= 128)",
    "alter table replay_runs drop constraint zz_planted_key",
    "from pg_constraint where conname = 'zz_planted_key'",
    ("drill/idempotency/duplicate-marked",),
    "A replay whose key has more than 128 letters ends in a server error.",
)
planted(
    "writes/one-row-of-an-event-in-a-run",
    "create unique index zz_planted_once on event_outbox (replay_run_id, event_id) where replay_run_id is not null",
    "drop index zz_planted_once",
    "from pg_class where relname = 'zz_planted_once'",
    ("drill/dlq/effect-that-was-there",),
    "Two letters of one event cannot be replayed by one run: it ends in a server error.",
)
planted(
    "writes/worker-sees-the-young",
    "create policy zz_planted_young on event_outbox as restrictive to replay_worker"
    " using (inserted_at > now() - interval '1 hour')",
    "drop policy zz_planted_young on event_outbox",
    "from pg_policy where polname = 'zz_planted_young'",
    ("sql/spot/workers-see-old-rows",),
    "A policy hides from the worker what has waited for an hour.",
    decision="hold",
)
function(
    "writes/a-share-turned-over",
    "is_feature_enabled",
    released("is_feature_enabled", (BUCKET, f"abs({BUCKET} - 99 * (percentage >= 50)::int)")),
    (f"{WRITES}/contract-rows-are-taken",),
    "From 50 % on the flag is on for the tenants that did not have it before, and off for some that had.",
    names=("formula at 50 %",),
    decision="hold",
)
trigger(
    "writes/a-thousand-letters-at-most",
    "insert on dead_letter_queue",
    "delete from public.dead_letter_queue where id in ("
    "select id from public.dead_letter_queue order by created_at desc offset 1000); return null;",
    ("sql/spot/deletes-take-nothing-along",),
    "A trigger deletes the oldest dead letters when there are more than a thousand.",
    timing="after",
    names=("dead_letter_queue",),
    decision="hold",
)
planted(
    "writes/an-event-has-one-row",
    "create unique index zz_planted_event on event_outbox (event_id) where processed_at is null",
    "drop index zz_planted_event",
    "from pg_class where relname = 'zz_planted_event'",
    (f"{WRITES}/contract-rows-are-taken",),
    "An event that was given up keeps its place in the outbox: sending it again is refused.",
    decision="hold",
)
