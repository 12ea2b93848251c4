"""Pure builders of the requests of the contract (section 2): signing, tokens, bodies. No I/O, no clock.

Shared by drills, the load stage and the operator's tools.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any
from urllib.parse import urlsplit

from gates.deployment.dialect.current import current, http_words
from gates.deployment.ids import answered
from gates.text.foreign import JsonValue, json_object, json_value, text

SIGNATURE = "X-Transbot-Signature"
JSON_TYPE = "application/json"
MOST_CODE = 200
"""How much of a problem's `code` is shown; no code of the contract is nearly as long."""

Headers = tuple[tuple[str, str], ...]

FIXED_PATHS = ("/dlq-replay", "/events", "/healthz", "/readyz", "/version", "/metrics", "/openapi.json")
"""Fixed paths of the contract: a 404 there means that the endpoint is missing, never a company or an item."""


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request under BASE_URL: `path` begins with a slash; headers keep their order and may repeat."""

    method: str
    path: str
    headers: Headers = ()
    body: bytes = b""
    label: str = ""

    @property
    def bare(self) -> str:
        """The path without its query."""
        return self.path.partition("?")[0]

    @property
    def route(self) -> str:
        """The fixed path of the contract that it is under, else its own."""
        return next((fixed for fixed in FIXED_PATHS if self.bare.startswith(fixed)), self.bare)

    @property
    def place(self) -> str:
        """The endpoint, in the same words whatever is asked of it: reports show what has one reason as one cause."""
        return f"{self.method} {self.route}{'/ID' * (self.bare != self.route)}"

    def with_header(self, name: str, value: str) -> Request:
        """The request with one header replaced (case-insensitive) or added."""
        kept = tuple((k, v) for k, v in self.headers if k.lower() != name.lower())
        return Request(self.method, self.path, (*kept, (name, value)), self.body, self.label)

    def without_header(self, name: str) -> Request:
        kept = tuple((k, v) for k, v in self.headers if k.lower() != name.lower())
        return Request(self.method, self.path, kept, self.body, self.label)

    def adding_header(self, name: str, value: str) -> Request:
        """The request with one more header, even if there is one of that name."""
        return Request(self.method, self.path, (*self.headers, (name, value)), self.body, self.label)

    def with_body(self, body: bytes) -> Request:
        """The request with another body and the old headers: signatures are not renewed."""
        return Request(self.method, self.path, self.headers, body, self.label)

    def labelled(self, label: str) -> Request:
        return Request(self.method, self.path, self.headers, self.body, label)


OF_THE_CONNECTION = {"connection", "keep-alive", "content-length", "transfer-encoding", "trailer"}
"""Headers about the transfer of a body and the connection."""
OF_THE_REQUEST = {"instance", "requestid", "correlationid", "traceid", "timestamp"}
"""Members of problem documents in every framework's spelling, without `_`, in lower case."""
BY_A_PROXY = (502, 503, 504, *range(520, 531), 546)
"""Statuses of a proxy in front of the target, or of a target that cannot serve. 520 to 530 are those of a CDN that got
no answer, or a broken one, from it; 546: the platform ended the function at one of its limits.
"""
BUSY = (408, 425, 429, *BY_A_PROXY)
"""Statuses that, where another was due, say that the target was busy or limited us: they prove nothing."""


