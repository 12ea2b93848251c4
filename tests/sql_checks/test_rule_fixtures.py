"""Every alert rule says what its fixtures expect, and every mutant of it is noticed by them."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from gates.deployment.database import Connection, connect
from sql_checks.rulefile import AlertRule
from sql_checks.rulerun import Measurement
from sql_checks.ruletest import Case, RuleTest, observe, outcome, prepare, read_test
from tests.postgres_fixture import PgServer
from tests.sql_checks.conftest import RULES
from tests.sql_checks.rule_mutants import Mutant, mutants

TESTS = {name: test for name in RULES if (test := read_test(name))}


@pytest.fixture(scope="module")
def bare(pg_server: PgServer) -> Iterator[Connection]:
    """A database with the fixtures' bare tables."""
    name = pg_server.create_database()
    connection = connect(pg_server.url(name))
    prepare(connection)
    yield connection
    connection.close()
    pg_server.drop_database(name)


def test_every_rule_has_fixtures() -> None:
    """No rule is without fixtures."""
    assert set(TESTS) == set(RULES)


@pytest.mark.parametrize("name", list(RULES))
def test_every_fixture_is_met_and_every_mutant_is_killed(name: str, bare: Connection) -> None:
    """A rule says to a fixture's rows what the fixture expects; operator, limits, predicates, grouping, windows, NULL
    as 0: no such mistake in a rule goes unnoticed.
    """
    rule, test = RULES[name], TESTS[name]
    plain = {case: observe(bare, rule, case) for case in test.cases}
    said = {f"{n} {case.kind}": outcome(rule, plain[case]) for n, case in enumerate(test.cases)}
    assert said == {f"{n} {case.kind}": case.expect for n, case in enumerate(test.cases)}
    survivors = [m.name for m in mutants(rule) if not _killed(bare, rule, m, test, plain)]
    assert set(survivors) == set(test.equivalent)


def _killed(bare: Connection, rule: AlertRule, mutant: Mutant, test: RuleTest, plain: dict[Case, Measurement]) -> bool:
    """Whether a fixture tells the mutant from the rule. A mutant that is no SQL any more is none."""
    for case in test.cases:
        try:
            changed = mutant.rule.query != rule.query
            measured = observe(bare, mutant.rule, case) if changed else plain[case]
            if outcome(mutant.rule, mutant.change(measured)) != case.expect:
                return True
        except psycopg.Error as error:
            pytest.fail(f"the mutant {mutant.name} is no SQL: {error}")
    return False
