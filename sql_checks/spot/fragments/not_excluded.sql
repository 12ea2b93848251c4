company_id <> all ((select coalesce(nullif(current_setting('replaygate.excluded', true), ''), '{}'))::uuid[])
