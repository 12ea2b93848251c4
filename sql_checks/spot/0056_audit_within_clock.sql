-- id: sql/spot/audit-within-clock
-- claim: Recent audit rows bear the time of the database: none lies in the future.
-- cost: The order of events in the trail is what a client said it was.
-- severity: warn
-- covers: I15
select format('audit row %s', id) as subject, format('created_at is %s, now is %s', created_at, now()) as detail, action as witness
from (select * from public.audit_logs order by id desc limit 1000) a
where created_at > now() + interval '1 minute';

-- seen:
select count(*) as seen from (select from public.audit_logs limit 1000) a;
