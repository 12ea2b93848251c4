"""A small service that authenticates, and its secrets."""

import datetime as dt
import hashlib
import hmac
import json
import time
from dataclasses import dataclass, field, replace
from typing import Any

from gates.deployment.requests import SIGNATURE, claims_of, encode_segment, mint_token
from gates.proof.workbench.servers import Asked, Reply

SECRET, OLDER, WRONG = "the-secret-of-the-service-1", "the-secret-of-the-service-0", "not-the-secret-of-the-service"
JWT_SECRET = "the-jwt-secret-of-the-service-32-bytes"
REFUSED, ACCEPTED, ABSENT = Reply(401), Reply(400), Reply(404, (("Content-Type", "text/plain"),), b"Not Found")
# Longer than any run of the whole suite: the parameters below are made when pytest collects.
A_DAY_S = 86_400


@dataclass
class Service:
    """It authenticates as the contract says. `broken`: paths and forms of credentials that the release refuses."""

    secrets: tuple[str, ...] = (SECRET, OLDER)
    jwt_secret: str = JWT_SECRET
    release: str = "r1"
    audience: str = ""
    v1: bool = True
    v2: bool = True
    broken: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    validates_first: bool = False
    guarded: bool = True
    clock_ahead_s: int = 0
    posted: list[bytes] = field(default_factory=list)

    def __call__(self, asked: Asked) -> Reply:
        path = "/" + asked.path.partition("/v1/")[2]
        if path in self.absent:
            return ABSENT
        if path in {"/healthz", "/readyz", "/version", "/metrics"}:
            return Reply(200, (("Content-Type", "application/json"),), json.dumps({"release": self.release}).encode())
        self.posted.append(asked.body)
        reply = self._judged(asked, path)
        moment = dt.datetime.fromtimestamp(time.time() + self.clock_ahead_s, dt.UTC)
        date = moment.strftime("%a, %d %b %Y %H:%M:%S GMT")
        return replace(reply, headers=(*reply.headers, ("Date", date)))

    def _judged(self, asked: Asked, path: str) -> Reply:
        found = Reply(404) if asked.method == "GET" else ACCEPTED if asked.body == b"{}" else Reply(403)
        if self.validates_first and asked.method == "POST" and asked.body == b"{}":
            return ACCEPTED
        if not self.guarded:
            return found
        good = path not in self.broken and (self._signed(asked, path) or self._token(asked))
        return found if good else REFUSED

    def _signed(self, asked: Asked, path: str) -> bool:
        given = asked.header(SIGNATURE)
        if given.startswith("t="):
            at, _, mac = given.removeprefix("t=").partition(",v2=")
            fresh = abs(int(at) - time.time() - self.clock_ahead_s) <= 300
            message = f"{at}.".encode() + (asked.body if asked.method == "POST" else path.encode())
            return self.v2 and fresh and mac in {_mac(s, message) for s in self.secrets}
        return self.v1 and given in {_mac(s, asked.body) for s in self.secrets}

    def _token(self, asked: Asked) -> bool:
        token = asked.header("Authorization").removeprefix("Bearer ")
        if self.audience and claims_of(token).get("aud") != self.audience:
            return False
        unsigned, _, signature = token.rpartition(".")
        mac = hmac.new(self.jwt_secret.encode(), unsigned.encode(), hashlib.sha256).digest()
        return "token" not in self.broken and bool(token) and signature == encode_segment(mac)


def _mac(secret: str, message: bytes) -> str:
    return hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()


def admin(secret: str = JWT_SECRET, **claims: Any) -> str:
    now = int(time.time())
    return mint_token(secret, {"sub": "a", "role": "super_admin", "exp": now + A_DAY_S, "iat": now, **claims})
