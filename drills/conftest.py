"""Fixtures of the drills: one door of each kind for the whole session, fresh tenants for each check, signed requests.

A tenant is removed when its check ends, however it ends; what a late delivery writes afterwards is swept at the end.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from drills.workbench.bench import Bench, Guard, Sources
from drills.workbench.credentials import Minter, Signer
from drills.workbench.database import SqlDoor, query
from drills.workbench.journal import JOURNAL, Journal
from drills.workbench.rate_limit import Limit
from drills.workbench.scene import Scene
from drills.workbench.turns import BESIDE_LOAD, TOGETHER, WAITS, Crew
from gates import disk
from gates.checks.recorder import Observer, Unmet, spec_of
from gates.deployment.dialect.signature import timed_by
from gates.deployment.http.client import HttpDoor
from gates.deployment.http.clock import Clock
from gates.deployment.http.wire import WireDoor
from gates.deployment.sql.connection import Answering
from gates.deployment.sql.kept import keeping
from gates.deployment.target import Target
from gates.deployment.tenants.leftovers import take_lease, term_of
from gates.deployment.tenants.tenants import OUTBOX_FLAG, REPLAY_FLAG, Tenants
from gates.evidence import VARIABLES

CANARY_PERCENT = 10
REWRITES = "rewrites"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("drills")
    group.addoption("--companies", metavar="FILE", help="append the id of every company that is created to FILE")
    group.addoption("--at-once", metavar="N", type=int, default=1, help="run so many drills side by side")
    group.addoption("--beside", metavar="N", type=int, default=0, help="and so many that ask the database nothing")
    group.addoption("--beside-load", metavar="N", type=int, default=0, help="ask for the load; run N drills beside it")
    group.addoption("--lease", metavar="TEXT", help="of the run that starts this one: what the names of tenants carry")
    group.addoption("--trip-ms", metavar="MS", type=float, help="a round trip to the target; limits grow with it")
    machine = parser.getgroup("state machine")
    machine.addoption("--programs", type=int, metavar="N", help="run N random programs, however long it takes")
    machine.addoption("--seed", type=int, metavar="S", help="of another seed than the fixed one")
    machine.addoption("--program", action="append", default=[], metavar="FILE", help="replay FILE, not the kept ones")
    machine.addoption("--failed-programs", metavar="DIR", help="write programs that fail there (default: beside FILE)")


def pytest_report_header(config: pytest.Config) -> str | None:
    """Which random programs a run by hand is about to run."""
    count, seed = config.getoption("--programs"), config.getoption("--seed")
    if count is None and seed is None:
        return None
    return f"state machine: {count or 'as many as the time allows'} programs, seed {'fixed' if seed is None else seed}"


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """`-n N` forks N processes here instead of pytest-xdist's, which knows no phases."""
    wanted = getattr(config.option, "numprocesses", None)
    if wanted:
        auto = isinstance(wanted, str)
        config.option.at_once = config.hook.pytest_xdist_auto_num_workers(config=config) if auto else wanted
        config.option.numprocesses, config.option.dist, config.option.tx = None, "no", []


def pytest_configure(config: pytest.Config) -> None:
    """Register the plugin that orders the checks by phase."""
    Scene.trip_s = (config.getoption("--trip-ms") or 0.0) / 1000
    config.addinivalue_line(
        "markers", f"{WAITS}(seconds): the check waits for half a second or longer; it begins early"
    )
    config.addinivalue_line(
        "markers", f"{BESIDE_LOAD}: the checks of this module keep neither the service nor the workers busy"
    )
    config.addinivalue_line("markers", f"{TOGETHER}: the checks of this module are run by one process")
    config.addinivalue_line("markers", f"{REWRITES}: the check changes by SQL what the service wrote: no journal")
    config.stash[JOURNAL] = Journal()
    config.add_cleanup(config.stash[JOURNAL].end)
    sizes = (config.getoption(option) for option in ("--at-once", "--beside", "--beside-load"))
    config.pluginmanager.register(Crew(config, *sizes), "drill-crew")


@pytest.fixture(scope="session")
def whole_journal(request: pytest.FixtureRequest) -> Journal:
    """The journal of all processes of this session."""
    return request.config.stash[JOURNAL]


@pytest.fixture(autouse=True)
def journal(request: pytest.FixtureRequest, whole_journal: Journal) -> Iterator[Journal]:
    """The journal, with what this check sends."""
    spec = spec_of(request.node)
    by_hand = request.node.get_closest_marker(REWRITES)
    whole_journal.check = "" if by_hand or spec is None else spec.id
    yield whole_journal
    whole_journal.close()


@pytest.fixture(scope="session")
def http(target: Target, whole_journal: Journal) -> Iterator[HttpDoor]:
    """The HTTP door, one for the session: connections are kept."""
    if not target.base_url:
        raise Unmet("BASE_URL is not set: nothing can be asked over HTTP. Set it to where the functions live")
    with HttpDoor(target.base_url, heard=whole_journal.note) as door:
        yield door


@pytest.fixture(scope="session")
def wire(target: Target, http: HttpDoor) -> WireDoor:
    """The raw door: sends bytes that no HTTP client sends."""
    return WireDoor(target.base_url)


@pytest.fixture(scope="session")
def sources(target: Target, whole_journal: Journal) -> Iterator[Sources]:
    """HTTP doors that come from other loopback addresses (needs the capability two-sources)."""
    with Sources(target.base_url, whole_journal.note) as doors:
        yield doors


