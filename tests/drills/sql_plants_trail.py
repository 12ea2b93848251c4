"""Planted defects of the audit trail."""

from __future__ import annotations

from tests.drills.sql_plants import Plant, meddler

DROP_GUARD = "alter table public.audit_logs disable trigger audit_logs_append_only"
RAISE_GUARD = "alter table public.audit_logs enable always trigger audit_logs_append_only"

AUDIT = [
    meddler(
        "every row twice",
        "audit_logs",
        "insert",
        "if pg_trigger_depth() = 1 then insert into public.audit_logs (action, actor, scope,"
        " target_count, success_count,"
        " failure_count, metadata, request_id) values (new.action, new.actor, new.scope, new.target_count,"
        " new.success_count, new.failure_count, new.metadata, new.request_id); end if;",
        (
            "drill/audit/start-of-a-run",
            "drill/audit/end-of-a-run",
            "drill/audit/nothing-eligible",
            "drill/audit/dry-run",
            "drill/audit/refusal-agents-paused",
            "drill/audit/refusal-feature-disabled",
            "drill/audit/refusal-budget-exhausted",
            "drill/audit/refusal-key-reused",
            "drill/observability/request-id-in-the-trail",
        ),
        timing="after",
    ),
    meddler(
        "no rows at all",
        "audit_logs",
        "insert",
        "return null;",
        ("drill/audit/start-of-a-run", "drill/audit/dry-run", "drill/audit/start-and-effect-together"),
        first=True,
    ),
    meddler(
        "another transaction's number",
        "audit_logs",
        "insert",
        "new.txid := (new.txid::text::bigint + 1000)::text::xid8;",
        ("drill/audit/start-and-effect-together", "drill/audit/end-and-effect-together"),
    ),
    meddler(
        "a clock that is slow",
        "audit_logs",
        "insert",
        "new.created_at := clock_timestamp() - interval '1 hour';",
        ("drill/audit/database-clock",),
        first=True,
    ),
    meddler(
        "payloads in the trail",
        "audit_logs",
        "insert",
        "new.metadata := new.metadata || jsonb_build_object('items', (select jsonb_agg(d.payload)"
        " from public.dead_letter_queue d where d.company_id::text = new.scope));",
        ("drill/audit/no-secret-in-it",),
        first=True,
    ),
    meddler(
        "rows change after they are hashed",
        "audit_logs",
        "insert",
        "new.actor := new.actor || '!';",
        (
            "drill/audit/chain-of-a-tenant",
            "drill/audit/chain-under-concurrency",
            "drill/audit/plain-insert-is-chained",
            "drill/audit/scopes-apart",
        ),
    ),
    meddler(
        "heads miscount",
        "audit_logs",
        "insert",
        "update public.audit_heads set row_count = row_count + 1 where scope = new.scope;",
        ("drill/audit/head-of-a-tenant",),
        timing="after",
    ),
    meddler(
        "a hash that is brought is kept",
        "audit_logs",
        "insert",
        "if new.action = 'rate_limits_cleared' then new.hash := repeat('f', 64); end if;",
        ("drill/audit/forged-hash-is-not-kept",),
    ),
    meddler(
        "refusals wait for the budget",
        "audit_logs",
        "insert",
        "if new.action = 'dlq_replay_refused' then"
        " perform from public.replay_budgets b where b.company_id::text = new.scope for update; end if;",
        ("drill/audit/refusal-waits-for-no-replay",),
        first=True,
    ),
    Plant(
        "rows can be changed",
        DROP_GUARD,
        RAISE_GUARD,
        ("drill/audit/update-refused", "drill/audit/delete-refused", "drill/audit/truncate-refused"),
    ),
    Plant(
        "tenants read the whole trail",
        "create policy planted on audit_logs for select to authenticated using (true)",
        "drop policy planted on audit_logs",
        ("drill/audit/tenant-reads-only-its-own",),
    ),
]
