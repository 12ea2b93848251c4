-- id: sql/spot/lint-duplicate-indexes
-- claim: No two indexes are the same.
-- cost: Every write pays twice for nothing.
-- severity: investigate
-- reads: catalogue
select i.indrelid::regclass::text as subject, 'indexes with the same definition' as detail,
       string_agg(i.indexrelid::regclass::text, ', ') as witness
from pg_index i
join pg_class c on c.oid = i.indexrelid
where c.relnamespace in (select oid from pg_namespace where nspname = any('{public}'))
  and i.indisvalid -- an index that is being built anew stands beside the old one
group by i.indrelid, c.relam, i.indkey::text, i.indclass::text, i.indcollation::text, i.indoption::text, i.indisunique,
         pg_get_expr(i.indexprs, i.indrelid), pg_get_expr(i.indpred, i.indrelid), c.reloptions
having count(*) > 1;

-- seen:
select count(*) as seen from pg_index i join pg_class c on c.oid = i.indrelid where c.relnamespace in (select oid from pg_namespace where nspname = any('{public}'));
