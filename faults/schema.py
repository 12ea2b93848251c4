"""Faults of the schema: row-level security, policies, grants, constraints, triggers, views, indexes."""

from collections.abc import Callable
from typing import Any

from faults.catalogue import statement
from faults.probe import Probe

TENANT_TABLES = (
    *("companies", "events", "feature_flags", "replay_budgets", "edge_rate_limits", "replay_runs"),
    *("audit_logs", "audit_heads", "event_outbox", "dead_letter_queue", "agent_tasks", "agent_controls"),
)
SPOT, RLS = "sql/spot", "sql/rls"


def _true(ask: str) -> Callable[[Probe], bool]:
    return lambda probe: bool(probe.value(ask))


def _catalogue(fault_id: str, breaks: str, sql: str, undo: str, ask: str, checks: tuple[str, ...], **more: Any) -> None:
    """A fault that shows in the system catalogue."""
    statement(f"schema/{fault_id}", breaks, sql, undo, _true(ask), checks, **more)


for _table in TENANT_TABLES:
    _name = _table.replace("_", "-")
    _catalogue(
        f"rls-off-{_name}",
        f"Row-level security is off on {_table}: every tenant sees every row.",
        f"ALTER TABLE {_table} DISABLE ROW LEVEL SECURITY",
        f"ALTER TABLE {_table} ENABLE ROW LEVEL SECURITY",
        f"SELECT NOT relrowsecurity FROM pg_class WHERE oid = 'public.{_table}'::regclass",
        (f"{SPOT}/rls-enabled", f"{RLS}/other-tenants-hidden", "sql/manifest/row-security"),
        names=(_table,),
    )

for _table in ("dead_letter_queue", "audit_logs", "feature_flags"):
    _name = _table.replace("_", "-")
    _catalogue(
        f"rls-not-forced-{_name}",
        f"Row-level security does not bind the owner of {_table}.",
        f"ALTER TABLE {_table} NO FORCE ROW LEVEL SECURITY",
        f"ALTER TABLE {_table} FORCE ROW LEVEL SECURITY",
        f"SELECT NOT relforcerowsecurity FROM pg_class WHERE oid = 'public.{_table}'::regclass",
        (f"{SPOT}/rls-forced", "sql/manifest/row-security"),
        names=(_table,),
    )

