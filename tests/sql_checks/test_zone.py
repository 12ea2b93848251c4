"""Times without a zone are in the database's zone: a healthy deployment in the west is not hours late."""

from functools import partial

import psycopg
import pytest
from psycopg import sql

from sql_checks.rules.run import judge_rule
from sql_checks.spotrun import judge_spot
from sql_checks.sqlsession import SqlSession
from tests.postgres_fixture import PgServer
from tests.sql_checks.conftest import COMPANY, RULES, outcome_of
from tests.sql_checks.test_spots_red import SPOTS

WITHOUT = """
alter table public.event_outbox alter inserted_at type timestamp, alter processed_at type timestamp,
  alter next_attempt_at type timestamp, alter claimed_until type timestamp;
alter table public.agent_tasks alter created_at type timestamp, alter updated_at type timestamp
"""
WAITS = "insert into public.event_outbox (company_id, event_type) values ('{}', 'x')"


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo", "UTC"])
def test_what_waits_since_a_moment_ago_is_not_late(zone: str, pg_server: PgServer, seeded_db: str) -> None:
    """Leases, heartbeat and newest row are not hours off."""
    with pg_server.database(seeded_db) as name:
        with psycopg.connect(pg_server.url(name), autocommit=True) as owner:
            own = sql.SQL("alter database {} set timezone = {}").format(sql.Identifier(name), sql.Literal(zone))
            owner.execute(own)
        with psycopg.connect(pg_server.url(name), autocommit=True) as user:
            user.execute(WITHOUT.encode())
            user.execute(WAITS.format(COMPANY).encode())
        session = SqlSession(pg_server.url(name))
        spot = SPOTS["claims-within-lease"]
        found = {"lease": outcome_of(partial(judge_spot, spot, session))[:2]}
        for rule in ("relay-heartbeat", "outbox-lag", "agent-success"):
            found[rule] = outcome_of(partial(judge_rule, RULES[rule], session))[:2]
        session.close()
    assert {what: told for what, told in found.items() if told != ("pass", "")} == {}


def test_a_database_whose_times_have_a_zone_is_asked_in_utc(seeded_url: str) -> None:
    """If every time has a zone, the gate's session keeps UTC."""
    session = SqlSession(seeded_url)
    assert session.connection.info.parameter_status("TimeZone") == "UTC"
    session.close()
