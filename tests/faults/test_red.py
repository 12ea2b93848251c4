"""Every drill check is seen red: each fault is put in alone, and turns what it declares to fail."""

from pathlib import Path

import pytest

from faults.catalogue import Fault, catalogue
from gates.evidence import Outcome
from gates.stack.stack import Stack
from tests.drills.examination import brief_waits, examine, matching
from tests.faults.cover import declared, fewest
from tests.faults.installing import DRILLS, installed

FAULTS = [fault for fault in catalogue().values() if declared(fault, DRILLS)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "fault" in metafunc.fixturenames:
        every = metafunc.config.getoption("--every-fault")
        metafunc.parametrize("fault", FAULTS if every else fewest(FAULTS, DRILLS), ids=lambda f: f.id)


def test_a_fault_turns_its_checks_red(fault: Fault, reference: Stack, tmp_path: Path) -> None:
    """Each drill check that the fault declares fails, by an observation, and those that it leaves alone stay green.

    What brief waits leave unknown is examined once more with the waits of a gate.
    """
    red, green = matching(fault.checks), matching(fault.green)
    with installed(fault, reference) as variables:
        with brief_waits():
            seen = examine(variables, [*red, *green], tmp_path, "--deep")
        if unclear := [i for i, e in seen.items() if e.outcome is Outcome.UNKNOWN]:
            seen |= examine(variables, unclear, tmp_path, "--deep")
    due = dict.fromkeys(red, Outcome.FAIL) | dict.fromkeys(green, Outcome.PASS)
    wrong = {i: f"{e.outcome}: {e.message[:160]}" for i, e in seen.items() if e.outcome is not due[i]}
    wrong |= dict.fromkeys(due.keys() - seen.keys(), "not examined")
    assert not wrong, f"with {fault.id} in, {len(wrong)} of {len(due)} checks are not as due: {wrong}"


def test_every_check_is_turned_red() -> None:
    """No drill check is without a fault that turns it red."""
    assert sorted(set(DRILLS) - set().union(*(declared(fault, DRILLS) for fault in FAULTS))) == []
