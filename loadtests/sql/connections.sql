-- Sessions of everybody else in this database: what service and workers hold open.
SELECT count(*) AS sessions
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name <> 'replaygate'
