-- id: sql/spot/unique-keys
-- claim: Every key that the contract calls unique has a valid unique index on exactly its columns, with NULLs not distinct where promised.
-- cost: Two rows for one flag, pause, budget or rate limit: which one counts is chance.
-- severity: page
-- reads: catalogue
-- covers: D15
with promised(name, columns, nulls_equal) as (
  values ('public.feature_flags', array['public.feature_flags.company_id', 'public.feature_flags.key'], true),
         ('public.agent_controls', array['public.agent_controls.company_id'], true),
         ('public.replay_budgets', array['public.replay_budgets.company_id'], false),
         ('public.edge_rate_limits', array['public.edge_rate_limits.key'], false),
         ('public.audit_heads', array['public.audit_heads.scope'], false), -- the chain is one per scope
         ('public.companies', array['public.companies.id'], false)
), wanted as (
  select name, nulls_equal,
         (select array_agg((parse_ident(c))[3] order by (parse_ident(c))[3] collate "C") from unnest(columns) c where c is not null) as columns
  from promised
)
select w.name as subject,
       format('no valid unique index on (%s)%s', array_to_string(w.columns, ', '),
              case when w.nulls_equal then ' nulls not distinct' end) as detail,
       (select string_agg(pg_get_indexdef(i.indexrelid), '; ') from pg_index i
        where i.indrelid = to_regclass(w.name)) as witness
from wanted w
where to_regclass(w.name) is not null and w.columns is not null
  and not exists (
    select from pg_index i
    where i.indrelid = to_regclass(w.name)
      and i.indisunique and i.indisvalid and i.indisready and i.indpred is null and i.indexprs is null
      -- where no column of it may be NULL, as in a primary key, NULLs cannot be distinct
      and (i.indnullsnotdistinct or not w.nulls_equal or not exists (
        select from pg_attribute a
        where a.attrelid = i.indrelid and not a.attnotnull and a.attnum = any(i.indkey[0:i.indnkeyatts - 1])))
      and (select array_agg(a.attname::text order by a.attname::text collate "C")
           from unnest(i.indkey[0:i.indnkeyatts - 1]) k join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k) = w.columns
  );

-- seen:
select count(*) as seen from pg_class
where oid in (to_regclass('public.feature_flags'), to_regclass('public.agent_controls'), to_regclass('public.replay_budgets'),
              to_regclass('public.edge_rate_limits'), to_regclass('public.audit_heads'), to_regclass('public.companies'));
