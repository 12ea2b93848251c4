"""Rows of long ago, what happens to each, and what it must hold after that."""

OLD = "company_id = %(id)s and event_type = 'drill.old' and not payload ? 'beside'"
OLD_ROW = """insert into public.{0} (company_id, event_type, aggregate_key, payload, {1}) values
(%(id)s, 'drill.old', ' Rls ä/1:' || repeat('aB', 40) || ' ', '{{"a": null, "b": [null, {{}}]}}',
  now() - case (select relkind from pg_catalog.pg_class where oid = to_regclass('public.{0}'))
    when 'p' then interval '0' else interval '40 days' end{2})"""
"""An old row; but not older than the partitions may reach."""
AS_WRITTEN = """aggregate_key = ' Rls ä/1:' || repeat('aB', 40) || ' ' and payload @> '{"a": null, "b": [null, {}]}'"""
PAST = "created_at <= now()"
BESIDE = (OLD.replace("not ", ""), """'{"a": null, "b": [null, {}]}'""", """'{"beside": 1}'""")
"""A row like it, in its payload alone another one, which nothing that happens to an old row may change."""
UNTOUCHED = {
    "dead_letter_queue": "status = 'pending' and retry_count = 6",
    "event_outbox": "num_nonnulls(processed_at, dead_at) = 0",
}
LIVES: dict[str, tuple[str, str, str, tuple[tuple[str, str], ...]]] = {
    "dead_letter_queue": (
        "created_at, error_type, retry_count, max_retries",
        ", 'Drill', 6, 9",
        f"{AS_WRITTEN} and (error_type, status, retry_count, max_retries) = ('Drill', 'pending', 6, 9) and {PAST}",
        (
            ("status = 'replaying'", "status = 'replaying'"),
            (
                "status = 'pending', retry_count = retry_count + 1, retry_after = now() + interval '1 hour'",
                "status = 'pending' and retry_count > 6 and retry_after > now()",
            ),
            ("status = 'pending', retry_count = max_retries", "status = 'pending' and retry_count = max_retries"),
            ("status = 'replaying'", "status = 'replaying' and max_retries = 9"),
            ("status = 'resolved'", "status = 'resolved'"),
        ),
    ),
    "event_outbox": (
        "inserted_at",
        "",
        f"{AS_WRITTEN} and inserted_at <= now()",
        (
            ("claimed_until = now() + interval '30 s'", "claimed_until > now()"),
            (
                "claimed_until = null, attempts = attempts + 1, next_attempt_at = now() + interval '1 hour'",
                "attempts > 0 and next_attempt_at > now() and num_nonnulls(processed_at, dead_at, claimed_until) = 0",
            ),
            ("processed_at = now()", "processed_at is not null and dead_at is null"),
        ),
    ),
}
"""Table -> more columns of a row of long ago, and their values; what it must hold; and its life: each change, and what
the row must hold after it. That names each column of the change: where there is none, neither is judged.
"""
