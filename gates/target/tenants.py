"""Drill tenants: companies of one run, created by SQL, named `drill-...`, removed with everything they own.

The ids created are the only ones that the second pass of alerts and data checks leaves out.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from gates.target.database import Connection, execute
from gates.target.requests import bucket

OUTBOX_FLAG = "outbox.enabled"

TENANT_TABLES = (
    "agent_tasks",
    "dead_letter_queue",
    "event_outbox",
    "events",
    "replay_runs",
    "replay_budgets",
    "feature_flags",
    "agent_controls",
)
"""Tables of the contract with rows by company_id that a drill removes, in an order that foreign keys allow."""


@dataclass
class Tenants:
    """Creates and removes the companies of one run. `created` keeps every id, removed or not."""

    connection: Connection
    run: str
    created: list[str] = field(default_factory=list)

    def create(self, *, below: int = 10, label: str = "t") -> str:
        """A new company whose bucket for outbox.enabled is under `below` percent (100: any). Returns its id."""
        company = new_company_id(below)
        name = f"drill-{self.run}-{label}"
        execute(self.connection, "insert into companies (id, name) values (%s, %s)", company, name)
        self.created.append(company)
        return company

    def add_items(self, company: str, count: int, **columns: object) -> list[str]:
        """Pending DLQ items, oldest first; extra columns are set on each. Returns their ids in order."""
        defaults: dict[str, object] = {"event_type": "drill.item", "payload": "{}", "error_type": "drill"}
        values = {**defaults, **columns}
        names = ", ".join(values)
        marks = ", ".join(["%s"] * len(values))
        ids = []
        for index in range(count):
            item = str(uuid.uuid4())
            execute(
                self.connection,
                f"insert into dead_letter_queue (id, company_id, created_at, {names})"
                f" values (%s, %s, now() - interval '1 hour' + make_interval(secs => %s), {marks})",
                item,
                company,
                index,
                *values.values(),
            )
            ids.append(item)
        return ids

    def remove(self, companies: Sequence[str] | None = None) -> None:
        """Delete the companies and all they own but audit rows. Raise psycopg.Error where that is refused."""
        ids = list(self.created if companies is None else companies)
        if not ids:
            return
        for table in TENANT_TABLES:
            execute(self.connection, f"delete from {table} where company_id = any(%s::uuid[])", ids)
        keys = [f"replay:{company}:" for company in ids]
        execute(
            self.connection,
            "delete from edge_rate_limits where exists (select from unnest(%s::text[]) k where starts_with(key, k))",
            keys,
        )
        execute(self.connection, "delete from companies where id = any(%s::uuid[])", ids)


def new_company_id(below: int = 10) -> str:
    """A random UUID whose bucket for outbox.enabled is under `below` (0..99 against 1..100)."""
    for _ in range(100_000):
        candidate = str(uuid.uuid4())
        if bucket(OUTBOX_FLAG, candidate) < below:
            return candidate
    raise ValueError(f"no company id with a bucket under {below} was found; at least 1 is needed")
