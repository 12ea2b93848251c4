-- id: sql/spot/replay-runs-unique
-- claim: replay_runs has a valid, immediate unique constraint or index on exactly idempotency_key and company_id.
-- cost: Two runs share a key: a retry replays everything again.
-- severity: page
-- reads: catalogue
-- covers: D15
select 'public.replay_runs' as subject,
       format('no valid, immediate unique key on (%s, %s)', (parse_ident('public.replay_runs.idempotency_key'))[3],
              (parse_ident('public.replay_runs.company_id'))[3]) as detail,
       (select string_agg(pg_get_indexdef(i.indexrelid), '; ') from pg_index i
        where i.indrelid = to_regclass('public.replay_runs')) as witness
where to_regclass('public.replay_runs') is not null
  and not exists (
    select from pg_index i
    where i.indrelid = to_regclass('public.replay_runs') and i.indisunique and i.indimmediate and i.indisvalid and i.indisready and i.indislive
      and i.indexprs is null
      -- of the rows that count: those that are deleted softly may be alike
      and coalesce(translate(lower(pg_get_expr(i.indpred, i.indrelid)), '()" ', ''), '') in ('', translate(lower('public.replay_runs.rows'), '()" ', ''))
      and (select array_agg(a.attname::text order by a.attname::text collate "C") from pg_attribute a
           where a.attrelid = i.indrelid and a.attnum = any(i.indkey[0:i.indnkeyatts - 1])) = (
          select array_agg(k.name[3] order by k.name[3] collate "C")
          from (values (parse_ident('public.replay_runs.company_id')), (parse_ident('public.replay_runs.idempotency_key'))) k(name))
  );

-- seen:
select count(*) as seen from pg_attribute
where attrelid = to_regclass('public.replay_runs') and attnum > 0 and not attisdropped;
