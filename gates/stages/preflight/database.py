"""What the gate's login sees of the database: the server, all rows of the contract's tables, the clock."""

import contextlib
import dataclasses
import datetime as dt
import threading
from ipaddress import ip_address
from pathlib import Path

import psycopg

from gates.contract.queues import NEED, queue_of
from gates.contract.scope import WHOLE, Scope
from gates.deployment.capabilities import evidence_id
from gates.deployment.dialect.current import current
from gates.deployment.http.limits import within
from gates.deployment.identity import database_place, server_of
from gates.deployment.queue.schema import look_at
from gates.deployment.sql.connection import Answering
from gates.deployment.sql.database import Connection, connect, execute, lending, session, sql, value
from gates.deployment.sql.failures import in_words
from gates.deployment.sql.locks import naming_holders
from gates.deployment.sql.sight import sights
from gates.deployment.target import Target
from gates.evidence import VARIABLES, Evidence, JsonValue, Outcome, Severity, stamp
from gates.stages.preflight.looks import LOOK_S, TRIP_MS, LookResult, after, spec, timed
from gates.text.foreign import text, whole

QUERIES = Path(__file__).parent.with_name("queries")
MOST_SKEW_S = 2.0
VERIFYING = ("verify-full", "verify-ca")
"""TLS modes in which the client verifies the server."""
SERVER = "server"
"""Detail of the database check: which database of which server was looked at."""
ROOM = "free_connections"
"""Detail of the database check: how many sessions the server has left for us; a pooler manages its own."""
SERVERS = (15, 18)
POOLED = (
    "a pooler lends the gate its sessions: each transaction begins with the gate's settings, and no lock shows that a"
    " run lives, so what a killed run leaves is removed after half an hour"
)

DATABASE = spec(
    "database",
    "The database answers, and is a PostgreSQL that the contract allows.",
    "Without SQL most promises cannot be seen, and the flag cannot be stepped.",
    Severity.WARN,
)
SIGHT = spec(
    "database-role-sees-rows",
    "The gate's login sees all rows of every table of the contract.",
    "A login that row-level security blinds finds no bad row anywhere, and everything looks fine.",
    Severity.WARN,
    "M17",
    after=(DATABASE.id,),
)
SKEW = spec(
    "clock-skew",
    "The clocks of the gate and of the database agree to two seconds.",
    "Signatures, windows and lags are measured with both clocks.",
    Severity.WARN,
    "O11",
    after=(DATABASE.id,),
)
NOT_FOUND = "not found; allowed: the contract's tables, or those of names: tables (`gate doctor --write` drafts them)"
ALL_ROWS = "Allowed: a policy that is `true` for it, and none that narrows. Use one that sees all rows (replay_gate)"
LEAST_LENT, ENOUGH_LENT = 7, 12
"""Sessions beside the one that the gate keeps: with fewer not even one drill at a time can run. And those of a whole
run, with that one.
"""
SOON_S, LOOKS = 1.0, 3
"""A pool that others used for a moment is looked at again."""
FEW = (
    "the pooler at DATABASE_URL lends this login {} sessions at once beside the gate's own; a run needs {} in all."
    " Raise its pool (pgbouncer: default_pool_size) to that. Where it has fewer, but at least {}, set"
    " stages: {{drill: {{sessions: N}}}} in gate.yaml"
)


def database_lines(target: Target, scope: Scope = WHOLE) -> list[Evidence]:
    """The three checks over one connection, and what the deployment's queue lacks."""
    if not target.database_url:
        missing = "DATABASE_URL is not set. Set it to a login that sees all rows (replay_gate)"
        first, *others = _shut(target, LookResult(Outcome.UNKNOWN, missing))
        return [dataclasses.replace(first, blocked_by=VARIABLES), *others]
    try:
        connection = within(lambda: connected(target.database_url), LOOK_S)
    except (psycopg.Error, OSError) as error:
        place = database_place(target) or "DATABASE_URL"
        message = f"no connection to {place}: {in_words(error)}. Check that it runs and DATABASE_URL is right"
        return _shut(target, LookResult(Outcome.UNKNOWN, message, unreachable=True))
    with contextlib.closing(connection):
        first = timed(DATABASE, target, lambda: database(connection))
        sight = after([first], SIGHT, target, lambda: sees_all(connection, scope))
        skew = after([first], SKEW, target, lambda: clock_skew(connection))
        if sight.outcome is not Outcome.PASS:
            return [first, sight, skew]
        first = dataclasses.replace(first, details={**first.details, "nobody": nobody(connection, target)})
        return [first, sight, skew, *lacks(connection, scope)]


