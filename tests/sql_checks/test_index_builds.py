"""An index in the making is neither invalid nor missing from the manifest."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg
import pytest
from psycopg.rows import dict_row

from sql_checks.fingerprint import read_kind
from sql_checks.spotfile import SPOT, read_spot
from tests.waiting import until

VIOLATIONS = read_spot(SPOT / "0013_indexes_valid.sql").violations
INVALID = "select indexrelid::regclass::text as subject from pg_index where not indisvalid"
INVALID += " and indrelid = 'public.companies'::regclass"
CANCEL = "select pg_cancel_backend(pid) from pg_stat_progress_create_index where datname = current_database()"


@contextmanager
def held_up(url: str, statement: str) -> Iterator[None]:
    """The statement in its own session, waiting for a writing transaction; then it is cancelled."""
    with psycopg.connect(url) as writer, psycopg.connect(url, autocommit=True) as builder:
        writer.execute("insert into public.companies (id, name) values (gen_random_uuid(), 'writes')")

        def build() -> None:
            with suppress(psycopg.errors.QueryCanceled):
                builder.execute(statement)

        thread = threading.Thread(target=build)
        thread.start()
        try:
            yield
        finally:
            writer.execute(CANCEL)
            thread.join(30)


@pytest.mark.parametrize(
    "statement",
    ["create index concurrently by_name on public.companies (name)", "reindex table concurrently public.companies"],
)
def test_a_build_that_runs_is_no_violation_and_a_left_over_is_one(statement: str, seeded_url: str) -> None:
    """An index in the making passes; one that a cancelled build left fails, also for the gate's own login."""
    with psycopg.connect(seeded_url, autocommit=True, row_factory=dict_row) as gate:
        gate.execute("set role replay_gate")
        before = read_kind(gate, "indexes")
        with held_up(seeded_url, statement):
            until(lambda: gate.execute(INVALID).fetchall(), 20)
            assert gate.execute(VIOLATIONS).fetchall() == []
            assert read_kind(gate, "indexes") == before
        left = [r["subject"] for r in gate.execute(INVALID).fetchall()]
        assert left
        assert [r["subject"] for r in gate.execute(VIOLATIONS).fetchall()] == left
        assert len(read_kind(gate, "indexes")) == len(before) + len(left)
        gate.execute("reset role")
        for name in left:
            gate.execute(f"drop index {name}")
