-- Refusals that are audited at most once a minute: what has been counted and not yet written.
-- Audit rows are append-only, so a row carries in metadata.count what was refused since the row before it:
-- the first refusal is written at once, the rest of its minute with the first moment after it.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';
SET LOCAL ROLE replay_owner;

CREATE TABLE public.refusal_counts (
  scope text NOT NULL,
  code text NOT NULL,
  pending integer NOT NULL DEFAULT 0,
  last_row_at timestamptz NOT NULL DEFAULT '-infinity',
  actor text NOT NULL,
  metadata jsonb NOT NULL,
  request_id text,
  PRIMARY KEY (scope, code)
) WITH (fillfactor = 50);
CREATE INDEX refusal_counts_pending_idx ON public.refusal_counts (last_row_at) WHERE pending > 0;

ALTER TABLE public.refusal_counts ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.refusal_counts FORCE ROW LEVEL SECURITY;
CREATE POLICY replay_service_all_rows ON public.refusal_counts FOR ALL TO replay_service USING (true) WITH CHECK (true);
CREATE POLICY replay_gate_sees_all ON public.refusal_counts FOR SELECT TO replay_gate USING (true);
GRANT SELECT, INSERT, UPDATE ON public.refusal_counts TO replay_service;
GRANT SELECT ON public.refusal_counts TO replay_gate;

-- Returns the seconds until another row of this scope and code may be written; 0 where every refusal has its row.
-- The minute is judged by created_at of the rows themselves, under the lock of the counter's row.
CREATE FUNCTION public.record_refusal(
  scope text, code text, refused integer, actor text, metadata jsonb, request_id text, once_a_minute boolean
) RETURNS double precision
  LANGUAGE plpgsql VOLATILE SET search_path = '' SET lock_timeout = '1s'
AS $$
DECLARE
  total integer;
  last_at timestamptz;
BEGIN
  IF NOT $7 THEN
    INSERT INTO public.audit_logs (action, actor, scope, failure_count, metadata, request_id)
    VALUES ('dlq_replay_refused', $4, $1, 0, $5 || jsonb_build_object('code', $2), $6);
    RETURN 0;
  END IF;
  INSERT INTO public.refusal_counts AS r (scope, code, pending, actor, metadata, request_id)
  VALUES ($1, $2, $3, $4, $5, $6)
  ON CONFLICT ON CONSTRAINT refusal_counts_pkey DO UPDATE
  SET pending = r.pending + excluded.pending, actor = excluded.actor, metadata = excluded.metadata, request_id = excluded.request_id
  RETURNING r.pending, r.last_row_at INTO STRICT total, last_at;
  IF total > 0 AND date_trunc('minute', clock_timestamp()) > date_trunc('minute', last_at) THEN
    INSERT INTO public.audit_logs (action, actor, scope, metadata, request_id)
    VALUES ('dlq_replay_refused', $4, $1, $5 || jsonb_build_object('code', $2, 'count', total), $6)
    RETURNING created_at INTO STRICT last_at;
    UPDATE public.refusal_counts r SET pending = 0, last_row_at = last_at WHERE r.scope = $1 AND r.code = $2;
  END IF;
  RETURN greatest(0, extract(epoch FROM date_trunc('minute', last_at) + interval '1 minute' - clock_timestamp()));
END
$$;

-- What is left of minutes that are over, by whichever instance comes first. Returns the number of rows looked at.
CREATE FUNCTION public.flush_refusals() RETURNS integer
  LANGUAGE plpgsql VOLATILE SET search_path = '' SET lock_timeout = '1s'
AS $$
DECLARE
  entry record;
  looked_at integer := 0;
BEGIN
  FOR entry IN
    SELECT r.* FROM public.refusal_counts r
    WHERE r.pending > 0 AND r.last_row_at < date_trunc('minute', clock_timestamp())
    ORDER BY r.last_row_at, r.scope, r.code
    LIMIT 100
    FOR UPDATE SKIP LOCKED
  LOOP
    PERFORM public.record_refusal(entry.scope, entry.code, 0, entry.actor, entry.metadata, entry.request_id, true);
    looked_at := looked_at + 1;
  END LOOP;
  RETURN looked_at;
END
$$;
GRANT EXECUTE ON FUNCTION public.record_refusal(text, text, integer, text, jsonb, text, boolean) TO replay_service;
GRANT EXECUTE ON FUNCTION public.flush_refusals() TO replay_service;
