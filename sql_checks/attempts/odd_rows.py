"""Rows that are unusual, and that the contract allows."""

RUN_COLUMNS = "(idempotency_key, company_id, actor, payload_hash, status, completed_at)"
ODD = {
    "dead_letter_queue": (
        "(company_id, event_type, error_type, payload) values (%(id)s, 'drill.rls', repeat('Ä b', 66), '{}')",
        "(company_id, event_type, error_type, payload) values (%(id)s, 'Drill äß', 'drill', '[null, \"a\"]')",
        # another producer's event has no row elsewhere
        "(company_id, event_id, event_type, error_type, payload) values (%(id)s, %(id)s, 'drill.rls', 'drill', '{}')",
    ),
    "event_outbox": (
        "(company_id, event_type, payload) values (%(id)s, 'Drill äß', '{}')",
        "(company_id, event_type, payload) values (%(id)s, 'drill.rls', '[null, \"a\"]')",
        # a replay gives the event that was given up a new row
        (
            "(company_id, event_id, event_type, payload, dead_at)"
            " values (%(id)s, %(id)s, 'drill.rls', '{}', now()), (%(id)s, %(id)s, 'drill.rls', '{}', null)"
        ),
    ),
    "events": (
        "(company_id, event_type, path, payload) values (%(id)s, 'Drill äß', 'outbox', '[null, \"a\"]')",
        "(company_id, event_type, aggregate_key, path, payload) values (%(id)s, 'drill.rls', 'rls', 'outbox', '{}')",
    ),
    "replay_runs": (
        f"{RUN_COLUMNS} values ('~ !', %(id)s, '', '', 'started', null), ('!~', %(id)s, '', '', 'started', null)",
        f"{RUN_COLUMNS} values ('~', %(id)s, repeat('user:', 12), '', 'started', null)",
        f"{RUN_COLUMNS} values (rpad('~', 200, 'key '), %(id)s, '', '', 'started', null)",
    ),
    "agent_tasks": (
        "(company_id, agent_name, status) values (%(id)s, 'two', 'running'), (%(id)s, 'two', 'running')",
        "(company_id, agent_name, event_id, status) values (%(id)s, 'drill', %(id)s, 'completed')",
    ),
    "edge_rate_limits": (
        "(key, hits) values ('replay:' || %(id)s || ':2001:db8:1111:2222:3333:4444:5555:6666', array[now()])",
    ),
    "audit_logs": (
        "(action, actor, scope, request_id) values ('agents_paused', repeat('user:', 12), %(id)s, gen_random_uuid())",
    ),
}
"""Table -> unusual rows that the contract allows; some of two that are open at once."""
LONG = {
    "companies": "(id, name) values (gen_random_uuid(), 'drill-' || repeat('Ä b', 30))",
    "dead_letter_queue": "(company_id, event_type, error_type, payload, error_message, max_retries)"
    " values (%(id)s, repeat('drill.', 20), 'drill', '{}', repeat('why ', 500), 50)",
    "event_outbox": "(company_id, event_type, aggregate_key, payload)"
    " values (%(id)s, repeat('drill.', 20), repeat('key ', 50), '{}')",
    "events": "(company_id, event_type, path, payload) values (%(id)s, repeat('drill.', 20), 'outbox', '{}')",
    "agent_tasks": "(company_id, agent_name, status) values (%(id)s, repeat('Drill ', 15), 'queued')",
    "audit_logs": "(action, actor, scope, metadata)"
    " values ('agents_paused', 'drill', %(id)s, jsonb_build_object('drill', repeat('why ', 500)))",
}
"""Table -> a row of long texts, which a type may refuse, and no CHECK."""
SPELT = ("Ä Bc " * 25).rstrip()
"""A word that a trigger may fold or cut."""
AS_THEY_ARE = {
    "dead_letter_queue": (
        "error_type",
        "(company_id, event_type, payload, error_type) values (%(id)s, 'drill.rls', '{}', %(value)s)",
    ),
    "event_outbox": ("event_type", "(company_id, event_type, payload) values (%(id)s, %(value)s, '{}')"),
    "events": ("event_type", "(company_id, event_type, payload, path) values (%(id)s, %(value)s, '{}', 'outbox')"),
}
"""Table -> a column, and a row with such a word in it."""
OF_AN_EVENT = {
    "dead_letter_queue": (
        "(company_id, event_id, event_type, error_type, payload) values (%(id)s, %(id)s, 'drill.rls', 'drill', '{}')"
    ),
    "event_outbox": "(company_id, event_id, event_type, payload) values (%(id)s, %(id)s, 'drill.rls', '{}')",
    "agent_tasks": "(company_id, agent_name, event_id, status) values (%(id)s, 'drill', %(id)s, 'completed')",
}
"""Table -> a row of an event that is known by its id."""
GONE = {
    "event_outbox": (
        "(company_id, event_type, payload) values (%(id)s, 'drill.gone', '{}')",
        "company_id = %(id)s and event_type = 'drill.gone'",
    ),
    "edge_rate_limits": (
        "(key, hits) values ('replay:' || %(id)s || ':192.0.2.9', array[now()])",
        "key = 'replay:' || %(id)s || ':192.0.2.9'",
    ),
}
"""Table -> a row that is deleted, and how: an item that a stopped run did not attempt, a limit that is reset."""
LARGE = "(select to_jsonb(x) from (select array_agg(gen_random_uuid()) as ids from generate_series(1, 1400)) x)"
"""An object of 55 KB that hardly compresses: too large for an index or a notification."""
SIZES = {
    "dead_letter_queue": "(company_id, event_type, error_type, payload, error_message)"
    " values (%(id)s, 'drill.rls', 'drill', {}, repeat('why ', 50))",
    "event_outbox": "(company_id, event_type, payload) values (%(id)s, 'drill.rls', {})",
    "events": "(company_id, event_type, path, payload) values (%(id)s, 'drill.rls', 'outbox', {})",
}
"""Table -> a row with a payload, and with a message of 200 characters."""
