"""Drill tenants: companies of one run, created by SQL, named `drill-...`, removed with everything they own.

The ids created are the only ones that the second pass of alerts and data checks leaves out.
"""

import json
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, islice

import psycopg

from gates.deployment.dialect.current import current
from gates.deployment.ids import id_of, new_id
from gates.deployment.requests import bucket
from gates.deployment.sql.catalogue import array, identifier
from gates.deployment.sql.connection import Answering
from gates.deployment.sql.database import Connection, execute
from gates.deployment.tenants import members

AT_ONCE = 200
"""How many candidates the database is asked about at once; two of them are in two rollouts of 10 %."""
OUTBOX_FLAG = "outbox.enabled"
REPLAY_FLAG = "dlq.replay.enabled"

OWNED_TABLES = (
    *("event_outbox", "agent_tasks", "dead_letter_queue", "events", "replay_runs", "replay_budgets"),
    *("feature_flags", "agent_controls"),
)
"""Tables of the contract with rows by company_id, in the order in which a worker locks their rows.

The outbox comes first, so that a delivery in progress ends before anything else of its tenant is touched. A worker that
locks the run's row first is waited for at the run: every second attempt. Only the first lock is waited for: who waits
and holds others makes a deadlock, and its victim may be the worker.
"""


def owned_tables() -> tuple[str, ...]:
    """The OWNED_TABLES that the deployment has, with a tenant column."""
    return tuple(t for t in OWNED_TABLES if current().has(t, "company_id"))


REMOVAL_ATTEMPTS, REMOVAL_PAUSE_S = 6, 0.05
"""A worker in the middle of a batch writes more rows meanwhile: each pause is longer than the one before."""
REMOVAL_WAIT_S = 12.0
"""How long a removal waits for locks in all its attempts."""
WAITS_SHORTLY = b"set local lock_timeout = '50ms'"
"""For each lock but the first: far below the deadlock_timeout of any server, so no deadlock is ever found."""
REMOVALS_SETTLED_BY_WAITING = (
    psycopg.errors.DeadlockDetected,
    psycopg.errors.ForeignKeyViolation,
    psycopg.errors.LockNotAvailable,
    psycopg.errors.SerializationFailure,
)


