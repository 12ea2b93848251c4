-- The cluster by the number that it was made with, and the database.
select s.system_identifier::text || '/' || d.oid::text as server
from pg_control_system() s cross join pg_database d
where d.datname = current_database();
