-- The migrations that were applied, with their checksums.
select version::text as name, checksum::text as definition from public.schema_migrations order by 1;
