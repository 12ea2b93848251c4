-- id: sql/spot/unique-keys
-- claim: Every key that the contract calls unique has a valid unique index on exactly its columns, with NULLs not distinct where promised.
-- cost: Two rows for one flag, pause, budget or rate limit: which one counts is chance.
-- severity: page
-- reads: catalogue
-- covers: D15
with wanted(name, columns, nulls_equal) as (
  values ('feature_flags', array['company_id', 'key'], true),
         ('agent_controls', array['company_id'], true),
         ('replay_budgets', array['company_id'], false),
         ('edge_rate_limits', array['key'], false),
         ('audit_heads', array['scope'], false),
         ('companies', array['id'], false) -- the chain is one per scope: a table split by scope has its key on both
)
select 'public.' || w.name as subject,
       format('no valid unique index on (%s)%s', array_to_string(w.columns, ', '),
              case when w.nulls_equal then ' nulls not distinct' end) as detail,
       (select string_agg(pg_get_indexdef(i.indexrelid), '; ') from pg_index i
        where i.indrelid = to_regclass('public.' || w.name)) as witness
from wanted w
where to_regclass('public.' || w.name) is not null
  and not exists (
    select from pg_index i
    where i.indrelid = to_regclass('public.' || w.name)
      and i.indisunique and i.indisvalid and i.indisready and i.indpred is null and i.indexprs is null
      and (i.indnullsnotdistinct or not w.nulls_equal)
      and (select array_agg(a.attname::text order by a.attname)
           from unnest(i.indkey[0:i.indnkeyatts - 1]) k join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k)
          in (w.columns, case w.name when 'audit_logs' then array['id', 'scope'] else w.columns end)
  );

-- seen:
select count(*) as seen from pg_class
where relnamespace = 'public'::regnamespace
  and relname in ('feature_flags', 'agent_controls', 'replay_budgets', 'edge_rate_limits', 'audit_heads', 'companies');
