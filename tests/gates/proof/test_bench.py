"""Faults of the real catalogue go into a real deployment and out again; their witnesses see both."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from gates.evidence import TargetKind
from gates.proof.bench import Bench, bench
from gates.proof.fault import Fault, Kind
from gates.proof.programs import list_faults
from gates.stack.plan import StackOptions
from gates.verdict import Decision


@pytest.fixture(scope="module")
def catalogue() -> dict[str, Fault]:
    return {f.id: f for f in list_faults(os.environ)}


@pytest.fixture(scope="module")
def deployment() -> Iterator[Bench]:
    with bench(StackOptions(history=False), os.environ, TargetKind.STAGING) as made:
        yield made


def test_the_catalogue_is_read_and_has_a_noop(catalogue: dict[str, Fault]) -> None:
    """Every fault of the package can be judged."""
    assert [f.id for f in catalogue.values() if f.is_noop] == ["noop/nothing"]
    assert {Kind.SERVICE, Kind.WORKER} <= {f.kind for f in catalogue.values()}


@pytest.mark.parametrize(
    "name",
    ["authentication/unverified", "authentication/nothing-is-verified", "pause/nobody-is-paused", "noop/nothing"],
    ids=["service", "proxy", "trigger", "none"],
)
def test_a_fault_is_seen_on_and_off_again(name: str, deployment: Bench, catalogue: dict[str, Fault]) -> None:
    """The no-op is never seen on."""
    fault = catalogue[name]
    assert deployment.witness(fault) is False
    deployment.put_in(fault)
    assert deployment.witness(fault) is (not fault.is_noop)
    deployment.take_out(fault)
    assert deployment.witness(fault) is False


def test_statements_and_events_go_in_and_out(deployment: Bench) -> None:
    """Several statements at once; a frozen worker is started anew."""
    sql = Fault(
        "x/sql", "x", Kind.SQL, Decision.HOLD, sql="create table p (a int); create table q (a int)",
        undo_sql="drop table p; drop table q",
    )  # fmt: skip
    deployment.put_in(sql)
    deployment.execute("insert into p values (1); insert into q values (1)")
    deployment.take_out(sql)
    frozen = Fault("x/frozen", "x", Kind.PROCESS, Decision.HOLD, event="stop-worker")
    before = [p.pid for p in deployment.stack.processes if p.name.startswith("worker")]
    deployment.put_in(frozen)
    deployment.take_out(frozen)
    after = [p.pid for p in deployment.stack.processes if p.name.startswith("worker")]
    assert None not in after
    assert before != after
