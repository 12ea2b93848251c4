"""Faults of the audit trail: refusals that are not written, rows that say too much or the wrong thing, edited rows."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import psycopg

from faults.altered import around, instead_of
from faults.catalogue import service, statement
from faults.probe import Probe
from faults.requests import is_dry, is_forced, remembering
from replay_service.audit import AuditRow, RefusalLog, RefusalNote
from replay_service.composition import build_parts
from replay_service.database import Connection
from replay_service.exchange import Call, Reply
from replay_service.parts import Parts
from replay_service.problems import Refusal
from replay_service.replay import replay
from replay_service.settings import Settings

AUDIT = "drill/audit"
_OTHER = "00000000-0000-4000-8000-0000000000ff"
PAUSED = "INSERT INTO agent_controls (company_id, agents_paused) VALUES (%s, true)"
_ROWS = "SELECT {0} FROM audit_logs WHERE scope = %s AND action = %s"


class Notes(RefusalLog):
    """A log of refusals that changes or drops what it is given."""

    def __init__(self, parts: Parts, change: Callable[[RefusalNote], RefusalNote | None]) -> None:
        super().__init__(parts.database)
        self._change = change

    async def note(self, conn: Connection, note: RefusalNote) -> None:
        changed = self._change(note)
        if changed is not None:
            await super().note(conn, changed)


def _run_rows(probe: Probe, what: str) -> Any:
    """The audit rows of a replay."""
    with probe.tenant() as company:
        probe.letters(company, 1)
        run = probe.replay(company, error_type="timeout").json()["replay_run_id"]
        probe.settled(run)
        return probe.value(_ROWS.format(what), company, "dlq_replay_started")


def _limited_rows(probe: Probe) -> int:
    with probe.tenant() as company:
        for _ in range(9):
            probe.replay(company, dry_run=True)
        return int(probe.value(_ROWS.format("count(*)"), company, "dlq_replay_refused"))


@service(
    lambda p: _limited_rows(p) > 3,
    (f"{AUDIT}/rate-limited-once-a-minute", "drill/rate-limit/refusals-audited-once-a-minute"),
    ("minute", "rows", "rate_limited"),
)
def every_limited_audited(settings: Settings) -> Parts:
    """Every refusal by the rate limit has a row of its own: a script fills the trail."""
    release = build_parts(settings)

    class Flooding(RefusalLog):
        async def note(self, conn: Connection, note: RefusalNote) -> None:
            row = AuditRow("dlq_replay_refused", note.actor, note.scope, note.request_id, metadata={"code": note.code})
            async with conn.transaction():
                await release.append_audit(conn, row)

    return dataclasses.replace(release, refusals=Flooding(release.database))


@service(
    lambda p: paused_rows(p) == 1, (f"{AUDIT}/refusal-agents-paused", f"{AUDIT}/refusal-feature-disabled"), "refusal"
)
def every_refusal_once_a_minute(settings: Settings) -> Parts:
    """Of the refusals by a pause or a flag only the first of a minute is audited."""
    release = build_parts(settings)
    noted: set[tuple[str, str]] = set()

    def first(note: RefusalNote) -> RefusalNote | None:
        known = (note.scope, note.code) in noted
        noted.add((note.scope, note.code))
        return None if known else note

    return dataclasses.replace(release, refusals=Notes(release, first))


def paused_rows(probe: Probe) -> int:
    """How many audit rows two refusals by a pause have left immediately."""
    with probe.tenant() as company:
        probe.pause(company)
        for _ in range(2):
            probe.replay(company)
        return int(probe.value(_ROWS.format("count(*)"), company, "dlq_replay_refused"))


@service(
    lambda p: _audited_id(p, "chosen-by-a-caller") == "chosen-by-a-caller",
    "drill/observability/request-id-in-the-trail",
    "request id",
)
@around("replay")
async def audits_the_callers_request_id(release: Parts, parts: Parts, call: Call) -> Reply:
    """The audit row has the caller's X-Request-Id, the answer another one."""
    given = [value.decode("latin-1") for name, value in call.headers if name.lower() == b"x-request-id"]
    return await release.replay(parts, dataclasses.replace(call, request_id=given[0]) if given else call)


def _audited_id(probe: Probe, chosen: str) -> Any:
    with probe.tenant() as company:
        body = json.dumps({"company_id": company, "dry_run": True}).encode()
        probe.send(body, {"X-Transbot-Signature": probe.sign(body), "X-Request-Id": chosen})
        return probe.value("SELECT request_id FROM audit_logs WHERE scope = %s", company)