@dataclass
class Tenants:
    """Creates and removes the companies of one run. `created` keeps every id, removed or not.

    lease: part of the names (see `leftovers`), so that leftovers of a killed run are found again; the id then follows
    from the name. rollouts: flag key -> percentage below which the bucket of every new company must lie. on_create:
    told each new id before the company exists, so that a killed run still knows its tenants.
    """

    connection: Answering
    run: str
    created: list[str] = field(default_factory=list)
    rollouts: Mapping[str, int] = field(default_factory=lambda: {OUTBOX_FLAG: 10})
    on_create: Callable[[str], object] | None = None
    lease: str = ""
    _added: Counter[str] = field(default_factory=Counter, repr=False)

    def create(self, *, label: str = "t") -> str:
        """A new company whose buckets lie within `rollouts`. Returns its id.

        Events that a trigger of the deployment adds for a new company are removed with it, so nobody sees them.
        """
        wanted = {OUTBOX_FLAG: 100, **self.rollouts}
        name, company = in_rollouts(self._candidates(label), wanted, self.connection)
        if self.on_create:
            self.on_create(company)
        self.created.append(company)
        execute(self.connection, "insert into public.companies (id, name) values (%s, %s)", company, name)
        for statement, values in members.joining([company]):
            execute(self.connection, statement, *values)
        for table in ("event_outbox", "events"):
            if table in owned_tables():
                execute(self.connection, f"delete from public.{table} where company_id = %s", company)
        return company

    def _candidates(self, label: str) -> Iterator[tuple[str, str]]:
        while True:
            if self.lease:
                name = f"drill-{self.run}-{label}-{self.lease}-{secrets.token_hex(6)}"
                yield name, id_of(name)
            else:
                company = new_id("company")
                yield f"drill-{self.run}-{label}-{company[:8]}", company

    def add_items(self, company: str, count: int, **columns: object) -> list[str]:
        """Add pending DLQ items, oldest first, with these extra columns. Returns their ids in order."""
        return self.add_rows(company, [columns] * count)

    def add_rows(self, company: str, rows: Sequence[Mapping[str, object]]) -> list[str]:
        """Add DLQ items of one tenant, one per mapping of columns, oldest first and after those of earlier calls,
        unless `age_s` says otherwise. They are seconds apart: a deployment may keep no parts of one.

        All mappings have the same names. `age_s` (seconds) gives created_at as an age; a missing `id` is generated, and
        a missing payload names it. Returns their ids in order.
        """
        if not rows:
            return []
        oldest_s = 3600 - self._added[company]
        self._added[company] += len(rows)
        ids = [str(row.get("id") or new_id("item")) for row in rows]
        defaults = {"event_type": "drill.item", "error_type": "drill"}
        filled = [
            {**defaults, "payload": json.dumps({"item": one}), "age_s": oldest_s - index, **row}
            for index, (one, row) in enumerate(zip(ids, rows, strict=True))
        ]
        names = [n for n in filled[0] if n not in {"age_s", "id"}]
        marks = ", ".join(["%s"] * len(names))
        values = ", ".join(f"(%s, %s, now() - make_interval(secs => %s), {marks})" for _ in filled)
        execute(
            self.connection,
            f"insert into public.dead_letter_queue (id, company_id, created_at, {', '.join(names)}) values {values}",
            *(
                v
                for i, row in zip(ids, filled, strict=True)
                for v in (i, company, row["age_s"], *(row[n] for n in names))
            ),
        )
        return ids

    def remove(self, companies: Sequence[str] | None = None) -> None:
        """Delete the companies and all they own except audit rows. Raise psycopg.Error if that is refused."""
        ids = list(self.created if companies is None else companies)
        if not ids:
            return
        deadline = time.monotonic() + REMOVAL_WAIT_S
        for attempt in count(1):
            try:
                self._remove(ids, runs_first=attempt % 2 == 0)
            except REMOVALS_SETTLED_BY_WAITING as met:
                is_locked = isinstance(met, psycopg.errors.LockNotAvailable) and time.monotonic() < deadline
                if attempt >= REMOVAL_ATTEMPTS and not is_locked:
                    raise
                time.sleep(min(attempt, REMOVAL_ATTEMPTS) * REMOVAL_PAUSE_S)
            else:
                return

    def _remove(self, ids: Sequence[str], *, runs_first: bool) -> None:
        first, after = members.leaving(ids)
        of_tenants, given = "where company_id = any(%s::uuid[])", (list(ids),)
        steps: list[tuple[str, Sequence[object]]] = []
        if runs_first and current().has("replay_runs", "id"):
            steps.append((f"select 1 from public.replay_runs {of_tenants} order by id for update", given))
        for schema, name, column in current().own_tables:
            own = f"delete from {identifier(schema, name)} where {identifier(column)} = any(%s)"
            steps.append((own, (array(ids),)))
        steps += [(f"delete from public.{table} {of_tenants}", given) for table in owned_tables()]
        if current().has("edge_rate_limits", "key"):
            limits = "delete from public.edge_rate_limits where key like %s"
            steps += [(limits, (f"replay:{company}:%",)) for company in ids]
        steps += [*first, ("delete from public.companies where id = any(%s::uuid[])", given), *after]
        with self.connection.at_once():
            for number, (statement, values) in enumerate(steps):
                self.connection.execute(statement.encode(), values)
                if number == 0:
                    self.connection.execute(WAITS_SHORTLY)

    def sweep(self) -> int:
        """Remove what late deliveries wrote for removed companies; returns those companies. A company row is restored
        for that moment: the least role of a gate may delete only rows of drill tenants.
        """
        late = self._owners()
        for company in late:
            execute(
                self.connection,
                "insert into public.companies (id, name) values (%s, %s) on conflict do nothing",
                company,
                f"drill-{self.run}-late",
            )
        self.remove(late)
        return len(late)

    def _owners(self) -> list[str]:
        """The companies of this run that own rows, or a limit of calls, asked for in one query."""
        tables = [f"select company_id from public.{t} where company_id = any(%s::uuid[])" for t in owned_tables()]
        if current().has("edge_rate_limits", "key"):
            limited = "exists (select from public.edge_rate_limits where starts_with(key, 'replay:' || c || ':'))"
            tables.append(f"select c::uuid as company_id from unnest(%s::text[]) c where {limited}")
        rows = execute(self.connection, " union ".join(tables), *([self.created] * len(tables)))
        return [str(row["company_id"]) for row in rows]


def inside(connection: Connection, companies: Sequence[str], rollouts: Mapping[str, int]) -> list[str]:
    """Those of the companies that are in each rollout, in their order."""
    if not current().own_buckets:
        return [c for c in companies if all(bucket(key, c) < limit for key, limit in rollouts.items())]
    asked = [key for key, limit in rollouts.items() if limit < 100]
    on = " and ".join("public.is_feature_enabled(%s, company_id)" for _ in asked) or "true"
    source = "unnest(%s::uuid[]) with ordinality as c (company_id, n)"
    query = f"select company_id::text as id from {source} where {on} order by n"
    cursor = connection.execute(query.encode(), ([*companies], *asked))  # fetches also if others share the round trip
    return [str(row["id"]) for row in cursor.fetchall()]


def in_rollouts(
    candidates: Iterator[tuple[str, str]], rollouts: Mapping[str, int], connection: Connection
) -> tuple[str, str]:
    """The first name and id whose bucket for each flag is under its percentage. Raise ValueError if there is none. If
    the deployment draws tenants by a formula of its own, its function decides.
    """
    at_once = AT_ONCE if current().own_buckets else 1
    for _ in range(100_000 // at_once):
        some = {company: name for name, company in islice(candidates, at_once)}
        for company in inside(connection, [*some], rollouts):
            return some[company], company
    raise ValueError(f"no company id whose buckets are under {rollouts} was found; at least 1 percent each is needed")
