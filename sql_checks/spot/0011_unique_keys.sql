-- id: sql/spot/unique-keys
-- claim: Every key that the contract calls unique has a valid unique index on exactly its columns, with NULLs not distinct where promised.
-- cost: Two rows may exist for one flag, pause, budget or rate limit: which of them counts is chance.
-- severity: page
-- reads: catalogue
-- covers: D15
with promised(name, columns, fleet, counted) as (
  -- fleet: the column whose NULL means everybody, of whom there is one
  values ('public.feature_flags', array['public.feature_flags.company_id', 'public.feature_flags.key'], 'public.feature_flags.company_id', 'public.feature_flags.rows'),
         ('public.agent_controls', array['public.agent_controls.company_id'], 'public.agent_controls.company_id', 'public.agent_controls.rows'),
         ('public.replay_budgets', array['public.replay_budgets.company_id'], null, 'public.replay_budgets.rows'),
         -- a limit that adds a row for each call has many of a key
         ('public.edge_rate_limits', array[case when 'public.edge_rate_limits.hits' is not null then 'public.edge_rate_limits.key' end],
          null, 'public.edge_rate_limits.rows'),
         ('public.audit_heads', array['public.audit_heads.scope'], null, 'public.audit_heads.rows'), -- the chain is one per scope
         ('public.companies', array['public.companies.id'], null, 'public.companies.rows')
), wanted as (
  select name, translate(lower(counted), '()" ', '') as counted, (parse_ident(fleet))[3] as fleet, quote_ident((parse_ident(fleet))[3]) as quoted,
         (select array_agg((parse_ident(c))[3] order by (parse_ident(c))[3] collate "C") from unnest(columns) c where c is not null) as columns
  from promised
), kept as (
  select w.name,
         -- where no column of it may be NULL, as in a primary key, NULLs cannot be distinct
         bool_or(k.columns = w.columns and p.pred = ''
           and (w.fleet is null or i.indnullsnotdistinct or k.is_coalesced or not exists (
             select from pg_attribute a
             where a.attrelid = i.indrelid and not a.attnotnull and a.attnum = any(i.indkey[0:i.indnkeyatts - 1])))) as by_one,
         -- or by one for the tenants and one for everybody
         bool_or(k.columns = w.columns and p.pred in ('', lower(w.fleet) || 'isnotnull'))
         and bool_or(k.columns = array_remove(w.columns, w.fleet) and p.pred = lower(w.fleet) || 'isnull') as by_two
  from wanted w
  join pg_index i on i.indrelid = to_regclass(w.name) and i.indisunique and i.indisvalid and i.indisready and i.indislive
  cross join lateral (select coalesce(translate(lower(pg_get_expr(i.indpred, i.indrelid)), '()" ', ''), '') as text) whole
  cross join lateral (
    -- of the rows that count: those that are deleted softly may be alike
    select case when w.counted is null then whole.text
                when whole.text = w.counted then ''
                else replace(replace(whole.text, w.counted || 'and', ''), 'and' || w.counted, '') end as pred) p
  cross join lateral (
    select coalesce(array_agg(c.name order by c.name collate "C") filter (where btrim(c.name, '()') is distinct from w.quoted || ' IS NULL'), '{}')
             as columns,
           bool_or(c.is_coalesced) as is_coalesced
    from generate_series(1, i.indnkeyatts) n
    cross join lateral (select pg_get_indexdef(i.indexrelid, n, false) as text) d
    cross join lateral (
      -- COALESCE(company_id, '...'::uuid) makes the rows of nobody equal, too
      select coalesce(starts_with(d.text, 'COALESCE(' || w.quoted || ', '''), false) and d.text ~ ', ''[^'']*''::[a-z ]+\)$' as is_coalesced) f
    cross join lateral (
      select case when f.is_coalesced then w.fleet
                  else coalesce((select a.attname::text from pg_attribute a
                                 where a.attrelid = i.indrelid and a.attnum = i.indkey[n - 1] and a.attnum > 0), d.text) end as name,
             f.is_coalesced) c
  ) k
  group by w.name
)
select w.name as subject,
       format('no valid unique index on (%s)%s', array_to_string(w.columns, ', '),
              case when w.fleet is not null then ' nulls not distinct' end) as detail,
       (select string_agg(pg_get_indexdef(i.indexrelid), '; ') from pg_index i
        where i.indrelid = to_regclass(w.name)) as witness
from wanted w
left join kept k on k.name = w.name
where to_regclass(w.name) is not null and w.columns is not null and not coalesce(k.by_one or k.by_two, false);

-- seen:
select count(*) as seen from pg_class
where oid in (to_regclass('public.feature_flags'), to_regclass('public.agent_controls'), to_regclass('public.replay_budgets'),
              to_regclass('public.edge_rate_limits'), to_regclass('public.audit_heads'), to_regclass('public.companies'));
