insert into public.companies (id, name) values ('00000000-0000-4000-8000-000000000001', 'Acme; "quoted" $$');
insert into auth.users (id, email) values ('00000000-0000-4000-8000-000000000002', 'a@example.org');