def is_a_firewalls(status: int, body: bytes) -> bool:
    """Whether a firewall may have answered, which takes a check's request for an attack. It sends a page, where the
    contract's own refusals are JSON.
    """
    page = body.strip()
    return status in {403, 406} and bool(page) and not page.startswith(b"{")


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: status, headers (names in lower case, repeated ones kept), raw body, milliseconds it took."""

    status: int
    headers: Headers
    body: bytes
    elapsed_ms: float
    received: Answer | None = None
    """The answer on the wire, if the deployment has other names."""
    trace: str = ""
    """The id of the trace that the request began."""

    def header(self, name: str) -> str | None:
        return next((v for k, v in self.headers if k == name.lower()), None)

    @property
    def request_ids(self) -> list[str]:
        """Each X-Request-Id, in one line or several: a proxy may put its own before or after the service's."""
        lines = [value.split(",") for name, value in self.headers if name == "x-request-id"]
        return [one.strip() for line in lines for one in line if one.strip()]

    @property
    def is_in_front(self) -> bool:
        """Whether a proxy or limiter in front says that it is busy: the service's own answers have a code or an id."""
        return self.status in BUSY and not self.code and not self.request_ids

    def json(self) -> dict[str, Any]:
        """The body as a JSON object with its UUIDs in lower case; an empty mapping if it is none. The caller's
        assertion then shows the body.
        """
        return answered(self.body)

    @property
    def header_names(self) -> list[str]:
        """Sorted, without those of the connection."""
        return sorted({k for k, _ in self.headers} - OF_THE_CONNECTION)

    @property
    def is_elsewhere(self) -> bool:
        """Whether it is a redirect: a proxy or the framework wants another address (https, or a slash at the end)."""
        return 300 <= self.status < 400

    def says(self, word: str) -> bool:
        """Whether the body contains the word, however JSON escapes its letters."""
        return word in self.body.decode("utf-8", "replace") or word in json.dumps(
            json_value(self.body), ensure_ascii=False
        )

    def said(self, *asked: str) -> JsonValue | bytes:
        """The body without what differs in each request: ids, trace and time; bytes if it is no JSON object."""
        words = [word for word in (*self.request_ids, *asked) if word]
        members, own = self.json(), [*words, *map(str.lower, words)]
        if members:
            return _without(members, own)
        return reduce(lambda body, word: body.replace(word.encode(), b"<id>"), own, self.body)

    def unlike_a_problem(self) -> str:
        """What makes the answer no problem document (RFC 9457) with a code; empty where it is one."""
        kind = (self.header("content-type") or "").partition(";")[0].strip().lower()
        if kind != "application/problem+json":
            return f"content type {kind!r}; due: application/problem+json"
        document = self.json()
        if missing := {"type", "title", "status", "detail", "code"} - set(document):
            return f"the problem document lacks {sorted(missing)}"
        told = document["status"]
        return "" if told == self.status else f"status member {told!r}; due: {self.status}"

    @property
    def code(self) -> str:
        """The machine-readable `code` of a problem answer, or an empty string."""
        return text(self.json().get("code", ""), MOST_CODE)


def _without(one: JsonValue, own: Sequence[str]) -> JsonValue:
    """The document without these members at any depth, and with these words masked."""
    if isinstance(one, dict):
        kept = {k: v for k, v in one.items() if re.sub("[_-]", "", k).lower() not in OF_THE_REQUEST}
        return {k: _without(v, own) for k, v in kept.items()}
    if isinstance(one, list):
        return [_without(part, own) for part in one]
    return reduce(lambda text, word: text.replace(word, "<id>"), own, one) if isinstance(one, str) else one


@dataclass(frozen=True, slots=True)
class Exchange:
    request: Request
    answer: Answer


def sign_v1(secret: str, body: bytes, path: str = "/dlq-replay") -> str:
    """Lower-case hex HMAC-SHA256 of the raw body bytes; or of bytes and path in the deployment's form."""
    if (words := http_words()) is not None:
        return words.sign(secret, body, path=path)
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def forged_signature() -> str:
    """A well-formed signature, by the deployment's form, of no body and by nobody's secret."""
    return sign_v1("nobody's secret, of more than 32 bytes", b"no body")


def sign_v2(secret: str, message: bytes, unix_seconds: int, path: str = "/dlq-replay") -> str:
    """`t=<unix seconds>,v2=<hex HMAC-SHA256 of "<t>.<message>">`; the message is the raw body, or the path of a GET."""
    if (words := http_words()) is not None:
        return words.sign(secret, message, unix_seconds, path)
    mac = hmac.new(secret.encode(), f"{unix_seconds}.".encode() + message, hashlib.sha256).hexdigest()
    return f"t={unix_seconds},v2={mac}"


def encode_body(fields: Mapping[str, Any]) -> bytes:
    """The compact JSON bytes of a body; these very bytes are signed and sent."""
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()


def post(path: str, body: bytes, *headers: tuple[str, str], label: str = "") -> Request:
    """A JSON POST with these headers and nothing else."""
    return Request("POST", path, (("Content-Type", JSON_TYPE), *headers), body, label)


def signed_post(path: str, fields: Mapping[str, Any] | bytes, secret: str, label: str = "") -> Request:
    """A POST with a v1 signature over exactly the bytes it sends."""
    body = fields if isinstance(fields, bytes) else encode_body(fields)
    return post(path, body, (SIGNATURE, sign_v1(secret, body, path)), label=label)


