-- Row-level security, enabled and forced on every table. Who may do what at all is in the GRANTs beside each table;
-- the policies here say on which rows.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';
SET LOCAL ROLE replay_owner;

DO $$
DECLARE
  -- A claim that is no UUID is no tenant, and no error. In a sub-select, so that it is evaluated once a statement.
  claim_text constant text := $e$(auth.jwt() ->> 'company_id')$e$;
  uuid_form constant text := $e$'^[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}$'$e$;
  claim_uuid constant text := format('(SELECT CASE WHEN %1$s ~ %2$s THEN %1$s::uuid END)', claim_text, uuid_form);
  claim_scope constant text := format('(SELECT CASE WHEN %1$s ~ %2$s THEN lower(%1$s) END)', claim_text, uuid_form);
  entry record;
  role_name text;
BEGIN
  FOR entry IN
    SELECT * FROM (VALUES
      -- table, rows of a tenant, rows that a gate may write (null: none)
      ('companies',         'id = ' || claim_uuid,                                       $e$name LIKE 'drill-%'$e$),
      ('events',            'company_id = ' || claim_uuid,                               'public.is_drill_company(company_id)'),
      ('event_outbox',      'company_id = ' || claim_uuid,                               'public.is_drill_company(company_id)'),
      ('dead_letter_queue', 'company_id = ' || claim_uuid,                               'public.is_drill_company(company_id)'),
      ('replay_budgets',    'company_id = ' || claim_uuid,                               'public.is_drill_company(company_id)'),
      ('replay_runs',       'company_id = ' || claim_uuid,                               'public.is_drill_company(company_id)'),
      ('agent_tasks',       'company_id = ' || claim_uuid,                               'public.is_drill_company(company_id)'),
      ('feature_flags',     'company_id = ' || claim_uuid,                               'true'),
      ('agent_controls',    'company_id = ' || claim_uuid,                               'true'),
      ('edge_rate_limits',  $e$lower(split_part(key, ':', 2)) = $e$ || claim_scope,      'true'),
      ('audit_logs',        'scope = ' || claim_scope,                                   'true'),
      ('audit_heads',       'scope = ' || claim_scope,                                   NULL)
    ) AS t (table_name, tenant_rows, gate_rows)
  LOOP
    EXECUTE format('ALTER TABLE public.%I ENABLE ROW LEVEL SECURITY', entry.table_name);
    EXECUTE format('ALTER TABLE public.%I FORCE ROW LEVEL SECURITY', entry.table_name);
    FOREACH role_name IN ARRAY ARRAY['replay_service', 'replay_worker'] LOOP
      EXECUTE format('CREATE POLICY %I ON public.%I FOR ALL TO %I USING (true) WITH CHECK (true)',
                     role_name || '_all_rows', entry.table_name, role_name);
    END LOOP;
    EXECUTE format('CREATE POLICY replay_gate_sees_all ON public.%I FOR SELECT TO replay_gate USING (true)', entry.table_name);
    IF entry.gate_rows IS NOT NULL THEN
      EXECUTE format('CREATE POLICY replay_gate_inserts ON public.%I FOR INSERT TO replay_gate WITH CHECK (%s)',
                     entry.table_name, entry.gate_rows);
    END IF;
    IF entry.gate_rows IS NOT NULL AND entry.table_name <> 'audit_logs' THEN
      EXECUTE format('CREATE POLICY replay_gate_updates ON public.%I FOR UPDATE TO replay_gate USING (%s) WITH CHECK (%s)',
                     entry.table_name, entry.gate_rows, entry.gate_rows);
      EXECUTE format('CREATE POLICY replay_gate_deletes ON public.%I FOR DELETE TO replay_gate USING (%s)',
                     entry.table_name, entry.gate_rows);
    END IF;
    EXECUTE format('CREATE POLICY tenant_sees_own ON public.%I FOR SELECT TO authenticated USING (%s)',
                   entry.table_name, entry.tenant_rows);
  END LOOP;
END
$$;

-- FORCE binds the owner, too. These are the rows that its SECURITY DEFINER functions need, and no others.
CREATE POLICY owner_chains ON public.audit_heads FOR ALL TO replay_owner USING (true) WITH CHECK (true);
CREATE POLICY owner_decides_flags ON public.feature_flags FOR SELECT TO replay_owner USING (true);
CREATE POLICY owner_decides_pause ON public.agent_controls FOR SELECT TO replay_owner USING (true);

ALTER TABLE public.worker_heartbeats ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.worker_heartbeats FORCE ROW LEVEL SECURITY;
CREATE POLICY replay_worker_all_rows ON public.worker_heartbeats FOR ALL TO replay_worker USING (true) WITH CHECK (true);
CREATE POLICY heartbeats_are_seen ON public.worker_heartbeats FOR SELECT TO replay_service, replay_gate USING (true);
