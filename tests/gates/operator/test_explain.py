"""`gate explain`: what every check is, and that no promise is lost."""

from __future__ import annotations

import json

import pytest

from gates import catalogue
from gates.errors import UsageError
from gates.operator import explain
from gates.proof.fault import Fault, Kind
from gates.verdict import Decision
from tests.gates.gate_process import gate

FAULT = Fault("f/one", "It breaks.", Kind.SQL, Decision.ROLLBACK, checks=("sql/spot/*",))


def test_every_promise_has_a_check_or_a_reason() -> None:
    """No line is lost, and nothing cites a line that does not exist."""
    specs = catalogue.load()
    assert explain.unaccounted(specs, explain.promised_lines(), explain.left_out_lines()) == []
    rows = explain.promises(specs)
    assert len(rows) == len(explain.promised_lines())
    assert all(row["checks"] or row["reason"] for row in rows)


def test_a_check_is_explained_with_what_turns_it_red() -> None:
    """Claim, cost, effect, place, promises, faults; a check without a fault says where to add one."""
    specs = catalogue.load()
    (one,) = explain.explain(specs, ["alert/agent-success-burn-fast"], [FAULT])
    text = "\n".join(one.lines())
    assert one.spec.claim in text
    assert "a failure rolls back" in text
    assert "M13: " in text
    assert "add one in faults/" in text
    spots = explain.explain(specs, ["sql/spot/*"], [FAULT])
    assert spots
    assert all("f/one" in "\n".join(s.lines()) for s in spots)
    assert len(explain.explain(specs, [], [])) == len(specs)


def test_a_pattern_that_names_no_check_is_a_usage_error() -> None:
    """And says what is near."""
    with pytest.raises(UsageError, match="Did you mean 'alert/outbox-lag'"):
        explain.explain(catalogue.load(), ["alert/outbox-lagg"], [])


def test_gate_explain_prints_a_check() -> None:
    """As people and as programs read it."""
    done = gate("explain", "alert/outbox-lag")
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "alert/outbox-lag")
    (member,) = json.loads(gate("explain", "alert/outbox-lag", "--json").stdout)
    assert member["id"] == "alert/outbox-lag"