def connected(url: str) -> Answering:
    """A connection that has answered. Raise psycopg.Error if there is none."""
    connection = connect(url, read_only=True)
    execute(connection, "select 1")
    return connection


def _shut(target: Target, seen: LookResult) -> list[Evidence]:
    first = timed(DATABASE, target, lambda: seen)
    return [first, *(after([first], s, target, lambda: seen) for s in (SIGHT, SKEW))]


def database(connection: Answering) -> LookResult:
    """The server's major version."""
    major = connection.info.server_version // 10_000
    least, most = SERVERS
    if not least <= major <= most:
        message = f"PostgreSQL {major}; allowed: {least} to {most}. The checks are not known to hold there"
        return LookResult(Outcome.UNKNOWN, message, major, f"{least}..{most}")
    login, room = _login(connection)
    # not info.get_parameters(): it looks for a home directory, which a container's user may not have
    mode = next((o.val for o in connection.pgconn.info if o.keyword == b"sslmode"), None) or b"prefer"
    way = unverified(connection.info.hostaddr, mode.decode())
    pooler: dict[str, JsonValue] = {"pooler": POOLED} if connection.is_pooled else {ROOM: room}
    details: dict[str, JsonValue] = {"login": login, "unverified": way, SERVER: server_of(connection), **pooler}
    return LookResult(Outcome.PASS, "", major, f"{least}..{most}", samples=1, details=details)


def unverified(address: str, mode: str) -> str:
    """That the server at an address is not verified but gets the password; empty if nobody else can answer there."""
    try:
        here = not address or ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        here = False
    if here or mode in VERIFYING:
        return ""
    said = f"the database at {address} is not verified (sslmode {mode}): whoever answers there is sent the password"
    return f"{said}; allowed: {' or '.join(VERIFYING)}, with sslrootcert, from afar. Add it to DATABASE_URL"


def _login(connection: Connection) -> tuple[JsonValue, int | None]:
    """The login's excess rights (empty: none), and how many more sessions we may have."""
    row = execute(connection, sql(QUERIES / "login.sql"))[0]
    roles = text(row["may_become"] or "")
    excess = "is a superuser" if row["superuser"] else f"may become a superuser through {roles}" if roles else ""
    return {"name": text(row["login"]), "excess": excess}, whole(row["room"])


def sees_all(connection: Connection, scope: Scope) -> LookResult:
    """Whether all rows of what the policy claims are visible: the contract's tables, a queue's, or both."""
    with naming_holders(connection):
        return _sees_all(connection, scope)


def _sees_all(connection: Connection, scope: Scope) -> LookResult:
    if not scope.queue:
        return sees_rows(connection)
    queue = queue_of(scope.queue)
    look = look_at(queue, connection)
    tables = len(queue.tables())
    if look.trouble:
        return LookResult(Outcome.UNKNOWN, look.trouble, limit=tables, unit="tables")
    if not scope.is_queue:
        return sees_rows(connection)
    facts: dict[str, JsonValue] = {"version": look.schema.version, "note": look.odd}
    return LookResult(Outcome.PASS, "", tables, tables, "tables", tables, details=facts)


def nobody(connection: Connection, target: Target) -> str:
    """That TEST_COMPANY_ID names no tenant; empty if it names one, or if that cannot be asked."""
    company, there = target.test_company_id, "select exists (select from public.companies where id = %s)"
    with contextlib.suppress(psycopg.Error):
        if company and current().real("companies") and value(connection, there, company) is False:
            said = f"TEST_COMPANY_ID is {company}, and the table companies has no such row"
            return f"{said}: a gate without DATABASE_URL would see each replay refused. Set it to the id of a tenant"
    return ""


