-- Cancels the loan of a drill that has set the row, so that the drill will not restore it. %(record)s
delete from public.feature_flags where key = %(record)s;
