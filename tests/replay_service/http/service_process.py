"""A running service and what tests send to it: signatures, tokens, dead letters."""

import hashlib
import hmac
import json
import subprocess
import time
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import jwt
import psycopg

from gates.stack.procfs import wait_until
from replay_service.composition import build_parts
from replay_service.database import Connection
from replay_service.parts import Parts
from replay_service.settings import Settings

BASE_PATH = "/functions/v1"
HMAC_SECRET = "first-hmac-secret-0123456789"
OLD_HMAC_SECRET = "second-hmac-secret-0123456789"
JWT_SECRET = "jwt-secret-0123456789-0123456789-xyz"
ENVIRONMENT = {
    "TRANSBOT_HMAC_SECRET": f"{HMAC_SECRET},{OLD_HMAC_SECRET}",
    "REPLAY_JWT_SECRET": JWT_SECRET,
    "RELEASE": "test-release",
    "COMMIT": "abc123",
    "LOG_LEVEL": "INFO",
}
Db = psycopg.Connection[tuple[Any, ...]]


@dataclass(frozen=True)
class Service:
    process: subprocess.Popen[bytes]
    url: str
    port: int
    log: Path
    database_url: str

    def wait_alive(self) -> None:
        assert wait_until(self._alive, 30), f"not alive after 30 s: {self.log.read_text()}"

    def _alive(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return httpx.get(f"{self.url}/healthz", timeout=1).status_code == 200
        except httpx.TransportError:
            return False

    def stop(self) -> None:
        """End it, gracefully and with exit 0, unless the test has killed it."""
        if self.process.poll() == -9:
            return
        if self.process.poll() is None:
            self.process.terminate()
        assert self.process.wait(timeout=6) == 0, self.log.read_text()[-2000:]


def encode(fields: Any) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode()


def sign(body: bytes, secret: str = HMAC_SECRET) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def sign_v2(message: bytes, at: int | None = None, secret: str = HMAC_SECRET) -> str:
    stamp = int(time.time()) if at is None else at
    return f"t={stamp},v2={sign(f'{stamp}.'.encode() + message, secret)}"


def token(role: Any = "super_admin", secret: str = JWT_SECRET, **claims: Any) -> str:
    """A token; a claim given as None is left out."""
    values = {"sub": "admin-1", "role": role, "exp": int(time.time()) + 600} | claims
    return jwt.encode({k: v for k, v in values.items() if v is not None}, secret, algorithm="HS256")


def post(http: httpx.Client, fields: Any, path: str = "/dlq-replay", **headers: str) -> httpx.Response:
    """A signed POST; `fields` may be raw bytes. Headers may replace or (empty) remove the defaults."""
    body = fields if isinstance(fields, bytes) else encode(fields)
    sent = {"content-type": "application/json", "x-transbot-signature": sign(body)}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    return http.post(path, content=body, headers={k: v for k, v in sent.items() if v})


def add_items(db: Db, company: str, count: int, **columns: Any) -> list[str]:
    """Pending dead letters, oldest first."""
    values = {"event_type": "order.paid", "payload": "{}", "error_type": "timeout"} | columns
    ids = [str(uuid.uuid4()) for _ in range(count)]
    names = ", ".join(values)
    marks = ", ".join(["%s"] * len(values))
    statement = (
        f"INSERT INTO dead_letter_queue (id, company_id, created_at, {names})"
        f" VALUES (%s, %s, now() - interval '1 hour' + make_interval(secs => %s), {marks})"
    )
    with db.cursor() as cursor:
        cursor.executemany(statement.encode(), [(i, company, n, *values.values()) for n, i in enumerate(ids)])
    return ids


def forget_limit(db: Db, company: str) -> None:
    db.execute("DELETE FROM edge_rate_limits WHERE key LIKE %s", [f"replay:{company}:%"])


def value(db: Db, query: str, *parameters: Any) -> Any:
    row = db.execute(query.encode(), parameters).fetchone()
    return None if row is None else row[0]


def rolled_out(service: Service) -> Service:
    """The service, with the flags of a fully rolled-out deployment."""
    with psycopg.connect(service.database_url, autocommit=True) as conn:
        for key in ("outbox.enabled", "dlq.replay.enabled", "dlq.replay.budget_control"):
            conn.execute("INSERT INTO feature_flags (key, enabled) VALUES (%s, true)", [key])
    return service


async def _admit_all(_conn: Connection, _company_id: str, _client: str) -> None:
    return


def parts_without_limit(settings: Settings) -> Parts:
    """The composition of a release, with a rate limiter that admits everything."""
    return replace(build_parts(settings), admit=_admit_all)
