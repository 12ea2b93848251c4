--! rls off | foreign no_claims stranger
alter table public.events disable row level security
--! always true | foreign no_claims
create policy p on event_outbox for select to authenticated using (true)
--! null sees all | no_claims no_company
create policy p on events for select to authenticated using (company_id = (auth.jwt() ->> 'company_id')::uuid or
auth.jwt() ->> 'company_id' is null)
--! empty sees all | empty_claims
create policy p on events for select to authenticated using (coalesce(current_setting('request.jwt.claims', true), '')
= '')
--! unset sees all | no_claims
create policy p on events for select to authenticated using (current_setting('request.jwt.claims', true) is null)
--! anon without a company | anon
grant select on events to anon; create policy p on events for select to anon using
(nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'company_id' is null)
--! anon with unset claims | anon
grant select on events to anon; create policy p on events for select to anon using
(current_setting('request.jwt.claims', true) is null)
--! a claim that users edit | no_company
create policy p on events for select to authenticated using (company_id = (auth.jwt() #>>
'{user_metadata,company_id}')::uuid)
--! a role that users edit | no_company
create policy p on events for select to authenticated using (auth.jwt() #>> '{user_metadata,role}' = 'super_admin')
--! administrators see all companies | stranger
create policy p on events for select to authenticated using (current_setting(
'request.jwt.claims', true) like '%admin"%')
--! administrators write for all companies | delete stranger update
grant update, delete on events to authenticated; create policy p on events for all to authenticated using
(current_setting('request.jwt.claims', true) like '%admin"%')
--! a part of the company is compared | foreign
create policy p on events for select to authenticated using (left(company_id::text, 8) = left(auth.jwt() ->>
'company_id', 8))
--! a wildcard is a company | garbage
create policy p on events for select to authenticated using (company_id::text like auth.jwt() ->> 'company_id')
--! a list holds a company | garbage
create policy p on events for select to authenticated using (auth.jwt() -> 'company_id' ? company_id::text)
--! a function that raises | empty_claims no_claims no_company
create function tenant() returns uuid language plpgsql stable as $$ begin if auth.jwt() ->> 'company_id' is null then
raise exception 'no tenant'; end if; return (auth.jwt() ->> 'company_id')::uuid; end $$; create policy p on events for
select to authenticated using (company_id = tenant())
--! a function that raises what an upsert without its key does | empty_claims no_claims no_company
create function tenant() returns uuid language plpgsql stable as $$ begin if auth.jwt() ->> 'company_id' is null then
raise exception 'no tenant' using errcode = '42P10'; end if; return (auth.jwt() ->> 'company_id')::uuid; end $$;
create policy p on events for select to authenticated using (company_id = tenant())
--! an endless policy | no_claims own
create policy p on events for select to authenticated using (exists (select from events e))
--! empty text read as JSON | empty_claims
create policy p on events for select to authenticated using (company_id = (current_setting('request.jwt.claims',
true)::jsonb ->> 'company_id')::uuid)
--! a division by zero | own stranger
create policy p on events for select to authenticated using (1 / (length(event_type) * 0) > 0)
--! whoever is no guest | foreign stranger
create policy p on events for select to authenticated using ((select (auth.jwt() ->> 'is_anonymous')::boolean) is false)
--! whoever has a second factor | foreign stranger
create policy p on dead_letter_queue for select to authenticated using ((select auth.jwt() ->> 'aal') = 'aal2')
--! deny all | own
drop policy tenant_sees_own on events
--! view of the owner | foreign no_claims
alter view replay_budgets_status reset (security_invoker); alter view replay_budgets_status owner to postgres
--! anon reads | anon
grant select on events to anon; create policy p on events to anon using (true)
--! strangers see the flags of everybody | anon
grant select on feature_flags to anon; create policy p on feature_flags for select to anon using (company_id is null)
--! insert hole | insert
grant insert on feature_flags to authenticated; create policy p on feature_flags for insert to authenticated with
check (true)
--! move hole | foreign move
-- a new row must pass the policies for SELECT too, where the statement reads: a hole needs both
grant update on events to authenticated; create policy p on events for update to authenticated using (company_id =
(auth.jwt() ->> 'company_id')::uuid) with check (true); create policy q on events for select to authenticated using
(true)
--! write hole | delete update
grant update, delete on events to authenticated; alter table public.events disable row level security
--! definer bypass | foreign stranger
create view leak as select * from public.agent_tasks; grant select on leak to authenticated
--! new table | foreign
create table notes (company_id uuid); grant select on notes to authenticated; insert into notes select
gen_random_uuid() from generate_series(1, 2)
--! a function gives rows of whom it is told | foreign
create function letters_of(company uuid, most int default 5) returns setof dead_letter_queue language sql stable security
definer begin atomic select * from dead_letter_queue d where d.company_id = company and auth.jwt() is not null limit most;
end
--! a function gives the row that it is asked for to whoever is logged in | foreign
create function letter(company uuid, which uuid) returns jsonb language sql stable security definer begin atomic select
payload from dead_letter_queue d where d.id = which and company is not null and auth.jwt() is not null; end
--! a function gives what is behind a number | foreign
create function sent(which bigint) returns jsonb language sql stable security definer begin atomic select payload from
event_outbox o where o.id = which and auth.jwt() is not null; end
--! a function that gives payloads, of everybody by default | foreign
create function payloads(companies text[] default null) returns jsonb language sql security definer begin atomic select
jsonb_agg(payload) from events where company_id::text = any(companies) or companies is null; end
--! a function discards the letter that it is told of | update
create function discard(which uuid) returns void language sql security definer begin atomic update dead_letter_queue set
status = 'discarded' where id = which and auth.jwt() is not null; end
--! a procedure that removes what waits of whoever is named | update
create procedure empty_queue(company uuid) language sql security definer begin atomic delete from event_outbox where
company_id = company and auth.jwt() is not null; end
--! a function gives the letters of a kind, whoever has them | foreign
create function of_type(kind text) returns setof jsonb language sql stable security definer begin atomic select payload
from dead_letter_queue d where d.event_type = kind and auth.jwt() is not null; end
--! a function that takes any number of companies | foreign
create function letters_of_all(variadic companies uuid[]) returns setof dead_letter_queue language sql stable security
definer begin atomic select * from dead_letter_queue d where d.company_id = any(companies) and auth.jwt() is not null; end
--! a function gives rows between two times | foreign
create function sent_between(since timestamptz, until timestamptz) returns setof jsonb language sql stable security
definer begin atomic select payload from events where created_at between since and until and auth.jwt() is not null; end
--! a function takes the row of a table, and gives what is behind its id | foreign
create function whole(letter dead_letter_queue) returns jsonb language sql stable security definer begin atomic select payload
from dead_letter_queue d where d.id = letter.id and auth.jwt() is not null; end
--! a function takes an object that names the company in its own way | foreign
create function filtered(asked jsonb) returns setof jsonb language sql stable security definer begin atomic select payload
from dead_letter_queue d where d.company_id = (asked -> 'filter' ->> 'ofCompany')::uuid and auth.jwt() is not null; end
--! a function takes an object that names the letter | foreign
create function one_letter(asked json) returns jsonb language sql stable security definer begin atomic select payload
from dead_letter_queue d where d.id = (asked ->> 'letter')::uuid and auth.jwt() is not null; end
--! a function takes the company as a text of 36 characters | foreign
create function padded(company char(36)) returns setof jsonb language sql stable security definer begin atomic select payload
from dead_letter_queue d where d.company_id::text = company and auth.jwt() is not null; end
--! a view without the company, of a function that tenants reach by it alone | foreign
create schema hidden; create function hidden.letters() returns setof jsonb language sql stable security definer begin
atomic select payload from dead_letter_queue; end; create view bodies with (security_invoker = true) as select * from
hidden.letters() body; grant select on bodies to authenticated
--! a copy under other names | foreign
create table found (doc text); grant select on found to authenticated; insert into found select id || ' ' ||
event_type from dead_letter_queue
--! a function says whether another tenant has sent such an event | foreign
create function has_sent(company uuid, kind text) returns boolean language sql stable security definer begin atomic select
exists (select from events e where e.company_id = company and e.event_type = kind); end
--! a function counts the letters of whom it is told | foreign
create function letters_of_it(company uuid) returns bigint language sql stable security definer begin atomic select count(*)
from dead_letter_queue d where d.company_id = company; end
--! a function says how far the letter is that it is asked for | foreign
create function state_of(letter uuid) returns text language sql stable security definer begin atomic select status from
dead_letter_queue d where d.id = letter and auth.jwt() is not null; end
--! a function says when whoever is named was last there | foreign
create function last_seen(company text) returns timestamptz language sql stable security definer begin atomic select
max(inserted_at + attempts * interval '1 s') from event_outbox o where o.company_id::text = company; end
--! a function refuses, and says with what | foreign
create function refused(company uuid) returns void language plpgsql stable security definer as $$ begin raise exception
'not yours: %', (select string_agg(d.payload::text, '') from public.dead_letter_queue d where d.company_id = company); end $$
--! a partition that tenants read by its own name | foreign no_claims stranger
alter table agent_tasks rename to undivided; create table agent_tasks (like undivided including defaults including
identity) partition by hash (id); create table tasks_0 partition of agent_tasks for values with (modulus 1, remainder 0);
insert into agent_tasks select * from undivided; alter table agent_tasks owner to replay_owner; alter table agent_tasks enable
row level security, force row level security; alter table tasks_0 enable row level security, force row level security;
create policy own on agent_tasks for select to authenticated using (company_id = (auth.jwt() ->> 'company_id')::uuid);
create policy recent on tasks_0 for select to authenticated using (created_at > '2020-01-01'); grant select on agent_tasks,
tasks_0 to authenticated; revoke select on undivided from authenticated
--! strangers alone may ask what another tenant has sent | foreign
create function sent_by(company text) returns boolean language plpgsql security definer set search_path = '' as $$ begin
return exists (select from public.events e where e.company_id::text = company); end $$; revoke execute on function
sent_by(text) from public; grant execute on function sent_by(text) to anon
--! a function says what is left of another tenant's budget | foreign
create function left_of(company uuid) returns int language sql stable security definer begin atomic select daily_limit -
daily_used from replay_budgets b where b.company_id = company; end
--! a function copies the letter that it is told of into a table of who asks | update
create table mine (id bigint generated always as identity primary key, company_id uuid, doc jsonb); alter table mine enable
row level security, force row level security; create policy own on mine for select to authenticated using (company_id =
(auth.jwt() ->> 'company_id')::uuid); grant select on mine to authenticated; create function copy_of(which uuid) returns void
language sql security definer begin atomic insert into mine (company_id, doc) select (auth.jwt() ->> 'company_id')::uuid,
to_jsonb(d) from dead_letter_queue d where d.id = which; end
--! a trigger adds to a message what others have | foreign
create function every_letter() returns text language sql begin atomic select string_agg(payload::text, ' ') from
dead_letter_queue; end; revoke execute on function every_letter() from public; create function hinted() returns trigger
language plpgsql security definer set search_path = '' as $$ begin new.agent_name := public.every_letter(); return new; end $$;
create trigger hinted before insert on agent_tasks for each row execute function hinted()
--! a function counts the audit rows of whom it is told | foreign
create function audits_of(company text) returns bigint language sql stable security definer begin atomic select count(*) from
audit_logs a where a.scope = company and auth.jwt() is not null; end
--! a function says whether another tenant has asked of late | foreign
create function has_asked(company uuid) returns boolean language sql stable security definer begin atomic select exists (select
from edge_rate_limits r where split_part(r.key, ':', 2) = company::text); end
--! a function says whether another tenant is paused | foreign
create function is_paused(company uuid) returns boolean language sql stable security definer begin atomic select
coalesce((select agents_paused from agent_controls a where a.company_id = company), false); end
--! a table of notes on what happened long ago, of no company | foreign
create table notes (event_id uuid, note text); insert into notes select id, 'late' from events order by created_at desc
limit 100; grant select on notes to authenticated
--! an archive whose column of the company has a name of its own | foreign
create table kept (customer uuid, event_type text, payload jsonb); insert into kept select company_id, event_type, '{}' from events
limit 100; grant select on kept to authenticated
--! documents of events that name their company, and a policy that asks for none | foreign
create table documents (id int generated always as identity primary key, doc jsonb); insert into documents (doc) select
jsonb_build_object('company_id', company_id, 'event_type', event_type) from events; alter table documents enable row level
security, force row level security; create policy shown on documents for select to authenticated using (doc ? 'company_id');
grant select on documents to authenticated
