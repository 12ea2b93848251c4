"""The drills pass on a healthy deployment whose numbers, left open by the contract, are not the reference's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gates.evidence import Outcome
from gates.stack.plan import StackOptions
from gates.stack.stack import reference_stack
from tests.drills.examination import ROOT, examine

OF_ATTEMPTS = (
    "drill/outbox/failed-is-tried-again",
    "drill/outbox/failing-event-holds-its-key",
    "drill/outbox/back-off-grows",
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
