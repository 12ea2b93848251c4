"""The audit log: append-only, a chain per scope that anybody can compute again, whoever appends however."""

import hashlib
from collections import defaultdict
from typing import Any

import psycopg
import pytest

from tests.postgres_fixture import PgServer

CANONICAL = """
SELECT scope, id, prev_hash, hash, jsonb_build_array(
  id, action, actor, scope, target_count, success_count, failure_count, metadata, request_id,
  (extract(epoch FROM created_at) * 1000000)::bigint)::text
FROM audit_logs ORDER BY id
"""


def assert_chains_hold(conn: psycopg.Connection) -> int:
    """Compute every chain again in Python and compare it with its head; returns the number of rows."""
    chains: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
    for scope, *row in conn.execute(CANONICAL).fetchall():
        chains[scope].append(tuple(row))
    heads = {
        r[0]: r[1:] for r in conn.execute("SELECT scope, last_id, last_hash, row_count FROM audit_heads").fetchall()
    }
    assert set(heads) == set(chains)
    for scope, rows in chains.items():
        previous = "0" * 64
        for _, prev_hash, digest, text in rows:
            assert prev_hash == previous
            assert digest == hashlib.sha256((previous + text).encode()).hexdigest()
            previous = digest
        assert heads[scope] == (rows[-1][0], previous, len(rows))
    return sum(len(rows) for rows in chains.values())


def test_every_way_of_appending_joins_the_chain(migrated_url: str) -> None:
    """append_audit, a plain INSERT with a few columns, many rows at once, hostile text, back-dated rows."""
    with psycopg.connect(migrated_url, autocommit=True) as conn:
        conn.execute("SELECT append_audit('dlq_replay', 'me', 'all', 3, 2, 1, '{\"z\": 1, \"a\": [1.50, null]}', 'r1')")
        conn.execute("INSERT INTO audit_logs (action) VALUES ('agents_paused')")
        conn.execute("INSERT INTO audit_logs (action, scope) SELECT 'x', CASE n % 2 WHEN 0 THEN 'a' ELSE 'b' END"
                     " FROM generate_series(1, 10) n")  # fmt: skip
        conn.execute(
            "INSERT INTO audit_logs (action, actor, metadata) VALUES (%s, %s, %s)", ('ü\n"', "\\x", '{"k": "é\\u0001"}')
        )
        conn.execute("INSERT INTO audit_logs (action, created_at) VALUES ('old', '2024-01-01 00:00:00.123456+00')")
        conn.execute("INSERT INTO audit_logs (id, action, prev_hash, hash) VALUES (1, 'forged', 'x', 'y')")
        conn.execute("INSERT INTO audit_logs (action, target_count, metadata) VALUES ('nulls', NULL, NULL)")
        assert assert_chains_hold(conn) == 16


def test_nobody_changes_a_row(migrated_url: str) -> None:
    """Not even a superuser who switches the usual triggers off."""
    with psycopg.connect(migrated_url, autocommit=True) as conn:
        conn.execute("SELECT append_audit('x', 'me', 'all')")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
            conn.execute("SET session_replication_role = replica; DELETE FROM audit_logs")
        assert assert_chains_hold(conn) == 1


@pytest.mark.parametrize("role", ["replay_service", "replay_worker", "replay_gate"])
def test_each_role_appends_and_none_touches_a_head(pg_server: PgServer, migrated_db: str, role: str) -> None:
    """The roles append by INSERT and by function; the heads are the trigger's alone."""
    with psycopg.connect(pg_server.url(migrated_db, role), autocommit=True) as conn:
        conn.execute("INSERT INTO audit_logs (action, scope) VALUES ('x', 'all')")
        conn.execute("SELECT append_audit('x', 'me', 'all')")
        assert assert_chains_hold(conn) == 2
        for statement in (
            "UPDATE audit_heads SET row_count = 0",
            "DELETE FROM audit_heads",
            "UPDATE audit_logs SET actor = ''",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(statement.encode())
