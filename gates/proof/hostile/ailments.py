"""Databases that are not what an act expects: each act meets each of them, on a copy of its own."""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from gates.proof.hostile import acts
from gates.proof.hostile.acts import ACTS, EMERGENCY, FLAG, PROMOTE, ROLLBACK, Act, HandState
from gates.proof.hostile.copies import Copy
from gates.proof.hostile.partitions import AT_ONCE, Hand
from gates.proof.lanes import in_a_thread, side_by_side
from gates.stack.postgres import connect

KILL_EVERY_S = 0.3
LET_GO_AFTER_S = 4.0
Meanwhile = Callable[[Copy], AbstractContextManager[None]]


class Due(enum.Enum):
    """What an act has to come to."""

    DONE = "it must be done"
    NOTHING = "it must change nothing, and say so"
    TRUE = "it must be what it says"


@contextmanager
def _nothing(_copy: Copy) -> Iterator[None]:
    yield


@dataclass(frozen=True, slots=True)
class Ailment:
    """One way for a database to be ill. sql: run by a superuser before, with $LOGIN and $DATABASE in it; meanwhile:
    what goes on during the act; login: a role to log in as, empty: the gate's; audits: each change has one audit row.
    """

    name: str
    said: str
    sql: str = ""
    due: Mapping[Act, Due] = field(default_factory=dict)
    meanwhile: Meanwhile = _nothing
    login: str = ""
    audits: bool = True


def _holding(statement: str, seconds: float = 600.0) -> Meanwhile:
    """Somebody else's transaction, which ran this statement and does not end for so long."""

    @contextmanager
    def meanwhile(copy: Copy) -> Iterator[None]:
        with psycopg.connect(copy.superuser_url, application_name="somebody") as connection:
            connection.execute(statement.encode())
            timer = threading.Timer(seconds, connection.rollback)
            timer.start()
            try:
                yield
            finally:
                timer.cancel()

    return meanwhile


def _killing(copy: Copy) -> AbstractContextManager[None]:
    """Every session of a gate is ended after a moment."""

    def kill(over: threading.Event) -> None:
        with connect(copy.superuser_url) as connection:
            while not over.wait(KILL_EVERY_S):
                connection.execute(
                    "select pg_catalog.pg_terminate_backend(pid) from pg_catalog.pg_stat_activity "
                    "where datname = pg_catalog.current_database() and application_name = 'replaygate'"
                )

    return in_a_thread(kill)


def _switching_on(copy: Copy) -> AbstractContextManager[None]:
    """Somebody's program switches the flag on again as soon as it is off."""

    def switch(over: threading.Event) -> None:
        with connect(copy.superuser_url) as connection:
            while not over.wait(0.02):
                connection.execute(f"update public.feature_flags set enabled = true where key = '{FLAG}'".encode())

    return in_a_thread(switch)


def _trigger(table: str, when: str, body: str) -> str:
    return (
        f"create function public.planted() returns trigger language plpgsql as $$ begin {body} end $$; "
        f"create trigger planted {when} on public.{table} for each row execute function public.planted();"
    )


FLAGS = "public.feature_flags"
TOUCH = f"drop trigger feature_flags_touch on {FLAGS};"
"""The contract's own trigger needs the column that is taken away."""
UNCHAINED = (
    "alter table public.audit_logs alter metadata drop not null, alter prev_hash drop not null, "
    "alter hash drop not null, alter created_at drop not null; "
    "alter table public.audit_logs disable trigger all; insert into public.audit_logs"
)
"""Audit rows that no trigger chained, with whatever in them."""
ALL_DONE = {PROMOTE: Due.DONE, ROLLBACK: Due.DONE, EMERGENCY: Due.DONE}
ONLY_DOWN = {PROMOTE: Due.NOTHING, ROLLBACK: Due.DONE, EMERGENCY: Due.DONE}
NEVER = {PROMOTE: Due.NOTHING}
IN_THE_END = {ROLLBACK: Due.DONE, EMERGENCY: Due.DONE}

