-- a trail in which no replay has the contract's words tells nothing: names may say what they are here. Others may write more
(exists (select from (select action from public.audit_logs order by id desc limit 10000) a where action like 'dlq\_replay%')
 or exists (select from public.audit_logs where created_at > now() - interval '25 hours' and action like 'dlq\_replay%'))
