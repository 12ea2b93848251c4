"""Healthy variants: their SQL fits the schema, and what they start comes up and is removed."""

import re

import psycopg
import pytest

from gates.proof.healthy import servers
from gates.proof.healthy.statements import OF_SQL
from gates.proof.healthy.variants import NAMES, VARIANTS, _partitioned, _renamed
from gates.stack.postgres import connect
from tests.waiting import until

BACKWARDS = re.compile("|".join(NAMES))
THOUSANDS = re.compile(r"generate_series\(1, \d{4,}(?=\))")


def test_there_are_at_least_thirty_kinds_that_need_no_more_than_the_reference() -> None:
    """At least thirty variants need neither pgbouncer nor another PostgreSQL."""
    everywhere = [v for v in VARIANTS if v.name not in {"pooled-by-transaction", "pooled-by-session"}]
    assert len([v for v in everywhere if not v.name.startswith("postgresql-")]) >= 30


@pytest.mark.parametrize("name", OF_SQL)
def test_the_statements_of_a_variant_fit_the_schema(name: str, migrated_url: str) -> None:
    """Its statements, with fewer rows, run on the migrated database; settings of the server are left out."""
    with psycopg.connect(migrated_url, autocommit=True) as connection:
        for statement in OF_SQL[name][1]:
            if not statement.startswith("alter system"):
                connection.execute("set search_path = public")
                connection.execute(THOUSANDS.sub(r"\g<0>, 500", statement).encode())


def test_a_renamed_reference_says_none_of_the_old_names() -> None:
    """Its sources have the new names alone, and are removed at the end."""
    with _renamed() as around:
        folder = around.options["source"]
        texts = [path.read_text(encoding="utf-8") for path in folder.rglob("*.*") if path.is_file()]
    assert len(texts) > 80
    assert not any(BACKWARDS.search(text) for text in texts)
    assert any("failed_jobs" in text for text in texts)
    assert not folder.exists()


def test_a_partitioned_reference_has_two_tables_in_halves() -> None:
    """Its migrations split two tables in two, and refuse changes of the audit trail for each row."""
    with _partitioned() as around:
        texts = [path.read_text(encoding="utf-8") for path in around.options["source"].rglob("*.sql")]
    made = "".join(texts)
    assert made.count("PARTITION BY HASH") == 2
    assert made.count("PARTITION OF public.") == 4
    assert "refused_by_row BEFORE UPDATE OR DELETE ON public.audit_logs\n  FOR EACH ROW" in made


def test_a_replica_follows_late() -> None:
    """A write on the primary is not yet on the replica, which is in recovery."""
    with servers.replica(asked=True) as around:
        url = str(around.options["server"])
        with connect(url) as first:
            says = "select 1 from pg_stat_replication where state = 'streaming'"
            until(lambda: first.execute(says).fetchone())
            first.execute("create table public.written (a int)")
        late = around.replica
        with connect(late) as second:
            row = second.execute("select to_regclass('public.written'), pg_is_in_recovery()").fetchone()
            assert row == (None, True)
