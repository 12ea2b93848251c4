"""A small probe for witnesses: signed requests, SQL, tenants of its own. It shares nothing with the gate's drills."""

import base64
import hashlib
import hmac
import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import httpx
import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.json import Jsonb

Row = tuple[Any, ...]
TIMEOUT_S = 10.0
POLL_S = 0.1
TABLES = (
    "event_outbox",
    "events",
    "dead_letter_queue",
    "agent_tasks",
    "replay_runs",
    "replay_budgets",
    "agent_controls",
    "feature_flags",
)
FIND_TENANT = """
SELECT u::text FROM (SELECT gen_random_uuid() AS u FROM generate_series(1, 3000)) AS made
WHERE public.is_feature_enabled('outbox.enabled', u) LIMIT 1
"""


class ProbeError(Exception):
    """The probe could not look; says nothing about the fault."""


class Probe:
    """HTTP at BASE_URL and SQL at DATABASE_URL, as a witness uses them. Leaves nothing but audit rows."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        missing = [n for n in ("BASE_URL", "DATABASE_URL", "TRANSBOT_HMAC_SECRET") if not environ.get(n)]
        if missing:
            raise ProbeError(f"{', '.join(missing)} not set; a witness needs them; see section 1 of the contract")
        self.environ = environ
        self.base_url = environ["BASE_URL"].rstrip("/")
        self.secrets = environ["TRANSBOT_HMAC_SECRET"].split(",")
        self._exit = ExitStack()

    def __enter__(self) -> Self:
        self.http = self._exit.enter_context(httpx.Client(timeout=TIMEOUT_S, trust_env=False))
        self._sql = self._exit.enter_context(psycopg.connect(self.environ["DATABASE_URL"], autocommit=True))
        self._sql.execute("SET statement_timeout = '10s'")
        return self

    def __exit__(self, *_error: object) -> None:
        self._exit.close()

    def hold(self, held: AbstractContextManager[Any]) -> None:
        """Keep something open as long as the probe."""
        self._exit.enter_context(held)

    def rows(self, text: str, *values: Any) -> list[Row]:
        """All rows of a statement; empty where it returns none."""
        cursor = self._sql.execute(text.encode(), values or None)
        return cursor.fetchall() if cursor.description else []

    def value(self, text: str, *values: Any) -> Any:
        """The first column of the first row; ProbeError where there is none."""
        found = self.rows(text, *values)
        if not found:
            raise ProbeError(f"no row came back from: {text}")
        return found[0][0]

    def refused(self, text: str, *values: Any) -> bool:
        """Whether the database refuses the statement. What it did is taken back."""
        try:
            with self._sql.transaction(force_rollback=True):
                self._sql.execute(text.encode(), values or None)
        except psycopg.Error:
            return True
        return False

    @contextmanager
    def tenant(self) -> Iterator[str]:
        """A company of one's own that `outbox.enabled` has on; everything of it is removed at the end."""
        found = self.rows(FIND_TENANT)
        company_id = str(found[0][0]) if found else str(uuid.uuid4())
        self.rows("INSERT INTO companies (id, name) VALUES (%s, 'drill-witness')", company_id)
        try:
            yield company_id
        finally:
            self._remove(company_id)

    def _remove(self, company_id: str) -> None:
        for table in TABLES:
            self.rows(f"DELETE FROM {table} WHERE company_id = %s", company_id)
        self.rows("DELETE FROM edge_rate_limits WHERE key LIKE %s", f"replay:{company_id}:%")
        self.rows("DELETE FROM companies WHERE id = %s", company_id)

    def letters(self, company_id: str, count: int, **columns: Any) -> list[str]:
        """Dead letters of a company, oldest first a second apart; `columns` are set on each."""
        values: dict[str, Any] = {
            "event_type": "witness.done",
            "payload": Jsonb({"n": 1}),
            "error_type": "timeout",
            **columns,
        }
        names, marks = ", ".join(values), ", ".join(["%s"] * len(values))
        text = f"""
            INSERT INTO dead_letter_queue (company_id, created_at, {names})
            VALUES (%s, now() - make_interval(secs => 1000 - %s), {marks}) RETURNING id::text"""
        return [str(self.value(text, company_id, n, *values.values())) for n in range(count)]

    def pause(self, company_id: str) -> None:
        self.rows("INSERT INTO agent_controls (company_id, agents_paused) VALUES (%s, true)", company_id)

    def switch_off(self, company_id: str, flag: str = "outbox.enabled") -> None:
        self.rows("INSERT INTO feature_flags (key, company_id, enabled) VALUES (%s, %s, false)", flag, company_id)

    def sign(self, message: bytes, secret: str = "") -> str:
        """A v1 signature."""
        return hmac.new((secret or self.secrets[0]).encode(), message, hashlib.sha256).hexdigest()

    def sign_v2(self, message: bytes, sent_at: int) -> str:
        """A v2 signature made at `sent_at`."""
        return f"t={sent_at},v2={self.sign(str(sent_at).encode() + b'.' + message)}"

    def token(self, claims: Mapping[str, Any], header: Mapping[str, Any] | None = None, secret: str = "") -> str:
        """A token under REPLAY_JWT_SECRET; `exp`, `sub` and `role` are added, None leaves out."""
        key = secret or self.environ.get("REPLAY_JWT_SECRET", "")
        if not key:
            raise ProbeError("REPLAY_JWT_SECRET is not set; this witness mints tokens; set it")
        whole = {"exp": int(time.time()) + 600, "sub": "witness", "role": "super_admin", **claims}
        given = {name: value for name, value in whole.items() if value is not None}
        return mint(given, key, header)

    def send(self, body: bytes, headers: Mapping[str, str] | None = None, path: str = "/dlq-replay") -> httpx.Response:
        """POST raw bytes, signed with v1 where `headers` are not given."""
        kept = {"X-Transbot-Signature": self.sign(body)} if headers is None else headers
        return self.http.post(self.base_url + path, content=body, headers={"Content-Type": "application/json", **kept})

    def replay(self, company_id: str, **fields: Any) -> httpx.Response:
        """A signed replay request; `max_items` is the field `max`."""
        if "max_items" in fields:
            fields["max"] = fields.pop("max_items")
        return self.send(json.dumps({"company_id": company_id, **fields}).encode())

    def event(self, company_id: str, **fields: Any) -> httpx.Response:
        """A signed event; what is None is left out."""
        whole = {"company_id": company_id, "event_type": "witness.done", "aggregate_key": "k", "payload": {"n": 1}}
        sent = {name: value for name, value in (whole | fields).items() if value is not None}
        return self.send(json.dumps(sent).encode(), path="/events")

    def get(self, path: str, **headers: str) -> httpx.Response:
        """GET under BASE_URL."""
        return self.http.get(self.base_url + path, headers=headers)

    def read(self, path: str) -> httpx.Response:
        """GET under BASE_URL, signed with v2."""
        return self.get(path, **{"X-Transbot-Signature": self.sign_v2(path.encode(), int(time.time()))})

    def as_token(self, token: str) -> dict[str, str]:
        """The header of a token."""
        return {"Authorization": f"Bearer {token}"}

    def within(self, seconds: float, wanted: Callable[[], bool]) -> bool:
        """Whether `wanted` comes true in time."""
        deadline = time.monotonic() + seconds
        while True:
            if wanted():
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_S)

    def settled(self, run_id: str, seconds: float = 8.0) -> bool:
        """Whether the run ends in time."""
        text = "SELECT 1 FROM replay_runs WHERE id = %s AND status <> 'started'"
        return self.within(seconds, lambda: bool(self.rows(text, run_id)))


