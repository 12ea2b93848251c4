-- The highest migration that was applied.
SELECT max(version)::text, count(*) FROM public.schema_migrations