@pytest.fixture(scope="session")
def clock(http: HttpDoor) -> Clock:
    """The target's clock in whole seconds, as its Date header shows it; ours where it shows none. It signs, too."""
    made = Clock(http)
    timed_by(made.now)
    return made


@pytest.fixture(scope="session")
def now(clock: Clock) -> Callable[[], int]:
    """Unix seconds by the target's clock."""
    return clock.now


@pytest.fixture(scope="session")
def token(target: Target, clock: Clock) -> Minter:
    """Builds good and bad tokens; `token()` is a good super_admin (needs `mint`)."""
    return Minter(target, clock.now)


@pytest.fixture(scope="session")
def sql_door(target: Target) -> Iterator[SqlDoor]:
    """Opens the session's SQL connection on demand."""
    doors = SqlDoor(target.database_url)
    with keeping():
        yield doors
    doors.close()


@pytest.fixture
def db(target: Target, sql_door: SqlDoor) -> Answering:
    """The session's SQL connection, in autocommit."""
    if not target.database_url:
        said = "DATABASE_URL is not set: this check needs SQL. Set it to a login that sees all rows (replay_gate)"
        raise Unmet(said, VARIABLES)
    return sql_door.connection()


@pytest.fixture(scope="session")
def rollouts(sql_door: SqlDoor) -> dict[str, int]:
    """Flag -> percentage below which a drill tenant's bucket must lie for the flag to be on.

    Unmet where an operator has paused everybody: the target is right to refuse every replay.
    """
    flags = (
        "select key, case when enabled then rollout_percentage else 0 end as percent from public.feature_flags"
        f" where company_id is null and key in ('{OUTBOX_FLAG}', '{REPLAY_FLAG}')"
    )
    paused, rows = (one.fetchall() for one in sql_door.connection().glance(query("fleet_paused"), flags))
    if paused[0]["paused"]:
        raise Unmet("everybody is paused (agent_controls): replays are rightly refused. Resume the agents, or wait")
    found = {str(r["key"]): int(str(r["percent"])) for r in rows}
    for key in (OUTBOX_FLAG, REPLAY_FLAG):
        if not found.get(key):
            raise Unmet(
                f"the flag {key} is on for nobody: there is no canary to examine. Switch it on for some tenants"
            )
    return {OUTBOX_FLAG: min(CANARY_PERCENT, found[OUTBOX_FLAG]), REPLAY_FLAG: found[REPLAY_FLAG]}


@pytest.fixture(scope="session")
def born(request: pytest.FixtureRequest, run_id: str, sql_door: SqlDoor) -> Iterator[list[str]]:
    """The ids of all companies of this session; swept at its end."""
    created: list[str] = []
    yield created
    if created:
        Tenants(sql_door.connection(), run_id, created).sweep()


@pytest.fixture(scope="session")
def keep(request: pytest.FixtureRequest, born: list[str]) -> Callable[[str], None]:
    """Notes a company that is about to be created, here and in the file of `--companies`."""
    listed = request.config.getoption("--companies")

    def note(company: str) -> None:
        born.append(company)
        if listed:
            with disk.opened(Path(listed), "a") as out:
                out.write(company + "\n")

    return note


@pytest.fixture(scope="session")
def lease(request: pytest.FixtureRequest, target: Target, run_id: str) -> Iterator[str]:
    """What goes into the names of drill tenants: where this run is killed, the next one removes them."""
    given: str | None = request.config.getoption("--lease")
    if given:
        yield given
        return
    held, mark = take_lease(target.database_url, run_id, shared=True)
    yield term_of(mark, target.database_url)
    if held is not None:
        held.release()


@pytest.fixture
def tenants(
    db: Answering, run_id: str, rollouts: dict[str, int], keep: Callable[[str], None], lease: str, journal: Journal
) -> Iterator[Tenants]:
    """Creates drill tenants for this check; they are removed when it ends."""
    made = Tenants(db, run_id, rollouts=rollouts, on_create=keep, lease=lease)
    yield made
    with suppress(psycopg.Error):  # whether a tenant can be removed is seen next
        journal.look(db, made.created)
    made.remove()


@pytest.fixture
def tenant(scene: Scene) -> str:
    """The id of a fresh drill tenant in the canary bucket. `scene.add_items(tenant, n)` gives it dead letters."""
    return scene.company()


@pytest.fixture
def other(scene: Scene) -> str:
    """A second fresh drill tenant."""
    return scene.company("other")


@pytest.fixture(scope="session")
def signer(target: Target, http: HttpDoor, clock: Clock) -> Signer:
    """Signs requests as the target wants them: v1, or v2 where it takes no other."""
    return Signer(target, http, clock)


@pytest.fixture(scope="session")
def guard() -> Guard:
    """Tells whether the target refuses requests without credentials."""
    return Guard()


@pytest.fixture
def bench(http: HttpDoor, target: Target, seen: Observer, clock: Clock, signer: Signer, guard: Guard) -> Bench:
    """What an HTTP check without a tenant works with."""
    return Bench(http, target, seen, clock, signer, guard)


@pytest.fixture
def scene(target: Target, http: HttpDoor, db: Answering, tenants: Tenants, seen: Observer, signer: Signer) -> Scene:
    """What a check with a tenant and both doors works with."""
    return Scene(target, db, http, tenants, seen, signer)


@pytest.fixture
def limit(scene: Scene) -> Limit:
    """What a check of the rate limit works with."""
    return Limit(scene.target, scene.db, scene.http, scene.tenants, scene.seen, scene.signer)
