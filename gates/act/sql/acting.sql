-- The settings that a change relies on, as this session has them; null if the login may not set one.
select pg_is_in_recovery() as standby,
       current_setting('synchronous_commit') as synchronous_commit,
       case when has_parameter_privilege('session_replication_role', 'set')
            then current_setting('session_replication_role') end as session_replication_role;
