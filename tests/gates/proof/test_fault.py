"""The list of faults is read strictly."""

import dataclasses
import json
from typing import Any

import pytest

from gates.errors import CannotWork
from gates.evidence import CheckSpec, Severity, TargetKind, Where
from gates.proof.fault import Kind, ListedFault, decided, read_list
from gates.proof.matrix.campaign import RunScope, scope_of
from gates.verdict import Decision

ROW: dict[str, Any] = {
    "id": "sql/rls-off",
    "breaks": "Row-level security is off.",
    **dict.fromkeys(("parts", "undo_sql", "event")),
    "kind": "sql",
    "sql": "select 1",
    "env": {},
    "production": True,
    "decision": "rollback",
    "checks": ["sql/rls/", "sql/spot/*"],
    "names": ["dead_letter_queue"],
}


def test_a_fault_is_read_and_declares_its_checks() -> None:
    """A fault declares checks by id, by a prefix that ends in a slash, or by a glob."""
    (fault,) = read_list(json.dumps([ROW]))
    assert fault.kind is Kind.SQL
    assert fault.declares("sql/rls/events/forced")
    assert fault.declares("sql/spot/x")
    assert not fault.declares("sql/rls")
    assert not fault.declares("drill/sql/spot")


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "service"},
        {"kind": "none"},
        {"sql": None},
        {"decision": "maybe"},
        {"decision": "promote"},
        {"checks": []},
        {"names": []},
        {"more": 1},
        {"kind": "process", "event": "earthquake"},
        {"kind": "trigger", "sql": None},
    ],
)
def test_a_fault_that_cannot_be_judged_is_refused(change: dict[str, Any]) -> None:
    """A fault with a wrong or unknown member, or without what its kind needs, is refused."""
    with pytest.raises(CannotWork):
        read_list(json.dumps([{**ROW, **change}]))


@pytest.mark.parametrize("text", ["", "[1]", "null", json.dumps([ROW, ROW])])
def test_what_is_no_list_of_faults_is_refused(text: str) -> None:
    """Text that is no list of faults is refused, and so is a list with the same id twice."""
    with pytest.raises(CannotWork):
        read_list(text)


def spec(check: str, where: Where, *, deep: bool = False, needs: tuple[str, ...] = ()) -> CheckSpec:
    return CheckSpec(check, "", "", Severity.PAGE, where, deep=deep, needs=needs)


@pytest.mark.parametrize(
    ("specs", "way"),
    [
        ([spec("a/b", Where.READ_ONLY)], RunScope(TargetKind.STAGING)),
        ([spec("a/b", Where.READ_ONLY, deep=True)], RunScope(TargetKind.STAGING, deep=True)),
        ([spec("a/b", Where.REFERENCE)], RunScope(TargetKind.REFERENCE)),
        ([spec("a/b", Where.REFERENCE, deep=True)], RunScope(TargetKind.REFERENCE, deep=True)),
        ([spec("a/b", Where.REFERENCE, deep=True), spec("a/c", Where.STAGING)], RunScope(TargetKind.STAGING)),
        ([spec("a/b", Where.READ_ONLY, needs=("baseline",))], RunScope(TargetKind.STAGING, baseline=True)),
        ([], RunScope(TargetKind.STAGING)),
    ],
)
def test_the_gate_is_run_as_gently_as_a_declared_check_allows(specs: list[CheckSpec], way: RunScope) -> None:
    """The run is deep, or against the reference, only if no declared check needs less."""
    fault = ListedFault("x/y", "x", Kind.SQL, Decision.ROLLBACK, sql="select 1", checks=("a/*",), names=("x",))
    assert scope_of(fault, specs, TargetKind.STAGING) == way


@pytest.mark.parametrize(
    ("severity", "decision", "due"),
    [
        (Severity.PAGE, None, Decision.ROLLBACK),
        (Severity.WARN, None, Decision.HOLD),
        (Severity.PAGE, Decision.HOLD, Decision.HOLD),
    ],
)
def test_severities_of_checks_say_the_decision(severity: Severity, decision: Decision | None, due: Decision) -> None:
    """A declared check of severity page makes rollback due, others hold; a decision that the fault names wins."""
    fault = ListedFault("x/y", "x", Kind.SQL, decision, sql="select 1", checks=("a/*",), names=("x",))
    specs = [dataclasses.replace(spec("a/b", Where.READ_ONLY), severity=severity), spec("c/d", Where.READ_ONLY)]
    assert decided(fault, specs).decision is due
