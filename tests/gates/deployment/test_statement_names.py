"""Statements of the contract translated to other names and rate limits; everything else stays byte for byte."""

import re
from pathlib import Path
from typing import Any

import psycopg
import pytest

from gates.contract.names import load, names_of
from gates.deployment.dialect.current import AbsentColumn, AbsentTable
from gates.deployment.dialect.statement import Translator
from tests.cases import rewritten
from tests.sources import ROOT

NAMES = names_of(
    {
        "schema": "app",
        "ids": {"company_id": "bigint", "dead_letter_queue.id": "bigint"},
        "tables": {
            "dead_letter_queue": {
                "is": "ops.failed_jobs",
                "columns": {
                    "company_id": "tenant_id",
                    "retry_count": "attempts",
                    "status": "state",
                    "error_type": {"sql": "detail ->> 'class'"},
                },
                "values": {"status": {"pending": "waiting"}},
                "absent": ["aggregate_key", "event_id"],
                "also": {"kind": "'drill'"},
            },
            "feature_flags": {"is": "public.Flags"},
            "audit_heads": {"absent": True},
        },
        "functions": {"is_feature_enabled": {"is": "app.flag_on", "arguments": ["company", "key"]}},
        "roles": {"authenticated": "app_user", "anon": None},
    }
)

TRANSLATOR = Translator(NAMES)
FILE = Path(__file__).with_name("rewritten.sql")
PARAMETERS = ("ours", "given", "theirs", "sent")
COMMENT = "select 1 from pg_catalog.pg_class -- public.events\n"
NAMED = "-- by %(k)s, 100 %%\nselect 1 from public.companies /* %(k)s */ where id = %(k)s -- %(k)s"
"""A comment holds no name and no parameter."""
RENAMED = "-- by (k)s, 100 \nselect 1 from (select id from app.companies) as companies /* (k)s */ where id = %s -- (k)s"


@pytest.mark.parametrize(PARAMETERS, [*rewritten(FILE, "names"), (COMMENT, None, COMMENT, None)])
def test_a_statement_has_the_names_of_the_deployment(ours: str, given: None, theirs: str, sent: None) -> None:
    """Only names of contract objects are replaced."""
    assert TRANSLATOR.of(ours, given) == (theirs, sent)


@pytest.mark.parametrize(PARAMETERS, [*rewritten(FILE, "parameters"), (NAMED, {"k": 3}, RENAMED, [3])])
def test_parameters_follow_their_places(ours: str, given: Any, theirs: str, sent: list[Any]) -> None:
    """Parameters that are moved, dropped or translated are sent that way."""
    assert TRANSLATOR.of(ours, given) == (theirs, sent)


@pytest.mark.parametrize(
    "statement",
    [
        "select event_id from public.dead_letter_queue",
        "select 1 from public.audit_heads",
        "update public.dead_letter_queue set event_id = null",
        "insert into public.dead_letter_queue (company_id, aggregate_key) values (1, 'k')",
        "update public.dead_letter_queue set error_type = 'x'",
    ],
)
def test_what_is_absent_and_needed_is_said(statement: str) -> None:
    """A statement that needs what the deployment lacks is not sent, and the error names it."""
    with pytest.raises((AbsentColumn, AbsentTable), match="absent"):
        TRANSLATOR.of(statement, None)


HASHED = "select encode(sha256(convert_to(prev_hash || action, 'UTF8')), 'hex') as hash from public.audit_logs"


def test_a_hash_covers_what_is_stored() -> None:
    """A hash is computed over stored values; a column that is only an expression has none."""
    tables = {"audit_logs": {"is": "trail", "columns": {"hash": "digest"}, "values": {"action": {"dlq_replay": "r"}}}}
    source = "(select action, prev_hash, digest as hash from public.trail) as audit_logs"
    assert Translator(names_of({"tables": tables})).of(HASHED, None)[0].endswith(f"from {source}")
    tables["audit_logs"]["columns"] = {"action": {"sql": "upper(verb)"}}
    with pytest.raises(AbsentColumn, match="hash"):
        Translator(names_of({"tables": tables})).of(HASHED, None)
    tables["audit_logs"]["columns"] = {"action": {"is": "verb", "sql": "upper(verb)"}}
    assert "verb as action" in Translator(names_of({"tables": tables})).of(HASHED, None)[0]
    tables["audit_logs"]["columns"] = {"action": {"is": "action", "sql": "upper(action)"}}
    assert "(select action, prev_hash" in Translator(names_of({"tables": tables})).of(HASHED, None)[0]