def lacks(connection: Connection, scope: Scope) -> list[Evidence]:
    """Evidence of what this version of the queue lacks, if older versions are known to lack it."""
    if not scope.may_lack:
        return []
    queue = queue_of(scope.queue)
    absent = queue.absent(look_at(queue, connection).schema)
    at = stamp(dt.datetime.now(dt.UTC))
    return [
        Evidence(evidence_id(need), Outcome.PASS, absent.get(name, ""), name not in absent, samples=1, started_at=at)
        for need in scope.may_lack
        for name in [need.removeprefix(NEED)]
    ]


def sees_rows(connection: Connection) -> LookResult:
    """Whether row-level security does not bind the login, or a policy opens every row, for each table. One hidden row
    may be the one that decides.
    """
    tables = sights(connection)
    absent = [t.name for t in tables if not t.present]
    if absent:
        return LookResult(Outcome.UNKNOWN, f"{', '.join(absent)} {NOT_FOUND}")
    locked = [t.name for t in tables if not t.readable]
    if locked:
        return LookResult(Outcome.UNKNOWN, f"the login may not read {', '.join(locked)}. Grant SELECT to it")
    doubtful = [t.name for t in tables if not t.whole]
    if doubtful:
        message = f"row-level security may hide rows of {', '.join(doubtful)} from this login. {ALL_ROWS}"
        return LookResult(Outcome.UNKNOWN, message, len(tables) - len(doubtful), len(tables), "tables", len(tables))
    return LookResult(Outcome.PASS, "", len(tables), len(tables), "tables", len(tables))


def clock_skew(connection: Connection) -> LookResult:
    """The database's clock against ours, at the midpoint of the fastest of three round trips."""
    best: tuple[float, float] | None = None
    for _ in range(3):
        before = dt.datetime.now(dt.UTC)
        row = connection.execute("select clock_timestamp() as now").fetchone()
        after = dt.datetime.now(dt.UTC)
        now = row["now"] if row else None
        if isinstance(now, dt.datetime):
            trip_s = (after - before).total_seconds()
            skew_s = (now - before).total_seconds() - trip_s / 2
            best = min(best or (trip_s, skew_s), (trip_s, skew_s))
    if best is None:
        return LookResult(Outcome.UNKNOWN, "the database did not say its time")
    skew_s = round(abs(best[1]), 3)
    if skew_s > MOST_SKEW_S:
        way = "ahead of" if best[1] > 0 else "behind"
        message = (
            f"the database's clock is {skew_s:g} s {way} the gate's; allowed: {MOST_SKEW_S:g} s. Which of them is wrong"
            " is not known: see both"
        )
        return LookResult(Outcome.UNKNOWN, message, skew_s, MOST_SKEW_S, "s", 3)
    return LookResult(Outcome.PASS, "", skew_s, MOST_SKEW_S, "s", 3, details={TRIP_MS: round(best[0] * 1000, 1)})


def lent_at_once(url: str) -> int:
    """How many transactions get a session while none of the others ends, up to LEAST_LENT."""
    got: list[object] = []
    over = threading.Event()

    def hold() -> None:
        with contextlib.suppress(psycopg.Error), session(url, read_only=True) as one, one.transaction():
            got.append(execute(one, "select 1"))
            if len(got) >= LEAST_LENT:
                over.set()
            over.wait()

    threads = [threading.Thread(target=hold, daemon=True) for _ in range(LEAST_LENT)]
    for thread in threads:
        thread.start()
    over.wait(SOON_S)
    found = len(got)
    over.set()
    for thread in threads:
        thread.join()
    return found


def with_room(line: Evidence, target: Target) -> Evidence:
    """The line of the database; unknown if the pooler in front of it has no room for a run."""
    if line.outcome is not Outcome.PASS or not lending(target.database_url):
        return line
    found = 0
    for _ in range(LOOKS):
        found = max(found, lent_at_once(target.database_url))
        if found >= LEAST_LENT:
            return line
    details = {**line.details, "unreachable": True}
    return dataclasses.replace(
        line, outcome=Outcome.UNKNOWN, message=FEW.format(found, ENOUGH_LENT, LEAST_LENT + 1), details=details
    )