def mint(claims: Mapping[str, Any], secret: str, header: Mapping[str, Any] | None = None) -> str:
    """A token with these claims and no others."""
    parts = (json.dumps(part).encode() for part in (header or {"alg": "HS256", "typ": "JWT"}, claims))
    text = b".".join(map(_segment, parts))
    return (text + b"." + mac(text, secret)).decode()


def mac(text: bytes, secret: str) -> bytes:
    """The signature of a token."""
    return _segment(hmac.new(secret.encode(), text, hashlib.sha256).digest())


def _segment(value: bytes) -> bytes:
    return base64.urlsafe_b64encode(value).rstrip(b"=")


def runs(parts: str) -> Callable[[Probe], bool]:
    """A witness for what shows only when something else breaks: a process of this deployment has this composition."""

    def witness(probe: Probe) -> bool:
        here = _place(probe.environ["DATABASE_URL"])
        return any(_place(url) == here for url in _composed(parts.encode()))

    return witness


def _composed(parts: bytes) -> Iterator[str]:
    """The databases of the processes that were started with this composition."""
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if parts in command.read_bytes().split(b"\0"):
                told = command.with_name("environ").read_bytes().split(b"\0")
                yield from (v.decode().partition("=")[2] for v in told if v.startswith(b"DATABASE_URL="))


def _place(url: str) -> tuple[Any, ...]:
    parts = conninfo_to_dict(url)
    return tuple(parts.get(name) for name in ("host", "port", "dbname"))
