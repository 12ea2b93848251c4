exists (select from public.companies c where c.id::text = scope)
  and scope not in (select unnest(coalesce(nullif(current_setting('replaygate.excluded', true), ''), '{}')::text[]))
