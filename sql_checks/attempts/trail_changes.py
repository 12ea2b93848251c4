"""Rows of the audit trail, and what may change none of them."""

from collections.abc import Iterable, Iterator

OLD_TRAIL = """insert into public.audit_logs (action, actor, scope, created_at)
values ('agents_paused', 'drill', %(id)s, now() - interval '{}')"""
AUDITED = """with kept as (insert into public.audit_logs
(action, actor, scope, target_count, success_count, failure_count, metadata)
values (%(value)s, 'drill', %(id)s, 3, 2, 1, '{"drill": 1}')
returning target_count, success_count, failure_count, metadata)
select from kept where (target_count, success_count, failure_count, metadata @> '{"drill": 1}')
is distinct from (3, 2, 1, true)"""
AGES = ("400 days", "20 years")
CHAINED = """select from public.audit_logs where scope = %(id)s and hash is distinct from
encode(sha256(convert_to(prev_hash || jsonb_build_array(id, action, actor, scope, target_count, success_count,
failure_count, metadata, request_id, (extract(epoch from created_at) * 1000000)::bigint)::text, 'UTF8')), 'hex')"""
WORDS = (
    "metadata = '{\"drill\": 1}'",
    "success_count = 7",
    "actor = 'another'",
    "request_id = gen_random_uuid()::text",
    "created_at = created_at + interval '1 second'",
    "scope = 'all'",
    "hash = prev_hash",
)
EVERYBODYS_ROW = "insert into public.audit_logs (action, actor, scope) values ('agents_paused', %(id)s, 'all')"
"""Of no tenant: the head that it locks is everybody's."""
OF_EVERYBODY = "scope = 'all' and actor = %(id)s::text"


def tampering(actions: Iterable[str]) -> Iterator[str]:
    """Statements that may change no row of a tenant's trail, each action for itself: a guard may look at each row."""
    yield "delete from public.audit_logs where scope = %(id)s and created_at < now() - interval '300 days'"
    yield "delete from public.audit_logs where scope = %(id)s and created_at < now() - interval '10 years'"
    for words in WORDS:
        yield f"update public.audit_logs set {words} where scope = %(id)s"
    for action in actions:
        yield f"delete from public.audit_logs where scope = %(id)s and action = '{action}'"
        yield f"update public.audit_logs set {WORDS[0]} where scope = %(id)s and action = '{action}'"
