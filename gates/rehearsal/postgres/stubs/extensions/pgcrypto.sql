-- Signatures of pgcrypto. digest() is real where the server itself has the algorithm; nothing else is encrypted here.
create function digest(data bytea, type text) returns bytea language sql immutable strict as $$
  select case lower(type) when 'md5' then decode(md5(data), 'hex') when 'sha224' then sha224(data)
    when 'sha384' then sha384(data) when 'sha512' then sha512(data) else sha256(data) end
$$;
create function digest(data text, type text) returns bytea language sql immutable strict as $$
  select case lower(type) when 'md5' then decode(md5(data), 'hex') when 'sha224' then sha224(convert_to(data, 'UTF8'))
    when 'sha384' then sha384(convert_to(data, 'UTF8')) when 'sha512' then sha512(convert_to(data, 'UTF8'))
    else sha256(convert_to(data, 'UTF8')) end
$$;
create function hmac(data text, key text, type text) returns bytea language sql immutable strict as $$
  select sha256(convert_to(key || data, 'UTF8'))
$$;
create function hmac(data bytea, key bytea, type text) returns bytea language sql immutable strict as $$
  select sha256(key || data)
$$;
create function crypt(password text, salt text) returns text language sql immutable strict as $$
  select salt || md5(password)
$$;
create function gen_salt(type text) returns text language sql volatile strict as $$ select 'stub$' $$;
create function gen_salt(type text, iter_count integer) returns text language sql volatile strict as $$
  select 'stub$'
$$;
create function gen_random_bytes(count integer) returns bytea language sql volatile strict as $$
  select substring(decode(string_agg(md5(random()::text), ''), 'hex') from 1 for count) from generate_series(1, 64)
$$;
create function pgp_sym_encrypt(data text, psw text) returns bytea language sql volatile strict as $$
  select convert_to(data, 'UTF8')
$$;
create function pgp_sym_encrypt(data text, psw text, options text) returns bytea language sql volatile strict as $$
  select convert_to(data, 'UTF8')
$$;
create function pgp_sym_decrypt(msg bytea, psw text) returns text language sql immutable strict as $$
  select convert_from(msg, 'UTF8')
$$;
create function encrypt(data bytea, key bytea, type text) returns bytea language sql immutable strict as $$
  select data
$$;
create function decrypt(data bytea, key bytea, type text) returns bytea language sql immutable strict as $$
  select data
$$;
create function armor(bytea) returns text language sql as $$ select encode($1, 'base64') $$;
create function armor(bytea, text[], text[]) returns text language sql as $$ select encode($1, 'base64') $$;
create function dearmor(text) returns bytea language sql as $$ select decode($1, 'base64') $$;
