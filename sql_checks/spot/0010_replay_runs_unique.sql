-- id: sql/spot/replay-runs-unique
-- claim: replay_runs has a valid UNIQUE constraint on exactly idempotency_key and company_id.
-- cost: Two runs share a key: a retry replays everything again.
-- severity: page
-- reads: catalogue
-- covers: D15
select 'public.replay_runs' as subject,
       'no valid, immediate UNIQUE constraint on (idempotency_key, company_id)' as detail,
       (select string_agg(pg_get_constraintdef(c.oid), '; ') from pg_constraint c
        where c.conrelid = to_regclass('public.replay_runs') and c.contype in ('u', 'p')) as witness
where to_regclass('public.replay_runs') is not null
  and not exists (
    select from pg_constraint c
    join pg_index i on i.indexrelid = c.conindid
    where c.conrelid = to_regclass('public.replay_runs') and c.contype in ('u', 'p') and c.convalidated
      and not c.condeferrable and i.indisunique and i.indisvalid and i.indisready and i.indpred is null
      and (select array_agg(a.attname::text order by a.attname::text collate "C") from pg_attribute a
           where a.attrelid = c.conrelid and a.attnum = any(c.conkey)) = (
          select array_agg(k.name[3] order by k.name[3] collate "C")
          from (values (parse_ident('public.replay_runs.company_id')), (parse_ident('public.replay_runs.idempotency_key'))) k(name))
  );

-- seen:
select count(*) as seen from pg_attribute
where attrelid = to_regclass('public.replay_runs') and attnum > 0 and not attisdropped;
