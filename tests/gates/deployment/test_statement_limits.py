"""A rate limit that keeps a row for each call is read as the contract's one row per key."""

import re
from pathlib import Path
from typing import Any

import pytest

from gates.contract.names import names_of
from gates.deployment.dialect.statement import Translator
from tests.cases import rewritten
from tests.sources import ROOT

ONE_EACH = {"is": "hits", "calls": {"at": "at", "company": "tenant", "address": "ip"}, "rows": "route = 'replay'"}
COUNTED = {"is": "slots", "calls": {"at": "since", "number": "n"}, "columns": {"key": "bucket"}}

FILE = Path(__file__).with_name("rewritten.sql")


@pytest.mark.parametrize(("group", "said"), [("one each", ONE_EACH), ("counted", COUNTED)])
def test_a_limit_with_a_row_for_each_call_is_one_row_of_the_contract(group: str, said: Any) -> None:
    """Reads group the rows of a key, and writes change each of them."""
    translator = Translator(names_of({"tables": {"edge_rate_limits": said}}))
    statements = rewritten(FILE, group)
    assert [translator.of(ours, given) for ours, given, _, _ in statements] == [(t, sent) for *_, t, sent in statements]


@pytest.mark.parametrize(
    ("name", "kinds"), [("events_lost", ["bigint"]), ("runs_lost", ["text"]), ("new_items", ["text", "integer"])]
)
def test_what_the_load_looks_for_has_the_type_of_its_kind(name: str, kinds: list[str]) -> None:
    """Each kind of id is cast to its own type."""
    ids = {"company_id": "integer", "event_id": "bigint", "replay_run_id": "bigint", "dead_letter_queue.id": "text"}
    text = (ROOT / "loadtests" / "engine" / "sql" / f"{name}.sql").read_text(encoding="utf-8")
    assert re.findall(r"%s::(\w+)\[\]", Translator(names_of({"ids": ids})).of(text, None)[0]) == kinds
