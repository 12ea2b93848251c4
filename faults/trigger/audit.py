"""Faults of the audit trail, planted in the database."""

from faults.trigger.planting import function, planted, released, trigger

AUDIT = "drill/audit"
trigger(
    "audit/every-row-twice",
    "insert on audit_logs",
    "if pg_trigger_depth() = 1 then insert into public.audit_logs"
    " (action, actor, scope, target_count, success_count, failure_count, metadata, request_id) values"
    " (new.action, new.actor, new.scope, new.target_count, new.success_count, new.failure_count, new.metadata,"
    " new.request_id); end if;",
    (
        *(f"{AUDIT}/{name}" for name in ("start-of-a-run", "end-of-a-run", "nothing-eligible", "dry-run")),
        *(f"{AUDIT}/refusal-{name}" for name in ("agents-paused", "feature-disabled", "budget-exhausted")),
        f"{AUDIT}/refusal-key-reused",
        "drill/observability/request-id-in-the-trail",
    ),
    timing="after",
)
trigger(
    "audit/the-number-of-another-transaction",
    "insert on audit_logs",
    "new.txid := (new.txid::text::bigint + 1000)::text::xid8;",
    (f"{AUDIT}/start-and-effect-together", f"{AUDIT}/end-and-effect-together"),
)
trigger(
    "audit/a-clock-that-is-slow",
    "insert on audit_logs",
    "new.created_at := clock_timestamp() - interval '1 hour';",
    (f"{AUDIT}/database-clock",),
    first=True,
)
trigger(
    "audit/payloads-in-the-trail",
    "insert on audit_logs",
    "new.metadata := new.metadata || jsonb_build_object('items', (select jsonb_agg(d.payload)"
    " from public.dead_letter_queue d where d.company_id::text = new.scope));",
    (f"{AUDIT}/no-secret-in-it",),
    first=True,
)
trigger(
    "audit/rows-change-after-they-are-hashed",
    "insert on audit_logs",
    "new.actor := new.actor || '!';",
    tuple(
        f"{AUDIT}/{name}"
        for name in ("chain-of-a-tenant", "chain-under-concurrency", "plain-insert-is-chained", "scopes-apart")
    ),
)
trigger(
    "audit/heads-miscount",
    "insert on audit_logs",
    "update public.audit_heads set row_count = row_count + 1 where scope = new.scope;",
    (f"{AUDIT}/head-of-a-tenant",),
    timing="after",
)
trigger(
    "audit/a-hash-that-is-brought-is-kept",
    "insert on audit_logs",
    "if new.action = 'rate_limits_cleared' then new.hash := repeat('f', 64); end if;",
    (f"{AUDIT}/forged-hash-is-not-kept",),
)
planted(
    "audit/tenants-read-the-whole-trail",
    "create policy planted on audit_logs for select to authenticated using (true)",
    "drop policy planted on audit_logs",
    "from pg_policies where policyname = 'planted'",
    (f"{AUDIT}/tenant-reads-only-its-own",),
)
REFUSALS = tuple(f"{AUDIT}/refusal-{name}" for name in ("agents-paused", "budget-exhausted", "feature-disabled"))
START, END = (f"{AUDIT}/start-of-a-run",), (f"{AUDIT}/end-of-a-run", "sql/spot/run-ends-are-audited")
DRY_RUN = ("drill/dry-run/one-audit-row", f"{AUDIT}/dry-run")
for _id, _breaks, _action, _change, _checks in (
    ("audit/refusals-not-audited", "Refusals are not audited.", "refused", "return null", REFUSALS),
    (
        "audit/limited-not-audited",
        "Refusals by the rate limit are not audited.",
        "refused' and new.metadata ->> 'code' = 'rate_limited",
        "return null",
        ("drill/rate-limit/refusals-audited-once-a-minute",),
    ),
    (
        "audit/refusal-without-code",
        "A refusal is audited without its code.",
        "refused",
        "new.metadata := new.metadata - 'code'",
        REFUSALS,
    ),
    ("audit/started-under-all", "The start of a run is audited under `all`.", "started", "new.scope := 'all'", START),
    ("effects/start-not-audited", "The start of a run is not audited.", "started", "return null", START),
    (
        "effects/started-without-target",
        "The start of a run is audited with a target of 0.",
        "started",
        "new.target_count := 0",
        START,
    ),
    ("effects/dry-run-not-audited", "A dry run is not audited.", "dry_run", "return null", DRY_RUN),
    (
        "effects/dry-run-audited-as-run",
        "A dry run is audited as a run.",
        "dry_run",
        "new.action := 'dlq_replay_started'",
        DRY_RUN,
    ),
    ("run-end/end-not-audited", "The end of a run is not audited.", "completed", "return null", END),
    (
        "run-end/audited-under-all",
        "The end of a run is audited under `all`, where its tenant cannot see it.",
        "completed",
        "new.scope := 'all'",
        END,
    ),
):
    _body = f"if new.action = 'dlq_replay_{_action}' then {_change}; end if;"
    trigger(_id, "insert on audit_logs", _body, _checks, _breaks, first=True)
