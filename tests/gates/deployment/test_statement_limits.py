"""A limit with a row for each call is read as the contract's one row a key."""

from __future__ import annotations

import re
from typing import Any

import pytest

from gates.contract.names import names_of
from gates.deployment.dialect.statement import Translator
from tests.sources import ROOT

ONE_EACH = {"is": "hits", "calls": {"at": "at", "company": "tenant", "address": "ip"}, "rows": "route = 'replay'"}


COUNTED = {"is": "slots", "calls": {"at": "since", "number": "n"}, "columns": {"key": "bucket"}}


KEY = "concat('replay:', \"tenant\", ':', \"ip\")"


TIME = '("at")::timestamptz'


@pytest.mark.parametrize(
    ("said", "ours", "theirs"),
    [
        (
            ONE_EACH,
            "select hits from public.edge_rate_limits where key = 'k'",
            (
                f"select hits from (select ({KEY}) as key, array_agg({TIME} order by {TIME}) as hits from public.hits"
                " where (route = 'replay') group by 1) as edge_rate_limits where key = 'k'"
            ),
        ),
        (
            ONE_EACH,
            "delete from public.edge_rate_limits where key like 'replay:%'",
            (f"delete from public.hits as edge_rate_limits where (route = 'replay') and ( ({KEY}) like 'replay:%')"),
        ),
        (
            ONE_EACH,
            "update public.edge_rate_limits set hits = array(select h - x from unnest(hits) h)",
            (
                "update public.hits as edge_rate_limits set at = (((array(select h - x from"
                " unnest((array[\"at\"]::timestamptz[])) h))::text)::timestamptz[])[1] where (route = 'replay')"
            ),
        ),
        (
            COUNTED,
            "insert into public.edge_rate_limits (key, hits) values ('k', '{}')",
            (
                "insert into public.slots as edge_rate_limits (since, n, bucket)"
                " select ((array[c.at])::timestamptz[])[1], 1, 'k' from unnest('{}') c(at)"
            ),
        ),
        (
            COUNTED,
            "select count(*) from public.edge_rate_limits",
            (
                "select count(*) from (select bucket as key from public.slots cross join lateral generate_series(1,"
                " least(n, 1000)) group by 1) as edge_rate_limits"
            ),
        ),
        (COUNTED, "select 'public.edge_rate_limits.hits' is null", "select null::text is null"),
    ],
)
def test_a_limit_with_a_row_for_each_call_is_one_row_of_the_contract(said: Any, ours: str, theirs: str) -> None:
    """Its rows of one key are read as a group; what changes the hits of a key changes each of its rows."""
    assert Translator(names_of({"tables": {"edge_rate_limits": said}})).of(ours, None)[0] == theirs


@pytest.mark.parametrize(
    ("name", "kinds"), [("events_lost", ["bigint"]), ("runs_lost", ["text"]), ("new_items", ["text", "integer"])]
)
def test_what_the_load_looks_for_has_the_type_of_its_kind(name: str, kinds: list[str]) -> None:
    """Where each kind of id has a type of its own, no cast is to another one's."""
    ids = {"company_id": "integer", "event_id": "bigint", "replay_run_id": "bigint", "dead_letter_queue.id": "text"}
    text = (ROOT / "loadtests" / "engine" / "sql" / f"{name}.sql").read_text(encoding="utf-8")
    assert re.findall(r"%s::(\w+)\[\]", Translator(names_of({"ids": ids})).of(text, None)[0]) == kinds
