"""The round of replays that the checks of the ledger share."""

import pytest

from drills.ledger.sweep import Swept, replays
from drills.workbench.journal import Journal
from drills.workbench.rate_limit import Limit


@pytest.fixture(scope="session")
def rounds() -> list[Swept]:
    """The round of this process, once there was one."""
    return []


@pytest.fixture
def swept(limit: Limit, journal: Journal, rounds: list[Swept]) -> Swept:
    """What a round of replays showed: the first check that asks makes it."""
    if not rounds:
        rounds.append(replays(limit, journal))
    return rounds[0]
