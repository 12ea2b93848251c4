-- Sessions of everybody else in this database: what service and workers hold open; and those of them that nobody has
-- used since the look before ($1), as far as this role may see that.
SELECT count(*) AS sessions,
       count(*) FILTER (WHERE state_change IS NULL OR state_change < %s::timestamptz) AS unused,
       clock_timestamp() AS seen_at
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name <> 'replaygate'