@service(lambda p: _forbidden_rows(p) > 0, f"{AUDIT}/refusal-forbidden", "stranger")
@instead_of("replay")
async def forbidden_under_the_victim(parts: Parts, call: Call) -> Reply:
    """A forbidden request is audited under the company that it asked for: a stranger fills another's trail."""
    victim = _company_of(call.body)
    notes = Notes(parts, lambda note: dataclasses.replace(note, scope=victim) if victim else note)
    return await replay(dataclasses.replace(parts, refusals=notes), call)


@service(lambda p: _forbidden_elsewhere(p) > 0, f"{AUDIT}/refusal-forbidden", "under")
def forbidden_under_another_name(settings: Settings) -> Parts:
    """A forbidden request is audited under the scope `company:<id>`, which no tenant can read."""
    release = build_parts(settings)
    named = Notes(
        release,
        lambda note: dataclasses.replace(note, scope=f"company:{note.scope}") if note.code == "forbidden" else note,
    )
    return dataclasses.replace(release, refusals=named)


def _forbidden_elsewhere(probe: Probe) -> int:
    with probe.tenant() as company, probe.tenant() as own:
        token = probe.token({"role": "company_admin", "company_id": own})
        probe.send(json.dumps({"company_id": company}).encode(), probe.as_token(token))
        return int(probe.value(_ROWS.format("count(*)"), f"company:{own}", "dlq_replay_refused"))


def _company_of(body: bytes) -> str:
    try:
        return str(json.loads(body)["company_id"]).lower()
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""


def _forbidden_rows(probe: Probe) -> int:
    with probe.tenant() as company:
        token = probe.token({"role": "company_admin", "company_id": _OTHER})
        probe.send(json.dumps({"company_id": company}).encode(), probe.as_token(token))
        return int(probe.value(_ROWS.format("count(*)"), company, "dlq_replay_refused"))


@service(
    lambda p: _rows_of_a_refused_dry_run(p) == 0,
    tuple(f"{AUDIT}/refusal-{name}" for name in ("agents-paused", "feature-disabled", "budget-exhausted")),
    "row",
)
def refused_dry_runs_leave_no_row(settings: Settings) -> Parts:
    """A refused dry run is not audited."""
    release = remembering(settings)
    return dataclasses.replace(release, refusals=Notes(release, lambda note: None if is_dry() else note))


@service(
    lambda p: _rows_of_a_refused_dry_run(p, force=True) == 0,
    tuple(f"{AUDIT}/refusal-{name}" for name in ("agents-paused", "feature-disabled", "budget-exhausted")),
    "row",
)
def refused_forced_replays_leave_no_row(settings: Settings) -> Parts:
    """A refused forced replay is not audited."""
    release = remembering(settings)
    return dataclasses.replace(release, refusals=Notes(release, lambda note: None if is_forced() else note))


def _rows_of_a_refused_dry_run(probe: Probe, **more: bool) -> int:
    with probe.tenant() as company:
        probe.pause(company)
        probe.replay(company, dry_run=True, **more)
        return int(probe.value(_ROWS.format("count(*)"), company, "dlq_replay_refused"))


@service(lambda p: _rows_of_another_role(p) == 0, f"{AUDIT}/refusal-forbidden", "role")
@instead_of("replay")
async def other_roles_leave_no_row(parts: Parts, call: Call) -> Reply:
    """The refusal of a user whose role has no rights is not audited."""
    caller = await parts.authenticate(parts, call.headers, call.body)
    notes = parts.refusals if caller.has_role else Notes(parts, lambda _note: None)
    return await replay(dataclasses.replace(parts, refusals=notes), call)


def _rows_of_another_role(probe: Probe) -> int:
    with probe.tenant() as company:
        token = probe.token({"role": "viewer", "company_id": company})
        probe.send(json.dumps({"company_id": company}).encode(), probe.as_token(token))
        return int(probe.value(_ROWS.format("count(*)"), company, "dlq_replay_refused"))


