"""The operator's commands: sign a body, send it, see and set budgets, see and step flags. Returns; does not print."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import psycopg

from gates.act.acting import session
from gates.act.emergency import emergency, resume
from gates.act.flag import Order, Tell, look_at, rows
from gates.act.rollback import roll_back
from gates.act.rollout import promote
from gates.deployment.dialect.current import current, secrets
from gates.deployment.dialect.exchange import on_the_wire
from gates.deployment.http.client import HttpDoor, NoAnswer
from gates.deployment.identity import http_place
from gates.deployment.redaction import hidden, redact_text
from gates.deployment.requests import SIGNATURE, Answer, Request, curl, encode_body, signed_post, signed_post_v2
from gates.deployment.sql.database import session as reading
from gates.deployment.sql.failures import in_words
from gates.deployment.target import Target
from gates.errors import CannotWork, ConfigError
from gates.verdict import Action

BUDGET_COLUMNS = (
    *("company_id", "company_name", "status"),
    *("daily_limit", "daily_used", "daily_remaining", "day"),
    *("monthly_limit", "monthly_used", "monthly_remaining", "month"),
)
UNSET = "DATABASE_URL is not set; allowed: the target's database. Set the variable"


@dataclass(frozen=True, slots=True)
class Body:
    """What a replay asks for; None leaves a field out."""

    company_id: str
    max_items: int | None = None
    idempotency_key: str | None = None
    dry_run: bool = False
    force: bool = False

    def fields(self) -> dict[str, Any]:
        given = {"company_id": self.company_id, "max": self.max_items, "idempotency_key": self.idempotency_key}
        switches = {"dry_run": self.dry_run, "force": self.force}
        return {**{k: v for k, v in given.items() if v is not None}, **{k: v for k, v in switches.items() if v}}


@dataclass(frozen=True, slots=True)
class Signed:
    """A signed body: the bytes, their signature, and a command that sends them."""

    body: str
    signature: str
    curl: str


def sign(target: Target, body: Body, unix_seconds: int | None = None) -> Signed:
    """Sign the body with v1, or with v2 if there is a time. Raise ConfigError if there is no secret."""
    request = _request(target, body, unix_seconds)
    signature = next(v for k, v in request.headers if k == SIGNATURE)
    sent = on_the_wire(request)
    return Signed(sent.body.decode(), signature, curl(sent, target.base_url, secrets()))


def _request(target: Target, body: Body, unix_seconds: int | None) -> Request:
    if not target.hmac_secret:
        raise ConfigError("TRANSBOT_HMAC_SECRET is not set; allowed: the secret of signed requests. Set the variable")
    encoded = encode_body(body.fields())
    if unix_seconds is None:
        return signed_post("/dlq-replay", encoded, target.hmac_secret)
    return signed_post_v2("/dlq-replay", encoded, target.hmac_secret, unix_seconds)


def replay(target: Target, body: Body, unix_seconds: int | None = None) -> Answer:
    """Send the signed body. Raise CannotWork if there is no answer, ConfigError if there is no target."""
    if not target.base_url:
        raise ConfigError("BASE_URL is not set; allowed: where the functions live. Set the variable")
    try:
        with HttpDoor(target.base_url) as door:
            return door.send(_request(target, body, unix_seconds))
    except NoAnswer as error:
        raise CannotWork(
            f"{error}; allowed: an answer within 10 s; at {http_place(target)}. Check that it runs"
        ) from error


def budgets(target: Target, company: str | None) -> list[dict[str, Any]]:
    """Rows of replay_budgets_status, with its columns ordered: tenant, day, month, then the rest."""
    rows = _ask(target, "budgets_status", {"company": company})
    return [{name: row["row"][name] for name in in_order(row["row"])} for row in rows]


def in_order(names: Iterable[str]) -> list[str]:
    """The columns of a budget in the order for people; unknown ones last."""
    return sorted(names, key=lambda name: BUDGET_COLUMNS.index(name) if name in BUDGET_COLUMNS else len(BUDGET_COLUMNS))


def set_budget(target: Target, company: str, daily: int | None, monthly: int | None) -> dict[str, Any]:
    """Set a tenant's limits; None leaves one unchanged. Returns them as a new connection reads them back. Raise
    CannotWork if they are others.
    """
    given: dict[str, object] = {"company": company, "daily": daily, "monthly": monthly}
    if not _ask(target, "budget_set", given, write=True):
        _ask(target, "budget_add", given, write=True)
    kept = _ask(target, "budget_seen", given, write=True)
    asked = {name: limit for name, limit in (("daily_limit", daily), ("monthly_limit", monthly)) if limit is not None}
    if not kept or any(row[name] != limit for row in kept for name, limit in asked.items()):
        seen = "; ".join(str({name: row[name] for name in asked}) for row in kept) or "no row"
        do = f"See what else writes {current().real('replay_budgets')}: a trigger, a rule, somebody"
        raise CannotWork(f"read back: {seen}; allowed: {asked}. {do}")
    return kept[0]


def flags(target: Target) -> list[dict[str, Any]]:
    """Rows of feature_flags_status."""
    return _ask(target, "flags_status", {})


def hides_flags(target: Target) -> bool:
    """Whether row-level security may hide flags from this login."""
    return _ask(target, "flag_keys", {})[0]["hidden"] is True


def act_by_hand(target: Target, what: str, order: Order, tell: Tell) -> Action:
    """`promote`, `enable`, `rollback`, `emergency`, `resume`: acts like a run, with audit row and read-back."""
    url = target.database_url
    if what in {"promote", "enable"}:
        return promote(url, replace(order, seen=order.seen or look_at(url, order.plan.flag)))
    return {"emergency": emergency, "resume": resume, "rollback": roll_back}[what](url, order, time.monotonic, tell)


def _ask(target: Target, name: str, values: dict[str, object], *, write: bool = False) -> list[dict[str, Any]]:
    if not target.database_url:
        raise ConfigError(UNSET)
    try:
        with session(target.database_url) if write else reading(target.database_url, read_only=True) as connection:
            return rows(connection, name, values)
    except psycopg.Error as error:
        text = redact_text(in_words(error), hidden(target))
        raise CannotWork(f"{text}; allowed: a database that keeps the contract; at DATABASE_URL. Correct it") from None
