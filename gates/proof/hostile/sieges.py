"""Databases hostile to the whole gate, behind a healthy service: planted code, odd cells, ended sessions, locks."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from gates.deployment.dialect.tokens import literal
from gates.deployment.tenants.leftovers import sweep
from gates.deployment.tenants.loans import give_back_for_the_dead
from gates.proof.hostile.acts import ACTS
from gates.proof.hostile.ailments import holding, killing
from gates.proof.hostile.arena import Arena, HostileRun, live
from gates.proof.hostile.contents import INJECTIONS
from gates.proof.hostile.impostors import ANY, Gate
from gates.proof.trial import NOT_PROMOTED
from gates.proof.workbench import programs
from gates.proof.workbench.bench import ProofBench
from gates.proof.workbench.lanes import in_a_thread
from gates.stack.postgres import Postgres, connect
from gates.verdict import Decision

MARK = "PLANTED"
RESTART_AFTER_S, KILL_EVERY_S = 4.0, 1.0
LIMIT_S = 420.0
SHOW_TIMEOUT_S = 60.0
LOCK = "lock table public.event_outbox, public.replay_runs in access exclusive mode"

SPY = f"""
create function public.spied(what text) returns boolean language plpgsql volatile as $$ begin
 raise log '{MARK} % by % of %', what, current_user, pg_catalog.current_setting('application_name');
 return true; end $$;
create function public.hashtextextended(text, integer) returns bigint language sql as
 $$ select case when public.spied('hashtextextended') then 1::bigint end $$;
create function public.now() returns timestamptz language sql as
 $$ select case when public.spied('now') then pg_catalog.now() end $$;
create function public.lower(text) returns text language sql as
 $$ select case when public.spied('lower') then pg_catalog.lower($1) end $$;
create function public.to_jsonb(text) returns jsonb language sql as
 $$ select case when public.spied('to_jsonb') then pg_catalog.to_jsonb($1) end $$;
create function public.make_interval(secs integer) returns interval language sql as
 $$ select case when public.spied('make_interval') then pg_catalog.make_interval(secs => $1) end $$;
create function public.same(text, text) returns boolean language sql as
 $$ select public.spied('operator =') and pg_catalog.texteq($1, $2) $$;
create operator public.= (leftarg = text, rightarg = text, function = public.same);
create function public.same(uuid, uuid) returns boolean language sql as
 $$ select public.spied('operator = of uuid') and pg_catalog.uuid_eq($1, $2) $$;
create operator public.= (leftarg = uuid, rightarg = uuid, function = public.same);
create function public.member(jsonb, text) returns text language sql as
 $$ select case when public.spied('operator ->>') then pg_catalog.jsonb_object_field_text($1, $2) end $$;
create operator public.->> (leftarg = jsonb, rightarg = text, function = public.member);
create view public.pg_stat_activity as
 select a.* from pg_catalog.pg_stat_activity a where public.spied('pg_stat_activity');
create view public.pg_locks as select l.* from pg_catalog.pg_locks l where public.spied('pg_locks');
create view public.pg_class as select c.* from pg_catalog.pg_class c where public.spied('pg_class');
create view public.pg_roles as select r.* from pg_catalog.pg_roles r where public.spied('pg_roles');
create domain public.timestamptz as pg_catalog.timestamptz check (public.spied('type timestamptz'));
grant all on all tables in schema public to replay_gate;
alter database replaygate set search_path = public, pg_catalog;
alter role replay_gate set search_path = public, pg_catalog;
"""
"""Objects of the tables' owner that hide those of the catalogue where a name has no schema."""

TEXTS = [text.replace("\0", "") for _, text in INJECTIONS.values()]
ROWS = """insert into public.dead_letter_queue (company_id, event_type, error_type, error_message, payload, retry_count)
 select c.id, {text}, {text}, {text}, '{{}}', 5 from public.companies c limit 3"""
Around = Callable[[ProofBench], AbstractContextManager[None]]


@contextmanager
def _alone(_bench: ProofBench) -> Iterator[None]:
    yield


@dataclass(frozen=True, slots=True)
class Siege:
    """One hostile database. sql: run by a superuser before. around: what goes on during the run. blocks: the gate
    cannot remove its tenants, so the next gate must.
    """

    name: str
    said: str
    sql: tuple[str, ...] = ()
    allowed: tuple[Decision, ...] = ANY
    around: Around = _alone
    acts: bool = False
    blocks: bool = False


