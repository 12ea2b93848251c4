"""The tenants of one check: created, switched, and read from the database."""

import datetime as dt
import json
import secrets
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psycopg

from drills.workbench.database import Database, query
from gates.checks.observation import Breach
from gates.checks.recorder import Observer, Unmet
from gates.deployment.dialect.current import current
from gates.deployment.http.client import HttpDoor
from gates.deployment.ids import new_id
from gates.deployment.requests import digest_of
from gates.deployment.sql.catalogue import identifier, with_fragments
from gates.deployment.sql.database import Connection, execute, session
from gates.deployment.tenants.loans import Changed, Ending, LiveRow, Loan, give_back, lend
from gates.deployment.tenants.tenants import OUTBOX_FLAG, REPLAY_FLAG, Tenants, owned_tables
from gates.evidence import CHARGED

BUDGET_FLAG = "dlq.replay.budget_control"

GIVE_BACK_ATTEMPTS = 5
"""Each waits for a lock as long as any statement does."""

ANY_ATTEMPTS = 2**31 - 1

PLAIN_TYPE = "drill.plain"
"""An event type of drills whose payload asks the agent for nothing: an ordinary event."""
NEXT_TYPE = "drill.next"
"""The type of an ordinary event that follows one of another type."""


def as_jsonb(payload: object) -> str:
    """JSON text for a jsonb parameter."""
    return json.dumps(payload, ensure_ascii=False)


def large_payload() -> dict[str, Any]:
    """A payload of sixty kilobytes that does not compress, with long lists and many members. Four of each nine bytes
    are one letter in UTF-8, so that blocks of any usual size end within a letter.
    """
    text = "".join(f"{secrets.token_hex(2)}\U0001f69a " for _ in range(5_500))
    return {"text": text, "list": [*range(1_001)], "members": {f"m{number}": number for number in range(301)}}


ALWAYS_FAILS: dict[str, Any] = {"drill": {"fail_times": -1}}
POISON = as_jsonb(ALWAYS_FAILS)
"""A payload with which the drill agent fails each time."""
PUT_OFF = "update public.event_outbox set next_attempt_at = now() + interval '1 hour', payload = '{}'"
SCRIPTED = as_jsonb({"drill": {"delay_ms": 1}})
"""A payload that asks the drill agent for something, and has its effect at once."""

OF_ITS_OWN: dict[str, Any] = {
    **dict.fromkeys(("id", "event_id", "replay_run_id"), "00000000-0000-4000-8000-00000000f0f0"),
    **dict.fromkeys(("event_type", "aggregate_key", "error_type", "status"), "of the payload"),
    "max_retries": 0,
}
"""Members of a payload that are called like columns of its row, and mean nothing to whoever passes it on."""
PAYLOAD: dict[str, Any] = {
    **OF_ITS_OWN,
    "text": 'Grüße, 北京, \U0001f69a, \u2028, "quoted", back\\slash, tab\t, %s {}, e\u0301 and \u00e9',
    "lines": "\ufeffone\r\ntwo\nthree\r\x0cfour, zero\u200bwidth, soft\u00adhyphen, no\u00a0break, \x1b[1m, \x7f",
    "markup": "1 < 2 & 3 > 2, it's &amp; &lt;b&gt;, a+b%20c",
    "numbers": [0, -1, 1.5, 9007199254740991, -9007199254740991, 1e-7],
    "empty": [{}, [], "", False],
    "no text": "",
    " spaces ": [" before", "after ", "  "],
    "nested": {"a": {"b": {"c": [1, [2, [3]]]}}, "deep": json.loads('[{"in": ' * 24 + "1" + "}]" * 24)},
    "lists": {
        "of one": ["a"],
        "repeated": ["b", "a", "b"],
        "numbered": {"0": "a", "1": "b"},
        "decimals": [0.1, 19.995],
    },
    "masked": {"password": "p", "token": "t", "authorization": "a", "card_number": "c", "mail": "a@example.org"},
    "written": ["https://example.org/a?b=c&d=e#f", "a\\nb", "C:\\temp\\new", "{{name}}", "$1", "=1+1", "#", "//"],
    "Ключ": True,
    "camelCase": {"PascalCase": 1, "snake_case": 2, "kebab-case": 3, "UPPER": 4},
    "looks like": ["007", "1.10", "1e3", "true", "null", "2026-01-01", "2026-01-01T00:00:00+02:00"],
}
"""What is lost on a careless way, as any request may have it: no null (a service may refuse it), no integer beyond 2^53
(RFC 7493 warns of those).
"""
_ODD_NAMES = {"dotted.name": 1, "$ref": "#", "": "", "__proto__": {"a": 1}, "constructor": 1}
KEPT_PAYLOAD = {**PAYLOAD, **_ODD_NAMES, "none": None, "deep": [None, {"none": None}]}
"""The same, as a row may have it."""
QUOTED = 'it\'s a "name": 100%s/{0},\\d;--#$1'
"""A name with what statements, formats and paths are put together with."""
KEPT_TYPE = f"drill.Letter/v2 \U0001f69a {QUOTED}".ljust(190, "x") + " "
KEPT_KEY = f" Kunde Ä A\u0308 \uff10\u2167 \U0001f69a 0007 {QUOTED}".ljust(190, "x") + " "
"""Type and key of an event that a careless way cuts, trims, folds or normalises."""