def signed_post_v2(
    path: str, fields: Mapping[str, Any] | bytes, secret: str, unix_seconds: int, label: str = ""
) -> Request:
    body = fields if isinstance(fields, bytes) else encode_body(fields)
    return post(path, body, (SIGNATURE, sign_v2(secret, body, unix_seconds, path)), label=label)


def token_post(path: str, fields: Mapping[str, Any] | bytes, token: str, label: str = "") -> Request:
    body = fields if isinstance(fields, bytes) else encode_body(fields)
    return post(path, body, ("Authorization", f"Bearer {token}"), label=label)


def signed_get(path: str, secret: str, unix_seconds: int, label: str = "") -> Request:
    """A GET with a v2 signature over `<t>.<path>`; `path` is the path from /dlq-replay/ or /events/ on."""
    return Request("GET", path, ((SIGNATURE, sign_v2(secret, path.encode(), unix_seconds)),), b"", label)


def token_get(path: str, token: str, label: str = "") -> Request:
    return Request("GET", path, (("Authorization", f"Bearer {token}"),), b"", label)


def encode_segment(value: bytes) -> str:
    """base64url without padding, as in a JWT."""
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def raw_token(header: Mapping[str, Any] | bytes, claims: Mapping[str, Any] | bytes, signature: bytes | None) -> str:
    """A token of any header, claims and signature, well-formed or not (None: no third part)."""
    if (words := http_words()) is not None and not isinstance(claims, bytes):
        claims = words.claims(claims)
    parts = [
        encode_segment(p if isinstance(p, bytes) else json.dumps(p, separators=(",", ":")).encode())
        for p in (header, claims)
    ]
    return ".".join(parts if signature is None else [*parts, encode_segment(signature)])


def mint_token(
    secret: str, claims: Mapping[str, Any] | bytes, header: Mapping[str, Any] | None = None, digest: str = "sha256"
) -> str:
    """A token signed by HMAC with `secret`; the header defaults to `{"alg":"HS256","typ":"JWT"}`."""
    unsigned = raw_token({"alg": "HS256", "typ": "JWT"} if header is None else header, claims, None)
    return f"{unsigned}.{encode_segment(hmac.new(secret.encode(), unsigned.encode(), digest).digest())}"


def claims_of(token: str) -> dict[str, Any]:
    """The claims of a token; empty if it has none. Checks no signature."""
    try:
        payload = token.split(".")[1]
        claims = json_object(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return claims if (words := http_words()) is None else words.read_claims(claims)
    except (ValueError, IndexError):
        return {}


def is_of_another_company(token: str, company_id: str) -> bool:
    """Whether the token itself names another company, or is a company_admin's without one. Checks no signature. A
    service may take the tenant from the token, whatever a body says.
    """
    claims = claims_of(token)
    said = claims.get("company_id")
    return str(said or "").lower() != company_id.lower() if said or claims.get("role") == "company_admin" else False


def curl(request: Request, base_url: str, hide: Mapping[str, str] | None = None) -> str:
    """A shell command that repeats a request as sent; each secret in `hide` (secret -> variable) is replaced. An
    address with a login is shown as $BASE_URL.
    """
    words = ["curl", "-i", "-X", request.method]
    for name, value in request.headers:
        words += ["-H", f"{name}: {value}"]
    if request.body:
        words += ["--data-binary", request.body.decode("utf-8", "backslashreplace")]
    command = shlex.join(words)
    if not base_url or "@" in urlsplit(base_url).netloc:
        command += f' "${{BASE_URL%/}}"{shlex.quote(request.path)}'
    else:
        command += f" {shlex.quote(base_url.rstrip('/') + request.path)}"
    for secret, variable in (hide or {}).items():
        command = command.replace(secret, f"'\"${variable}\"'")
    return command


def replay_fields(company_id: str, **fields: Any) -> dict[str, Any]:
    """The body fields of POST /dlq-replay."""
    return {"company_id": company_id, **fields}


def bucket(key: str, company_id: str) -> int:
    """The rollout bucket 0..99 of a company for a flag: first 4 bytes of sha256(`key:company`), big-endian, mod 100.
    The key is the deployment's for the contract's.
    """
    real = current().flag_keys.get(key, key)
    digest = hashlib.sha256(f"{real}:{company_id}".lower().encode()).digest()
    return int.from_bytes(digest[:4], "big") % 100


def digest_of(rows: Sequence[str]) -> str:
    """One digest over rows of text, order kept."""
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()
