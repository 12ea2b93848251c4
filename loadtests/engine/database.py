"""The SQL side of a run: its companies, their dead letters, and the poller of the backlog.

Locust must be imported before this module: psycopg picks its waiting function when it is imported.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import gevent
import psycopg

from gates import disk
from gates.deployment.dialect.current import AbsentColumn, AbsentTable
from gates.deployment.ids import id_of, new_id
from gates.deployment.sql.database import Connection, connect, execute, sql
from gates.deployment.sql.failures import in_words
from gates.deployment.tenants.leftovers import name_of
from gates.deployment.tenants.tenants import AT_ONCE, OUTBOX_FLAG, REPLAY_FLAG, Tenants, inside
from loadtests.engine.samples import Samples
from loadtests.engine.sinks import RateSink
from loadtests.engine.written import EVENT, LOST, Acknowledged
from loadtests.judgement.trend import LEAST_VALUES, leak_of
from loadtests.plan import REPLAYS_EACH, LoadPlan, Tenant

FOLDER = Path(__file__).parent / "sql"
ITEMS_EACH = 2
MOST_NONCES = 100_000
LEAST_SHARE = 0.001
"""The least share of ids inside both rollouts; below it, finding ids would take seconds."""
ITEM_TYPE = "load.replayed"
POLL_S = 0.25
END_POLL_S = 0.05
"""The poll interval after the load, when the run only waits."""
MOST_BY_CHANCE = 0.001
"""The most likely chance of so many companies whose replays all fail, at the rate at which those of others do."""
MOST_REFUSED = 3
SETTLE_S = 5.0
DRAIN_S = 5.0
"""The wait for events under way at the end, after the wait for the canaries."""
JOIN_S = 12.0
"""A statement of ours ends after 10 s."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """The companies of a run; `absent` says by metric why it cannot be measured."""

    tenants: tuple[Tenant, ...] = ()
    created: tuple[str, ...] = ()
    absent: dict[str, str] = field(default_factory=dict)


def prepare(url: str, plan: LoadPlan, note: Callable[[str], None] | None = None) -> Prepared:
    """Create the companies of the run, each with dead letters to replay, where the outbox is on for them.

    note: told each company before it exists.
    Raise psycopg.Error where the database refuses.
    """
    connection = connect(url)
    try:
        state = execute(connection, sql(FOLDER / "outbox_paused.sql"))[0]
        if state["paused"]:
            why = "agents are paused for everybody, so nothing is delivered; resume them and run again"
            return Prepared(absent={"outbox_lag_ms": why, "agent_success": why})
        below = _whole(state["percentage"])
        if below <= 0:
            why = "outbox.enabled is on for no new company, so there is no canary; enable it and run again"
            return Prepared(absent={"outbox_lag_ms": why, "agent_success": why})
        made = _companies(connection, plan, below, _whole(state["replay_percentage"]), note or (lambda _: None))
        flags = {str(row["id"]): row for row in execute(connection, sql(FOLDER / "flags_of.sql"), [t.id for t in made])}
        usable = [replace(t, replays=bool(flags[t.id]["replays"])) for t in made if flags[t.id]["outbox"]]
        absent = {} if usable else {"outbox_lag_ms": "outbox.enabled is off for every company of this run"}
        return Prepared(tuple(usable), tuple(t.id for t in made), absent)
    finally:
        connection.close()


def _companies(
    connection: Connection, plan: LoadPlan, below: int, replay_below: int, note: Callable[[str], None]
) -> list[Tenant]:
    """As many companies as wanted, each with its dead letters, in two statements."""
    is_found = below * replay_below / 10_000 >= LEAST_SHARE
    rollouts = {OUTBOX_FLAG: below} | ({REPLAY_FLAG: replay_below} if is_found else {})
    made: list[Tenant] = []
    names: list[str] = []
    for number in range(plan.tenants_wanted):
        name = _name(connection, plan, number, rollouts)
        names.append(name)
        note(id_of(name))
        made.append(Tenant(id_of(name), tuple(new_id("item") for _ in range(ITEMS_EACH))))
    execute(connection, sql(FOLDER / "new_companies.sql"), [t.id for t in made], names)
    items = [(item, tenant.id) for tenant in made for item in tenant.items]
    execute(connection, sql(FOLDER / "new_items.sql"), ITEM_TYPE, [i for i, _ in items], [c for _, c in items])
    return made


def _name(connection: Connection, plan: LoadPlan, number: int, rollouts: Mapping[str, int]) -> str:
    """A name whose company has these flags on: the id follows from the name."""
    names = (name_of(plan.run, plan.lease[0], int(plan.lease[1:]), number, nonce) for nonce in range(MOST_NONCES))
    while some := {id_of(name): name for name in islice(names, AT_ONCE)}:
        for company in inside(connection, [*some], rollouts):
            return some[company]
    raise ValueError(f"no company inside {dict(rollouts)} was found; at least 1 percent each is needed")


def settle(url: str, companies: Sequence[str]) -> None:
    """Wait a little for replays under way, then remove the dead letters that we made and nobody replayed.

    They are no failure of the target; what the target made dead, or gave back after an attempt, stays.
    Raise psycopg.Error where that is refused.
    """
    ids = list(companies)
    connection = connect(url)
    try:
        deadline = time.monotonic() + SETTLE_S
        while execute(connection, sql(FOLDER / "being_replayed.sql"), ids)[0]["items"]:
            if time.monotonic() > deadline:
                break
            gevent.sleep(END_POLL_S)
        connection.execute(sql(FOLDER / "forget_untouched.sql").encode(), (ids, ITEM_TYPE))
    finally:
        connection.close()


def clean_up(url: str, companies: Sequence[str]) -> None:
    """Remove the companies of a run and all they own but audit rows. Raise psycopg.Error where that is refused."""
    connection = connect(url)
    try:
        Tenants(connection, "load").remove(companies)
    finally:
        connection.close()


class BacklogPoller:
    """Polls backlog, age and dead letters while a run lasts; three refusals in a row end it; `error` says why."""

    def __init__(self, url: str, plan: LoadPlan, samples: Samples) -> None:
        self.samples = samples
        self.plan = plan
        self.error = ""
        self._refused = 0
        self._done = self._begun = False
        self.first_items: float | None = None
        """Dead letters before the load, by the first poll; what a later one sees may be the load's."""
        self.backlog: list[tuple[float, float]] = []
        self.sessions: list[float] = []
        self.unused: list[float] = []
        """Connections that were not used from one look to the next: a leaked one is there and never used again, one
        that a pool opens because all others are busy is."""
        self.unread: dict[str, str] = {}
        """Metric of acknowledged writes -> why they could not be looked up."""
        self.notes: list[str] = []
        self.switched = ""
        """What somebody switched off since the first look."""
        self._switches: dict[str, object] = {}
        self._looked_at: object = None
        self._seeded = [item for tenant in plan.tenants for item in tenant.items]
        self._connection: Connection | None = None
        self._url = url
        self._greenlet: gevent.Greenlet | None = None

    def start(self) -> None:
        """First poll now, then again and again."""
        self.poll()
        self._greenlet = gevent.spawn(self._poll_forever)

    def _poll_forever(self) -> None:
        while not self.error and not self._done:
            self.poll()
            gevent.sleep(POLL_S)

    def poll(self) -> None:
        """One look at the outbox and the dead letters."""
        if self.error:
            return
        is_first, self._begun = not self._begun, True
        try:
            if self._connection is None or self._connection.closed:
                self._connection = connect(self._url, read_only=True)
            outbox = execute(self._connection, sql(FOLDER / "backlog.sql"))[0]
            sessions = execute(self._connection, sql(FOLDER / "connections.sql"), self._looked_at)[0]
            letters = execute(self._connection, sql(FOLDER / "dead_letters.sql"), self._seeded, self._drilled())[0]
            self._look_at_switches(execute(self._connection, sql(FOLDER / "outbox_paused.sql"))[0])
        except psycopg.Error as error:
            self._refused += 1
            if self._connection is not None:
                self._connection.close()
            if self._refused >= MOST_REFUSED:
                text = in_words(error)[:120]
                self.error = f"the database refused {MOST_REFUSED} polls in a row ({type(error).__name__}: {text})"
            return
        self._refused = 0
        now, backlog = time.time(), _number(outbox["backlog"])
        self.backlog.append((now, backlog))
        self._looked_at = sessions["seen_at"]
        self.sessions.append(_number(sessions["sessions"]))
        self.unused.append(_number(sessions["unused"]))
        self.samples.add("db_connections", _number(sessions["sessions"]), at=now)
        if self.plan.test_outbox:
            self.samples.add("outbox_backlog", backlog, at=now)
            self.samples.add("outbox_oldest_age_ms", _number(outbox["oldest_ms"]))
        if self.plan.test_dlq:
            items = _number(letters["items"])
            self.first_items = items if is_first else self.first_items
            self.samples.add("dlq_items", items, at=now)

    def _drilled(self) -> list[str]:
        """The companies of the drills so far."""
        listing = Path(self.plan.drilled)
        return disk.read_text(listing).split() if listing.is_file() else []

    def _look_at_switches(self, now: dict[str, object]) -> None:
        """Note what is less on than at the first look: an operator may switch anything off at any time."""
        before = self._switches = self._switches or now
        if now["paused"] and not before["paused"]:
            self.switched = "agents were paused for everybody"
        for flag, name in ((OUTBOX_FLAG, "percentage"), (REPLAY_FLAG, "replay_percentage")):
            was, at = _whole(before[name]), _whole(now[name])
            if at < was:
                self.switched = f"{flag} went from {was} % to {at} %"

    def finish(self, acknowledged: Acknowledged, replays: Mapping[str, tuple[int, int]]) -> dict[str, int]:
        """Last poll; the change of dead letters, the fate of events, what was acknowledged and is not there, and
        who got no replay become samples. Returns that fate.
        """
        self._done = True
        if self._greenlet is not None:
            self._greenlet.join(timeout=JOIN_S)  # never killed: a query cut off in the middle spoils the connection
        self.poll()
        last = self.samples.sink("dlq_items")
        if self.plan.test_dlq and self.first_items is not None and not (self._refused or self.error):
            self.samples.add("dlq_items_count", getattr(last, "value", 0.0) - self.first_items)
        if not (self.too_few or self.error):
            self.samples.add("db_connections_growth", leak_of(self.sessions, self.unused))
        fate = self._drained()
        self._look_for(acknowledged)
        self._look_for_failing(replays)
        if self._connection is not None:
            self._connection.close()
        return fate

    def _look_for_failing(self, replays: Mapping[str, tuple[int, int]]) -> None:
        """Companies that alone got no answer as expected, to none of their calls, though they may replay. The others
        are the control: where theirs fail so often that chance makes such a company, it is not known whether there is
        one. replays: by company, answers as expected and others.
        """
        metric = "companies_failing"
        failing = [one for one, (good, bad) in replays.items() if not good and bad >= REPLAYS_EACH]
        if self._connection is None or self.error or sum(good > 0 for good, _ in replays.values()) <= len(failing):
            self.unread[metric] = "replays were answered as expected for few of the companies of this run, or for none"
            return
        good, bad = (sum(fared[i] for fared in replays.values() if fared[0]) for i in (0, 1))
        by_chance = len(replays) * (bad / (good + bad or 1)) ** REPLAYS_EACH
        if failing and by_chance ** len(failing) / math.factorial(len(failing)) > MOST_BY_CHANCE:
            said = f"{bad} of {good + bad} replays of other companies failed, too"
            self.unread[metric] = f"{said}: that {len(failing)} of {len(replays)} got none may be chance"
            return
        try:
            flags = execute(self._connection, sql(FOLDER / "flags_of.sql"), failing)
        except (psycopg.Error, ValueError) as error:
            self.unread[metric] = f"the database refused to say who may replay: {in_words(error)[:120]}"
            return
        named = [str(row["id"]) for row in flags if row["outbox"] and row["replays"]]
        self.samples.add(metric, len(named))
        self.notes += [f"{metric}: every replay of company {one} failed; those of others did not" for one in named]

    @property
    def too_few(self) -> str:
        """Why nothing can be said of growth; empty where it can."""
        polls = len(self.unused)
        return f"the database answered {polls} of {LEAST_VALUES} polls" if polls < LEAST_VALUES else ""

    def _drained(self) -> dict[str, int]:
        """The fate of the events, once all are finished or `DRAIN_S` after the end of the load."""
        deadline = time.monotonic() + DRAIN_S
        fate = self._fate()
        while fate.get("open") and time.monotonic() < deadline:
            gevent.sleep(END_POLL_S)
            fate = self._fate()
        settled = fate.get("succeeded", 0) + fate.get("failed", 0)
        sink = self.samples.sink("outbox_drained")
        if fate and self.plan.test_outbox and isinstance(sink, RateSink):
            sink.merge(RateSink(settled, settled + fate["open"]))
        return fate if self.plan.test_agents else {}

    def _look_for(self, acknowledged: Acknowledged) -> None:
        """What is not there of what the service acknowledged. One that is there is the control: without it, the
        table's rows may be hidden from this login.
        """
        for kind, metric in LOST.items():
            ids = acknowledged.ids[kind]
            if self._connection is None or self.error or not ids:
                self.unread[metric] = f"no {kind} was acknowledged for a company of this run"
                continue
            where = "in the database"
            try:
                row = execute(self._connection, sql(FOLDER / f"{metric}.sql"), ids)[0]
                if kind == EVENT and not row["lost"]:
                    where = "in the outbox, nor has a task or a dead letter"
                    with suppress(AbsentColumn, AbsentTable):  # what this deployment lacks, it loses no event of
                        row = execute(self._connection, sql(FOLDER / "events_unqueued.sql"), ids)[0]
            except (psycopg.Error, ValueError) as error:
                self.unread[metric] = f"the database refused to say what is written: {in_words(error)[:120]}"
                continue
            if row["lost"] == len(ids):
                self.unread[metric] = f"no row of the {len(ids)} {kind}s that were acknowledged is seen by this login"
                continue
            if row["lost"] and row["is_behind"]:
                self.unread[metric] = (
                    f"this is a standby that may be behind: {row['lost']} of {len(ids)} {kind}s are not there yet"
                )
                continue
            self.samples.add(metric, _number(row["lost"]))
            if row["lost"]:
                self.notes.append(f"{metric}: {kind} {row['first']} was acknowledged and is not {where}")

    def _fate(self) -> dict[str, int]:
        companies = [tenant.id for tenant in self.plan.tenants]
        if self._connection is None or self.error or not companies:
            return {}
        try:
            row = execute(self._connection, sql(FOLDER / "agent_success.sql"), companies, companies)[0]
        except psycopg.Error as error:
            self.error = f"the database refused to say what became of the events ({type(error).__name__})"
            return {}
        return {name: int(_number(row[name])) for name in ("succeeded", "failed", "open")}


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
