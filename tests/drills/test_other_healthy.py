"""The drills pass on a healthy deployment whose numbers, left open by the contract, are not the reference's."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gates.evidence import Outcome
from gates.stack.plan import StackOptions
from gates.stack.stack import reference_stack
from tests.drills.defects import json_of, problem
from tests.drills.examination import ROOT, examine
from tests.drills.proxy import Forward, Reply, Sent, proxy

OF_ATTEMPTS = (
    "drill/outbox/failed-is-tried-again",
    "drill/outbox/failing-event-holds-its-key",
    "drill/outbox/dead-letter-once",
)


@pytest.fixture(scope="module")
def two_attempts() -> Iterator[dict[str, str]]:
    """The variables of a deployment that gives an event up after its second attempt."""
    with reference_stack(StackOptions(history=False, variables={"WORKER_MAX_ATTEMPTS": "2"}), os.environ) as stack:
        yield {**stack.info.variables(), "GATE_TARGET": "reference", "GATE_STACK_CONTROL": stack.info.control}


def test_two_attempts_are_enough(two_attempts: dict[str, str], tmp_path: Path) -> None:
    """How often a failing event is tried is the deployment's business, if it is tried again at all."""
    files = [str(f) for f in sorted((ROOT / "drills").glob("test_outbox_*.py"))]
    found = examine(two_attempts, OF_ATTEMPTS, tmp_path, files)
    assert set(found) == set(OF_ATTEMPTS)
    wrong = {i: f"{e.outcome}: {e.message}" for i, e in found.items() if e.outcome is not Outcome.PASS}
    assert not wrong


def _counts_of_its_own(sent: Sent, forward: Forward) -> Reply:
    """A service that shows the counts of a run under names of its own."""
    reply = forward(sent)
    shown = json_of(reply)
    if sent.method != "GET" or "target_count" not in shown:
        return reply
    counts = {name: shown[f"{name}_count"] for name in ("target", "success", "failure")}
    body = json.dumps({"status": shown["status"], "counts": counts}).encode()
    return dataclasses.replace(problem(200, ""), body=body)


def test_counts_may_have_names_of_their_own(variables: dict[str, str], tmp_path: Path) -> None:
    """The contract promises the counts of a run, not what they are called."""
    check = "drill/lifecycle/run-counts-add-up"
    with proxy(variables["BASE_URL"], _counts_of_its_own) as url:
        found = examine({**variables, "BASE_URL": url}, [check], tmp_path, [str(ROOT / "drills/test_lifecycle.py")])
    assert found[check].outcome is Outcome.PASS, found[check].message
