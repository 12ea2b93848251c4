"""Options of the state machine: few programs in a gate, as many as asked for by hand."""

from pathlib import Path

import pytest

from drills.statemachine.programs import FIXED_SEED
from drills.statemachine.search import BY_HAND_S_EACH, GATE_S, PROGRAMS, SHRINK_BY_HAND_S, SHRINK_S, Plan


@pytest.fixture
def plan(request: pytest.FixtureRequest) -> Plan:
    """The options of this run."""
    config = request.config
    count, seed = config.getoption("--programs"), config.getoption("--seed")
    evidence, folder = config.getoption("--evidence"), config.getoption("--failed-programs")
    beside = Path(evidence).parent if evidence else Path()
    return Plan(
        count=count or PROGRAMS,
        seed=FIXED_SEED if seed is None else seed,
        limit_s=count * BY_HAND_S_EACH if count else GATE_S,
        shrink_s=SHRINK_BY_HAND_S if count else SHRINK_S,
        folder=Path(folder) if folder else beside / "failed-programs",
    )


@pytest.fixture
def given(request: pytest.FixtureRequest) -> list[Path]:
    """The program files to run instead of the kept ones."""
    return [Path(p) for p in request.config.getoption("--program")]
