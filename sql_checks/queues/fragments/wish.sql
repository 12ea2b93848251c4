-- a time that nobody asked for: over a year away, or for a retry over 100 days
case when {{wished}} > now() + case when {{again}} then interval '100 days' else interval '1 year' end then {{wished}} end
