"""Faults of the brake of a run: whose runs it stops, and which."""

import dataclasses
import json
import uuid
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from faults.altered import altered_worker
from faults.catalogue import service, worker
from faults.lifecycle import FAILS, LIFE, SLOW
from faults.probe import Probe
from faults.requests import REQUEST, remembering
from replay_service.database import Connection
from replay_service.idempotency import Outcome, Run
from replay_service.parts import Parts
from replay_service.settings import Settings
from replay_service.worker.parts import WORKER_QUERIES, WorkerParts
from replay_service.worker.settings import WorkerSettings

RUN_ITEMS = 40
FAILED = "RETURNING r.success_count, r.failure_count"


def _unbraked(settings: WorkerSettings, which: str) -> WorkerParts:
    """The worker that ignores failures of these runs when it decides whether they must stop."""
    seen = f"RETURNING r.success_count, CASE WHEN {which} THEN 0 ELSE r.failure_count END"
    return altered_worker(settings, ("settle_item", FAILED, seen))


def _ends_completed(probe: Probe, count: int = 20, token: bool = False, named: bool = False) -> bool:
    """Whether a run of so many items that all fail is called completed."""
    with probe.tenant() as company:
        ids = probe.letters(company, count, **FAILS)
        fields: dict[str, Any] = {"company_id": company, "max": count, **({"dlq_ids": ids} if named else {})}
        headers = probe.as_token(probe.token({})) if token else None
        run = probe.send(json.dumps(fields).encode(), headers).json()["replay_run_id"]
        probe.settled(run)
        return bool(probe.value("SELECT status FROM replay_runs WHERE id = %s", run) == "completed")


@worker(lambda p: _ends_completed(p, 5), f"{LIFE}/stops-above-twenty-percent", "five items")
def small_runs_are_not_stopped(settings: WorkerSettings) -> WorkerParts:
    """A run of ten items or fewer is never stopped: all its items count as in flight."""
    return _unbraked(settings, "r.target_count <= 10")


@worker(lambda p: _ends_completed(p, 5), f"{LIFE}/stops-above-twenty-percent", "five items")
def the_last_item_stops_nothing(settings: WorkerSettings) -> WorkerParts:
    """A run is not judged with its last item: one of five that all fail is called completed."""
    return _unbraked(settings, "r.success_count + r.failure_count >= r.target_count")


@worker(lambda p: _ends_completed(p, token=True), f"{LIFE}/stops-soon-above-a-fifth", "failed is 'completed'")
def runs_of_tokens_are_not_stopped(settings: WorkerSettings) -> WorkerParts:
    """A run that a token started is never stopped."""
    return _unbraked(settings, "r.actor <> 'signature'")


@worker(
    lambda p: _after_a_stop(p, "SELECT daily_used FROM replay_budgets WHERE company_id = %s") == RUN_ITEMS,
    f"{LIFE}/stops-soon-above-a-fifth",
    "after the stop the ledger",
)
def tokens_are_not_refunded(settings: WorkerSettings) -> WorkerParts:
    """A stopped run that a token started is not refunded: only signed runs are."""
    signed = "EXISTS (SELECT FROM public.replay_runs x WHERE x.id = r.id AND x.actor = 'signature')"
    charged = f"least((SELECT count(*) FROM gone WHERE {signed}), r.budget_charged)"
    return altered_worker(
        settings, ("return_unattempted", "least((SELECT count(*) FROM gone), r.budget_charged)", charged)
    )


@worker(
    lambda p: not _after_a_stop(p, "SELECT count(*) FROM audit_logs WHERE scope = %s AND action = 'dlq_replay'"),
    f"{LIFE}/stops-soon-above-a-fifth",
    "is audited as",
)
def ends_of_tokens_leave_no_row(settings: WorkerSettings) -> WorkerParts:
    """The end of a run that a token started is not audited: only that of a signed one is."""
    return altered_worker(settings, ("finish_run", "FROM run r\n", "FROM run r WHERE r.actor = 'signature'\n"))


@service(
    lambda p: _after_a_stop(p, "SELECT daily_used FROM replay_budgets WHERE company_id = %s", named=True) == RUN_ITEMS,
    f"{LIFE}/a-success-stops-it-too",
    "a run of named items",
)
def named_items_are_not_refunded(settings: Settings) -> Parts:
    """A run of named items forgets what it was charged: when it is stopped, nothing is refunded."""
    release = remembering(settings)

    async def finish(conn: Connection, started: Run, outcome: Outcome) -> None:
        request = REQUEST.get()
        named = request is not None and request.dlq_ids is not None
        await release.finish_run(conn, started, dataclasses.replace(outcome, budget_charged=0) if named else outcome)

    return dataclasses.replace(release, finish_run=finish)


def _after_a_stop(probe: Probe, ask: str, *, named: bool = False) -> Any:
    """The result of `ask` for a tenant after a token's run over items that all fail."""
    with probe.tenant() as company:
        ids = probe.letters(company, RUN_ITEMS, **FAILS)
        body = json.dumps({"company_id": company, "max": RUN_ITEMS, **({"dlq_ids": ids} if named else {})}).encode()
        probe.settled(probe.send(body, probe.as_token(probe.token({}))).json()["replay_run_id"])
        return probe.value(ask, company)


