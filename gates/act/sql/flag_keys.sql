-- A thousand of the keys that this login sees, and whether row-level security may hide others from it.
select coalesce(array_agg(f.key), '{}') as keys, row_security_active('public.feature_flags') as hidden
from (select distinct key from public.feature_flags limit 1000) f;
