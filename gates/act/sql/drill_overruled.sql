-- A drill that has the row set for a moment loses its claim: it will not put back what it found. %(record)s
delete from public.feature_flags where key = %(record)s;
