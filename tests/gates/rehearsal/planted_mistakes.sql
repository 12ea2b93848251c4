--! time-in-predicate | 42P17 | now() gives another answer later | Leave it out of the index
create index i1 on public.event_outbox (id) where created_at > ‸now() - interval '5 minutes';
--! uuid-is-text | 42883 | no = between uuid and text | cast one side to uuid
create view public.x1 as select 1 as one from public.event_outbox o
join public.dead_letter_queue d on o.event_id ‸= d.error_type;
--! column-that-nobody-makes | 42703 | No migration makes a column recieved_at in dead_letter_queue | Add the column
create view public.x2 as select id, ‸recieved_at from public.dead_letter_queue;
--! column-nearly | 42703 | the nearest is dead_letter_queue.retry_count | Write retry_count
create index on public.dead_letter_queue (‸retry_counts);
--! column-of-an-alias | 42703 | in dead_letter_queue | Add the column
-- ä comment with letters of two bytes: ü
select c.name, ‸d.created_on from public.companies c, public.dead_letter_queue as d;
--! column-renamed | 42703 | was renamed to attempt_count at | Write attempt_count
update public.event_outbox set ‸attempts = 0;
--! column-dropped | 42703 | was dropped at | Take it out
select ‸legacy_state from public.event_outbox;
--! column-made-later | 42703 | is made only later, at | Move that statement
select ‸made_later from public.companies;
--! relation-made-later | 42P01 | is made only later, at | Move that statement
grant select on ‸public.late_table to authenticated;
--! function-nobody-makes | 42883 | No migration makes the function public.is_member | Add the migration
create policy p9 on public.event_outbox using (‸public.is_member(company_id));
--! function-of-other-arguments | 42883 | bury is there, but not for (uuid, unknown) | Cast the arguments
select ‸public.bury('0a000000-0000-4000-8000-000000000001'::uuid, 'x');
--! role-nobody-makes | 42704 | role reporting | --role reporting
grant select on public.companies to ‸reporting;
--! schema-nobody-makes | 3F000 | schema billing | CREATE SCHEMA
create table ‸billing.invoices (id int);
--! concurrently-in-a-transaction | 25001 | cannot run inside a transaction | a file of its own
‸create index concurrently i3 on public.companies (name);
--! constraint-nobody-makes | 42704 | No migration makes the constraint nope of companies | Correct the name
alter table public.companies drop constraint ‸nope;
--! trigger-nobody-makes | 42704 | No migration makes the trigger nope of companies | IF EXISTS
drop trigger ‸nope on public.companies;
--! built-in-of-other-arguments | 42883 | (double precision, integer): there is round(numeric, integer) | Cast the arguments
select ‸round(1.5::float8, 2);
--! built-in-nearly | 42883 | the function lenght | Did you mean length?
select ‸lenght('x');
--! letters | 42P01 | view public.po | Write "Po"
create table public."Po" (a int);
table ‸public.po;
--! setting | 42704 | has no setting of this name | --server-version
set ‸no_such_setting = 1;
--! counts | 42601 | do not fit together | 
insert into public.companies (id, ‸name) select null;
--! distinct | 42P10 | do not fit together | 
select distinct id from public.companies order by ‸name;
--! build-of-the-server | 0A000 | was built without it | your server has it | not judged
‸create table public.x7 (t text compression lz4);
--! made-twice | 42P07 | was made at | IF NOT EXISTS
create table ‸public.companies (id uuid);
--! schema-of-the-platform | 42501 | Supabase keeps the schema auth to itself | in public
‸create function auth.tenant() returns uuid language sql as 'select null::uuid';
--! key-without-unique | 42830 | no UNIQUE constraint | Add one
create table public.x4 (t text references ‸public.dead_letter_queue (error_type));
--! grammar | 42601 | not SQL | grammar
create ‸tabel public.x5 (id int);
--! sql-function-body | 42P01 | No migration makes the table or view public.nowhere | Add the migration
create function public.f6() returns bigint language sql as $f$
  select count(*) from ‸public.nowhere;
$f$;
--! inside-a-block | 42P01 | No migration makes the table or view public.nobody_made_this | Add the migration
do $$
begin
  perform 1;
  insert into ‸public.nobody_made_this values (1);
end
$$;
--! enum-value-at-once | 55P04 | cannot be used in the transaction that adds it | a migration of its own
alter type public.member_role add value 'auditor';
insert into public.memberships select null, null, ‸'auditor'::public.member_role;
--! placeholder | 22P02 | placeholder | value of
delete from public.companies where id = ‸'company-id';
--! extension-nobody-has | 0A000 | no stub stands for it | your server has it | not judged
create extension ‸postgis;
--! type-of-that-extension | 42704 | may come with the extension postgis | your server has the extension | not judged
create table places (id bigint primary key, at ‸geometry(Point, 4326));
--! gist-of-a-number | 42704 | cannot be indexed by gist | CREATE EXTENSION btree_gist
create table bookings (room int not null, during tstzrange not null, exclude using ‸gist (room with =, during with &&));
--! column-inside-a-block | 42703 | the nearest is companies.name | Write name
do $$
declare n int;
begin
  select count(*) into n from public.companies where ‸nam = 'x';
end $$;
--! no-number | 42601 | not SQL | grammar
select ‸1abc;
--! program | 42501 | reaches beyond |  | refused
copy public.companies to ‸program 'cat > /dev/null';
--! file | 42501 | reaches beyond |  | refused
select ‸pg_read_file('/etc/passwd');
--! superuser | 42501 | needs a superuser |  | not judged
‸create role root_of_all superuser;
