"""`gate lint --target`: names that the database has not are found, each with its place in gate.yaml."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import yaml
from psycopg.rows import dict_row

from gates.contract.names import Names
from gates.decision.policy_file import PolicyFile, parse
from gates.deployment.dialect.current import current, use
from gates.operator.names_lint import against_target
from tests import renamed

TODAY = dt.date(2026, 1, 1)
GIVEN = {k: v for k, v in renamed.names().items() if k != "roles"}


@pytest.fixture
def renamed_url(migrated_url: str) -> Iterator[str]:
    """A renamed database; the names are put away at the end."""
    with psycopg.connect(migrated_url, row_factory=dict_row) as connection:
        renamed.rename(connection, roles=False)
    yield migrated_url
    use(Names())


def policy(names: object) -> PolicyFile:
    return parse("version: 1\n" + yaml.safe_dump({"names": names}, sort_keys=False), "gate.yaml", Path(), TODAY)


def test_names_that_are_right_and_names_that_are_wrong(renamed_url: str) -> None:
    """Nothing is found of the former; of the latter a table, columns, a type, a function, a role, an expression."""
    assert against_target(policy(GIVEN), renamed_url) == []
    text = """version: 1
names:
  schema: app
  ids: {event_id: bigint}
  tables:
    companies: {is: app.acounts}
    feature_flags: {is: app.switches, columns: {enabled: is_onn, company_id: tenant_id, rollout_percentage: key}}
    edge_rate_limits: {is: app.call_windows, columns: {hits: calls, count: {sql: cardinality(nothing)}}}
    agent_tasks: {is: public.work, columns: {event_id: fact_id}, also: {slug: "''"}}
  functions: {is_feature_enabled: {is: app.flag_on}}
  roles: {anon: nobody_here}
contract: {claims: [replay, tenancy, outbox, safety-rails, authentication, tokens]}
"""
    found = against_target(parse(text, "gate.yaml", Path(), TODAY), renamed_url)
    print("\n".join(found))
    places = {line.split(": ", 1)[0]: line.split(": ", 1)[1] for line in found if not line.startswith("gate.yaml:5:")}
    assert "no table or view app.acounts" in places["gate.yaml:6:21"]
    assert "no column 'is_onn'" in places["gate.yaml:7:58"]
    assert "app.switches.key is text" in places["gate.yaml:7:109"]
    assert '"nothing" does not exist' in places["gate.yaml:8:76"]
    assert "fact_id is uuid" in places["gate.yaml:9:56"]
    assert "no column 'slug'" in places["gate.yaml:9:79"]
    assert "app.flag_on takes (uuid, text)" in places["gate.yaml:10:40"]
    assert "no role 'nobody_here'" in places["gate.yaml:11:17"]


def test_the_names_are_in_use_afterwards(renamed_url: str) -> None:
    """The look at real names leaves the process with the names of the policy."""
    file = policy(GIVEN)
    against_target(file, renamed_url)
    assert current() == file.names
