"""Faults of the audit trail, planted in the database."""

from __future__ import annotations

from faults.trigger.planting import planted, trigger

AUDIT = "drill/audit"
trigger(
    "audit/every-row-twice",
    "audit_logs",
    "insert",
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
    "audit_logs",
    "insert",
    "new.txid := (new.txid::text::bigint + 1000)::text::xid8;",
    (f"{AUDIT}/start-and-effect-together", f"{AUDIT}/end-and-effect-together"),
)
trigger(
    "audit/a-clock-that-is-slow",
    "audit_logs",
    "insert",
    "new.created_at := clock_timestamp() - interval '1 hour';",
    (f"{AUDIT}/database-clock",),
    first=True,
)
trigger(
    "audit/payloads-in-the-trail",
    "audit_logs",
    "insert",
    "new.metadata := new.metadata || jsonb_build_object('items', (select jsonb_agg(d.payload)"
    " from public.dead_letter_queue d where d.company_id::text = new.scope));",
    (f"{AUDIT}/no-secret-in-it",),
    first=True,
)
trigger(
    "audit/rows-change-after-they-are-hashed",
    "audit_logs",
    "insert",
    "new.actor := new.actor || '!';",
    tuple(
        f"{AUDIT}/{name}"
        for name in ("chain-of-a-tenant", "chain-under-concurrency", "plain-insert-is-chained", "scopes-apart")
    ),
)
trigger(
    "audit/heads-miscount",
    "audit_logs",
    "insert",
    "update public.audit_heads set row_count = row_count + 1 where scope = new.scope;",
    (f"{AUDIT}/head-of-a-tenant",),
    timing="after",
)
trigger(
    "audit/a-hash-that-is-brought-is-kept",
    "audit_logs",
    "insert",
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
