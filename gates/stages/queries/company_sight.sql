-- What this login sees of companies: how many (up to 1000), and whether the test company is among them. %(company)s
select
  (select count(*) from (select from public.companies limit 1000) as few) as visible,
  exists (select from public.companies where id::text = %(company)s) as sees_test_company;
