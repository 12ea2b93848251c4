"""What the checks of replays do to a drill tenant, and how they read what a replay did to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gates.checks.recorder import Observer
from gates.deployment.client import HttpDoor, NoAnswer
from gates.deployment.database import Connection, execute, value
from gates.deployment.requests import Answer, Request, digest_of
from gates.deployment.tenants import OWNED_TABLES, Tenants

WRITTEN_BY_EVERY_CALL = {"edge_rate_limits", "audit_logs", "audit_heads"}
"""Tables that a call without an effect may write; a deployment may have given them a company_id of their own."""


@dataclass
class Replays:
    """Replays of one check's tenants, through both doors."""

    http: HttpDoor
    db: Connection
    seen: Observer
    tenants: Tenants
    signed: Callable[..., Request]

    # --- requests -------------------------------------------------------------------------------------------------

    def send(
        self, company: str, label: str, status: int | tuple[int, ...] = 200, code: str | None = None, **fields: Any
    ) -> Answer:
        """The claim: a signed replay is answered with this status (and code)."""
        request = self.signed(company, label=label, **fields)
        answer = self.http.send(request)
        # a refusal by the tenant's own budget is the target's judgement, not a busy target
        return self.seen.expect(request, answer, status, code, busy=answer.code == "budget_exhausted")

    def control(self, company: str, label: str, **fields: Any) -> Answer:
        """The control: a signed replay is accepted."""
        request = self.signed(company, label=label, **fields)
        return self.seen.expect(request, self.http.send(request), 200, control=True)

    def burst(self, requests: list[Request]) -> list[Answer]:
        """Send all at once. Where one got no answer the race proves nothing."""
        answers = self.http.burst(requests)
        silent = [a for a in answers if isinstance(a, NoAnswer)]
        self.seen.require(not silent, f"{len(silent)} of {len(answers)} concurrent requests got no answer")
        return [a for a in answers if isinstance(a, Answer)]

    def reset_limit(self, *companies: str) -> None:
        """Give tenants their three calls back."""
        for company in companies:
            execute(self.db, "delete from public.edge_rate_limits where key like %s", f"replay:{company}:%")

    # --- rows -----------------------------------------------------------------------------------------------------

    def items(self, company: str, count: int, **columns: object) -> list[str]:
        """Pending items of one tenant, oldest first."""
        return self.tenants.add_items(company, count, **columns)

    def rows(self, statement: str, *params: object) -> list[dict[str, Any]]:
        return execute(self.db, statement, *params)

    def number(self, statement: str, *params: object) -> int:
        """A count."""
        return int(str(value(self.db, statement, *params) or 0))

    def runs(self, company: str) -> int:
        """How many runs a tenant has had."""
        return self.number("select count(*) from public.replay_runs where company_id = %s", company)

    def moved(self, company: str) -> set[str]:
        """The items of a tenant that a replay has taken: no longer pending, or tried again."""
        found = self.rows(
            "select id::text as id, status, retry_count from public.dead_letter_queue where company_id = %s", company
        )
        return {str(r["id"]) for r in found if r["status"] in {"replaying", "resolved"}}

    def outbox(self, company: str) -> int:
        """How many outbox rows a tenant has that a replay wrote."""
        return self.number(
            "select count(*) from public.event_outbox where company_id = %s and replay_run_id is not null", company
        )

    def audited(self, company: str, *actions: str) -> int:
        """How many audit rows of these actions a tenant has."""
        return self.number(
            "select count(*) from public.audit_logs where scope = %s and action = any(%s::text[])",
            company,
            list(actions),
        )

    def digest(self, company: str) -> str:
        """A digest of all that a tenant owns, row versions included."""
        return digest_of([f"{k}={v}" for k, v in sorted(self.tables(company).items())])

    def tables(self, company: str) -> Mapping[str, str]:
        """For each table with a company_id: the tenant's rows, row versions included, as one digest."""
        parts = [
            f"select '{table}' as part, count(*) || ' rows ' || coalesce(md5(string_agg(x::text || x.xmin::text, ','"
            f" order by x::text)), '') as rows from public.{table} x where company_id = %s"
            for table in self.owned_tables()
        ]
        found = self.rows(" union all ".join(parts), *([company] * len(parts)))
        return {str(r["part"]): str(r["rows"]) for r in found}

    def owned_tables(self) -> list[str]:
        """Every ordinary table of the schema with a column company_id of type uuid, but the limit's and the trail's."""
        found = self.rows(
            "select c.relname::text as name from pg_class c join pg_attribute a on a.attrelid = c.oid"
            " where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition"
            " and a.attname = 'company_id' and a.atttypid = 'uuid'::regtype and not a.attisdropped"
            " and has_table_privilege(c.oid, 'select') order by 1"
        )
        return sorted({*OWNED_TABLES, *(str(r["name"]) for r in found)} - WRITTEN_BY_EVERY_CALL)

    # --- switches of the tenant -----------------------------------------------------------------------------------

    def flag(self, company: str, key: str, *, on: bool) -> None:
        """Write the tenant's override row of a flag."""
        execute(
            self.db,
            "insert into public.feature_flags (key, company_id, enabled, rollout_percentage) values (%s, %s, %s, 100)"
            " on conflict (key, company_id) do update set enabled = excluded.enabled, rollout_percentage = 100",
            key,
            company,
            on,
        )

    def pause(self, company: str, *, on: bool = True) -> None:
        """Pause or unpause the tenant."""
        execute(
            self.db,
            "insert into public.agent_controls (company_id, agents_paused, pause_reason) values (%s, %s, 'drill')"
            " on conflict (company_id) do update set agents_paused = excluded.agents_paused",
            company,
            on,
        )

    def budget(self, company: str, daily_limit: int) -> None:
        """Give the tenant a budget row of its own, with this much a day and nothing used."""
        self.flag(company, "dlq.replay.budget_control", on=True)
        execute(
            self.db,
            "insert into public.replay_budgets (company_id, daily_limit) values (%s, %s)"
            " on conflict (company_id) do update set daily_limit = excluded.daily_limit",
            company,
            daily_limit,
        )
