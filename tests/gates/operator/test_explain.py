"""`gate explain` explains every check, and no promise is without one."""

import json

import pytest

from gates import catalogue
from gates.errors import UsageError
from gates.operator import explain
from gates.proof.fault import Kind, ListedFault
from gates.reports.how_checked import how_checked
from gates.verdict import Decision
from tests.gates.gate_process import gate

FAULT = ListedFault("f/one", "It breaks.", Kind.SQL, Decision.ROLLBACK, checks=("sql/spot/*",))


def test_every_promise_has_a_check_or_a_reason() -> None:
    """Each promise has a check or a reason, and every citation exists."""
    specs = catalogue.load()
    assert explain.unaccounted(specs, explain.promised_lines(), explain.left_out_lines()) == []
    rows = explain.promises(specs)
    assert len(rows) == len(explain.promised_lines())
    assert all(row["checks"] or row["reason"] for row in rows)


def test_a_check_is_explained_with_what_turns_it_red() -> None:
    """Claim, effect, promises and faults; a drill without a fault says where to add one."""
    specs = catalogue.load()
    (one,) = explain.explain(specs, ["alert/agent-success-burn-fast"], [FAULT])
    text = "\n".join(one.lines())
    assert one.spec.claim in text
    assert "a failure rolls back" in text
    assert "M13: " in text
    assert "planted cases of its own tests" in text
    (drill,) = explain.explain(specs, ["drill/outbox/delivered-once"], [FAULT])
    assert "add one in faults/" in "\n".join(drill.lines())
    spots = explain.explain(specs, ["sql/spot/*"], [FAULT])
    assert spots
    assert all("f/one" in "\n".join(s.lines()) for s in spots)
    assert len(explain.explain(specs, [], [])) == len(specs)


@pytest.mark.parametrize(
    ("check", "place", "text"),
    [
        ("sql/spot/replay-runs-unique", "sql_checks/spot/0010_replay_runs_unique.sql:1", "from pg_index"),
        ("alert/outbox-lag", "sql_checks/alerts/outbox.yaml:", "percentile_disc(0.95)"),
        ("drill/audit/rate-limited-once-a-minute", "drills/audit/test_refusals.py:", "scene.run(company"),
        ("drill/safety-rails/max-exponent", "drills/replay/test_safety_rails.py:", ""),
        ("load/agent_success/rate", "loadtests/profiles.py", ""),
        ("preflight/alone", "gates/stages/turn.py:", ""),
    ],
)
def test_how_a_check_looks_is_shown(check: str, place: str, text: str) -> None:
    """It shows the query or the requests; for a check from a table, the line of the table."""
    (one,) = explain.explain(catalogue.load(), [check], [FAULT])
    assert one.how.place.startswith(place)
    assert text in one.how.text
    assert f"checked   {place}" in "\n".join(one.lines())


def test_every_check_has_a_place() -> None:
    """Of the catalogue every tenth check is looked for, and each is found in a file."""
    assert [s.id for s in catalogue.load()[::10] if not how_checked(s.id).place] == []


def test_a_pattern_that_names_no_check_is_a_usage_error() -> None:
    """The error suggests near names."""
    with pytest.raises(UsageError, match="Did you mean 'alert/outbox-lag'"):
        explain.explain(catalogue.load(), ["alert/outbox-lagg"], [])


def test_gate_explain_prints_a_check() -> None:
    """It prints text for people and JSON for programs."""
    done = gate("explain", "alert/outbox-lag")
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "alert/outbox-lag")
    (member,) = json.loads(gate("explain", "alert/outbox-lag", "--json").stdout)
    assert member["id"] == "alert/outbox-lag"
