"""Databases that are not what a command expects: each command meets each of them, on a copy of its own."""

import enum
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from gates.proof.hostile import acts
from gates.proof.hostile.acts import ACTS, EMERGENCY, FLAG, PROMOTE, ROLLBACK, Act, HandState
from gates.proof.hostile.copies import Copy
from gates.proof.hostile.partitions import AT_ONCE, Hand
from gates.proof.workbench.lanes import in_a_thread, side_by_side
from gates.stack.postgres import connect

KILL_EVERY_S = 0.3
LET_GO_AFTER_S = 4.0
Meanwhile = Callable[[Copy], AbstractContextManager[None]]


class Due(enum.Enum):
    """The result that a command must have."""

    DONE = "it must be done"
    NOTHING = "it must change nothing, and say so"
    TRUE = "it must be what it says"


@contextmanager
def _nothing(_copy: Copy) -> Iterator[None]:
    yield


@dataclass(frozen=True, slots=True)
class Ailment:
    """One way in which a database can be broken.

    sql: run by a superuser before, with $LOGIN and $DATABASE in it. meanwhile: what goes on during the command. login:
    a role to log in as, empty: the gate's. audits: whether each change has one audit row.
    """

    name: str
    said: str
    sql: str = ""
    due: Mapping[Act, Due] = field(default_factory=dict)
    meanwhile: Meanwhile = _nothing
    login: str = ""
    audits: bool = True


@contextmanager
def holding(url: str, statement: str, seconds: float = 600.0) -> Iterator[None]:
    """A foreign transaction that has run this statement stays open for `seconds`."""
    with psycopg.connect(url, application_name="somebody") as connection:
        connection.execute(statement.encode())
        timer = threading.Timer(seconds, connection.rollback)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def killing(url: str, every_s: float) -> AbstractContextManager[None]:
    """Every session of a gate is ended again and again."""

    def kill(over: threading.Event) -> None:
        with connect(url) as connection:
            while not over.wait(every_s):
                connection.execute(
                    "select pg_catalog.pg_terminate_backend(pid) from pg_catalog.pg_stat_activity "
                    "where datname = pg_catalog.current_database() and application_name = 'replaygate'"
                )

    return in_a_thread(kill)


def _switching_on(copy: Copy) -> AbstractContextManager[None]:
    """A foreign program switches the flag on again as soon as it is off."""

    def switch(over: threading.Event) -> None:
        with connect(copy.superuser_url) as connection:
            while not over.wait(0.02):
                connection.execute(f"update public.feature_flags set enabled = true where key = '{FLAG}'".encode())

    return in_a_thread(switch)


FLAGS = "public.feature_flags"
DUE: Mapping[str, Mapping[Act, Due]] = {
    "all": {PROMOTE: Due.DONE, ROLLBACK: Due.DONE, EMERGENCY: Due.DONE},
    "down": {PROMOTE: Due.NOTHING, ROLLBACK: Due.DONE, EMERGENCY: Due.DONE},
    "no step": {PROMOTE: Due.NOTHING},
    "off": {ROLLBACK: Due.DONE, EMERGENCY: Due.DONE},
    "as it says": {},
}


def _written() -> Iterator[Ailment]:
    """Those of ailments.sql; each follows a line with its name, description, expected result, login and audits."""
    for part in Path(__file__).with_name("ailments.sql").read_text(encoding="utf-8").split("--! ")[1:]:
        head, _, statements = part.partition("\n")
        name, said, due, login, audits, *_ = (*(word.strip() for word in head.split("|")), "", "")
        yield Ailment(name, said, statements, DUE[due], login=login, audits=audits != "unaudited")


AILMENTS: tuple[Ailment, ...] = (
    *_written(),
    Ailment(
        "switched-on-again",
        "a program switches the flag on again at once",
        meanwhile=_switching_on,
        audits=False,  # each switching off is audited, and undone by the other program
    ),
    Ailment(
        "row-locked",
        "somebody holds the flag's row, and lets go after four seconds",
        due=DUE["off"],
        meanwhile=lambda copy: holding(
            copy.superuser_url, f"select from {FLAGS} where key = '{FLAG}' for update", LET_GO_AFTER_S
        ),
    ),
    Ailment(
        "table-locked",
        "somebody holds the flags' table for good",
        due=DUE["no step"],
        meanwhile=lambda copy: holding(copy.superuser_url, f"lock table {FLAGS} in access exclusive mode"),
    ),
    Ailment(
        "advisory-lock",
        "somebody holds the flag's advisory lock for good",
        due=DUE["down"],
        meanwhile=lambda copy: holding(
            copy.superuser_url,
            f"select pg_catalog.pg_advisory_lock(pg_catalog.hashtextextended('replaygate:{FLAG}', 0))",
        ),
    ),
    Ailment(
        "sessions-killed",
        "every session is ended after a third of a second",
        meanwhile=lambda copy: killing(copy.superuser_url, KILL_EVERY_S),
    ),
)


def suffer(hand: Hand, one: Ailment) -> list[str]:
    """Run each command on a database with the ailment. Returns what was wrong, one line each."""
    with side_by_side(min(AT_ONCE, len(ACTS))) as pool:
        found = list(pool.map(lambda act: _act(hand, one, act), ACTS))
    return [f"gate {act.name}: {line}" for act, wrong in zip(ACTS, found, strict=True) for line in wrong]


def _act(hand: Hand, one: Ailment, act: Act) -> list[str]:
    with hand.copies.fresh() as copy:
        database = urlsplit(copy.gate_url).path.lstrip("/")
        login = f"{one.login}_{database}" if one.login else ""
        try:
            with connect(copy.superuser_url) as connection:
                connection.execute(
                    one.sql.replace("$LOGIN", login).replace("$DATABASE", database).encode() or b"select"
                )
            url = _as(copy.gate_url, login) if login else copy.gate_url
            before = acts.look(copy)
            with one.meanwhile(copy):
                done = act.run(hand.environ, url)
                after = _seen(copy)
            after = after or acts.look(copy)
        finally:
            _forget(copy, login)
    found = acts.complaints(act, before, after, done, in_the_dark=True, audited=one.audits)
    due = one.due.get(act, Due.TRUE)
    if due is Due.DONE and done.code != 0:
        found.append(f"{due.value}, and ended with exit code {done.code}: {done.tail[-200:]}")
    if due is Due.NOTHING and (done.code == 0 or after != before):
        found.append(f"{due.value}, and ended with exit code {done.code}; the flag is at {after}")
    return found


def _seen(copy: Copy) -> HandState | None:
    """The state now, or None if a foreign lock hides it."""
    try:
        return acts.look(copy)
    except psycopg.errors.LockNotAvailable:
        return None


def _as(url: str, login: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=f"{login}:{login}@{parts.netloc.rpartition('@')[2]}").geturl()


def _forget(copy: Copy, login: str) -> None:
    """Drop its roles: they belong to the server, so they outlive the copy."""
    if login:
        with connect(copy.superuser_url) as connection:
            for statement in ("drop owned by {}", "drop role {}"):
                connection.execute(sql.SQL(statement).format(sql.Identifier(login)))
