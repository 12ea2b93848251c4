-- The database, this login and the schemas with something in them.
select current_database() as database, current_user::text as login,
       array(
         select n.nspname::text from pg_catalog.pg_namespace n
         where n.nspname not in ('pg_catalog', 'information_schema') and n.nspname !~ '^pg_(toast|temp)'
         order by n.nspname = 'public' desc, 1 limit 500
       ) as schemas;
