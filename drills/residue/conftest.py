"""Notes the flags and pauses of the deployment before the first drill, for the checks at the end."""

import psycopg
import pytest

from drills.residue.state import state_of
from gates.checks.recorder import Unmet, current_target
from gates.deployment.sql.database import session

FOUND = pytest.StashKey[dict[str, list[str]]]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Before the first drill of a run, read the flags and pauses."""
    config = session.config
    if config.option.collectonly or config.getoption("--catalogue") or not session.items:
        return
    found = _state()
    if found is not None:
        config.stash[FOUND] = found


def _state() -> dict[str, list[str]] | None:
    target = current_target()
    if not target.database_url:
        return None
    try:
        with session(target.database_url, read_only=True) as connection:
            return state_of(connection, target.test_company_id)
    except psycopg.Error:
        return None  # the checks at the end are unknown then


@pytest.fixture
def found(request: pytest.FixtureRequest) -> dict[str, list[str]]:
    """The flags and pauses as they were before the first drill."""
    if FOUND not in request.config.stash:
        raise Unmet("the flags and pauses before the drill are not known: the database did not answer then")
    return request.config.stash[FOUND]