@service(lambda p: _invalid_rows(p) > 0, f"{AUDIT}/bad-requests-leave-no-row", ("400", "invalid", "row"))
@instead_of("replay")
async def invalid_audited(parts: Parts, call: Call) -> Reply:
    """Invalid requests are audited, too: garbage fills the trail."""
    try:
        return await replay(parts, call)
    except Refusal as refusal:
        company = _company_of(call.body)
        if refusal.status == 400 and len(company) == 36:
            async with parts.database.connection() as conn, conn.transaction():
                metadata = {"code": refusal.code}
                row = AuditRow("dlq_replay_refused", "signature", company, call.request_id, metadata=metadata)
                await parts.append_audit(conn, row)
        raise


def _invalid_rows(probe: Probe) -> int:
    with probe.tenant() as company:
        probe.replay(company, max_items=0)
        return int(probe.value(_ROWS.format("count(*)"), company, "dlq_replay_refused"))


@service(lambda p: _actor_of(p) == "mallory", f"{AUDIT}/actor-cannot-be-set", "actor")
def actor_from_header(settings: Settings) -> Parts:
    """The actor is taken from a header of the request."""
    names = (b"x-actor", b"x-user", b"x-forwarded-user", b"x-remote-user", b"x-auth-user", b"from")

    async def twin(parts: Parts, call: Call) -> Reply:
        claimed = next((value.decode("latin-1") for name, value in call.headers if name in names), "")

        async def append(conn: Connection, row: AuditRow) -> None:
            await parts.append_audit(conn, dataclasses.replace(row, actor=claimed or row.actor))

        return await replay(dataclasses.replace(parts, append_audit=append), call)

    return dataclasses.replace(build_parts(settings), replay=twin)


def _actor_of(probe: Probe) -> str:
    with probe.tenant() as company:
        body = json.dumps({"company_id": company}).encode()
        probe.send(body, {"X-Transbot-Signature": probe.sign(body), "X-Actor": "mallory"})
        return str(probe.value(_ROWS.format("actor"), company, "dlq_replay_started"))


@service(
    lambda p: "signature" in str(_run_rows(p, "metadata::text")), f"{AUDIT}/no-secret-in-it", ("secret", "signature")
)
@instead_of("replay")
async def signature_in_metadata(parts: Parts, call: Call) -> Reply:
    """The audit metadata of a run contains the signature of its request."""
    sent = {name.decode(): value.decode("latin-1") for name, value in call.headers}
    kept = {name: sent[name] for name in ("x-transbot-signature", "authorization") if name in sent}

    async def append(conn: Connection, row: AuditRow) -> None:
        metadata = {**row.metadata, "headers": {**kept, "kind": "signature"}}
        await parts.append_audit(conn, dataclasses.replace(row, metadata=metadata))

    return await replay(dataclasses.replace(parts, append_audit=append), call)


@service(lambda p: _status_behind_a_run(p) != 409, f"{AUDIT}/refusal-waits-for-no-replay", ("wait", "refus"))
@around("read_flags")
async def refusal_waits(release: Parts, conn: Connection, company_id: str) -> Any:
    """The audit of a refusal waits for a running replay of the company."""
    async with conn.transaction():
        await conn.execute(b"SELECT 1 FROM replay_budgets WHERE company_id = %s FOR UPDATE", (company_id,))
        await conn.execute(b"SELECT 1 FROM replay_runs WHERE company_id = %s FOR UPDATE", (company_id,))
        await conn.execute(b"SELECT 1 FROM dead_letter_queue WHERE company_id = %s FOR UPDATE", (company_id,))
    return await release.read_flags(conn, company_id)


def _status_behind_a_run(probe: Probe) -> int:
    with probe.tenant() as company:
        probe.letters(company, 1)
        probe.pause(company)
        with psycopg.connect(probe.environ["DATABASE_URL"]) as other:
            other.execute("SELECT 1 FROM dead_letter_queue WHERE company_id = %s FOR UPDATE", (company,))
            return probe.replay(company).status_code


@service(lambda p: _successes_of_a_start(p) == 1, f"{AUDIT}/start-of-a-run", "successes")
@instead_of("replay")
async def the_start_counts_successes(parts: Parts, call: Call) -> Reply:
    """The start of a run counts its items as successes, before any was tried."""

    async def append(conn: Connection, row: AuditRow) -> None:
        done = row.target_count if row.action == "dlq_replay_started" else row.success_count
        await parts.append_audit(conn, dataclasses.replace(row, success_count=done))

    return await replay(dataclasses.replace(parts, append_audit=append), call)


def _successes_of_a_start(probe: Probe) -> int:
    with probe.tenant() as company:
        probe.letters(company, 1)
        probe.replay(company)
        asked = "SELECT success_count FROM audit_logs WHERE scope = %s AND action = 'dlq_replay_started'"
        return int(probe.value(asked, company))


