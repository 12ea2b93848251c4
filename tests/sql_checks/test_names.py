"""The lint finds names without a schema, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from sql_checks.lint import lint
from sql_checks.names import unqualified
from tests.sql_checks.test_spotfile import GOOD, write


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("select 1 from public.companies c, public.events", []),
        ("select 1 from companies", ["companies"]),
        ("select 1 from public.companies c, events e", ["events"]),
        ("select 1 from public.companies join lateral (select from event_outbox o) o on true", ["event_outbox"]),
        ("with events as (select 1) select 1 from events", []),
        ("with recursive a(n) as (select 1 union all select n from a) select from a, b", ["b"]),
        ("select (with c as (select 1) select 1 from c) from c", ["c"]),
        ("select 1 from pg_class, pg_catalog.pg_proc, generate_series(1, 2) g, unnest(array[1]) u", []),
        ("select extract(epoch from now()), substring('x' from 1), trim(both from 'x'), a is distinct from b", []),
        ("select 'from companies' /* from events */ -- from agents", []),
        ("select is_feature_enabled('k', id) from public.companies", ["is_feature_enabled"]),
        ("select public.is_feature_enabled('k', id) from public.companies", []),
        ('select 1 from "Companies"', ["Companies"]),
    ],
)
def test_a_name_without_a_schema_is_found(query: str, names: list[str]) -> None:
    """Tables and functions of the target are found without their schema; WITH queries and built-ins are not."""
    assert unqualified(query) == names


def test_the_lint_refuses_it_in_a_users_own_check(tmp_path: Path) -> None:
    """A check of the user's with a bare table name is refused, with its file and what to write."""
    path = write(tmp_path, GOOD.replace("where false", "from companies where false"))
    [problem] = lint([tmp_path])
    assert problem == f"{path}: companies without a schema; allowed: public.companies. Name the schema"


def test_what_is_no_sql_is_a_problem_of_its_own(tmp_path: Path) -> None:
    """A query that cannot be read is refused, never taken for one without names."""
    path = write(tmp_path, GOOD.replace("where false", "where (("))
    [problem] = lint([tmp_path])
    assert problem.startswith(f"{path}: cannot be read as SQL:")
