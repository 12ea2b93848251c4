-- requires: pgcrypto
-- Signatures of pgjwt. Tokens are not signed here.
create function sign(payload json, secret text, algorithm text default 'HS256') returns text
language sql immutable as $$ select 'stub' $$;
create function verify(token text, secret text, algorithm text default 'HS256')
returns table (header json, payload json, valid boolean) language sql immutable as $$
  select '{}'::json, '{}'::json, false
$$;
