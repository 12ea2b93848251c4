"""`names:` of gate.yaml: mistakes are refused with their place, and the rest becomes names."""

import datetime as dt
import time
from dataclasses import replace
from pathlib import Path

import pytest

from gates.contract.names import load
from gates.decision.names_file import NamesError, names_of_text
from gates.decision.policy_file import parse
from gates.decision.rules import Policy
from gates.errors import ConfigError
from gates.evidence import TargetKind

TODAY = dt.date(2026, 1, 1)


def test_names_are_read_and_survive_the_way_to_a_suite() -> None:
    """A child process gets the same names as the policy has."""
    text = """version: 1
names:
  schema: app
  ids: {company_id: bigint}
  tables:
    dead_letter_queue: {is: ops.failed, columns: {status: state}, absent: [aggregate_key]}
    audit_heads: {absent: true}
    events: {rows: "pg_typeof(amount) is not null"}
  roles: {anon: null}
  http: {codes: {rate_limited: [TOO_MANY, 429]}, fields: {errors: error.details}}
"""
    names = parse(text, "gate.yaml", Path(), TODAY).names
    assert load(names.dump()) == names
    assert names.relations["dead_letter_queue"].column("status") == "state"
    assert names.real("companies") == "app.companies"
    assert names.real("audit_heads") == ""
    assert names.id_type("company") == "bigint"
    assert names.roles == {"anon": None}


@pytest.mark.parametrize(
    ("lines", "place", "said"),
    [
        ("  tabels: {}", "3:3", "tabels"),
        ("  tables:\n    dead_letters: {}", "4:5", "Did you mean 'dead_letter_queue'"),
        ("  tables:\n    events:\n      columns: {companyid: x}", "5:17", "company_id"),
        ("  tables:\n    events: {is: a.b.c}", "4:18", "schema.name"),
        ("  tables:\n    events: {absent: true, is: x}", "4:13", "absent and mapped"),
        ("  tables:\n    events: {calls: {at: x}}", "4:14", "calls"),
        ("  tables:\n    edge_rate_limits: {calls: {company: x}}", "4:31", "at"),
        ("  tables:\n    edge_rate_limits: {calls: {at: x}}", "4:31", "calls of whom?"),
        ("  tables:\n    edge_rate_limits: {calls: {at: x, company: y}, columns: {hits: z}}", "4:68", "beside `calls`"),
        ("  tables:\n    events: {absent: [path], values: {path: {outbox: q}}}", "4:45", "absent and mapped"),
        ("  tables:\n    events: {values: {path: {outbox: q, direct: q}}}", "4:29", "two values"),
        ("  tables:\n    events: {values: {path: {outboks: q}}}", "4:30", "outbox"),
        ("  ids: {company_id: int}", "3:21", "bigint"),
        ("  functions: {is_feature_enabled: {arguments: [key]}}", "3:47", "each of key, company once"),
        ("  http: {codes: {rate_limited: [A, 200]}}", "3:32", "400 to 599"),
        ("  http: {headers: {X-Foo: y}}", "3:20", "X-Transbot-Signature"),
        *(
            (f"  http: {{extra_headers: {{X-A: {sent}}}}}", "3:31", "one line, or $GATEWAY_")
            for sent in ("$DATABASE_URL", "$PAYMENTS_KEY", "$gateway_key", "$", "$$GATEWAY_KEY", "$GATEWAY_KEY-")
        ),
        ("  roles: {admin: x}", "3:11", "authenticated"),
        ("  http: {success: {/events: 404}}", "3:29", "200 to 299"),
        ("  http: {metrics: {lag: x}}", "3:20", "outbox_lag_seconds"),
        ('  http: {fields: {dlq_ids: "query:ids"}}', "3:28", "a body, for lists and objects"),
        ('  http: {fields: {company_id: "path:account"}}', "3:31", "stands in one of `paths`"),
        ('  http: {fields: {dry_run: "header:a@b"}}', "3:28", "the name of a header"),
        ('  http: {paths: {/events: "/v1/{account}/events"}}', "3:27", "a field that says `path:account`"),
        *(
            (f"  tables:\n    feature_flags: {{rows: {text!r}}}", "4:27", said)
            for text, said in (
                ("true) or (true", "syntax error"),
                ("true -- and nothing else", "a comment"),
                ("true, true", "not one expression"),
                ("true; drop table x", "syntax error"),
                ("x is not null limit 1", "syntax error"),
                ("(select 1) union (select 2)", "not one expression"),
                ("(with x as (delete from y returning 1) select true from x)", "it changes rows"),
                ("(select true from y for update)", "it locks rows"),
                ("pg_terminate_backend(1)", "pg_terminate_backend() acts"),
                ("pg_catalog.SET_CONFIG(a, b, false) = c", "set_config() acts"),
                ("query_to_xml(a, true, true, b) is null", "query_to_xml() acts"),
                ("id = $1", "a parameter"),
            )
        ),
        ("  tables:\n    events: {columns: {path: {is: a, sql: a, write: \"'{}'\"}}}", "4:53", "inside of a string"),
        ("  tables:\n    events: {columns: {path: {is: a, sql: a, write: '{}) , ({}'}}}", "4:53", "syntax error"),
        ("  tables:\n    events: {also: {x: '1), (2'}}", "4:24", "syntax error"),
        ("  limits: {batch: 100000}", "3:19", "from 1 to 1000"),
        ("  limits: {calls: 0}", "3:19", "from 3 to 30"),
        ("  token: {roles: {root: x}}", "3:19", "super_admin"),
        ("  functions: {is_feature_enabled: {bucket: mine}}", "3:44", "own"),
        ("  tables:\n    events: {columns: {path: {sql: a, write: b}}}", "4:46", "{}"),
        ("  tables:\n    events: {columns: {path: {sql: a, write: 'b||{}'}}}", "4:30", "`is`"),
    ],
)
def test_a_mistake_has_its_place(lines: str, place: str, said: str) -> None:
    """The error has file, line and column, what was found and what is allowed."""
    with pytest.raises(ConfigError) as error:
        parse(f"version: 1\nnames:\n{lines}\n", "gate.yaml", Path(), TODAY)
    assert str(error.value).startswith(f"gate.yaml:{place}: ")
    assert said in str(error.value)


