-- The identifier of the cluster, the database, and how often the cluster was promoted.
select s.system_identifier::text || '/' || d.oid::text || '@' || c.timeline_id::text as server
from pg_control_system() s cross join pg_control_checkpoint() c cross join pg_database d
where d.datname = current_database();
