"""Whether BASE_URL and DATABASE_URL lead to one deployment: a company that is written there must be known here."""

import time
from collections.abc import Callable, Iterator

import psycopg

from gates.deployment.capabilities import PROBE_TIMEOUT_S, a_company
from gates.deployment.credentials import good_claims
from gates.deployment.dialect.current import current
from gates.deployment.http import probes
from gates.deployment.http.client import HttpDoor, NoAnswer
from gates.deployment.http.clock import Clock
from gates.deployment.identity import database_place
from gates.deployment.requests import Answer, Request, claims_of, mint_token, signed_post_v2, token_post
from gates.deployment.sql.database import Connection, value
from gates.deployment.target import Target
from gates.evidence import Evidence, Outcome, Where
from gates.stages.preflight.credentials import Memory
from gates.stages.preflight.database import DATABASE, SERVER
from gates.stages.preflight.endpoints import VERSION_REQUESTS
from gates.stages.preflight.looks import LookResult, timed

SEEN_S, AGAIN_S = 3.0, 0.25
"""How long a new company may be unknown to a service that reads a replica; the pause between requests."""
APART = (
    "the service refuses a dry run for a company that the gate has just written to {}, with 403 forbidden. See that"
    " DATABASE_URL leads to the database of the service at BASE_URL, and that signatures and admins serve any company"
)
SOME_APART = (
    "some instances of the service know a company that the gate has just written to {}, and others refuse it with 403"
    " forbidden, and leave no audit row there: they use another database. See that all of them have the same one"
)
AUDITED = """select exists (select from public.audit_logs where created_at > now() - interval '2 minutes'
 and ((request_id <> '' and request_id = any(%s)) or (%s and action = 'dlq_replay_refused')))"""
PAIR = "pair"


def of_one_deployment(line: Evidence, target: Target, memory: Memory, note: Callable[[str], object]) -> Evidence:
    """The line of the database; unknown if the service does not use that database, so that nothing is judged by it. A
    release that audits its refusals there does use it, and is to blame for them. note: told each company.
    """
    pair = f"{database_place(target)} {line.details.get(SERVER)}"
    known = bool(memory.accepted(PAIR, pair)) and not memory.rotated(PAIR, pair, target.release)
    apart = is_apart(target, note, known=known)
    if apart == "":
        memory.note(PAIR, pair, target.release)
    if not apart:
        return line
    seen = LookResult(Outcome.UNKNOWN, apart.format(database_place(target)), unreachable=True)
    return timed(DATABASE, target, lambda: seen)


def is_apart(target: Target, note: Callable[[str], object], *, known: bool = False) -> str | None:
    """That the service, or some instances of it, keep refusing a dry run for a new company in the database, and nothing
    there shows that they use it. Empty if they carry out the dry run; None if neither was seen.
    """
    may_write = target.kind.allows(Where.SELF_CLEANING) and target.database_url
    if not (may_write and target.base_url and probes.has_dry_runs()):
        return None
    try:
        with HttpDoor(target.base_url, timeout_s=PROBE_TIMEOUT_S) as door, a_company(target, note) as (rows, company):
            body, deadline = probes.for_nobody(company), time.monotonic() + SEEN_S
            requests: list[str] = []
            is_known = False
            while True:
                asked = ((door.send(r), r) for r in _for_any(target, body, Clock(door).now()))
                first, request = next(((a, r) for a, r in asked if a.status != 401), (None, None))
                others = door.burst([request] * VERSION_REQUESTS, spread=True) if first and request else []
                answers = [a for a in (first, *others) if isinstance(a, Answer)]
                refused = [a for a in answers if (a.status, a.code) == (403, "forbidden")]
                is_known = is_known or any(a.status == 200 for a in answers)
                if not refused:
                    return "" if is_known else None
                requests += [name for a in refused for name in a.request_ids]
                if time.monotonic() > deadline:
                    is_used = _is_used(rows, requests, known=known and not is_known)
                    return None if is_used else SOME_APART if is_known else APART
                time.sleep(AGAIN_S)
    except (NoAnswer, OSError, ValueError, psycopg.Error):
        return None


def _for_any(target: Target, body: bytes, now_s: int) -> Iterator[Request]:
    """The request with each credential that is valid for any company."""
    if target.hmac_secret:
        yield signed_post_v2(probes.REPLAY, body, target.hmac_secret, now_s)
    if claims_of(target.admin_jwt).get("role") == "super_admin":
        yield token_post(probes.REPLAY, body, target.admin_jwt)
    if target.jwt_secret:
        yield token_post(probes.REPLAY, body, mint_token(target.jwt_secret, good_claims(target, now_s)))


def _is_used(connection: Connection, requests: list[str], *, known: bool) -> bool:
    """Whether the audit trail here has a row of one of these requests; a service may write one a minute for all
    refusals. known: an earlier release used this database. Then any fresh refusal is enough, or a missing trail.
    """
    if not current().real("audit_logs"):
        return known
    return value(connection, AUDITED, requests, known) is True