@pytest.mark.parametrize("member", ["paths", "fields", "success", "codes", "values", "metrics"])
def test_a_mapping_without_members_maps_nothing(member: str) -> None:
    """An empty mapping is read as a mapping, as if it were not written."""
    text = f"version: 1\nnames:\n  http:\n    {member}: {{}}\n"
    names = parse(text, "gate.yaml", Path(), TODAY).names
    bare = parse("version: 1\nnames: {http: {}}\n", "gate.yaml", Path(), TODAY).names
    assert replace(names, given={}) == replace(bare, given={})


def test_names_are_known_although_something_else_in_the_file_is_wrong() -> None:
    """A rollback needs no valid policy, but the names of what it changes."""
    assert names_of_text("version: 1\nwrong: 1\nnames: {schema: app}\n", "f").real("events") == "app.events"
    wrong = "names: {schema: app, http: {extra_headers: {X-A: $PAYMENTS_KEY}}, limits: 1}\n"
    assert names_of_text(wrong, "f").real("events") == "app.events"
    assert not names_of_text("version: [", "f")
    with pytest.raises(NamesError):
        names_of_text("version: [\nnames: {schema: app}\n", "f")


def test_a_verdict_under_other_names_is_one_of_another_policy() -> None:
    """Changed names change the digest, and the names are stored with the policy."""
    texts = ("version: 1\n", "version: 1\nnames: {schema: app}\n")
    plain, named = (parse(t, "f", Path(), TODAY).policy((), TargetKind.STAGING, "r", deep=False) for t in texts)
    assert plain.digest != named.digest
    assert plain.proof_digest == named.proof_digest
    assert Policy.from_json(named.to_json()).digest == named.digest


def test_no_file_takes_long_to_be_asked_for_names() -> None:
    """A rollback waits for the names, so they are read fast from any text."""
    began = time.process_time()
    assert not names_of_text("\n" * 100_000 + "- [", "gate.yaml").given
    with pytest.raises(NamesError):
        names_of_text("\n" * 100_000 + "a: {\n 'names' : [", "gate.yaml")
    assert time.process_time() - began < 5.0
