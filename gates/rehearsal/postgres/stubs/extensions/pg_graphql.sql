-- schema: pg_catalog
-- The one function of pg_graphql. It answers nothing.
create schema graphql;
create function graphql.resolve(
  query text, variables jsonb default '{}', "operationName" text default null, extensions jsonb default null
) returns jsonb language sql as $$ select '{"data": null}'::jsonb $$;
grant usage on schema graphql to public;
