"""The network fails at each statement of each act: the report is true, and a rollback is done."""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from queue import Queue
from typing import TypeVar

import psycopg
import pytest
from psycopg.rows import dict_row

from gates.act.emergency import emergency, resume
from gates.act.flag import Order, look_at
from gates.act.rollback import roll_back
from gates.act.rollout import promote
from gates.decision.rules import RolloutPlan
from gates.deployment.sql import database as door
from gates.deployment.sql.connection import Answering
from gates.proof.hostile.partitions import through
from gates.proof.hostile.statements import Blow, Strike
from gates.verdict import Action
from tests.gates.act.flagged import FLAG, Database, flag, switch
from tests.postgres_fixture import TEMPLATE, PgServer

PLAN = RolloutPlan(FLAG, bake_minutes=0, settle_s=0, drain_timeout_s=2, rollback_patience_s=30)
HASTY = replace(PLAN, rollback_patience_s=1)
T = TypeVar("T")
AT_ONCE = 12
BLOWS = (Blow.CUT_BEFORE, Blow.CUT_AFTER, Blow.SILENCE, Blow.ANSWER_LOST)
AFTER = {Blow.CUT_AFTER, Blow.ANSWER_LOST}


@dataclass(frozen=True)
class Ground:
    """A database of its own, with a connection that no fault touches."""

    url: str
    database: Database


@pytest.fixture(scope="module")
def grounds(pg_server: PgServer) -> Iterator[Queue[Ground]]:
    """Databases for use in parallel; the gate's sessions wait one second for an answer."""
    free = Queue[Ground]()
    with pytest.MonkeyPatch.context() as patch, ExitStack() as opened:
        patch.setattr(door, "ANSWER_GRACE_S", -9.0)
        patch.setattr(Answering, "answer_limit_s", 1.0)  # while it connects
        for _ in range(AT_ONCE):
            url = pg_server.url(opened.enter_context(pg_server.database(TEMPLATE)))
            connection = psycopg.connect(url, autocommit=True, row_factory=dict_row)
            free.put(Ground(url, opened.enter_context(connection)))
        yield free


@pytest.fixture
def ground(grounds: Queue[Ground]) -> Ground:
    first: Ground = grounds.queue[0]
    return first


def everywhere(grounds: Queue[Ground], places: Iterable[int], show: Callable[[Ground, int], T]) -> list[T]:
    """Runs the case at each place in parallel: most of the time is waiting."""

    def at(place: int) -> T:
        ground = grounds.get()
        try:
            return show(ground, place)
        finally:
            grounds.put(ground)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(at, places))


def reset(database: Database) -> int:
    """The flag on at 10 %, nobody paused, one limit; returns the last audit row's id."""
    switch(database, on=True)
    database.execute("update public.agent_controls set agents_paused = false")
    database.execute(
        "insert into public.edge_rate_limits (key, hits) values ('replay:x:1', array[now()]) on conflict do nothing"
    )
    row = database.execute("select coalesce(max(id), 0) as id from public.audit_logs").fetchone()
    assert row
    return int(row["id"])


def audited(database: Database, action: str, since: int) -> int:
    query = "select from public.audit_logs where action = %s and id > %s"
    return len(database.execute(query, (action, since)).fetchall())


def order(url: str, plan: RolloutPlan = PLAN) -> Order:
    return Order(plan, "r1", "test", "why", look_at(url, FLAG), same_version=False)


def places(ground: Ground, act: Callable[[str], Action], blow: Blow = Blow.NONE) -> list[int]:
    """The numbers of the act's statements at which the blow tells something, counted on an intact network.

    Within a transaction, a blow after a statement leaves what one before the next leaves: it strikes at the end.
    """
    unharmed = Strike()
    with through(ground.url, unharmed) as url:
        assert act(url).result == "done"
    found = [n for n, said in enumerate(unharmed.seen) if blow not in AFTER or said.startswith("COMMIT")]
    assert len(found) > (0 if blow in AFTER else 4), f"{blow} strikes at {found} of {unharmed.seen}"
    return found


@pytest.mark.parametrize("blow", BLOWS)
def test_a_rollback_gets_through_whatever_statement_the_network_fails_at(
    blow: Blow, grounds: Queue[Ground], ground: Ground
) -> None:
    """The flag reads back as off, with exactly one audit row. Where one silent statement uses up the time of all, one
    more try on a new connection follows.
    """
    plan = HASTY if blow is Blow.SILENCE else PLAN
    reset(ground.database)
    all_places = places(ground, lambda url: roll_back(url, order(ground.url, plan), time.monotonic, print), blow)

    def show(ground: Ground, at: int) -> None:
        last = reset(ground.database)
        with through(ground.url, Strike(blow, at)) as url:
            action = roll_back(url, order(ground.url, plan), time.monotonic, print)
        assert (action.flag, flag(ground.database)[0]) == ("off", False), (at, action)
        assert action.kind == "rollback", (at, action)
        assert audited(ground.database, "flag_rolled_back", last) == 1, (at, action)

    everywhere(grounds, all_places, show)


