-- What Supabase brings and a plain PostgreSQL lacks: its roles, and the functions that read a request's token.
do $$
begin
  create role anon nologin;
  create role authenticated nologin;
  create role service_role nologin bypassrls;
  create role edge_owner nologin;
end
$$;
create schema auth authorization edge_owner;
grant usage on schema auth to anon, authenticated, edge_owner;
create function auth.jwt() returns jsonb language sql stable set search_path = ''
  as $$ select coalesce(nullif(current_setting('request.jwt.claims', true), ''), '{}')::jsonb $$;
create function auth.uid() returns uuid language sql stable set search_path = ''
  as $$ select nullif(auth.jwt() ->> 'sub', '')::uuid $$;
