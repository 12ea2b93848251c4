"""No spot check rolls back a deployment that keeps the contract in another way."""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from gates.deployment.sql.database import Connection, script
from gates.evidence import Severity
from gates.text.own_data import data_of
from sql_checks.spotfile import read_folder
from sql_checks.spotrun import judge_spot
from tests.sql_checks.conftest import COMPANY, PlantedSession, outcome_of, wrong_together

VARIANTS: dict[str, list[str]] = data_of(Path(__file__).with_name("healthy_variants.yaml"))
SPOTS = read_folder()
PAGES = [spot for spot in SPOTS if spot.spec.severity is Severity.PAGE]
BESIDE = "beside it: "
"""Variants of which no spot check of any severity has a word to say."""
ROWS = re.compile(r"\b(insert into|update \S+ set|delete from)\b")
"""Variants of rows are seen alone, as one may undo another; those of the schema at once, as far as they go together."""
CASES = [(name, statement) for name, statements in VARIANTS.items() for statement in statements]
ALONE = [case for case in CASES if ROWS.search(case[1])]
TOGETHER = {
    "pages": [case for case in CASES if case not in ALONE and not case[0].startswith(BESIDE)],
    "every severity": [case for case in CASES if case not in ALONE and case[0].startswith(BESIDE)],
}


def plant(connection: Connection, statement: str) -> None:
    connection.execute("set local search_path = public, pg_catalog")
    script(connection, statement.replace("COMPANY", COMPANY))
    if "search_path" not in statement:
        connection.execute("set local search_path = pg_catalog, pg_temp")


def said(variants: Sequence[tuple[str, str]], planted: PlantedSession) -> dict[str, str]:
    """What spot checks say that may say nothing, each of which saw rows, too; else nothing."""
    found: dict[str, str] = {}
    for spot in SPOTS if variants[0][0].startswith(BESIDE) else PAGES:
        outcome, message, _ = outcome_of(partial(judge_spot, spot, planted))
        if outcome != "pass":
            found[spot.spec.id] = f"{outcome}: {message}"
    return found and {"variants": ", ".join(name for name, _ in variants), **found}


@pytest.mark.parametrize(("name", "statement"), ALONE, ids=[name for name, _ in ALONE])
def test_nobody_is_paged(name: str, statement: str, planted: PlantedSession) -> None:
    """No spot check rolls a healthy deployment back, and none holds it for what is `beside it`."""
    plant(planted.planted, statement)
    assert said([(name, statement)], planted) == {}


@pytest.mark.parametrize("variants", TOGETHER.values(), ids=list(TOGETHER))
def test_nobody_is_paged_by_a_schema_of_another_make(variants: list[tuple[str, str]], planted: PlantedSession) -> None:
    """So with many variants of the schema at once; those that disturb each other are seen apart."""
    connection = planted.planted
    assert connection is not None
    assert wrong_together(connection, variants, lambda v: plant(connection, v[1]), lambda v: said(v, planted)) == []


BESIDE_IT = (
    "create schema billing",
    "create table billing.bills (id bigint generated always as identity primary key)",
    "create publication all_rows for all tables",
    "set local role replay_gate",
)


def test_nothing_is_asked_of_a_schema_that_the_gate_may_not_use(planted: PlantedSession) -> None:
    """Objects of others in the catalogue cause no permission error for the gate's login."""
    for statement in BESIDE_IT:
        planted.planted.execute(statement.encode())
    said = {spot.spec.id: outcome_of(partial(judge_spot, spot, planted))[1] for spot in SPOTS}
    assert [name for name, message in said.items() if "permission denied" in message] == []
