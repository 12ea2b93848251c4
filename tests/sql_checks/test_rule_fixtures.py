"""Every alert rule meets its fixtures, and they notice every mutant of it."""

from collections.abc import Iterator

import pytest

from gates.deployment.sql.database import Connection, connect
from sql_checks.rules.cases import observe, outcome, prepare, read_test
from tests.postgres_fixture import PgServer
from tests.sql_checks.conftest import RULES
from tests.sql_checks.rule_mutants import mutants

TESTS = {name: test for name in RULES if (test := read_test(name))}


@pytest.fixture(scope="module")
def bare(pg_server: PgServer) -> Iterator[Connection]:
    """A database with the empty tables that fixtures use."""
    with pg_server.database() as name:
        connection = connect(pg_server.url(name))
        prepare(connection)
        yield connection
        connection.close()


def test_every_rule_has_fixtures() -> None:
    """No rule is without fixtures."""
    assert set(TESTS) == set(RULES)


@pytest.mark.parametrize("name", list(RULES))
def test_every_fixture_is_met_and_every_mutant_is_killed(name: str, bare: Connection) -> None:
    """Each rule gives its fixtures' results, and each mutant of the rule gives another result on some fixture."""
    rule, test = RULES[name], TESTS[name]
    said, survivors = [], list(mutants(rule))
    for case in test.cases:
        queries = {each.query: each for each in (rule, *(m.rule for m in survivors))}
        seen = dict(zip(queries, observe(bare, queries.values(), case), strict=True))
        said.append(outcome(rule, seen[rule.query]))
        survivors = [m for m in survivors if outcome(m.rule, m.change(seen[m.rule.query])) == case.expect]
    assert said == [case.expect for case in test.cases], [case.kind for case in test.cases]
    assert {m.name for m in survivors} == set(test.equivalent)
