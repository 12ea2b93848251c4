"""The seeded history, on the newest and the oldest server. That it keeps the contract, the checks of SQL show."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from gates.deployment.requests import bucket
from gates.stack import rundir, seed, service
from gates.stack.account import postgres_account
from gates.stack.plan import CANARY_PERCENT, DEFAULT_COMPANY_ID
from gates.stack.postgres import Postgres, connect
from gates.stack.spawner import Spawner

DEBIAN_SERVER = Path("/usr/lib/postgresql/15/bin")
Seeded = psycopg.Connection[tuple[object, ...]]


@pytest.fixture(scope="module", params=["embedded", "debian-15"])
def seeded(request: pytest.FixtureRequest) -> Iterator[Seeded]:
    """A seeded database that the tests of this module only read."""
    if request.param == "debian-15" and not DEBIAN_SERVER.is_dir():
        pytest.skip("no PostgreSQL 15 on this machine")
    account = postgres_account()
    with ExitStack() as stack:
        run = rundir.create(rundir.places(os.environ, account), account)
        stack.callback(run.remove)
        spawner = Spawner()
        stack.callback(spawner.close)
        programs = DEBIAN_SERVER if request.param == "debian-15" else None
        server = Postgres(run, account, spawner, "5e" * 16, programs)
        stack.callback(server.stop)
        server.create()
        url = server.start().url("postgres")
        service.migrate(run, spawner, {}, url)
        seed.write(url, DEFAULT_COMPANY_ID)
        yield stack.enter_context(connect(url))


def test_windows_have_samples_for_minutes_to_come(seeded: Seeded) -> None:
    """A run takes minutes: then, too, deliveries and tasks of the last ten are enough for every alert."""
    row = seeded.execute(
        """
        with late as (select now() + interval '4 minutes' - interval '10 minutes' as since)
        select (select count(*) from public.event_outbox, late where processed_at > since),
               (select count(*) from public.agent_tasks, late where updated_at > since)
        """
    ).fetchone()
    assert row is not None
    assert all(isinstance(count, int) and count >= 300 for count in row), row


def test_the_flags_are_those_of_the_contract(seeded: Seeded) -> None:
    """outbox.enabled at 10 %, replay and budgets at 100 %, v2 not required; our company is in the canary."""
    rows = seeded.execute(
        "select key, enabled, rollout_percentage, public.is_feature_enabled(key, %s::uuid) from public.feature_flags"
        " where company_id is null order by key",
        (DEFAULT_COMPANY_ID,),
    ).fetchall()
    assert rows == [
        ("dlq.replay.budget_control", True, 100, True),
        ("dlq.replay.enabled", True, 100, True),
        ("outbox.enabled", True, 10, True),
        ("security.signing_v2_required", False, 0, False),
    ]
    assert bucket("outbox.enabled", DEFAULT_COMPANY_ID) < CANARY_PERCENT


def test_two_seeds_differ_only_by_their_moment(seeded: Seeded) -> None:
    """Ids are the same in every stack, so their digest is a constant."""
    row = seeded.execute("select string_agg(event_id::text, ',' order by id) from public.event_outbox").fetchone()
    assert row is not None
    assert hashlib.sha256(str(row[0]).encode()).hexdigest()[:16] == "453828057d322956"
