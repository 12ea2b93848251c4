-- Which database this is: a checkpoint of another one must never count. A database that is made anew under the same name has
-- another oid, a cluster that is made anew another identifier.
select system_identifier::text as system, (select oid::text from pg_database where datname = current_database()) as oid,
       current_database() as name
from pg_control_system()
