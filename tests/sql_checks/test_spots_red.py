"""Every spot check fails on a planted violation and passes on the reference's history."""

from functools import partial
from pathlib import Path

import psycopg
import pytest

from gates.deployment.sql.database import script
from gates.text.own_data import data_of
from sql_checks.spotfile import read_folder
from sql_checks.spotrun import judge_spot
from tests.sql_checks.conftest import COMPANY, PlantedSession, outcome_of

VIOLATIONS: dict[str, list[str]] = data_of(Path(__file__).with_name("spot_violations.yaml"))
SPOTS = {spot.spec.id.removeprefix("sql/spot/"): spot for spot in read_folder()}
CASES = [(name, index) for name in sorted(VIOLATIONS) for index in range(len(VIOLATIONS[name]))]


def test_every_spot_check_has_a_violation() -> None:
    """Each spot check has a violation that it is seen to find."""
    assert {name for name, planted in VIOLATIONS.items() if planted} == set(SPOTS)


def test_green_on_the_reference(planted: PlantedSession) -> None:
    """Every spot check passes on the reference's schema and history."""
    found = {name: outcome_of(partial(judge_spot, spot, planted))[:2] for name, spot in SPOTS.items()}
    assert {name: told for name, told in found.items() if told != ("pass", "")} == {}


@pytest.mark.parametrize(("name", "index"), CASES, ids=[f"{n}-{i}" for n, i in CASES])
def test_red_on_a_violation(name: str, index: int, planted: PlantedSession) -> None:
    """A spot check fails on a planted violation, and says where it is; reports say what it costs."""
    statement = VIOLATIONS[name][index]
    try:
        planted.planted.execute("set local search_path = public, pg_catalog")
        script(planted.planted, statement.replace("COMPANY", COMPANY))
        if "search_path" not in statement:
            planted.planted.execute("set local search_path = pg_catalog, pg_temp")
    except psycopg.errors.CheckViolation as error:
        pytest.fail(f"the violation could not be planted: {error}")
    outcome, message, seen = outcome_of(lambda seen: judge_spot(SPOTS[name], planted, seen))
    assert outcome == "fail", message or outcome
    assert seen.witness
    assert "0 allowed; first: " in message
    assert SPOTS[name].spec.cost not in message


MUST_BE_THERE = {"feature-flags-status", "flags-as-planned"}
"""Spot checks of rows whose lack is a failure."""


def test_unknown_on_nothing(migrated_url: str) -> None:
    """On an empty database no check of rows passes; where rows must exist, their absence fails."""
    found = {}
    with psycopg.connect(migrated_url, row_factory=psycopg.rows.dict_row) as connection:
        session = PlantedSession(migrated_url, planted=connection)
        for name, spot in SPOTS.items():
            if spot.reads == "rows" and name not in {"pause-row-exists", "unique-rows"}:
                connection.execute("set search_path = pg_catalog, pg_temp")
                connection.execute("delete from public.feature_flags; delete from public.agent_controls")
                found[name] = outcome_of(partial(judge_spot, spot, session))[0]
                connection.rollback()
    assert len(found) > 20
    wrong = {n: said for n, said in found.items() if said != "unknown" and (said, n in MUST_BE_THERE) != ("fail", True)}
    assert wrong == {}
