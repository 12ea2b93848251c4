-- id: sql/spot/policies-not-always-true
-- claim: No permissive policy for public, anon or authenticated is true for every row, for rows without a tenant, for whichever
--   have a certain value, at a certain time or place, while a table that everybody shares says so, or for whoever says so in a header.
-- cost: The policy looks like protection and protects nothing.
-- severity: page
-- reads: catalogue
-- covers: J04 J05
with recursive {{tenant_tables}}, expressions as materialized (
  select t.name, p.polname, e.kind, e.text,
         -- a row of these without a tenant is everybody's by the contract: a tenant may read it, and not write it
         p.polcmd = 'r' and p.polrelid in (to_regclass('public.feature_flags'), to_regclass('public.agent_controls')) as has_fleet_rows,
         t.promised and p.polcmd in ('r', '*') and e.kind = 'USING' as shows, p.polrelid, p.oid
  from pg_policy p
  join tenant_tables t on t.oid = p.polrelid
  cross join lateral (
    values ('USING', case when p.polcmd <> 'a' then coalesce(pg_get_expr(p.polqual, p.polrelid), 'true') end),
           ('WITH CHECK', case when p.polcmd in ('a', 'w', '*') then pg_get_expr(p.polwithcheck, p.polrelid) end)
  ) e(kind, text)
  where p.polpermissive and e.text is not null and (t.promised or t.is_reachable)
    and exists (
      select from unnest(p.polroles) r
      -- theirs, or of a role that they are members of
      where r = 0 or exists (select from pg_roles g
                             where g.rolname in ('anon', 'authenticated') and not g.rolsuper and pg_has_role(g.oid, r, 'USAGE')))
), parts(text, part, depth) as (
  -- the operands of OR, each on its own: one that is always true makes the whole so; one behind an AND does not
  select distinct text, regexp_replace(text, '\s+', ' ', 'g'), 0 from expressions
  union
  select p.text, s.part, p.depth + 1
  from parts p
  cross join lateral (
    select string_agg(ch, '' order by n) as part
    from (
      select n, ch, last_n, is_wrapped, sum(is_cut::int) over (order by n) as number,
             max(n) filter (where is_cut) over (order by n) as cut_at
      from (
        select n, ch, last_n, is_wrapped, level = is_wrapped::int and not is_quoted and substr(p.part, n::int, 4) = ' OR ' as is_cut
        from (
          select *, left(p.part, 1) = '(' and bool_and(level > 0 or n = last_n) over () as is_wrapped
          from (
            select n, ch, is_quoted, max(n) over () as last_n,
                   sum(case when is_quoted then 0 when ch = '(' then 1 when ch = ')' then -1 else 0 end) over (order by n) as level
            from (
              select n, ch, sum((ch = '''')::int) over (order by n) % 2 = 1 as is_quoted
              from regexp_split_to_table(p.part, '') with ordinality c(ch, n)
            ) quoted
          ) levelled
        ) wrapped
      ) cut
    ) numbered
    where not (is_wrapped and n in (1, last_n)) and (cut_at is null or n > cut_at + 3)
    group by number
  ) s
  where p.depth < 12 and s.part <> p.part
), bare as (
  select text, depth, regexp_replace(lower(part), '[\s()]|::[a-z]+', '', 'g') as bare, part from parts
), always as (
  select text, bool_and(names_no_tenant and bare !~ 'notnull$') as is_of_the_fleet from bare
  cross join lateral (
    -- what is asked beside it, if only by a function, may narrow it
    select not exists (select from regexp_split_to_table(part, ' AND ') asked(term) where term !~ '(NULL|true)\)*$') as asks_no_more) a
  cross join lateral (
    select asks_no_more and exists (select from unnest('{company_id,tenant_id}'::text[]) t(name)
                                    where bare ~ ('^[a-z_.]*' || lower(t.name) || 'is(not)?null$')) as names_no_tenant) n
  where bare ~ '^(true|notfalse)$'
     or bare ~ '^(''?[a-z0-9_.]+''?)=\1$'
     or asks_no_more and bare ~ '^[a-z_.]*(scope|key|id)is(not)?null$'
     or names_no_tenant
     or bare ~ '^(select)?(auth\.)?(jwt|current_setting)[^=]*isnull$'
     -- coalesce(..., true), where its parenthesis is the one that ends the text
     or part ~* '^coalesce\(.*, true\)$' and not exists (
       select from (
         select n, sum((ch = '(')::int - (ch = ')')::int) over (order by n) as level
         from regexp_split_to_table(part, '') with ordinality c(ch, n)
       ) levelled
       where n between 9 and length(part) - 1 and level = 0)
  group by text
), by_value as (
  -- an operand that looks at the row, and neither at its tenant nor at who asks: rows of all tenants with that value are shown
  select distinct on (e.name, e.polname) e.name, e.polname, e.text, b.part
  from expressions e
  join bare b on b.text = e.text
  cross join lateral (
    select regexp_replace(b.part, '''[^'']*''|::[a-z ]+', '', 'g') as code,
           (select (parse_ident(c.tenant))[3] from contract c where to_regclass(c.name) = e.polrelid) as tenant,
           b.part ~* '\mselect\M' as asks_others) x
  where e.shows and x.tenant is not null
    and x.code !~* '\m(jwt|auth|user|role|current_(?!timestamp|date|time)\w+|session_user|pg_has_role|pg_backend_pid|case)\M'
    -- what tables say that row security shows alike to everybody
    and not (x.asks_others and exists (
      select from pg_depend d
      join pg_class o on d.refclassid = 'pg_class'::regclass and o.oid = d.refobjid
      where d.classid = 'pg_policy'::regclass and d.objid = e.oid and o.oid <> e.polrelid
        and (o.relrowsecurity or o.relkind not in ('r', 'p'))))
    and not exists (select from regexp_matches(x.code, '(\w+)\(', 'g') called(names)
                    where lower(names[1]) <> 'coalesce'
                      and not exists (select from pg_proc f where f.proname = lower(names[1]) and f.pronamespace = 'pg_catalog'::regnamespace))
    and case when x.asks_others then x.code ~* '\mfrom\M' and not (e.has_fleet_rows and x.code ~* format('\m%s is null', x.tenant))
             when x.code ~ format('\m%s\M', x.tenant) then b.bare ~ format('^%s=''[^'']*''$', x.tenant)
             else x.code ~* '\m(now|\w+_timestamp|inet_\w+|random|pg_is_in_recovery)\(|\m(current_(date|time|timestamp)|localtime\w*)\M'
               or exists (select from pg_attribute a where a.attrelid = e.polrelid and a.attnum > 0 and x.code ~ format('\m%s\M', a.attname)) end
  order by e.name, e.polname, length(b.part)
)
select format('%s policy %s', e.name, e.polname) as subject, format('%s is always true, or true without a tenant', e.kind) as detail,
       e.text as witness
from expressions e
join always a on a.text = e.text
where not (e.has_fleet_rows and a.is_of_the_fleet)
union all
select format('%s policy %s', name, polname), format('shows the rows of all tenants where %s', part), text from by_value
union all
-- an operand that believes what a client writes itself, and asks for no claim beside it
select distinct format('%s policy %s', e.name, e.polname), format('believes what the client says: %s', b.part), e.text
from expressions e
join bare b on b.text = e.text and b.part !~ ' OR '
cross join lateral (
  select concat_ws(' ', b.part, (
    select string_agg(coalesce(pg_get_function_sqlbody(f.oid), f.prosrc), ' ')
    from pg_depend d
    join pg_proc f on d.refclassid = 'pg_proc'::regclass and f.oid = d.refobjid
    where d.classid = 'pg_policy'::regclass and d.objid = e.oid and b.part ~ ('\m' || regexp_replace(f.proname, '\W', '.', 'g') || '\('))) as asked) x
where x.asked ~ '''(request\.(headers?\M|cookies?\M|path|method)[^'']*|application_name)''' and x.asked !~ 'request\.jwt|jwt\(|auth\.uid'
union all
-- claims that are made of what a client writes itself, too
select distinct format('%s policy %s', e.name, e.polname), format('believes %s, whose claims are those of a header, too', f.oid::regprocedure), e.text
from expressions e
join pg_depend d on d.classid = 'pg_policy'::regclass and d.objid = e.oid and d.refclassid = 'pg_proc'::regclass
join pg_proc f on f.oid = d.refobjid and f.prorettype in ('json'::regtype, 'jsonb'::regtype)
where f.prosrc ~ '''request\.(headers?|cookies?)\M' and f.prosrc ~ '''request\.jwt';

-- seen:
with {{tenant_tables}}
select count(*) as seen from pg_policy p join tenant_tables t on t.oid = p.polrelid;