trigger(
    "audit/other-request-id",
    "insert on audit_logs",
    "new.request_id := gen_random_uuid()::text;",
    ("drill/observability/request-id-in-the-trail", "drill/audit/start-of-a-run"),
    "The audit row has a request id of its own: the answer's leads nowhere.",
    first=True,
    decision="hold",
)
planted(
    "dry-run/previews-are-kept",
    """create table public.previews (company_id uuid, made_at timestamptz default now());
       grant select, insert on public.previews to replay_service, replay_gate;
       create function public.keep_preview() returns trigger language plpgsql security definer as $$ begin
         if new.action = 'dlq_replay_dry_run' then
           insert into public.previews (company_id) values (new.scope::uuid);
         end if;
         return new;
       end $$;
       create trigger keep_preview after insert on public.audit_logs
       for each row execute function public.keep_preview()""",
    """drop trigger if exists keep_preview on public.audit_logs; drop function if exists public.keep_preview();
       drop table if exists public.previews""",
    "from pg_trigger where tgname = 'keep_preview'",
    ("drill/dry-run/writes-nothing",),
    "A dry run leaves a row in a table of the deployment's own.",
    names=("previews",),
)
trigger(
    "run-end/summary-missing",
    "insert on audit_logs",
    "if new.action = 'dlq_replay' then return null; end if;",
    END,
    "The summary row of a run is missing.",
    first=True,
)
trigger(
    "run-end/second-run-has-no-end",
    "insert on audit_logs",
    "if new.action in ('dlq_replay_completed', 'dlq_replay') and exists (select from audit_logs a"
    " where a.scope = new.scope and a.action = new.action) then return null; end if;",
    ("drill/audit/end-of-a-run",),
    "Only a tenant's first run leaves rows of its end.",
    first=True,
    names=("run 2",),
)
_LOCKED = (
    """  INSERT INTO public.audit_heads AS h (scope, last_id, last_hash, row_count)
  VALUES (NEW.scope, 0, repeat('0', 64), 1)
  ON CONFLICT (scope) DO UPDATE SET row_count = h.row_count + 1
  RETURNING h.last_hash INTO STRICT head_hash;""",
    """  SELECT h.last_hash INTO head_hash FROM public.audit_heads h WHERE h.scope = NEW.scope;
  IF NOT FOUND THEN
    head_hash := repeat('0', 64);
    INSERT INTO public.audit_heads (scope, last_id, last_hash, row_count) VALUES (NEW.scope, 0, head_hash, 0);
  END IF;""",
)
_ENSURED = (
    _LOCKED[0],
    """INSERT INTO public.audit_heads (scope, last_id, last_hash, row_count) VALUES (NEW.scope, 0, repeat('0', 64), 0)
  ON CONFLICT (scope) DO NOTHING;
  SELECT h.last_hash INTO STRICT head_hash FROM public.audit_heads h WHERE h.scope = NEW.scope;
  PERFORM pg_sleep(0.02);""",
)
_COUNTED = ("last_hash = NEW.hash WHERE", "last_hash = NEW.hash, row_count = row_count + 1 WHERE")
function(
    "audit/the-chain-forks",
    "audit_logs_chain",
    released("audit_logs_chain", _LOCKED, _COUNTED),
    (f"{AUDIT}/chain-while-another-appends",),
    "Two rows that are written at once follow the same row: the chain forks.",
)
function(
    "audit/the-chain-forks-behind-a-queue",
    "audit_logs_chain",
    released("audit_logs_chain", _ENSURED, _COUNTED),
    (f"{AUDIT}/chain-while-another-appends",),
    "Rows whose writers waited for the same row, and went on at once, follow the same row: the chain forks.",
)
function(
    "audit/whoever-says-the-word-may-edit",
    "audit_logs_append_only",
    released(
        "audit_logs_append_only",
        ("BEGIN\n", "BEGIN\n  IF current_setting('app.maintenance', true) = 'on' THEN RETURN NULL; END IF;\n"),
    ),
    ("sql/spot/triggers-enabled", "sql/manifest/functions"),
    "The trigger that keeps the trail lets through who has set a word for it.",
)
function(
    "audit/may-be-emptied-at-once",
    "audit_logs_append_only",
    released("audit_logs_append_only", ("BEGIN\n", "BEGIN\n  IF TG_OP = 'TRUNCATE' THEN RETURN NULL; END IF;\n")),
    ("sql/spot/triggers-enabled", "sql/manifest/functions"),
    "The trigger that keeps the trail refuses each row's deletion, and lets a TRUNCATE through.",
)
planted(
    "audit/refusals-may-be-deleted",
    "create function zz_planted_refusals() returns trigger language plpgsql set search_path = '' as $p$ begin"
    " if old.action = 'dlq_replay_refused' then return old; end if; raise exception 'append-only'; end $p$;"
    " create trigger zz_planted_refusals before update or delete on audit_logs for each row"
    " execute function zz_planted_refusals();"
    " create or replace trigger audit_logs_append_only before truncate on audit_logs"
    " for each statement execute function audit_logs_append_only()",
    "create or replace trigger audit_logs_append_only before update or delete or truncate on audit_logs"
    " for each statement execute function audit_logs_append_only();"
    " alter table audit_logs enable always trigger audit_logs_append_only;"
    " drop trigger zz_planted_refusals on audit_logs; drop function zz_planted_refusals()",
    "from pg_trigger where tgname = 'zz_planted_refusals'",
    ("sql/writes/contract-rows-are-taken", "sql/spot/triggers-enabled"),
    "The trail keeps each row but refusals: whoever tried too often can have it forgotten.",
    names=("dlq_replay_refused",),
    decision="hold",
)
