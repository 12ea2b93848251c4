-- id: sql/spot/idempotency-constraints
-- claim: The idempotency constraints of replay_runs are present (query 1 of the checklist), or unique indexes that do the same.
-- cost: Without them the same replay runs twice.
-- severity: page
-- reads: catalogue
-- covers: D15
select 'public.replay_runs' as subject,
       'no unique constraint is present; at least one is needed' as detail,
       (select string_agg(conname, ', ') from pg_constraint where conrelid = to_regclass('public.replay_runs')) as witness
where to_regclass('public.replay_runs') is not null
  and not exists (
    select from pg_constraint c
    where c.conrelid = to_regclass('public.replay_runs') and c.contype in ('u', 'p') and cardinality(c.conkey) > 1
  )
  and not exists (
    select from pg_index i
    where i.indrelid = to_regclass('public.replay_runs') and i.indisunique and i.indisvalid and i.indisready and i.indislive and i.indnkeyatts > 1
      -- of the rows that count: those that are deleted softly may be alike
      and coalesce(translate(lower(pg_get_expr(i.indpred, i.indrelid)), '()" ', ''), '') in ('', translate(lower('public.replay_runs.rows'), '()" ', ''))
  );

-- seen:
SELECT conname, pg_get_constraintdef(c.oid)
FROM pg_constraint c
WHERE c.conrelid = 'public.replay_runs'::regclass;
