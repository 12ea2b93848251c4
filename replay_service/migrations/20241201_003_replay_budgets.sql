-- What a tenant may replay per UTC day and month. No row means the defaults.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';
SET LOCAL ROLE replay_owner;

CREATE TABLE public.replay_budgets (
  company_id uuid PRIMARY KEY,
  daily_limit integer NOT NULL DEFAULT 500,
  monthly_limit integer NOT NULL DEFAULT 10000,
  daily_used integer NOT NULL DEFAULT 0,
  monthly_used integer NOT NULL DEFAULT 0,
  day date NOT NULL DEFAULT (now() AT TIME ZONE 'UTC')::date,
  month date NOT NULL DEFAULT date_trunc('month', now() AT TIME ZONE 'UTC')::date,
  updated_at timestamptz NOT NULL DEFAULT now()
);

-- A trigger and not a CHECK: a limit may be lowered below what is used (that leaves nothing), but no statement
-- may raise what is used above the limit. What was used in another period counts as nothing.
CREATE FUNCTION public.replay_budgets_cap() RETURNS trigger
  LANGUAGE plpgsql SET search_path = ''
AS $$
DECLARE
  daily_before integer := 0;
  monthly_before integer := 0;
BEGIN
  IF TG_OP = 'UPDATE' THEN
    IF NEW.day = OLD.day THEN
      daily_before := OLD.daily_used;
    END IF;
    IF NEW.month = OLD.month THEN
      monthly_before := OLD.monthly_used;
    END IF;
  END IF;
  IF NEW.daily_used > NEW.daily_limit AND NEW.daily_used > daily_before THEN
    RAISE EXCEPTION 'daily replay budget of company % exceeded: % used, % allowed', NEW.company_id, NEW.daily_used, NEW.daily_limit
      USING ERRCODE = 'check_violation', CONSTRAINT = 'replay_budgets_daily_cap', TABLE = 'replay_budgets', SCHEMA = 'public',
            HINT = 'Raise daily_limit or wait for the next UTC day.';
  END IF;
  IF NEW.monthly_used > NEW.monthly_limit AND NEW.monthly_used > monthly_before THEN
    RAISE EXCEPTION 'monthly replay budget of company % exceeded: % used, % allowed', NEW.company_id, NEW.monthly_used, NEW.monthly_limit
      USING ERRCODE = 'check_violation', CONSTRAINT = 'replay_budgets_monthly_cap', TABLE = 'replay_budgets', SCHEMA = 'public',
            HINT = 'Raise monthly_limit or wait for the next UTC month.';
  END IF;
  NEW.updated_at := now();
  RETURN NEW;
END
$$;
CREATE TRIGGER replay_budgets_cap BEFORE INSERT OR UPDATE ON public.replay_budgets
  FOR EACH ROW EXECUTE FUNCTION public.replay_budgets_cap();
ALTER TABLE public.replay_budgets ENABLE ALWAYS TRIGGER replay_budgets_cap;

-- Amounts used are those of the current period; day and month are shown as stored.
CREATE VIEW public.replay_budgets_status WITH (security_invoker = true) AS
SELECT
  s.company_id, c.name AS company_name, s.daily_limit, s.monthly_limit, s.daily_used, s.monthly_used, s.day, s.month,
  s.daily_remaining, s.monthly_remaining,
  CASE WHEN least(s.daily_remaining, s.monthly_remaining) > 0 THEN 'active' ELSE 'exhausted' END AS status
FROM (
  SELECT
    u.*,
    greatest(u.daily_limit::bigint - u.daily_used, 0) AS daily_remaining,
    greatest(u.monthly_limit::bigint - u.monthly_used, 0) AS monthly_remaining
  FROM (
    SELECT
      b.company_id, b.daily_limit, b.monthly_limit, b.day, b.month,
      CASE WHEN b.day = (now() AT TIME ZONE 'UTC')::date THEN b.daily_used ELSE 0 END AS daily_used,
      CASE WHEN b.month = date_trunc('month', now() AT TIME ZONE 'UTC')::date THEN b.monthly_used ELSE 0 END AS monthly_used
    FROM public.replay_budgets b
  ) u
) s
LEFT JOIN public.companies c ON c.id = s.company_id;

GRANT SELECT ON public.replay_budgets, public.replay_budgets_status TO replay_service, replay_worker, replay_gate, authenticated;
GRANT INSERT, UPDATE ON public.replay_budgets TO replay_service;
GRANT UPDATE ON public.replay_budgets TO replay_worker;
GRANT INSERT, UPDATE, DELETE ON public.replay_budgets TO replay_gate;
