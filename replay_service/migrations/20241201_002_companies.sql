-- Tenants, and the Supabase convention by which a request says which tenant it is.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';
SET LOCAL ROLE replay_owner;

DO $$
BEGIN
  IF to_regprocedure('auth.jwt()') IS NULL THEN
    CREATE FUNCTION auth.jwt() RETURNS jsonb
      LANGUAGE sql STABLE PARALLEL SAFE SET search_path = ''
      AS $body$ SELECT coalesce(nullif(current_setting('request.jwt.claims', true), ''), '{}')::jsonb $body$;
  END IF;
  GRANT EXECUTE ON FUNCTION auth.jwt() TO replay_service, replay_worker, replay_gate, authenticated;
END
$$;

CREATE TABLE public.companies (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  name text NOT NULL DEFAULT '',
  created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX companies_name_idx ON public.companies (name text_pattern_ops);

-- A drill tenant is a company whose name starts with "drill-": the only tenants a gate may write for.
CREATE FUNCTION public.is_drill_company(company uuid) RETURNS boolean
  LANGUAGE sql STABLE PARALLEL SAFE SET search_path = ''
  AS $$ SELECT EXISTS (SELECT 1 FROM public.companies c WHERE c.id = $1 AND c.name LIKE 'drill-%') $$;
GRANT EXECUTE ON FUNCTION public.is_drill_company(uuid) TO replay_service, replay_worker, replay_gate;

GRANT SELECT ON public.companies TO replay_service, replay_worker, replay_gate, authenticated;
GRANT INSERT, UPDATE, DELETE ON public.companies TO replay_gate;
