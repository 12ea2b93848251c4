"""What is_feature_enabled must say of a flag: by the tenant's row, by everybody's, and at each percentage."""

from collections.abc import Iterator

VERSION = """with before as (select version from public.feature_flags where company_id = %(id)s),
after as (update public.feature_flags set {} where company_id = %(id)s returning version)
select from before, after where after.version <= before.version"""
STATUS = """select from public.feature_flags f where f.company_id = %(id)s and not exists (
select from public.feature_flags_status s where s.key = f.key and s.company_id = f.company_id
and (s.enabled, s.rollout_percentage) is not distinct from (f.enabled, f.rollout_percentage))"""
DECIDED = "select where public.is_feature_enabled('{}', %(id)s) is distinct from {}"
EVERYBODYS = "key = 'drill.rls.' || %(id)s and company_id is null"
TENANTS = "key = 'drill.rls.' || %(id)s and company_id = %(id)s"
ROWS = """insert into public.feature_flags (key, company_id, enabled, rollout_percentage)
values ('drill.rls.' || %(id)s, null, {}, 100), ('drill.rls.' || %(id)s, %(id)s, {}, 100)"""
WINS = """select from public.feature_flags where key = 'drill.rls.' || %(id)s and company_id = %(id)s
and public.is_feature_enabled('drill.rls.' || %(id)s, %(id)s) is distinct from {}"""
SHARE = """select from public.feature_flags f
cross join (select lpad((n * 10000019)::text, 32, '0')::uuid as id from generate_series(1, 50) n) company
where f.key = 'drill.rls.' || %(id)s and f.company_id is null
  and public.is_feature_enabled(f.key, company.id) is distinct from (('x' || encode(substr(sha256(convert_to(
    lower(f.key || ':' || company.id), 'UTF8')), 1, 4), 'hex'))::bit(32)::bigint %% 100 < {})"""
PERCENTAGES = (1, 25, 50, 75, 99)


def steps(*, own_buckets: bool) -> Iterator[tuple[str, str, str]]:
    """What a look asks for, the statement before it, and the look. own_buckets: a formula that nobody here knows."""
    for everybodys, tenants in (("true", "false"), ("false", "true")):
        what = f"the answer {tenants} of the tenant's row where everybody's says {everybodys}"
        yield what, ROWS.format(everybodys, tenants), WINS.format(tenants)
        yield "", f"delete from public.feature_flags where ({EVERYBODYS}) or ({TENANTS})", ""
    if not own_buckets:
        yield "", ROWS.format("true", "true"), ""
        for share in PERCENTAGES:
            change = f"update public.feature_flags set rollout_percentage = {share} where {EVERYBODYS}"
            yield f"the answers of the contract's formula at {share} %", change, SHARE.format(share)
