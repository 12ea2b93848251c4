"""No spot check rolls back a deployment that keeps the contract in another way than the reference."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from gates.deployment.database import script
from gates.evidence import Severity
from gates.text.own_data import data_of
from sql_checks.spotfile import read_folder
from sql_checks.spotrun import judge_spot
from tests.sql_checks.conftest import COMPANY, PlantedSession, outcome_of

VARIANTS: dict[str, list[str]] = data_of(Path(__file__).with_name("healthy_variants.yaml"))
CASES = [(name, statement) for name, statements in VARIANTS.items() for statement in statements]
SPOTS = read_folder()
PAGES = [spot for spot in SPOTS if spot.spec.severity is Severity.PAGE]
BESIDE = "beside it: "
"""Variants of which no spot check of any severity has a word to say."""


@pytest.mark.parametrize(("name", "statement"), CASES, ids=[name for name, _ in CASES])
def test_nobody_is_paged(name: str, statement: str, planted: PlantedSession) -> None:
    """No spot check rolls a healthy deployment back, and none holds it for what is `beside it`; each saw rows."""
    connection = planted.planted
    assert connection is not None
    connection.execute("set local search_path = public, pg_catalog")
    script(connection, statement.replace("COMPANY", COMPANY))
    if "search_path" not in statement:
        connection.execute("set local search_path = pg_catalog, pg_temp")
    found: dict[str, str] = {}
    for spot in SPOTS if name.startswith(BESIDE) else PAGES:
        outcome, message, _ = outcome_of(partial(judge_spot, spot, planted))
        if outcome != "pass":
            found[spot.spec.id] = f"{outcome}: {message}"
    assert found == {}, name