_catalogue(
    "tenants-bypass-rls",
    "Row-level security does not bind tenants' sessions.",
    "ALTER ROLE authenticated BYPASSRLS",
    "ALTER ROLE authenticated NOBYPASSRLS",
    "SELECT rolbypassrls FROM pg_roles WHERE rolname = 'authenticated'",
    (f"{SPOT}/service-roles", f"{SPOT}/no-role-escape", "sql/manifest/roles"),
    names=("authenticated",),
)
_catalogue(
    "a-migration-is-missing",
    "The last migration of the release was not applied.",
    "CREATE TABLE public.witness_kept AS SELECT * FROM schema_migrations ORDER BY version DESC LIMIT 1;"
    " DELETE FROM schema_migrations m USING witness_kept k WHERE m.version = k.version",
    "INSERT INTO schema_migrations SELECT * FROM witness_kept; DROP TABLE witness_kept",
    "SELECT to_regclass('public.witness_kept') IS NOT NULL",
    ("sql/manifest/migrations",),
    names=("missing",),
)
_catalogue(
    "an-extension-of-nobody",
    "An extension is in the database that the release does not know.",
    "CREATE EXTENSION pg_trgm SCHEMA public",
    "DROP EXTENSION pg_trgm",
    "SELECT count(*) > 0 FROM pg_extension WHERE extname = 'pg_trgm'",
    ("sql/manifest/extensions",),
    names=("pg_trgm",),
    decision="hold",
)
_catalogue(
    "claims-kept-with-the-plan",
    "The function that returns the current tenant is IMMUTABLE: a cached plan keeps its first user's tenant.",
    "ALTER FUNCTION auth.jwt() IMMUTABLE",
    "ALTER FUNCTION auth.jwt() STABLE",
    "SELECT provolatile = 'i' FROM pg_proc WHERE oid = 'auth.jwt()'::regprocedure",
    (f"{SPOT}/no-leakproof-functions",),
    names=("auth.jwt", "IMMUTABLE"),
)
_catalogue(
    "runs-take-events-along",
    "Deleting an old run cascades to its outbox rows, delivered or not.",
    """ALTER TABLE event_outbox ADD CONSTRAINT witness_run FOREIGN KEY (replay_run_id) REFERENCES replay_runs
        ON DELETE CASCADE NOT VALID""",
    "ALTER TABLE event_outbox DROP CONSTRAINT witness_run",
    "SELECT count(*) > 0 FROM pg_constraint WHERE conname = 'witness_run'",
    (f"{SPOT}/deletes-take-nothing-along", "sql/manifest/constraints"),
    names=("event_outbox",),
    decision="hold",
)
_catalogue(
    "tenants-truncate",
    "Tenants may truncate the dead letters: row-level security does not see that.",
    "GRANT TRUNCATE ON dead_letter_queue TO authenticated",
    "REVOKE TRUNCATE ON dead_letter_queue FROM authenticated",
    "SELECT has_table_privilege('authenticated', 'public.dead_letter_queue', 'TRUNCATE')",
    (f"{SPOT}/tenants-cannot-truncate", "sql/manifest/grants"),
    names=("dead_letter_queue",),
)
_catalogue(
    "public-may-read-heads",
    "Everybody may read the heads of the audit chains.",
    "GRANT SELECT ON audit_heads TO PUBLIC",
    "REVOKE SELECT ON audit_heads FROM PUBLIC",
    "SELECT has_table_privilege('anon', 'public.audit_heads', 'SELECT')",
    (f"{SPOT}/no-public-grants", "sql/manifest/grants"),
    names=("audit_heads",),
)
_catalogue(
    "service-bypasses-rls",
    "The service's role bypasses row-level security.",
    "ALTER ROLE replay_service BYPASSRLS",
    "ALTER ROLE replay_service NOBYPASSRLS",
    "SELECT rolbypassrls FROM pg_roles WHERE rolname = 'replay_service'",
    (f"{SPOT}/service-roles", f"{SPOT}/service-sessions", "sql/manifest/roles"),
    names=("replay_service",),
)
_catalogue(
    "tenant-becomes-service",
    "`authenticated` may become the service's role.",
    "GRANT replay_service TO authenticated",
    "REVOKE replay_service FROM authenticated",
    "SELECT pg_has_role('authenticated', 'replay_service', 'MEMBER')",
    (f"{SPOT}/no-role-escape", "sql/manifest/roles"),
    names=("authenticated", "replay_service"),
)
_catalogue(
    "view-of-its-owner",
    "The view of the budgets runs with its owner's rights: every tenant sees every budget.",
    "ALTER VIEW replay_budgets_status SET (security_invoker = false)",
    "ALTER VIEW replay_budgets_status SET (security_invoker = true)",
    "SELECT NOT reloptions::text LIKE '%security_invoker=true%' FROM pg_class WHERE relname = 'replay_budgets_status'",
    (f"{SPOT}/views-security-invoker", "sql/manifest/views"),
    names=("replay_budgets_status",),
)
_catalogue(
    "copy-without-rls",
    "A copy of the events without row-level security was left behind.",
    "CREATE TABLE public.events_backup AS SELECT * FROM events; GRANT SELECT ON public.events_backup TO authenticated",
    "DROP TABLE public.events_backup",
    "SELECT to_regclass('public.events_backup') IS NOT NULL",
    (f"{SPOT}/no-rls-free-copies", f"{SPOT}/rls-enabled", f"{RLS}/other-tenants-hidden"),
    names=("events_backup",),
)
_catalogue(
    "definer-for-all",
    "A function that anybody may call runs with its owner's rights and shows all companies.",
    """CREATE FUNCTION public.witness_all() RETURNS SETOF public.companies LANGUAGE sql SECURITY DEFINER
        AS 'SELECT * FROM public.companies'""",
    "DROP FUNCTION public.witness_all()",
    "SELECT count(*) > 0 FROM pg_proc WHERE proname = 'witness_all'",
    (f"{SPOT}/definer-search-path", f"{SPOT}/definer-not-public"),
    names=("witness_all",),
)
_catalogue(
    "definer-for-tenants",
    "A function with its owner's rights shows a tenant the dead letters of whichever company it names.",
    """CREATE FUNCTION public.witness_letters(company uuid) RETURNS SETOF public.dead_letter_queue LANGUAGE sql
        SECURITY DEFINER SET search_path = ''
        AS 'SELECT d.* FROM public.dead_letter_queue d WHERE d.company_id = company';
    ALTER FUNCTION public.witness_letters(uuid) OWNER TO replay_owner;
    REVOKE EXECUTE ON FUNCTION public.witness_letters(uuid) FROM public;
    GRANT EXECUTE ON FUNCTION public.witness_letters(uuid) TO authenticated""",
    "DROP FUNCTION public.witness_letters(uuid)",
    "SELECT count(*) > 0 FROM pg_proc WHERE proname = 'witness_letters'",
    (f"{SPOT}/definer-not-public",),
    names=("witness_letters",),
)
_catalogue(
    "definer-writes-for-tenants",
    "A function with its owner's rights discards the dead letters of whichever company a tenant names.",
    """CREATE FUNCTION public.witness_discards(company uuid) RETURNS void LANGUAGE sql
        SECURITY DEFINER SET search_path = ''
        AS $w$UPDATE public.dead_letter_queue d SET status = 'discarded' WHERE d.company_id = company$w$;
    ALTER FUNCTION public.witness_discards(uuid) OWNER TO replay_owner;
    REVOKE EXECUTE ON FUNCTION public.witness_discards(uuid) FROM public;
    GRANT EXECUTE ON FUNCTION public.witness_discards(uuid) TO authenticated""",
    "DROP FUNCTION public.witness_discards(uuid)",
    "SELECT count(*) > 0 FROM pg_proc WHERE proname = 'witness_discards'",
    (f"{SPOT}/definer-not-public",),
    names=("witness_discards",),
)
_catalogue(
    "keys-not-unique",
    "The unique constraint of the idempotency keys is gone: two requests at once both run.",
    "ALTER TABLE replay_runs DROP CONSTRAINT replay_runs_idempotency_key_company_id_key",
    """ALTER TABLE replay_runs ADD CONSTRAINT replay_runs_idempotency_key_company_id_key
        UNIQUE (idempotency_key, company_id)""",
    """SELECT count(*) = 0 FROM pg_constraint WHERE conrelid = 'public.replay_runs'::regclass AND contype = 'u'""",
    (f"{SPOT}/replay-runs-unique", f"{SPOT}/idempotency-constraints", "sql/manifest/constraints"),
    names=("replay_runs", "idempotency"),
)
_catalogue(
    "keys-unique-globally",
    "Idempotency keys are unique over all tenants: one can block another's key.",
    "ALTER TABLE replay_runs ADD CONSTRAINT witness_key UNIQUE (idempotency_key)",
    "ALTER TABLE replay_runs DROP CONSTRAINT witness_key",
    "SELECT count(*) > 0 FROM pg_constraint WHERE conname = 'witness_key'",
    (f"{SPOT}/unique-keys-name-the-tenant", "drill/idempotency/scope-is-the-tenant", "sql/manifest/constraints"),
    names=("idempotency_key", "witness_key", "tenant"),
)
_catalogue(
    "effects-not-unique",
    "An event may have two effects: the unique constraint is gone.",
    "ALTER TABLE agent_tasks DROP CONSTRAINT agent_tasks_event_id_key",
    "ALTER TABLE agent_tasks ADD CONSTRAINT agent_tasks_event_id_key UNIQUE (event_id)",
    "SELECT count(*) = 0 FROM pg_constraint WHERE conname = 'agent_tasks_event_id_key'",
    (f"{SPOT}/unique-keys", f"{SPOT}/one-effect-per-event", "sql/manifest/constraints"),
    names=("agent_tasks", "event_id"),
)
_catalogue(
    "two-global-flag-rows",
    "A flag may have two global rows: nulls are distinct.",
    """ALTER TABLE feature_flags DROP CONSTRAINT feature_flags_key_company_key;
        ALTER TABLE feature_flags ADD CONSTRAINT feature_flags_key_company_key UNIQUE (key, company_id)""",
    """ALTER TABLE feature_flags DROP CONSTRAINT feature_flags_key_company_key;
        ALTER TABLE feature_flags ADD CONSTRAINT feature_flags_key_company_key
        UNIQUE NULLS NOT DISTINCT (key, company_id)""",
    """SELECT NOT indnullsnotdistinct FROM pg_index
        WHERE indexrelid = 'public.feature_flags_key_company_key'::regclass""",
    (f"{SPOT}/unique-keys", "drill/flags/one-global-row", "sql/manifest/constraints"),
    names=("feature_flags",),
)
_catalogue(
    "budget-trigger-gone",
    "The trigger that keeps budgets within their limits is gone.",
    "ALTER TABLE replay_budgets DISABLE TRIGGER replay_budgets_cap",
    "ALTER TABLE replay_budgets ENABLE ALWAYS TRIGGER replay_budgets_cap",
    "SELECT tgenabled = 'D' FROM pg_trigger WHERE tgname = 'replay_budgets_cap'",
    (f"{SPOT}/budget-trigger", "drill/budgets/database-refuses-overspending", f"{SPOT}/triggers-enabled"),
    names=("replay_budgets", "budget"),
)
_catalogue(
    "flag-version-stands-still",
    "The version of a flag does not grow: two gates that race both act.",
    "ALTER TABLE feature_flags DISABLE TRIGGER feature_flags_touch",
    "ALTER TABLE feature_flags ENABLE ALWAYS TRIGGER feature_flags_touch",
    "SELECT tgenabled = 'D' FROM pg_trigger WHERE tgname = 'feature_flags_touch'",
    ("drill/flags/version-grows", f"{SPOT}/triggers-enabled", "sql/manifest/triggers"),
    names=("version", "feature_flags"),
)
_catalogue(
    "percentage-unchecked",
    "A rollout may be 900 %.",
    "ALTER TABLE feature_flags DROP CONSTRAINT feature_flags_rollout_range",
    """ALTER TABLE feature_flags ADD CONSTRAINT feature_flags_rollout_range
        CHECK (rollout_percentage BETWEEN 0 AND 100)""",
    "SELECT count(*) = 0 FROM pg_constraint WHERE conname = 'feature_flags_rollout_range'",
    ("drill/flags/percentage-out-of-range-refused", "sql/manifest/constraints"),
    names=("percentage", "feature_flags"),
)
_catalogue(
    "index-invalid",
    "An index is invalid, as a cancelled CREATE INDEX CONCURRENTLY leaves it.",
    "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'public.event_outbox_event_idx'::regclass",
    "UPDATE pg_index SET indisvalid = true WHERE indexrelid = 'public.event_outbox_event_idx'::regclass",
    "SELECT NOT indisvalid FROM pg_index WHERE indexrelid = 'public.event_outbox_event_idx'::regclass",
    (f"{SPOT}/indexes-valid", "sql/manifest/indexes"),
    names=("event_outbox_event_idx",),
    decision="hold",
)
_catalogue(
    "constraint-not-validated",
    "A constraint was added NOT VALID and never validated.",
    "ALTER TABLE agent_tasks ADD CONSTRAINT witness_new CHECK (agent_name <> '') NOT VALID",
    "ALTER TABLE agent_tasks DROP CONSTRAINT witness_new",
    "SELECT count(*) > 0 FROM pg_constraint WHERE conname = 'witness_new'",
    (f"{SPOT}/constraints-validated", "sql/manifest/constraints"),
    names=("witness_new", "agent_tasks"),
    decision="hold",
)
_catalogue(
    "insert-needs-more",
    "A new column without a default breaks every other producer of dead letters.",
    """ALTER TABLE dead_letter_queue ADD COLUMN trace_id text; ALTER TABLE dead_letter_queue
        ADD CONSTRAINT witness_trace CHECK (trace_id IS NOT NULL) NOT VALID""",
    "ALTER TABLE dead_letter_queue DROP COLUMN trace_id",
    "SELECT count(*) > 0 FROM pg_attribute WHERE attname = 'trace_id' AND NOT attisdropped",
    ("sql/manifest/columns", "sql/manifest/constraints", f"{SPOT}/constraints-validated"),
    names=("trace_id", "dead_letter_queue"),
    decision="hold",
)
_catalogue(
    "budget-of-the-default-raised",
    "A budget row that names no limit is given a hundred times the contract's.",
    "ALTER TABLE replay_budgets ALTER COLUMN daily_limit SET DEFAULT 50000",
    "ALTER TABLE replay_budgets ALTER COLUMN daily_limit SET DEFAULT 500",
    """SELECT pg_get_expr(adbin, adrelid) = '50000' FROM pg_attrdef
        WHERE adrelid = 'replay_budgets'::regclass AND adnum = (SELECT attnum FROM pg_attribute
          WHERE attrelid = 'replay_budgets'::regclass AND attname = 'daily_limit')""",
    (f"{SPOT}/defaults-as-promised", "sql/manifest/columns"),
    names=("daily_limit", "50000"),
    decision="hold",
)
_catalogue(
    "day-of-the-session",
    "The day of a budget is that of the time zone of whoever writes its row.",
    "ALTER TABLE replay_budgets ALTER COLUMN day SET DEFAULT CURRENT_DATE",
    "ALTER TABLE replay_budgets ALTER COLUMN day SET DEFAULT (now() AT TIME ZONE 'UTC')::date",
    """SELECT pg_get_expr(adbin, adrelid) = 'CURRENT_DATE' FROM pg_attrdef
        WHERE adrelid = 'replay_budgets'::regclass AND adnum = (SELECT attnum FROM pg_attribute
          WHERE attrelid = 'replay_budgets'::regclass AND attname = 'day')""",
    ("drill/budgets/day-of-utc", "sql/manifest/columns"),
    names=("UTC", "day"),
)
_catalogue(
    "pause-row-missing",
    "The global row of agent_controls is gone: the emergency pause changes nothing.",
    "DELETE FROM agent_controls WHERE company_id IS NULL",
    "INSERT INTO agent_controls (company_id) VALUES (NULL)",
    "SELECT count(*) = 0 FROM agent_controls WHERE company_id IS NULL",
    (f"{SPOT}/pause-row-exists",),
    names=("agent_controls", "row"),
)
_catalogue(
    "budgets-unlogged",
    "The budgets are unlogged: a crash of the server empties them, and everybody may replay anew.",
    "ALTER TABLE replay_budgets SET UNLOGGED",
    "ALTER TABLE replay_budgets SET LOGGED",
    "SELECT relpersistence = 'u' FROM pg_class WHERE oid = 'public.replay_budgets'::regclass",
    (f"{SPOT}/writes-are-kept",),
    names=("unlogged", "replay_budgets"),
)
_catalogue(
    "commits-not-awaited",
    "The service does not wait for its commits: what it answered `started` for may be gone after a crash.",
    "ALTER ROLE replay_service SET synchronous_commit = off",
    "ALTER ROLE replay_service RESET synchronous_commit",
    """SELECT count(*) > 0 FROM pg_db_role_setting s
        WHERE s.setrole = 'replay_service'::regrole AND s.setconfig::text LIKE '%synchronous_commit=off%'""",
    (f"{SPOT}/service-settings",),
    names=("synchronous_commit",),
)
_catalogue(
    "old-tables-in-front",
    "A schema that a move has left behind comes before public: what names no schema is written to the old table.",
    """CREATE SCHEMA replay_service; CREATE TABLE replay_service.replay_runs (LIKE public.replay_runs);
        GRANT USAGE ON SCHEMA replay_service TO replay_service""",
    "DROP SCHEMA replay_service CASCADE",
    "SELECT to_regclass('replay_service.replay_runs') IS NOT NULL",
    (f"{SPOT}/names-not-shadowed",),
    names=("replay_runs",),
)
