"""The ground a check stands on: its drill tenants, and what may be done to them and read of them by SQL."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any

import psycopg

from gates.checks.recorder import Observer, Unmet
from gates.deployment.client import HttpDoor
from gates.deployment.database import Connection, connect, execute, session, value
from gates.deployment.loans import Changed, Ending, Loan, Switch, give_back, lend
from gates.deployment.target import Target
from gates.deployment.tenants import Tenants

OUTBOX_FLAG = "outbox.enabled"
REPLAY_FLAG = "dlq.replay.enabled"
BUDGET_FLAG = "dlq.replay.budget_control"

GIVE_BACK_ATTEMPTS = 5
"""Each waits for a lock as long as any statement does."""

PLAIN_TYPE = "drill.plain"
"""An event type of drills whose payload asks the agent for nothing: an ordinary event."""


class Release(Thread):
    """Ends the transaction of a connection after a while; `released` is set just before it does."""

    def __init__(self, connection: Connection, seconds: float) -> None:
        super().__init__(daemon=True)
        self.released = Event()
        self._connection, self._seconds = connection, seconds

    def run(self) -> None:
        time.sleep(self._seconds)
        self.released.set()
        with suppress(psycopg.Error):  # the check ended early and closed the connection: that releases, too
            self._connection.commit()


@dataclass
class Ground:
    """The doors of one check and its tenants."""

    target: Target
    http: HttpDoor
    db: Connection
    tenants: Tenants
    seen: Observer

    # --- SQL -----------------------------------------------------------------------------------------------------

    def rows(self, statement: str, *params: object) -> list[dict[str, Any]]:
        """The rows of one statement."""
        return execute(self.db, statement, *params)

    def one(self, statement: str, *params: object) -> dict[str, Any]:
        """The only row of a statement; an empty mapping where there is none."""
        found = execute(self.db, statement, *params)
        return found[0] if found else {}

    def value(self, statement: str, *params: object) -> Any:
        return value(self.db, statement, *params)

    def number(self, statement: str, *params: object) -> int:
        """A count."""
        return int(str(value(self.db, statement, *params) or 0))

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A second connection with an open transaction; rolled back at the end unless committed before."""
        connection = connect(self.target.database_url, autocommit=False)
        try:
            yield connection
        finally:
            connection.rollback()
            connection.close()

    def refused_by_database(self, statement: str, *params: object) -> bool:
        """Whether the database refuses a statement for its meaning; trouble of another kind is raised."""
        try:
            with self.transaction() as connection:
                execute(connection, statement, *params)
        except (psycopg.OperationalError, psycopg.errors.SyntaxError, psycopg.errors.UndefinedTable):
            raise
        except psycopg.Error:
            return True
        return False

    @contextmanager
    def as_tenant(self, company: str, *, role: str = "authenticated") -> Iterator[Connection]:
        """A transaction as a tenant comes in: role and claims are set locally, all is rolled back. No claims: ''."""
        claims = json.dumps({"sub": str(uuid.uuid4()), "role": role, "company_id": company}) if company else ""
        with self.transaction() as connection:
            execute(connection, "select set_config('request.jwt.claims', %s, true)", claims)
            execute(connection, f"set local role {role}")
            yield connection

    def changed_as_tenant(self, company: str, statement: str, *params: object) -> int:
        """How many rows a statement changes for a tenant; a refusal is none."""
        try:
            with self.as_tenant(company) as connection:
                return connection.execute(statement.encode(), params or None).rowcount
        except (psycopg.errors.InsufficientPrivilege, psycopg.errors.RaiseException):
            return 0

    def released_after(self, connection: Connection, seconds: float) -> Release:
        """End the transaction of a connection after so long, from another thread."""
        release = Release(connection, seconds)
        release.start()
        return release

    # --- tenants -------------------------------------------------------------------------------------------------

    def company(self, label: str = "t", *, items: int = 0, **columns: object) -> str:
        """A fresh tenant that has the outbox, replay and budget control on, with pending DLQ items on demand."""
        company = self.tenants.create(label=label)
        for flag in (OUTBOX_FLAG, REPLAY_FLAG, BUDGET_FLAG):
            if not self.value("select public.is_feature_enabled(%s, %s::uuid)", flag, company):
                self.set_flag(company, flag, enabled=True)
        fleet = self.value("select bool_or(agents_paused) from public.agent_controls where company_id is null")
        self.seen.require(not fleet, "the whole fleet is paused: nothing is delivered or replayed. Unpause it first")
        if items:
            self.tenants.add_items(company, items, **columns)
        return company

    def items(self, company: str) -> list[dict[str, Any]]:
        """The DLQ rows of a tenant, in claiming order."""
        return self.rows(
            "select id, company_id, event_id, event_type, aggregate_key, payload, error_type, error_message,"
            " retry_count, max_retries, least(retry_after, '9000-01-01') as retry_after, status, created_at"
            " from public.dead_letter_queue where company_id = %s order by created_at, id",
            company,
        )

    def set_flag(self, company: str, key: str, *, enabled: bool, percentage: int = 100) -> None:
        """Write the tenant's override row of a flag."""
        self.rows(
            "insert into public.feature_flags (key, company_id, enabled, rollout_percentage) values (%s, %s, %s, %s)"
            " on conflict (key, company_id) do update"
            " set enabled = excluded.enabled, rollout_percentage = excluded.rollout_percentage",
            key,
            company,
            enabled,
            percentage,
        )

    def is_on_for_everybody(self, key: str) -> bool:
        """Whether the global row of a flag is on at 100 %."""
        on = "select bool_and(enabled and rollout_percentage = 100) from public.feature_flags where key = %s"
        return self.value(f"{on} and company_id is null", key) is True

    @contextmanager
    def lent(self, switch: Switch, **values: bool | int | str) -> Iterator[None]:
        """Set a live row for a moment (disruptive checks, last phase). What somebody else changes meanwhile stays, and
        then nothing that was seen in that moment counts.
        """
        try:
            loan = lend(self.db, switch, values, run=self.tenants.run, lease=self.tenants.lease)
        except Changed as error:
            raise Unmet(str(error)) from error
        try:
            yield
        finally:
            self._give_back(loan)

    def _give_back(self, loan: Loan) -> None:
        """On a connection of its own: the check's may have died. Whoever holds the row is waited for."""
        ending = None
        for _ in range(GIVE_BACK_ATTEMPTS):
            with suppress(psycopg.OperationalError), session(self.target.database_url) as connection:
                ending = give_back(connection, loan)
                break
        was = ", ".join(f"{name} {value}" for name, value in loan.before.items())
        self.seen.require(
            ending, f"{loan.switch.name} could not be given back ({was}): the next run of the gate does it"
        )
        self.seen.require(
            ending is Ending.GIVEN_BACK,
            f"somebody else changed {loan.switch.name} while this drill had set it; it stays as they left it. "
            f"Before the drill it was: {was}. Look whether that is what they meant, then run again",
        )

    def pause(self, company: str, *, on: bool = True) -> None:
        """Pause or unpause one tenant."""
        self.rows(
            "insert into public.agent_controls (company_id, agents_paused, pause_reason) values (%s, %s, 'drill')"
            " on conflict (company_id) do update set agents_paused = excluded.agents_paused",
            company,
            on,
        )

    def budget(self, company: str, **columns: object) -> None:
        """Write the tenant's budget row; columns that are not given have their defaults."""
        names = ", ".join(["company_id", *columns])
        marks = ", ".join(["%s"] * (len(columns) + 1))
        self.rows("delete from public.replay_budgets where company_id = %s", company)
        self.rows(f"insert into public.replay_budgets ({names}) values ({marks})", company, *columns.values())

    def used(self, company: str) -> tuple[int, int]:
        """The daily and monthly items charged to a tenant in the current UTC periods."""
        row = self.one("select daily_used, monthly_used from public.replay_budgets where company_id = %s", company)
        return int(row.get("daily_used", 0)), int(row.get("monthly_used", 0))

    def forget_limit(self, company: str) -> None:
        """Delete the tenant's rate-limit rows, which resets the limit."""
        self.rows("delete from public.edge_rate_limits where starts_with(key, %s)", f"replay:{company}:")

    # --- the outbox by hand --------------------------------------------------------------------------------------

    def write_outbox(
        self, company: str, count: int = 1, *, connection: Connection | None = None, **columns: object
    ) -> list[str]:
        """Rows of event_outbox as another producer writes them, by columns of the contract alone; their event ids."""
        chosen: dict[str, object] = {"event_type": PLAIN_TYPE, "payload": '{"by": "hand"}', **columns}
        names = ", ".join(chosen)
        marks = ", ".join(["%s"] * len(chosen))
        ids = []
        for _ in range(count):
            event = str(uuid.uuid4())
            execute(
                connection or self.db,
                f"insert into public.event_outbox (event_id, company_id, {names}) values (%s, %s, {marks})",
                event,
                company,
                *chosen.values(),
            )
            ids.append(event)
        return ids

    def hurry(self, company: str) -> None:
        """Make the tenant's events that wait for their next attempt due now."""
        self.rows(
            "update public.event_outbox set next_attempt_at = now() where company_id = %s and processed_at is null"
            " and dead_at is null and next_attempt_at > now() and (claimed_until is null or claimed_until <= now())",
            company,
        )

    def effects(self, events: Sequence[str]) -> dict[str, int]:
        """How many effects (completed agent tasks) each event has; events without one are absent."""
        found = self.rows(
            "select event_id::text as event, count(*) as n from public.agent_tasks"
            " where event_id = any(%s::uuid[]) and status = 'completed' group by event_id",
            list(events),
        )
        return {str(r["event"]): int(r["n"]) for r in found}

    def outbox(self, company: str) -> list[dict[str, Any]]:
        """The outbox rows of a tenant by id, each with `state`: pending, in_flight, processed or dead."""
        return self.rows(
            "select id, event_id::text as event, company_id, event_type, aggregate_key, payload, attempts,"
            " replay_run_id, processed_at is not null as processed, case when processed_at is not null then 'processed'"
            " when dead_at is not null then 'dead' when claimed_until > now() then 'in_flight'"
            " else 'pending' end as state"
            " from public.event_outbox o where company_id = %s order by id",
            company,
        )

    def audit(self, scope: str, *actions: str) -> list[dict[str, Any]]:
        """The audit rows of a scope by id, of these actions (none: all)."""
        return self.rows(
            "select id, action, actor, scope, target_count, success_count, failure_count, metadata, request_id,"
            " created_at, prev_hash, hash, txid from public.audit_logs"
            " where scope = %s and (cardinality(%s::text[]) = 0 or action = any(%s::text[]))"
            " order by id",
            scope,
            list(actions),
            list(actions),
        )
