"""The reference deployment for the red and green tests of the drills, one a session."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from gates.stack.plan import StackOptions
from gates.stack.stack import Stack, reference_stack


@pytest.fixture(scope="session")
def reference() -> Iterator[Stack]:
    """A running reference without history."""
    with reference_stack(StackOptions(history=False), os.environ) as stack:
        yield stack


@pytest.fixture(scope="session")
def variables(reference: Stack) -> dict[str, str]:
    """The variables of the reference, as a gate has them that started it itself."""
    return {**reference.info.variables(), "GATE_TARGET": "reference", "GATE_STACK_CONTROL": reference.info.control}
