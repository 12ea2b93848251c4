-- The database, for a login that may not read the identifier of its cluster.
select d.oid::text || '/' || d.datname::text as server from pg_database d where d.datname = current_database();
