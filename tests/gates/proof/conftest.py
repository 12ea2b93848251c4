"""The catalogue of faults, and a deployment into which they are put."""

import os
from collections.abc import Iterator

import pytest

from gates import catalogue
from gates.evidence import TargetKind
from gates.proof.fault import ListedFault, decided
from gates.proof.workbench.bench import ProofBench, bench
from gates.proof.workbench.programs import list_faults
from gates.stack.plan import StackOptions


@pytest.fixture(scope="session")
def faults() -> dict[str, ListedFault]:
    """Every fault by its id, with the decision that is due."""
    return {f.id: decided(f, catalogue.load()) for f in list_faults(os.environ)}


@pytest.fixture(scope="module")
def deployment() -> Iterator[ProofBench]:
    """A healthy deployment for one module; other modules end all programs of the proof, so it is not the session's."""
    with bench(StackOptions(history=False), os.environ, TargetKind.STAGING) as made:
        yield made
