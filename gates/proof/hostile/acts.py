"""The operator's commands under attack: what they left behind, and whether they did what they said."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import psycopg

from gates.errors import CannotWork
from gates.proof.hostile.copies import Copy
from gates.proof.workbench import programs
from gates.proof.workbench.programs import FinishedProgram
from gates.stack.postgres import connect

FLAG = "outbox.enabled"
REASON = "proof-of-the-hand"
STEP = ("10", "50")
ACT_TIMEOUT_S = 90.0
"""A command ends within this time on any network: a rollback may use its stated patience, and some time to end."""
EXIT_STILL_ON = 21

GLOBAL = (
    "from public.feature_flags f where f.key = %(flag)s and (pg_catalog.to_jsonb(f) ->> 'company_id') is null limit 1"
)
ENABLED = f"select pg_catalog.to_jsonb(f) ->> 'enabled' {GLOBAL}"
PERCENT = f"select pg_catalog.to_jsonb(f) ->> 'rollout_percentage' {GLOBAL}"
ROWS_ON = "select count(*) from public.feature_flags f where f.key = %(flag)s and f.enabled::text::boolean"
PAUSED = "select count(*) from public.agent_controls a where a.agents_paused"
LIMITS = "select count(*) from public.edge_rate_limits l where l.key like 'replay:%%'"
AUDITED = """select action, count(*) filter (where target_count > 0) from public.audit_logs a
 where pg_catalog.to_jsonb(a) -> 'metadata' ->> 'reason' = %(reason)s group by action"""
AUDITS = ("flag_promoted", "flag_rolled_back", "agents_paused", "rate_limits_cleared")
HELD = """select count(*) from pg_stat_activity a where a.datname = current_database() and a.pid <> pg_backend_pid()
 and a.application_name like 'replaygate%'
 and (a.xact_start is not null or exists (select from pg_locks l where l.pid = a.pid and l.locktype = 'advisory'))"""


@dataclass(frozen=True, slots=True)
class HandState:
    """Everything that a command may change, and the number of audit rows of each kind."""

    enabled: bool
    percent: str
    rows_on: int
    paused: int
    limits: int
    promoted: int
    rolled_back: int
    audited_pauses: int
    audited_clears: int


def look(copy: Copy) -> HandState:
    """The state now, seen by a superuser. What does not exist counts as none."""
    values = {"flag": FLAG, "reason": REASON}
    with connect(copy.superuser_url) as connection:
        connection.execute("set lock_timeout = '1s'")

        def asked(statement: str) -> list[tuple[object, ...]]:
            with suppress(psycopg.errors.UndefinedTable):
                return connection.execute(statement.encode(), values).fetchall()
            return []

        enabled, percent, on, paused, limits = (
            next((row[0] for row in asked(one)), None) for one in (ENABLED, PERCENT, ROWS_ON, PAUSED, LIMITS)
        )
        audited = {row[0]: row[1] for row in asked(AUDITED)}
    counts = (on, paused, limits, *(audited.get(action) for action in AUDITS))
    return HandState(enabled == "true", str(percent), *(int(str(n or 0)) for n in counts))


def held_sessions(copy: Copy) -> int:
    """Sessions of a gate that still hold a transaction or an advisory lock."""
    with connect(copy.superuser_url) as connection:
        row = connection.execute(HELD).fetchone()
    return int(str(row[0])) if row else 0


@dataclass(frozen=True, slots=True)
class Act:
    """One operator's command."""

    name: str

    @property
    def words(self) -> tuple[str, ...]:
        return programs.gate((self.name, "--json", "--reason", REASON, "--release", "attacked"))

    def run(self, environ: Mapping[str, str], database_url: str, timeout_s: float = ACT_TIMEOUT_S) -> FinishedProgram:
        """Run it as a user does."""
        return programs.run(self.words, {**environ, "DATABASE_URL": database_url}, timeout_s)


PROMOTE, ROLLBACK, EMERGENCY = Act("promote"), Act("rollback"), Act("emergency")
ACTS = (PROMOTE, ROLLBACK, EMERGENCY)

NO_AUDIT_ROW = "no audit row ("
"""What a command says of a change whose audit row could not be written."""


def result_of(done: FinishedProgram) -> str:
    """The result that a command printed, empty if none."""
    try:
        return str(json.loads(done.out)["result"])
    except (ValueError, KeyError, TypeError):
        return ""


def complaints(
    act: Act,
    before: HandState,
    after: HandState,
    done: FinishedProgram,
    *,
    in_the_dark: bool = False,
    audited: bool = True,
) -> list[str]:
    """What is wrong with a command, judged by the state before and after and by its output. Pure.

    in_the_dark: the network never came back, so it may say that the result, or the audit row, is unknown: one of its
    sessions may still lock the audit trail. audited: whether an audit row can be written at all.
    """
    told = in_the_dark and NO_AUDIT_ROW in done.out
    halves = [line for line in torn(before, after) if not (told and line.endswith("has 0 audit rows"))]
    found = [*crashes(done), *(halves if audited else [])]
    moved = after != before
    said = f"exit code {done.code}, result {result_of(done) or 'none'}"
    if act is PROMOTE:
        claimed = done.code == 0 and result_of(done) == "done"
        dark = in_the_dark and done.code != 0
        if claimed != moved and not dark:
            found.append(f"the flag {'was' if moved else 'was not'} moved, but it says: {said}: {done.tail[-200:]}")
        return found
    # the flag is off and the agents are paused: neither 21 nor 0 (limits cleared, too) would be true
    partly = act is EMERGENCY and in_the_dark and done.code == CannotWork.exit_code
    all_but_limits = partly and not after.rows_on and after.paused and '"failed"' in done.out
    if done.code not in {0, EXIT_STILL_ON, None} and not all_but_limits:
        found.append(f"a {act.name} that is due ended with {said}; allowed: 0, or {EXIT_STILL_ON}: {done.tail[-200:]}")
    if after.rows_on and (done.code == 0 or not in_the_dark):
        found.append(f"rows of the flag that are on: {after.rows_on}; it says: {said}")
    if act is EMERGENCY and (not after.paused or after.limits) and (done.code == 0 or not in_the_dark):
        found.append(f"agents paused: {after.paused}, limits left: {after.limits}; it says: {said}")
    if done.code == EXIT_STILL_ON and not in_the_dark:
        found.append(f"the network was back at once, but it says: {said}: {done.tail[-200:]}")
    return found


def crashes(done: FinishedProgram) -> list[str]:
    if done.code is None:
        return [f"it did not end within {done.seconds:.0f} s"]
    if "Traceback" in done.err or done.code == 1 or done.code < 0:
        return [f"it crashed with exit code {done.code}: {done.tail[-300:]}"]
    return []


def torn(before: HandState, after: HandState) -> list[str]:
    """A change without its audit row, or the reverse."""
    step = (after.enabled, after.percent) == (True, STEP[1]) or after.promoted > before.promoted
    pairs = (
        ("the step", step and after.percent != before.percent, after.promoted - before.promoted),
        ("the switching off", after.rows_on < before.rows_on, after.rolled_back - before.rolled_back),
        ("the pause", after.paused > before.paused, after.audited_pauses - before.audited_pauses),
        ("the clearing of limits", after.limits < before.limits, after.audited_clears - before.audited_clears),
    )
    return [
        f"{name} {'happened' if happened else 'did not happen'}, and has {rows} audit rows"
        for name, happened, rows in pairs
        if rows != int(happened)
    ]
