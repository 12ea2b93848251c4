-- Extensions and their versions.
select e.extname::text as name, e.extversion as definition from pg_extension e where e.extname <> 'plpgsql'
order by 1;
