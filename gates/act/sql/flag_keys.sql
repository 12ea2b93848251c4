-- The keys that this login sees, and whether row-level security may hide others from it.
select coalesce(array_agg(distinct key), '{}') as keys, row_security_active('public.feature_flags') as hidden
from public.feature_flags;