@worker(lambda p: _ends_as_failed(p), f"{LIFE}/four-failures-do-not-stop", "the ends of two runs")
def failed_runs_end_by_another_name(settings: WorkerSettings) -> WorkerParts:
    """The end of a run whose items all fail is audited as `dlq_replay_failed`: no alert counts that."""
    named = "'dlq_replay_' || %(status)s"
    other = f"CASE WHEN r.success_count = 0 THEN 'dlq_replay_failed' ELSE {named} END"
    return altered_worker(settings, ("finish_run", f"public.append_audit({named}", f"public.append_audit({other}"))


def _ends_as_failed(probe: Probe) -> bool:
    with probe.tenant() as company:
        probe.letters(company, 2, **FAILS)
        probe.settled(probe.replay(company).json()["replay_run_id"])
        return bool(probe.value("SELECT count(*) FROM audit_logs WHERE scope = %s AND action LIKE '%%failed'", company))


@worker(lambda p: _forgets_a_charge(p), f"{LIFE}/stop-refunds-only-what-was-charged", "ledger")
def refunds_forget_charges(settings: WorkerSettings) -> WorkerParts:
    """A refund reads what was used, and writes later: what another replay was charged meanwhile is forgotten."""
    read = "(SELECT x.{0} FROM public.replay_budgets x WHERE x.company_id = b.company_id)"
    used = [(f"greatest(b.{name} - f.items", name) for name in ("daily_used", "monthly_used")]
    changes = [("return_unattempted", old, f"greatest({read.format(name)} - f.items") for old, name in used]
    return altered_worker(settings, *changes)


def _forgets_a_charge(probe: Probe) -> bool:
    blocked = "SELECT count(*) FROM pg_stat_activity WHERE %s = any(pg_blocking_pids(pid))"
    with probe.tenant() as company, psycopg.connect(probe.environ["DATABASE_URL"]) as beside:
        probe.letters(company, RUN_ITEMS, **{**FAILS, "payload": Jsonb({"drill": {"fail_times": -1, "delay_ms": 900}})})
        run = probe.replay(company, max_items=RUN_ITEMS).json()["replay_run_id"]
        beside.execute("UPDATE replay_budgets SET daily_used = daily_used + 3 WHERE company_id = %s", (company,))
        probe.within(4, lambda: bool(probe.value(blocked, beside.info.backend_pid)))
        beside.commit()
        probe.settled(run)
        attempted = probe.value("SELECT success_count + failure_count FROM replay_runs WHERE id = %s", run)
        return bool(probe.value("SELECT daily_used FROM replay_budgets WHERE company_id = %s", company) == attempted)


@worker(lambda p: _revives_another_tenants(p), f"{LIFE}/stop-leaves-the-rest-untouched", "another tenant's letter")
def a_stop_knows_letters_by_event(settings: WorkerSettings) -> WorkerParts:
    """A stop gives back letters by their event alone: another tenant's discarded one is pending again."""
    text = WORKER_QUERIES["return_unattempted"].decode()
    own = text[text.index("WHERE d.status = 'replaying' AND") : text.index("\n), refund AS")]
    return altered_worker(settings, ("return_unattempted", own, "WHERE d.event_id = g.event_id"))


def _revives_another_tenants(probe: Probe) -> bool:
    with probe.tenant() as company, probe.tenant() as other:
        probe.letters(company, RUN_ITEMS, **FAILS)
        event = str(uuid.uuid4())
        (last,) = probe.letters(company, 1, **FAILS, event_id=event)
        probe.rows("UPDATE dead_letter_queue SET created_at = now() WHERE id = %s", last)
        probe.letters(other, 1, event_id=event, status="discarded")
        probe.settled(probe.replay(company, max_items=RUN_ITEMS + 1).json()["replay_run_id"])
        return bool(probe.value("SELECT status FROM dead_letter_queue WHERE company_id = %s", other) == "pending")


@worker(lambda p: _leaves_a_delivered_letter(p), f"{LIFE}/stop-is-of-one-run", "letters of the other run")
def a_stop_frees_letters_of_other_runs(settings: WorkerSettings) -> WorkerParts:
    """A stop makes the letters of its tenant's other runs pending, whose items are delivered later all the same."""
    own = "FROM gone g\n  WHERE d.status = 'replaying' AND d.company_id = g.company_id\n    AND (d.id = g.dlq_id"
    every = (
        "FROM run g\n  WHERE d.status = 'replaying' AND d.company_id = g.company_id\n    AND (d.replay_run_id <> g.id"
    )
    gone = " OR (g.dlq_id IS NULL AND d.event_id = g.event_id))"
    mine = " OR d.id IN (SELECT x.dlq_id FROM gone x))"
    return altered_worker(settings, ("return_unattempted", own + gone, every + mine))


def _leaves_a_delivered_letter(probe: Probe) -> bool:
    with probe.tenant() as company:
        (slow,) = probe.letters(company, 1, **SLOW)
        run = probe.replay(company).json()["replay_run_id"]
        probe.letters(company, RUN_ITEMS, **FAILS)
        probe.settled(probe.replay(company, max_items=RUN_ITEMS).json()["replay_run_id"])
        probe.settled(run)
        return bool(probe.value("SELECT status FROM dead_letter_queue WHERE id = %s", slow) == "pending")


@worker(None, "drill/lifecycle/stop-refunds-only-what-was-charged", "10 charged before")
def refunds_begin_at_the_limit(settings: WorkerSettings) -> WorkerParts:
    """A refund begins at the limit of a budget where that was lowered meanwhile: more is given back than was
    charged.
    """
    periods = ("daily", "monthly")
    return altered_worker(
        settings,
        *(
            ("return_unattempted", f"greatest(b.{one}_used -", f"greatest(least(b.{one}_used, b.{one}_limit) -")
            for one in periods
        ),
    )