@pytest.mark.parametrize("blow", BLOWS)
def test_a_promotion_says_what_is_so_whatever_statement_the_network_fails_at(
    blow: Blow, grounds: Queue[Ground], ground: Ground
) -> None:
    """Step and audit row are both there or both absent, and the action says which. What was committed stays."""
    reset(ground.database)
    all_places = places(ground, lambda url: promote(url, order(ground.url)), blow)

    def show(ground: Ground, at: int) -> int:
        last = reset(ground.database)
        with through(ground.url, Strike(blow, at)) as url:
            action = promote(url, order(ground.url))
        stands = flag(ground.database)
        step = (audited(ground.database, "flag_promoted", last), stands)
        assert step in {(0, (True, 10)), (1, (True, 50))}, (at, action)
        said = {"done": {50}, "failed": {10}, "unknown": {10, 50}}[action.result]
        assert stands[1] in said, (at, action)
        assert action.holds is (action.result != "done")
        assert action.result != "unknown" or "read back" in action.message, (at, action)
        return stands[1]

    assert set(everywhere(grounds, all_places, show)) == ({50} if blow in AFTER else {10, 50})


@pytest.mark.parametrize("blow", BLOWS[:2])
def test_an_emergency_gets_through_whatever_statement_the_network_fails_at(
    blow: Blow, grounds: Queue[Ground], ground: Ground
) -> None:
    """All three parts are done and read back."""
    reset(ground.database)
    all_places = places(ground, lambda url: emergency(url, order(ground.url), time.monotonic, print), blow)

    def show(ground: Ground, at: int) -> None:
        database, last = ground.database, reset(ground.database)
        with through(ground.url, Strike(blow, at)) as url:
            action = emergency(url, order(ground.url), time.monotonic, print)
        assert (action.result, action.headline) == ("done", ""), (at, action)
        assert not flag(database)[0]
        assert not database.execute("select from public.agent_controls where not agents_paused").fetchall()
        assert not database.execute("select from public.edge_rate_limits where key like 'replay:%'").fetchall()
        assert audited(database, "flag_rolled_back", last) == 1

    everywhere(grounds, all_places, show)


@pytest.mark.parametrize("blow", BLOWS)
def test_a_way_back_that_the_network_breaks_off_is_gone_again(
    blow: Blow, grounds: Queue[Ground], ground: Ground
) -> None:
    """It says where the flag is, and a second one ends with the flag on and nobody paused."""

    def way_back(ground: Ground, url: str) -> Action:
        return resume(url, order(ground.url), time.monotonic, print)

    def after_an_emergency(ground: Ground) -> int:
        reset(ground.database)
        assert emergency(ground.url, order(ground.url), time.monotonic, print).result == "done"
        (row,) = ground.database.execute("select max(id) as id from public.audit_logs").fetchall()
        return int(row["id"])

    after_an_emergency(ground)
    all_places = places(ground, lambda url: way_back(ground, url), blow)

    def show(ground: Ground, at: int) -> bool:
        last = after_an_emergency(ground)
        with through(ground.url, Strike(blow, at)) as url:
            action = way_back(ground, url)
        stands = flag(ground.database)
        step = (audited(ground.database, "flag_promoted", last), stands)
        assert step in {(0, (False, 10)), (1, (True, 10))}, (at, action)
        assert stands[0] in {"done": {True}, "failed": {False}, "unknown": {True, False}}[action.result], (at, action)
        again = way_back(ground, ground.url)
        assert (again.to_percent, again.holds, flag(ground.database)) == (10, False, (True, 10)), (at, action, again)
        assert audited(ground.database, "flag_promoted", last) == 1
        assert not ground.database.execute("select from public.agent_controls where agents_paused").fetchall()
        return stands[0]

    assert set(everywhere(grounds, all_places, show)) == ({True} if blow in AFTER else {True, False})


def test_a_promoter_that_the_network_cuts_off_keeps_no_rollback_away(grounds: Queue[Ground], ground: Ground) -> None:
    """Its session still holds the row's lock on the server; the rollback ends that session."""
    reset(ground.database)
    all_places = places(ground, lambda url: promote(url, order(ground.url)))

    def show(ground: Ground, at: int) -> bool:
        reset(ground.database)
        strike = Strike(Blow.HOLD, at)
        with through(ground.url, strike) as url:
            promote(url, order(ground.url))
            started = time.monotonic()
            action = roll_back(ground.url, order(ground.url), time.monotonic, print)
            assert time.monotonic() - started < 20
            strike.go_on.set()
        assert (action.flag, flag(ground.database)[0]) == ("off", False), (at, action)
        return "was ended" in action.message

    assert any(everywhere(grounds, all_places[2:], show))


def test_a_server_that_goes_away_for_good_is_not_said_to_have_the_flag_off(ground: Ground) -> None:
    """It read back as off, but its replacement may lack the change."""
    reset(ground.database)
    last = places(ground, lambda url: roll_back(url, order(ground.url, HASTY), time.monotonic, print))[-1]
    reset(ground.database)
    with through(ground.url, Strike(Blow.CUT_BEFORE, last, stays=True)) as url:
        action = roll_back(url, order(ground.url, HASTY), time.monotonic, print)
    assert (action.result, action.flag) == ("failed", "unknown")
    assert "the database went away" in action.message