AILMENTS: tuple[Ailment, ...] = (
    Ailment("sound", "a database in order: the control", due=ALL_DONE),
    Ailment("no-version", "the flags have no version", f"{TOUCH} alter table {FLAGS} drop column version", ONLY_DOWN),
    Ailment(
        "no-percentage",
        "the flags have no percentage",
        f"{TOUCH} alter table {FLAGS} drop column rollout_percentage cascade",
        ONLY_DOWN,
    ),
    Ailment(
        "null-cells",
        "every cell of the flag that may be NULL is",
        f"{TOUCH} alter table {FLAGS} alter enabled drop not null, alter rollout_percentage drop not null, "
        "alter version drop not null; "
        f"update {FLAGS} set rollout_percentage = null, version = null where key = '{FLAG}'",
        ONLY_DOWN,
    ),
    Ailment(
        "percentage-nan",
        "the percentage is NaN",
        f"{TOUCH} alter table {FLAGS} drop constraint feature_flags_rollout_range; "
        "drop view public.feature_flags_status; "
        f"alter table {FLAGS} alter rollout_percentage type float8; "
        f"update {FLAGS} set rollout_percentage = 'NaN' where key = '{FLAG}'",
        ONLY_DOWN,
    ),
    Ailment(
        "enabled-as-text",
        "enabled is a text",
        f"{TOUCH} drop view public.feature_flags_status; drop policy if exists owner_decides_flags on {FLAGS}; "
        f"alter table {FLAGS} alter enabled drop default, alter enabled type text using enabled::text",
        NEVER,
    ),
    Ailment("no-flag", "the flag has no row", f"delete from {FLAGS} where key = '{FLAG}'", NEVER),
    Ailment("no-table", "the flags' table has another name", f"alter table {FLAGS} rename to flags_of_old", NEVER),
    Ailment(
        "view-for-table",
        "the flags are a view of two columns",
        f"alter table {FLAGS} rename to flags_of_old; "
        f"create view {FLAGS} as select key, enabled from public.flags_of_old; "
        f"grant select, update on {FLAGS} to replay_gate; grant select, update on public.flags_of_old to replay_gate",
        NEVER,
    ),
    Ailment("no-pause-row", "nobody has a row of the pause", "delete from public.agent_controls", ALL_DONE),
    Ailment(
        "no-audit-table",
        "the audit trail is not there",
        "alter table public.audit_logs rename to logs_of_old",
        ONLY_DOWN,
        audits=False,
    ),
    Ailment(
        "audit-swallowed",
        "a rule swallows every audit row",
        "create rule planted as on insert to public.audit_logs do instead nothing",
        ONLY_DOWN,
        audits=False,
    ),
    Ailment(
        "change-swallowed",
        "a trigger swallows every change of a flag",
        _trigger("feature_flags", "before update", "return null;"),
        NEVER,
    ),
    Ailment(
        "change-undone",
        "a trigger undoes every change of a flag",
        _trigger("feature_flags", "before update", "return old;"),
        NEVER,
    ),
    Ailment(
        "other-percentage",
        "a trigger sets another percentage than was asked for",
        _trigger("feature_flags", "before update", "new.rollout_percentage := 100; return new;"),
        IN_THE_END,
    ),
    Ailment(
        "switched-on-again",
        "a program switches the flag on again at once",
        meanwhile=_switching_on,
        audits=False,  # each switching off is audited, and undone by the other program
    ),
    Ailment(
        "blind-login",
        "a login that row-level security shows nothing",
        "create role $LOGIN login password '$LOGIN' in role pg_monitor; grant usage on schema public to $LOGIN; "
        "grant select, insert, update, delete on all tables in schema public to $LOGIN; "
        "grant usage on all sequences in schema public to $LOGIN",
        NEVER,
        login="blind",
    ),
    Ailment(
        "reading-login",
        "a login that may read alone",
        "create role $LOGIN login password '$LOGIN' bypassrls; grant usage on schema public to $LOGIN; "
        "grant select on all tables in schema public to $LOGIN",
        NEVER,
        login="reader",
    ),
    Ailment(
        "half-blind-login",
        "a login that sees the tenants' rows and not the global one",
        "create role $LOGIN login password '$LOGIN'; grant usage on schema public to $LOGIN; "
        "grant select, insert, update, delete on all tables in schema public to $LOGIN; "
        f"create policy half on {FLAGS} for all to $LOGIN using (company_id is not null)",
        NEVER,
        login="half",
    ),
    Ailment(
        "no-connection",
        "the login has no connection left",
        "create role $LOGIN login password '$LOGIN' connection limit 0",
        NEVER,
        login="full",
    ),
    Ailment(
        "one-connection",
        "the login has one connection alone",
        "create role $LOGIN login password '$LOGIN' in role replay_gate connection limit 1; "
        "alter role $LOGIN set role to replay_gate",
        {},
        login="single",
    ),
    Ailment(
        "read-only",
        "the database is read-only by its settings",
        "alter database $DATABASE set default_transaction_read_only = on",
        {},
    ),
    Ailment(
        "odd-settings",
        "dates, intervals, bytes, time zone and search path of the database are odd",
        "alter database $DATABASE set datestyle = 'German'; "
        "alter database $DATABASE set intervalstyle = 'sql_standard'; "
        "alter database $DATABASE set timezone = 'Asia/Kathmandu'; "
        "alter database $DATABASE set bytea_output = 'escape'; "
        "alter database $DATABASE set extra_float_digits = -15; alter database $DATABASE set search_path = 'nowhere'; "
        "alter database $DATABASE set statement_timeout = 1; alter database $DATABASE set lock_timeout = 1; "
        "alter database $DATABASE set default_transaction_isolation = 'serializable'; "
        "alter database $DATABASE set standard_conforming_strings = off",
        ALL_DONE,
    ),
    Ailment(
        "row-locked",
        "somebody holds the flag's row, and lets go after four seconds",
        "",
        IN_THE_END,
        _holding(f"select from {FLAGS} where key = '{FLAG}' for update", LET_GO_AFTER_S),
    ),
    Ailment(
        "table-locked",
        "somebody holds the flags' table for good",
        "",
        NEVER,
        _holding(f"lock table {FLAGS} in access exclusive mode"),
    ),
    Ailment(
        "advisory-lock",
        "somebody holds the flag's advisory lock for good",
        "",
        ONLY_DOWN,
        _holding(f"select pg_catalog.pg_advisory_lock(pg_catalog.hashtextextended('replaygate:{FLAG}', 0))"),
    ),
    Ailment("sessions-killed", "every session is ended after a third of a second", "", {}, _killing),
    Ailment(
        "many-overrides",
        "five thousand tenants have a row of their own",
        f"insert into {FLAGS} (key, company_id, enabled, rollout_percentage) "
        f"select '{FLAG}', pg_catalog.gen_random_uuid(), true, 100 from pg_catalog.generate_series(1, 5000)",
        IN_THE_END,
    ),
    Ailment(
        "times-out-of-this-world",
        "audit rows from before Christ and for ever",
        f"{UNCHAINED} (action, actor, scope, target_count, success_count, failure_count, metadata, created_at, id) "
        f"select 'flag_promoted', 'x', 'all', 1, 1, 0, '{{\"key\": \"{FLAG}\"}}', "
        "t::timestamptz, 1000000 + row_number() over () "
        "from pg_catalog.unnest(array['infinity', '-infinity', '0044-03-15 BC', '294276-12-31']) t; "
        "alter table public.audit_logs enable trigger all",
        IN_THE_END,
    ),
    Ailment(
        "audit-of-no-object",
        "audit rows whose metadata are a text, a list, NULL and a number",
        f"{UNCHAINED} (action, actor, scope, target_count, success_count, failure_count, metadata, id) "
        "select 'flag_promoted', 'x', 'all', 1, 1, 0, m::jsonb, 1000000 + row_number() over () "
        "from pg_catalog.unnest(array['\"text\"', '[1]', null, '12', 'true', '{\"key\": 1}']) m; "
        "alter table public.audit_logs enable trigger all",
        IN_THE_END,
    ),
)


def suffer(hand: Hand, one: Ailment) -> list[str]:
    """Each act on a database that has the ailment. What was wrong, a line each."""
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
    """The state now, or None where somebody's lock hides it."""
    try:
        return acts.look(copy)
    except psycopg.errors.LockNotAvailable:
        return None


def _as(url: str, login: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=f"{login}:{login}@{parts.netloc.rpartition('@')[2]}").geturl()


def _forget(copy: Copy, login: str) -> None:
    """Roles belong to the server, so they outlive the copy."""
    if login:
        with connect(copy.superuser_url) as connection:
            for statement in ("drop owned by {}", "drop role {}"):
                connection.execute(sql.SQL(statement).format(sql.Identifier(login)))
