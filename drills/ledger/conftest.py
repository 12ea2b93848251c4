"""The round of replays that some checks of the ledger share, and all find in the journal."""

import pytest

from drills.ledger.sweep import Swept, replays
from drills.workbench.credentials import REPLAY
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


@pytest.fixture
def round_on_record(request: pytest.FixtureRequest, journal: Journal) -> None:
    """The journal has a round of replays: that of the checks that judge it, whichever process ran them, or one now."""
    if not any(e.check.endswith("-however-asked") for e in journal.entries(REPLAY)):
        request.getfixturevalue("swept")
