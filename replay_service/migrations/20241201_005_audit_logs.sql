-- The audit log: append-only, one hash chain per scope, the head of each chain in a row that every append locks.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';
SET LOCAL ROLE replay_owner;

CREATE SEQUENCE public.audit_logs_id_seq AS bigint;

CREATE TABLE public.audit_logs (
  id bigint PRIMARY KEY,
  action text NOT NULL,
  actor text NOT NULL DEFAULT session_user,
  scope text NOT NULL DEFAULT 'all',
  target_count integer NOT NULL DEFAULT 0,
  success_count integer NOT NULL DEFAULT 0,
  failure_count integer NOT NULL DEFAULT 0,
  metadata jsonb NOT NULL DEFAULT '{}',
  request_id text,
  created_at timestamptz NOT NULL, -- the trigger's clock when not given: read after the head is locked, so it never runs backwards
  prev_hash text NOT NULL,
  hash text NOT NULL,
  txid xid8 NOT NULL DEFAULT pg_current_xact_id()
);
ALTER SEQUENCE public.audit_logs_id_seq OWNED BY public.audit_logs.id;
CREATE INDEX audit_logs_scope_idx ON public.audit_logs (scope, id);
CREATE INDEX audit_logs_created_idx ON public.audit_logs (created_at);
CREATE INDEX audit_logs_action_idx ON public.audit_logs (action, created_at);
CREATE INDEX audit_logs_request_idx ON public.audit_logs (request_id) WHERE request_id IS NOT NULL;

CREATE TABLE public.audit_heads (
  scope text PRIMARY KEY,
  last_id bigint NOT NULL,
  last_hash text NOT NULL,
  row_count bigint NOT NULL
) WITH (fillfactor = 50);

-- hex sha256 of prev_hash followed by the canonical text of the row. Source of the form: contract, section 3.
CREATE FUNCTION public.audit_hash(
  prev_hash text, id bigint, action text, actor text, scope text, target_count integer, success_count integer,
  failure_count integer, metadata jsonb, request_id text, created_at timestamptz
) RETURNS text
  LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = ''
AS $$
  SELECT encode(sha256(convert_to($1 || jsonb_build_array(
    $2, $3, $4, $5, $6, $7, $8, $9, $10, (extract(epoch FROM $11) * 1000000)::bigint
  )::text, 'UTF8')), 'hex')
$$;

-- id, prev_hash and hash are never the caller's: a plain INSERT joins the chain like append_audit does.
-- The head row is locked until the caller commits; append last in a transaction, so that others wait briefly.
CREATE FUNCTION public.audit_logs_chain() RETURNS trigger
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = ''
AS $$
DECLARE
  head_hash text;
BEGIN
  INSERT INTO public.audit_heads AS h (scope, last_id, last_hash, row_count)
  VALUES (NEW.scope, 0, repeat('0', 64), 1)
  ON CONFLICT (scope) DO UPDATE SET row_count = h.row_count + 1
  RETURNING h.last_hash INTO STRICT head_hash;

  NEW.id := nextval('public.audit_logs_id_seq');
  NEW.created_at := coalesce(NEW.created_at, clock_timestamp());
  NEW.target_count := coalesce(NEW.target_count, 0);
  NEW.success_count := coalesce(NEW.success_count, 0);
  NEW.failure_count := coalesce(NEW.failure_count, 0);
  NEW.metadata := coalesce(NEW.metadata, '{}');
  NEW.txid := pg_current_xact_id();
  NEW.prev_hash := head_hash;
  NEW.hash := public.audit_hash(head_hash, NEW.id, NEW.action, NEW.actor, NEW.scope, NEW.target_count, NEW.success_count,
                                NEW.failure_count, NEW.metadata, NEW.request_id, NEW.created_at);
  UPDATE public.audit_heads h SET last_id = NEW.id, last_hash = NEW.hash WHERE h.scope = NEW.scope;
  RETURN NEW;
END
$$;
CREATE TRIGGER audit_logs_chain BEFORE INSERT ON public.audit_logs
  FOR EACH ROW EXECUTE FUNCTION public.audit_logs_chain();
-- ALWAYS: session_replication_role = replica must not open a way around the chain or the guard.
ALTER TABLE public.audit_logs ENABLE ALWAYS TRIGGER audit_logs_chain;

CREATE FUNCTION public.audit_logs_append_only() RETURNS trigger
  LANGUAGE plpgsql SET search_path = ''
AS $$
BEGIN
  RAISE EXCEPTION 'audit_logs is append-only: % refused', TG_OP
    USING ERRCODE = 'insufficient_privilege', HINT = 'Append a correcting row instead.';
END
$$;
CREATE TRIGGER audit_logs_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON public.audit_logs
  FOR EACH STATEMENT EXECUTE FUNCTION public.audit_logs_append_only();
ALTER TABLE public.audit_logs ENABLE ALWAYS TRIGGER audit_logs_append_only;

CREATE FUNCTION public.append_audit(
  action text, actor text, scope text, target_count integer DEFAULT 0, success_count integer DEFAULT 0,
  failure_count integer DEFAULT 0, metadata jsonb DEFAULT '{}', request_id text DEFAULT NULL
) RETURNS bigint
  LANGUAGE sql VOLATILE SET search_path = ''
AS $$
  INSERT INTO public.audit_logs AS a (action, actor, scope, target_count, success_count, failure_count, metadata, request_id)
  VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
  RETURNING a.id
$$;
GRANT EXECUTE ON FUNCTION public.append_audit(text, text, text, integer, integer, integer, jsonb, text)
  TO replay_service, replay_worker, replay_gate;
GRANT EXECUTE ON FUNCTION public.audit_hash(text, bigint, text, text, text, integer, integer, integer, jsonb, text, timestamptz)
  TO replay_service, replay_worker, replay_gate, authenticated;

GRANT SELECT ON public.audit_logs, public.audit_heads TO replay_service, replay_worker, replay_gate, authenticated;
GRANT INSERT ON public.audit_logs TO replay_service, replay_worker, replay_gate;
