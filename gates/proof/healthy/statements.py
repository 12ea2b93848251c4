"""SQL that makes healthy variants: other settings, many tenants, a long history, more columns."""

TENANTS = 2_000
OLD_ROWS = 80_000


def database(setting: str) -> str:
    """Sets something for all new sessions of the deployment's database."""
    return f"do $$ begin execute format('alter database %I set {setting}', current_database()); end $$"


def _login(setting: str) -> str:
    """Sets something for new sessions of the login that runs this, in the deployment's database."""
    names = "current_user, current_database()"
    return f"do $$ begin execute format('alter role %I in database %I set {setting}', {names}); end $$"


V2 = (
    "update public.feature_flags set enabled = true, rollout_percentage = 100 where key ="
    " 'security.signing_v2_required'"
)
AUTOVACUUM = (
    "alter system set autovacuum_naptime = '1s'",
    "alter system set autovacuum_vacuum_threshold = 1",
    "alter system set autovacuum_vacuum_scale_factor = 0",
    "alter system set autovacuum_analyze_threshold = 1",
    "alter system set autovacuum_analyze_scale_factor = 0",
    "select pg_reload_conf()",
)
MANY_TENANTS = (
    "insert into public.companies (id, name) select gen_random_uuid(), 'Tenant ' || n"
    f" from generate_series(1, {TENANTS}) n;"
    " insert into public.replay_budgets (company_id) select id from public.companies on conflict do nothing;"
    " insert into public.dead_letter_queue (company_id, event_type, payload, error_type, status, created_at)"
    " select id, 'order.paid', '{}', 'timeout', 'resolved', now() - interval '3 days' from public.companies"
    " where name like 'Tenant %'"
)
LONG_HISTORY = (
    # a row every half hour for five years, of fifty tenants; audit rows by the trigger that chains them
    "create temp table old as select gen_random_uuid() as id, md5((n % 50)::text)::uuid as company,"
    f" now() - interval '2 days' - n * interval '30 minutes' as at from generate_series(1, {OLD_ROWS}) n;"
    " insert into public.companies (id, name) select distinct company, 'An old tenant' from old;"
    " insert into public.events (id, company_id, event_type, created_at) select id, company, 'order.paid', at from old;"
    " insert into public.event_outbox (event_id, company_id, event_type, inserted_at, processed_at, attempts)"
    " select id, company, 'order.paid', at, at + interval '1 second', 1 from old order by at;"
    " insert into public.agent_tasks (company_id, event_id, status, created_at, updated_at)"
    " select company, id, 'completed', at + interval '1 second', at + interval '1 second' from old;"
    " insert into public.dead_letter_queue (company_id, event_type, payload, error_type, status, created_at)"
    " select company, 'order.paid', '{}', 'timeout', 'discarded', at from old;"
    " insert into public.audit_logs (action, actor, scope, created_at)"
    " select 'dlq_replay_refused', 'gate', company::text, at from old where at < now() - interval '3 years'"
    " order by at;"
    " create schema billing;"
    " create table billing.clicks as select company as company_id, at from old, generate_series(1, 20);"
    " analyze"
)
ONE_TENANT = "delete from public.companies where id <> (select company_id from public.events limit 1)"
MORE_COLUMNS = (
    "alter table public.event_outbox add column note text; alter table public.replay_runs add column note text;"
    " alter table public.dead_letter_queue add column note text default 'n';"
    " create index note_of_events on public.event_outbox (note);"
    " alter table public.events add foreign key (company_id) references public.companies deferrable initially deferred;"
    " alter table public.replay_budgets add foreign key (company_id) references public.companies on delete cascade;"
    " create function public.on_record() returns trigger language plpgsql security definer set search_path = '' as"
    " 'begin insert into public.audit_logs (action, actor, scope) values (''new_tenant'', session_user, new.id::text);"
    " insert into public.events (id, company_id, event_type) values (new.id, new.id, ''company.created'');"
    " insert into public.event_outbox (event_id, company_id, event_type) values (new.id, new.id, ''company.created'');"
    " return null; end';"
    " alter function public.on_record() owner to replay_owner;"
    " revoke execute on function public.on_record() from public;"
    " create schema billing; create table billing.bills (id bigint generated always as identity primary key);"
    " create publication all_rows for all tables;"
    " create table public.figures (company_id uuid primary key, counted_at timestamptz);"
    " alter table public.figures enable row level security; alter table public.figures force row level security;"
    " create policy all_figures on public.figures to replay_gate using (true);"
    " grant select on public.figures to replay_gate;"
    " create policy owner_records on public.audit_logs for insert to replay_owner with check (true);"
    " create policy owner_sends on public.events for insert to replay_owner with check (true);"
    " create policy owner_sends on public.event_outbox for insert to replay_owner with check (true);"
    " create trigger on_record after insert on public.companies for each row execute function public.on_record()"
)
HALVES = r""" PARTITION BY HASH (%s);
CREATE TABLE public.\g<name>_even PARTITION OF public.\g<name> FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE public.\g<name>_odd PARTITION OF public.\g<name> FOR VALUES WITH (MODULUS 2, REMAINDER 1);
"""
BY_ROW = r"""CREATE TRIGGER refused_by_row BEFORE UPDATE OR DELETE ON public.audit_logs
  FOR EACH ROW EXECUTE FUNCTION public.audit_logs_append_only();
ALTER TABLE public.audit_logs ENABLE ALWAYS TRIGGER refused_by_row;
\g<0>"""
PARTED = (
    (r"(CREATE TABLE public\.(?P<name>dead_letter_queue) \([^;]*?\n\))[^;]*;", r"\g<1>" + HALVES % "id"),
    (r"(CREATE TABLE public\.audit_logs \(\n  id bigint) PRIMARY KEY", r"\g<1>, PRIMARY KEY (id, scope)"),
    (r"(CREATE TABLE public\.(?P<name>audit_logs) \([^;]*?\n\));", r"\g<1>" + HALVES % "scope"),
    (r"CREATE TRIGGER audit_logs_append_only\b", BY_ROW),
    (
        r"(public\.replay_runs \(\n  id) uuid (.* DEFAULT) gen_random_uuid\(\)",
        r"\1 text \2 'run_' || pg_catalog.random()",
    ),
    (r"\breplay_run_id uuid", "replay_run_id text"),
    (r"(%\(runs?(?:_id)?\)s)::uuid", r"\1::text"),
    (r"Run\(parts\.new_id\(\)", r"Run(f'run_{parts.new_id()}'"),
    (r"as_uuid\(run_id\)", "run_id"),
)
"""Text of the sources -> its replacement for partitioned tables and run ids that are text. A statement on a partition
fires no statement trigger of the whole table.
"""
OF_SQL = {
    "v2-required": ("only signatures with a time are accepted", (V2,)),
    "autovacuum": ("autovacuum looks at every table each second", AUTOVACUUM),
    "many-tenants": (f"{TENANTS} tenants with budgets and old dead letters", (MANY_TENANTS,)),
    "one-tenant": ("one tenant, and no other", (ONE_TENANT,)),
    "date-style": (
        "dates, intervals and numbers in another style",
        (database("datestyle = ''German, DMY''"), database("intervalstyle = ''sql_standard''")),
    ),
    "impatient-database": (
        "the database ends long statements and idle transactions",
        (database("statement_timeout = ''20s''"), database("idle_in_transaction_session_timeout = ''30s''")),
    ),
    "strict-login": (
        "the gate's login has settings of its own, as a DBA makes them",
        tuple(
            _login(setting)
            for setting in (
                "default_transaction_isolation = serializable",
                "standard_conforming_strings = off",
                "bytea_output = escape",
                "extra_float_digits = 0",
                "search_path = billing",
                "plan_cache_mode = force_generic_plan",
                "jit_above_cost = 0",
                "lock_timeout = ''3s''",
            )
        ),
    ),
    "long-history": (f"{OLD_ROWS} events of five years, and a large table of the deployment's own", (LONG_HISTORY,)),
    "read-only-hours": ("new sessions of the database only read", (database("default_transaction_read_only = on"),)),
}
"""Name -> what it is, and its statements."""
