"""What somebody switched off for everybody while a run went on: a service that then refuses keeps its promise."""

import json

import psycopg

from gates.deployment.database import Connection, execute
from gates.deployment.dialect.current import current
from gates.deployment.kept import borrowed
from gates.deployment.loans import LiveRow
from gates.deployment.requests import Request, bucket
from gates.deployment.tenants import OUTBOX_FLAG, REPLAY_FLAG

PAUSED, OFF = "agents_paused", "feature_disabled"
_LENT = "exists (select from public.feature_flags l where l.key = %s)"
_FLAG = f"""
select f.enabled, f.rollout_percentage as percent, {_LENT} as lent,
       (select o.enabled from public.feature_flags o where o.key = f.key and o.company_id = %s::uuid) as own
from public.feature_flags f where f.key = %s and f.company_id is null
"""
_PAUSE = f"select c.agents_paused, {_LENT} as lent from public.agent_controls c where c.company_id is null"


def switched_off(url: str, request: Request, code: str) -> str:
    """What explains a refusal with this code: a row for everybody, which no drill has set; empty where nothing does."""
    try:
        with borrowed(url, read_only=True) as connection:
            return _paused(connection) if code == PAUSED else _off(connection, _company(request))
    except psycopg.Error:
        return ""


def _paused(connection: Connection) -> str:
    found = execute(connection, _PAUSE, LiveRow().record)
    paused = any(row["agents_paused"] is True and not row["lent"] for row in found)
    return "somebody paused everybody's agents" if paused else ""


def _off(connection: Connection, company: str) -> str:
    for key in (OUTBOX_FLAG, REPLAY_FLAG) if company else ():
        for row in execute(connection, _FLAG, LiveRow(key).record, company, key):
            outside = row["own"] is None and not current().own_buckets and _outside(key, company, row["percent"])
            if not row["lent"] and row["own"] is not True and (row["enabled"] is False or outside):
                return f"somebody switched {key} off, or to less"
    return ""


def _outside(key: str, company: str, percent: object) -> bool:
    return isinstance(percent, int) and bucket(key, company) >= percent


def _company(request: Request) -> str:
    """The tenant that a body is about; empty where there is none."""
    try:
        found = json.loads(request.body)["company_id"]
    except (ValueError, KeyError, TypeError):
        return ""
    return found if isinstance(found, str) else ""
