-- id: sql/spot/server-version
-- claim: The server is PostgreSQL 15 to 18.
-- cost: The gate is proved on these versions only.
-- severity: warn
-- reads: catalogue
-- covers: N13
select 'server' as subject,
       format('version %s; 15 to 18 allowed', current_setting('server_version')) as detail,
       version() as witness
where current_setting('server_version_num')::int not between 150000 and 189999;

-- seen:
select 1 as seen;