def altered(before: Mapping[str, Any], after: Mapping[str, Any]) -> set[str]:
    """The columns of a dead letter that no replay may change, and that changed."""
    kept = ["event_type", "aggregate_key", "payload", "max_retries", "created_at"]
    if before["event_id"] is not None:
        kept.append("event_id")
    return {name for name in kept if before[name] != after[name]}


@dataclass
class TenantData(Database):
    """The doors of one check and its tenants."""

    http: HttpDoor
    tenants: Tenants
    seen: Observer

    # --- tenants and their switches ------------------------------------------------------------------------------

    def company(self, label: str = "t", *, items: int = 0, **columns: object) -> str:
        """A fresh tenant that has the outbox, replay and budget control on, with pending dead letters on demand.

        Where flags have no rows of tenants, it is one for whom everybody's rows have the outbox and replay on.
        """
        with self.db.at_once():
            company = self.tenants.create(label=label)
            if current().has("feature_flags", "company_id"):
                self.rows(query("switch_on"), company, [OUTBOX_FLAG, REPLAY_FLAG, BUDGET_FLAG])
            fleet = self.db.execute(query("fleet_paused").encode())
            if items:
                self.add_items(company, items, **columns)
        paused = (fleet.fetchone() or {}).get("paused")
        self.seen.require(not paused, "the whole fleet is paused: nothing is delivered or replayed. Unpause it first")
        return company

    def set_flag(self, company: str, key: str, *, enabled: bool, percentage: int = 100) -> None:
        """Write the tenant's override row of a flag."""
        self.rows(query("set_flag"), key, company, enabled, percentage)

    def both_sides(self, company: str, key: str) -> Iterator[tuple[int, bool]]:
        """Set a tenant's flag to the last percentage that leaves it out by `is_feature_enabled`, then to the first that
        has it in; at last to 100 %. Yield the percentage, and whether the function has the tenant in.
        """

        def is_in(percentage: int) -> bool:
            self.set_flag(company, key, enabled=True, percentage=percentage)
            return self.value("select public.is_feature_enabled(%s, %s::uuid)", key, company) is True

        first = bisect_left(range(1, 100), True, key=is_in) + 1
        for percentage in (first - 1, first):
            yield percentage, is_in(percentage)
        self.set_flag(company, key, enabled=True)

    def is_on_for_everybody(self, key: str) -> bool:
        """Whether the global row of a flag is on at 100 %."""
        on = "select bool_and(enabled and rollout_percentage = 100) from public.feature_flags where key = %s"
        return self.value(f"{on} and company_id is null", key) is True

    @contextmanager
    def lent(self, switch: LiveRow, **values: bool | int | str) -> Iterator[None]:
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
        """Pause or resume one tenant."""
        self.rows(query("pause"), company, on)

    @staticmethod
    def claims(area: str) -> bool:
        """Whether the deployment claims an area of the contract. Where not, a drill of another says nothing of it."""
        return current().claims(area)

    def budget(self, company: str, **columns: object) -> None:
        """Write the tenant's budget row; columns that are not given have their defaults. Nothing without budgets."""
        if self.claims("budgets"):
            names = ", ".join(["company_id", *columns])
            marks = ", ".join(["%s"] * (len(columns) + 1))
            with self.db.at_once():
                self.rows("delete from public.replay_budgets where company_id = %s", company)
                self.rows(f"insert into public.replay_budgets ({names}) values ({marks})", company, *columns.values())

    def today(self) -> dt.date:
        """The current day in UTC, by the database's clock."""
        return self.value("select (now() at time zone 'UTC')::date")  # type: ignore[no-any-return]

    def used(self, company: str) -> tuple[int, int]:
        """The daily and monthly items charged to a tenant in the current UTC periods."""
        row = self.one("select daily_used, monthly_used from public.replay_budgets where company_id = %s", company)
        return int(row.get("daily_used", 0)), int(row.get("monthly_used", 0))

    def limits(self, company: str) -> tuple[int, int]:
        """The daily and monthly limit of a tenant that has a budget row."""
        row = self.one("select daily_limit, monthly_limit from public.replay_budgets where company_id = %s", company)
        return int(row["daily_limit"]), int(row["monthly_limit"])

    def charged(self, company: str, items: int, by: str = "") -> None:
        """The claim: this many items were charged to a tenant's budget, if the deployment has budgets."""
        if self.claims("budgets"):
            day, month = self.used(company)
            if not day == month == items:
                told = f"{items} items were moved, {day} charged for the day, {month} the month"
                raise Breach(f"{by}: {told}" if by else told, CHARGED)

    def reset_limit(self, *companies: str) -> None:
        """Reset the tenants' rate limits by deleting their rows. Does nothing where there is no such table."""
        for company in () if "edge_rate_limits" in current().lacking else companies:
            self.rows("delete from public.edge_rate_limits where starts_with(key, %s)", f"replay:{company}:")

    # --- dead letters and replays --------------------------------------------------------------------------------

    def add_items(self, company: str, count: int, **columns: object) -> list[str]:
        """Pending dead letters of a tenant, oldest first; their ids in order."""
        return self.tenants.add_items(company, count, **columns)

    def add_of_each_kind(self, company: str) -> list[str]:
        """A dead letter that a replay takes, one that is resolved and one that is put off; their ids."""
        kinds: tuple[dict[str, str], ...] = ({}, {"status": "resolved"}, {"retry_after": "2999-01-01T00:00:00Z"})
        return [one for columns in kinds for one in self.add_items(company, 1, **columns)]

    def add_seven(self, company: str) -> None:
        """Seven pending dead letters of a tenant: three are due, two are old, one is put off, one has no retry left."""
        kinds: tuple[tuple[dict[str, Any], int], ...] = (
            ({}, 3),
            ({"age_s": 172_800}, 2),
            ({"retry_after": "2999-01-01T00:00:00Z"}, 1),
            ({"max_retries": 0}, 1),
        )
        for columns, count in kinds:
            known = all(current().has("dead_letter_queue", name) for name in columns.keys() - {"age_s"})
            self.tenants.add_items(company, count, **(columns if known else {}))

    def add_last(self, company: str, payload: str, count: int = 1) -> None:
        """Pending dead letters that are claimed after all others of the tenant."""
        self.rows(query("add_last"), company, payload, count)

    def add_blocked(self, company: str) -> None:
        """A pending dead letter whose replay waits for an older event of its key, until `make_due`."""
        has_keys = current().has("dead_letter_queue", "aggregate_key")
        keyed: dict[str, Any] = {"aggregate_key": "k"} if has_keys else {}
        self.add_items(company, 1, **keyed)
        self.write_outbox(company, **keyed, next_attempt_at=self.value("select now() + interval '1 hour'"))

    def items(self, company: str) -> list[dict[str, Any]]:
        """The dead letters of a tenant, in claiming order."""
        return self.rows(query("items"), company)

    def item(self, company: str) -> dict[str, Any]:
        """The oldest dead letter of a tenant that was given one: whatever becomes of it, it stays."""
        found = self.items(company)
        assert found, "the tenant's dead letter is gone: a letter is settled by its status, and never deleted"
        return found[0]

    def runs(self, company: str) -> int:
        """How many replay runs a tenant has had."""
        return self.count("replay_runs", company)

    def in_one_state(self, company: str) -> None:
        """The claim: no outbox row of a tenant that is processed or dead is in flight, too."""
        both = "claimed_until > now() and (processed_at is not null or dead_at is not null)"
        count = self.count("event_outbox", company, both)
        assert count == 0, f"{count} outbox rows are processed or dead, and in flight by their claimed_until, too"

    def unfinished(self, run: str) -> int:
        """How many outbox rows of a run wait or are in flight."""
        return self.number(query("unfinished"), run)

    def replayed(self, company: str) -> int:
        """How many outbox rows of a tenant a replay has written."""
        return self.count("event_outbox", company, "replay_run_id is not null")

    def digest(self, company: str) -> str:
        """A digest of all that a tenant has in the contract's tables, by the versions of its rows."""
        return digest_of([f"{k}={v}" for k, v in sorted(self.tables(company).items())])

    def tables(self, company: str, *, beside: bool = False) -> Mapping[str, str]:
        """For each of the contract's tables with a company_id: the versions of the tenant's rows, as one digest; a
        migration that adds a column changes none. `beside`: also for each such table of the deployment's own, which a
        job may write at any moment.
        """
        read = {table: (f"public.{table}", "company_id") for table in owned_tables()}
        if beside:
            others = self.rows(with_fragments(query("tenant_tables")), current().all_real)
            read |= {r["name"]: (identifier(r["schema"], r["name"]), identifier(r["tenant"])) for r in others}
        parts = [
            "select %s::text as part, count(*) || ' rows ' || coalesce(md5(string_agg(x.xmin::text, ','"
            f" order by x.xmin::text)), '') as rows from {reference} x where {tenant} = %s"
            for reference, tenant in read.values()
        ]
        found = self.rows(" union all ".join(parts), *(value for table in read for value in (table, company)))
        return {str(r["part"]): str(r["rows"]) for r in found}

    # --- events, effects and the trail ---------------------------------------------------------------------------

    def write_outbox(
        self, company: str, count: int = 1, *, connection: Connection | None = None, **columns: object
    ) -> list[str]:
        """Rows of event_outbox as another producer writes them, by columns of the contract alone; their event ids. Each
        has a transaction of its own, or all have that of the connection.
        """
        chosen: dict[str, object] = {"event_type": PLAIN_TYPE, "payload": '{"by": "hand"}', **columns}
        names = ", ".join(["event_id", "company_id", *chosen])
        marks = ", ".join(["%s"] * (len(chosen) + 2))
        ids = [new_id("event") for _ in range(count)]
        rows = [(event, company, *chosen.values()) for event in ids]
        insert = f"insert into public.event_outbox ({names}) values "
        if connection is not None:
            given = [value for row in rows for value in row]
            execute(connection, insert + ", ".join([f"({marks})"] * count), *given)
            return ids
        with self.db.at_once() as commit:
            for row in rows:
                self.rows(f"{insert}({marks})", *row)
                commit()
        return ids

    def write_each_kind(self, company: str, **columns: Any) -> list[str]:
        """Two rows: one that asks an agent for something, and one that does not. A relay may have a path for each."""
        return self.write_outbox(company, 1, **columns) + self.write_outbox(company, 1, **columns, payload=SCRIPTED)

    def write_again(self, company: str, event: str) -> None:
        """One more row of an event, as a repeated delivery makes it. One that a unique key refuses can do no harm."""
        added = "insert into public.event_outbox (event_id, company_id, event_type, payload) values (%s, %s, %s, '{}')"
        with suppress(psycopg.errors.UniqueViolation):
            self.rows(added, event, company, PLAIN_TYPE)

    def make_due(self, company: str, *, attempts: int = ANY_ATTEMPTS) -> None:
        """Make the tenant's events that wait for their next attempt, after so many at most, due now."""
        self.rows(query("make_due"), company, attempts)

    def effects(self, events: Sequence[str]) -> dict[str, int]:
        """How many effects (completed agent tasks) each event has; events without one are absent."""
        return {str(r["event"]): int(r["n"]) for r in self.rows(query("effects"), list(events))}

    def give_up(self, company: str) -> None:
        """Mark the outbox rows of a tenant as dead."""
        unclaimed = ", claimed_until = null" * current().has("event_outbox", "claimed_until")
        self.rows(f"update public.event_outbox set dead_at = now(){unclaimed} where company_id = %s", company)

    def outbox(self, company: str) -> list[dict[str, Any]]:
        """The outbox rows of a tenant by id, each with `state`: pending, in_flight, processed or dead."""
        return self.rows(query("outbox"), company)

    def audit(self, scope: str, *actions: str) -> list[dict[str, Any]]:
        """The audit rows of a scope as they were written, of these actions (none: all)."""
        return self.rows(query("audit"), scope, list(actions), list(actions))

    def audited(self, scope: str) -> list[dict[str, Any]]:
        """The audit rows of a scope that requests and runs left. A deployment may also record the rows that a drill
        writes by SQL: a new company, a flag. Those belong to no request.
        """
        return [r for r in self.audit(scope) if r["request_id"] or str(r["action"]).startswith("dlq_replay")]