FLAGGED = Translator(
    names_of(
        {
            "functions": {"is_feature_enabled": {"is": "app.is_on", "arguments": ["company", "key"]}},
            "tables": {
                "feature_flags": {"values": {"key": {"outbox.enabled": "relay.on"}}},
                "edge_rate_limits": {
                    "is": "throttle",
                    "columns": {
                        "key": {"is": "b", "sql": "'replay:' || substr(b, 9)", "write": "'redrive:' || substr({}, 8)"}
                    },
                },
                "dead_letter_queue": {
                    "columns": {
                        "retry_after": {"is": "due", "sql": "due at time zone 'UTC'", "write": "{} at time zone 'UTC'"}
                    }
                },
            },
        }
    )
)


@pytest.mark.parametrize(PARAMETERS, rewritten(FILE, "keys"))
def test_keys_of_flags_and_of_limits_are_the_deployments(ours: str, given: Any, theirs: str, sent: Any) -> None:
    """Flags, limit keys, written expressions and times are translated."""
    assert FLAGGED.of(ours, given) == (theirs, sent)


def test_what_is_no_sql_is_the_databases_error() -> None:
    """Broken SQL raises a database error, which every caller handles."""
    with pytest.raises(psycopg.errors.SyntaxError):
        TRANSLATOR.of("select 'never ends from public.companies", None)


@pytest.mark.parametrize("text", [r"select E'it\'s', 'x' from public.companies", "select $q$ public.events ' $q$ x"])
def test_strings_of_every_kind_are_read(text: str) -> None:
    """A quote inside a string does not end it, and a string names no table."""
    assert TRANSLATOR.of(text, None)[0].count("app.") == text.count("companies")


def test_what_is_absent_and_unclaimed_is_empty_beside_others() -> None:
    """A table that is absent and not claimed is read as empty; writes to it are refused."""
    names = names_of({"ids": {"company_id": "bigint"}, "tables": {"agent_controls": {"absent": True}}})
    translator = Translator(names.within(["pause"]))
    assert translator.of("select 1 from public.agent_controls a where a.company_id is null", None)[0] == (
        "select 1 from (select null::bigint as company_id where false) a where a.company_id is null"
    )
    for statement in ("update public.agent_controls set agents_paused = true", "truncate public.agent_controls"):
        with pytest.raises(AbsentTable):
            translator.of(statement, None)
    assert load(names.within(["pause"]).dump()) == names.within(["pause"])


def test_checks_are_told_whose_formula_draws_tenants() -> None:
    """A check may compute who is in a rollout only if the formula is the contract's."""
    asked = "select 'public.is_feature_enabled.bucket' = 'own'"
    own = Translator(names_of({"functions": {"is_feature_enabled": {"bucket": "own"}}}))
    assert (own.of(asked, None)[0], TRANSLATOR.of(asked, None)[0]) == ("select 'own' = 'own'", asked)


def test_a_new_id_of_an_event_has_the_deployments_type() -> None:
    """It is a number where ids are numbers; elsewhere a UUID."""
    asked = "update public.events set id = gen_random_uuid()"
    made = {kind: Translator(names_of({"ids": {"event_id": kind}})).of(asked, None)[0] for kind in ("bigint", "text")}
    assert made["bigint"].endswith("floor(random() * 2251799813685248))::bigint")
    assert made["text"] == asked


def test_what_is_called_is_no_column() -> None:
    """`count(*)` is a function, although the contract has a column `count`."""
    names = names_of({"tables": {"edge_rate_limits": {"is": "calls", "absent": ["count", "hits"]}}})
    text, _ = Translator(names).of("select count(*) from public.edge_rate_limits where key = 'k'", None)
    assert text == "select count(*) from (select key from public.calls) as edge_rate_limits where key = 'k'"
    with pytest.raises(AbsentColumn):
        Translator(names).of("select count from public.edge_rate_limits", None)


KEPT = names_of({"tables": {"feature_flags": {"is": "app.toggles", "rows": "gone_at is null"}}})


@pytest.mark.parametrize(PARAMETERS, rewritten(FILE, "rows"))
def test_rows_that_do_not_count_are_neither_read_nor_changed(ours: str, given: None, theirs: str, sent: None) -> None:
    """Rows that are softly deleted are neither read nor changed."""
    text, parameters = Translator(KEPT).of(ours, given)
    assert (text.split(), parameters) == (theirs.split(), sent)


ONE_EACH = {"is": "hits", "calls": {"at": "at", "company": "tenant", "address": "ip"}, "rows": "route = 'replay'"}
COUNTED = {"is": "slots", "calls": {"at": "since", "number": "n"}, "columns": {"key": "bucket"}}


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
