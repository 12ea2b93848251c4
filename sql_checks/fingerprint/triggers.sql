-- Triggers and rules, and whether they are enabled.
select format('%s.%s', c.oid::regclass, t.tgname) as name,
       format('%s [%s]', pg_get_triggerdef(t.oid), t.tgenabled) as definition
from pg_trigger t
join pg_class c on c.oid = t.tgrelid
where not c.relispartition and c.relnamespace in (select oid from pg_namespace where nspname = any('{public}')) and not t.tgisinternal
union all
select format('%s.%s', c.oid::regclass, r.rulename), format('%s [%s]', pg_get_ruledef(r.oid), r.ev_enabled)
from pg_rewrite r
join pg_class c on c.oid = r.ev_class
where not c.relispartition and c.relnamespace in (select oid from pg_namespace where nspname = any('{public}')) and r.rulename <> '_RETURN'
order by 1;