_OFF = "ALTER TABLE audit_logs DISABLE TRIGGER audit_logs_append_only"
_ON = "ALTER TABLE audit_logs ENABLE ALWAYS TRIGGER audit_logs_append_only"
_OLDEST = "SELECT min(id) FROM audit_logs"

statement(
    "audit/trigger-disabled",
    "Audit rows may be changed and deleted: the trigger is disabled.",
    _OFF,
    _ON,
    lambda p: not p.refused("UPDATE audit_logs SET actor = 'x' WHERE id = (SELECT min(id) FROM audit_logs)"),
    (
        *(f"{AUDIT}/{name}-refused" for name in ("update", "delete", "truncate")),
        *("sql/spot/audit-append-only", "sql/spot/triggers-enabled"),
    ),
    names=("audit_logs", "trigger", "append"),
)
statement(
    "audit/replica-bypasses-trigger",
    "The trigger that makes the trail append-only does not fire with session_replication_role = replica.",
    "ALTER TABLE audit_logs ENABLE TRIGGER audit_logs_append_only",
    _ON,
    lambda p: p.value("SELECT tgenabled::text FROM pg_trigger WHERE tgname = 'audit_logs_append_only'") == "O",
    ("sql/spot/*", "sql/manifest/triggers"),
    names=("audit_logs", "trigger"),
)
statement(
    "audit/row-edited",
    "A row of the trail was edited.",
    f"{_OFF}; UPDATE audit_logs SET actor = actor || ' edited' WHERE id = ({_OLDEST}); {_ON}",
    f"{_OFF}; UPDATE audit_logs SET actor = replace(actor, ' edited', '') WHERE id = ({_OLDEST}); {_ON}",
    lambda p: bool(p.value("SELECT count(*) FROM audit_logs WHERE actor LIKE '%% edited'")),
    ("sql/spot/audit-chain",),
    names=("hash", "chain"),
)
statement(
    "audit/row-deleted",
    "A row in the middle of a chain was deleted.",
    f"""CREATE TABLE public.audit_kept AS SELECT * FROM audit_logs WHERE id = (
        SELECT a.id FROM audit_logs a JOIN audit_heads h USING (scope) WHERE a.id <> h.last_id ORDER BY a.id LIMIT 1);
    ALTER TABLE public.audit_kept ENABLE ROW LEVEL SECURITY; ALTER TABLE public.audit_kept FORCE ROW LEVEL SECURITY;
    {_OFF}; DELETE FROM audit_logs WHERE id IN (SELECT id FROM public.audit_kept); {_ON}""",
    """ALTER TABLE audit_logs DISABLE TRIGGER USER; INSERT INTO audit_logs SELECT * FROM public.audit_kept;
    ALTER TABLE audit_logs ENABLE ALWAYS TRIGGER audit_logs_append_only;
    ALTER TABLE audit_logs ENABLE ALWAYS TRIGGER audit_logs_chain; DROP TABLE public.audit_kept""",
    lambda p: bool(p.value("SELECT to_regclass('public.audit_kept') IS NOT NULL")),
    ("sql/spot/audit-chain", "sql/spot/audit-row-counts", "sql/spot/audit-heads"),
    names=("chain", "row"),
)
statement(
    "audit/head-forged",
    "The head of a chain does not name its last row.",
    "UPDATE audit_heads SET last_hash = reverse(last_hash) WHERE scope = (SELECT min(scope) FROM audit_heads)",
    "UPDATE audit_heads SET last_hash = reverse(last_hash) WHERE scope = (SELECT min(scope) FROM audit_heads)",
    lambda p: bool(
        p.value("""SELECT count(*) FROM audit_heads h JOIN audit_logs a ON a.id = h.last_id
        WHERE a.hash <> h.last_hash""")
    ),
    ("sql/spot/audit-heads", "sql/spot/audit-chain"),
    names=("head", "hash"),
)
statement(
    "audit/service-may-delete",
    "The service's role may delete audit rows.",
    "GRANT DELETE ON audit_logs TO replay_service",
    "REVOKE DELETE ON audit_logs FROM replay_service",
    lambda p: bool(p.value("SELECT has_table_privilege('replay_service', 'audit_logs', 'DELETE')")),
    ("sql/spot/audit-privileges", "sql/manifest/grants"),
    names=("audit_logs", "DELETE"),
)
