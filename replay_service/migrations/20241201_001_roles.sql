-- Roles, schema rights and default privileges. The only file that runs with the rights of the login itself:
-- every later file steps down to replay_owner, so that no object ever belongs to a superuser.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

-- Roles are cluster-wide: another database's migration may be creating them at this moment.
DO $$
DECLARE
  role_name text;
BEGIN
  FOREACH role_name IN ARRAY ARRAY['replay_owner', 'replay_service', 'replay_worker', 'replay_gate', 'authenticated', 'anon'] LOOP
    IF NOT EXISTS (SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = role_name) THEN
      BEGIN
        -- NOINHERIT: replay_gate may step into a tenant's role, and must not carry that role's policies otherwise.
        EXECUTE format('CREATE ROLE %I NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS %s',
                       role_name, CASE WHEN role_name = 'replay_gate' THEN 'NOINHERIT' ELSE 'INHERIT' END);
      EXCEPTION WHEN duplicate_object OR unique_violation THEN
        NULL;
      END;
    END IF;
  END LOOP;
  FOREACH role_name IN ARRAY ARRAY['authenticated', 'anon'] LOOP
    IF NOT EXISTS (
      SELECT 1
      FROM pg_catalog.pg_auth_members m
      WHERE m.roleid = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = role_name)
        AND m.member = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = 'replay_gate')
    ) THEN
      EXECUTE format('GRANT %I TO replay_gate', role_name);
    END IF;
  END LOOP;
END
$$;

REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO replay_owner;
-- anon may resolve names, so that it is refused by privilege and not by "does not exist"; it holds nothing else.
GRANT USAGE ON SCHEMA public TO replay_service, replay_worker, replay_gate, authenticated, anon;

-- Temporary schemas come first in name resolution: nobody but the owner of the database makes one.
DO $$
BEGIN
  EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
END
$$;

CREATE SCHEMA IF NOT EXISTS auth AUTHORIZATION replay_owner;
REVOKE ALL ON SCHEMA auth FROM PUBLIC;
GRANT USAGE ON SCHEMA auth TO replay_service, replay_worker, replay_gate, authenticated;

ALTER DEFAULT PRIVILEGES FOR ROLE replay_owner REVOKE ALL ON TABLES FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE replay_owner REVOKE ALL ON SEQUENCES FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE replay_owner REVOKE ALL ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE replay_owner REVOKE ALL ON TYPES FROM PUBLIC;
