exists (select from companies c where c.id::text = scope)
  and scope <> all ((select coalesce(nullif(current_setting('replaygate.excluded', true), ''), '{}'))::text[])
