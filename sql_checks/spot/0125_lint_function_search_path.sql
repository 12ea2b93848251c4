-- id: sql/spot/lint-function-search-path
-- claim: Every function in public pins its search_path.
-- cost: The caller's search_path decides which objects it uses.
-- severity: investigate
-- reads: catalogue
select p.oid::regprocedure::text as subject, 'no pinned search_path' as detail, null::text as witness
from pg_proc p
where p.pronamespace in (select oid from pg_namespace where nspname = any('{public}')) and p.prokind <> 'a'
  and not exists (select from unnest(p.proconfig) c where c like 'search\_path=%')
  and not exists (select from pg_depend d where d.objid = p.oid and d.classid = 'pg_proc'::regclass and d.deptype = 'e');

-- seen:
select count(*) as seen from pg_proc where pronamespace in (select oid from pg_namespace where nspname = any('{public}'));