def _restarts(bench: ProofBench) -> AbstractContextManager[None]:
    """PostgreSQL is killed and restarted in the middle of the run."""

    def work(over: threading.Event) -> None:
        if not over.wait(RESTART_AFTER_S):
            next(p for p in bench.stack.processes if isinstance(p, Postgres)).restart()

    return in_a_thread(work)


SIEGES: tuple[Siege, ...] = (
    Siege("shadows", "objects that hide the catalogue's, and a login that is superuser", (SPY,), acts=True),
    Siege(
        "hostile-texts",
        "names and errors with escapes, commands, markup",
        tuple(ROWS.format(text=literal(text)) for text in TEXTS)
        + tuple(f"insert into public.companies (name) values ({literal(text)})" for text in TEXTS)
        + tuple(f"insert into public.feature_flags (key) values ({literal(text)})" for text in TEXTS)
        + (f"update public.agent_controls set pause_reason = {literal(' '.join(TEXTS))}",),
    ),
    Siege(
        "huge-cells",
        "cells of a hundred megabytes",
        (
            ROWS.format(text="pg_catalog.repeat('r', 100 << 20)"),
            "update public.agent_controls set pause_reason = pg_catalog.repeat('p', 100 << 20)",
        ),
    ),
    Siege(
        "odd-times",
        "times before Christ and without end",
        (
            "update public.dead_letter_queue set created_at = '-infinity', retry_after = 'infinity'",
            """insert into public.event_outbox (company_id, event_type, inserted_at, next_attempt_at)
            select id, 'x', t, 'infinity' from (select id from public.companies limit 1) c,
            pg_catalog.unnest(array['-infinity', '0044-03-15 BC', 'infinity']::timestamptz[]) t""",
        ),
        NOT_PROMOTED,
    ),
    Siege(
        "no-encoding",
        "SQL_ASCII, and bytes that are no UTF-8",
        (
            "update pg_catalog.pg_database set encoding = 0 where datname = 'replaygate'",
            ROWS.format(text="pg_catalog.convert_from('\\xe9ff80'::bytea, 'latin1')"),
        ),
    ),
    Siege("server-restarts", "PostgreSQL is killed and comes back during the run", around=_restarts),
    Siege(
        "sessions-end",
        "every session of the gate is ended each second",
        around=lambda bench: killing(bench.stack.info.database_url, KILL_EVERY_S),
        allowed=NOT_PROMOTED,
    ),
    Siege(
        "tables-locked",
        "somebody has tables locked for good",
        around=lambda bench: holding(bench.stack.info.database_url, LOCK),
        allowed=NOT_PROMOTED,
        blocks=True,
    ),
)


def besiege(bench: ProofBench, one: Siege, out: Path, policy: Path) -> HostileRun:
    """Run the whole gate, as a superuser, on such a database."""
    with connect(bench.stack.info.database_url) as connection:
        for statement in one.sql:
            connection.execute(statement.encode("utf-8"))
    arena = Arena(bench, out, policy)
    variables = bench.variables()
    with ExitStack() as siege:
        siege.enter_context(one.around(bench))

        def end() -> None:
            siege.close()
            if one.blocks:
                give_back_for_the_dead(bench.stack.info.database_url)
                sweep(bench.stack.info.database_url, bench.stack.info.company_id)

        seen = arena.run(f"siege-{one.name}", variables, Gate.WHOLE, LIMIT_S, end)
    found = list(seen.found)
    for words in (("flags",), ("budget",), ("flags", "--json")):
        done = programs.run(programs.gate(words), variables, SHOW_TIMEOUT_S)
        found += [f"gate {' '.join(words)}: {line}" for line in live(out, (done.out, done.err))]
        found += [f"gate {' '.join(words)}: exit code {done.code}: {done.tail}"] * (done.code not in {0, 4})
    if one.acts:
        for act in ACTS:
            act.run(variables, bench.stack.info.database_url)
    return HostileRun(seen.run, (*found, *planted(bench)))


def planted(bench: ProofBench) -> list[str]:
    """Planted code that ran in a session of a gate, from the server's own log."""
    log = next(p.log for p in bench.stack.processes if isinstance(p, Postgres))
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    ran = {line.partition(MARK)[2].strip() for line in lines if f"LOG:  {MARK}" in line}
    return [f"planted code ran: {json.dumps(what)}" for what in sorted(ran) if what.endswith("of replaygate")]
