"""Servers and databases that are no deployment at all: none of them may be promoted.

The HTTP servers stand before the healthy database of a real stack, so SQL checks see nothing wrong and only the HTTP
checks can tell; the SQL twins stand behind a healthy service.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from psycopg import sql

from gates.proof.workbench.bench import ProofBench
from gates.proof.workbench.servers import HANG, Asked, Behaviour, Reply, forward, raw
from gates.stack.postgres import connect
from gates.stack.roles import database_url
from gates.text.foreign import json_object

JSON = ("Content-Type", "application/json")
PROBLEM = ("Content-Type", "application/problem+json")
SOME_ID = "00000000-0000-4000-8000-000000000004"
PAGES = ("/healthz", "/readyz", "/version", "/metrics", "/openapi.json")
HTTP_CHECKS = ("drill/", "load/")
"""Prefixes of the HTTP checks: each must not pass on at least one of these servers."""


@dataclass(frozen=True, slots=True)
class DegenerateServer:
    """A server that is no deployment. `make` gets the base of the real one (scheme, host, port) and its release."""

    name: str
    said: str
    make: Callable[[str, str], Behaviour]


def problem(status: int, code: str, *headers: tuple[str, str]) -> Reply:
    """A refusal in the contract's form."""
    body = {"type": "about:blank", "title": code, "status": status, "detail": code, "code": code}
    return Reply(status, (PROBLEM, ("X-Request-Id", "1"), *headers), json.dumps(body).encode())


def always(reply: Reply) -> Callable[[str, str], Behaviour]:
    """The same answer to everything."""
    return lambda _real, _release: lambda _asked: reply


def _echo(_real: str, _release: str) -> Behaviour:
    return lambda asked: Reply(200, (("Content-Type", asked.header("Content-Type") or "text/plain"),), asked.body)


def _redirect(_real: str, _release: str) -> Behaviour:
    page = Reply(
        200, (("Content-Type", "text/html"),), b"<!doctype html><title>Log in</title><form method=post></form>"
    )
    away = Reply(302, (("Location", "/login"),))
    return lambda asked: page if asked.path.startswith("/login") else away


def _pages(release: str, path: str) -> Reply | None:
    """The pages of a healthy instance."""
    name = urlsplit(path).path.rpartition("/")[2]
    version = {"release": release, "commit": release, "schema_version": "1", "drill_agent": True}
    bodies = {"healthz": {"status": "ok"}, "readyz": {"status": "ready"}, "version": version}
    if name in bodies:
        return Reply(200, (JSON,), json.dumps(bodies[name]).encode())
    return None


def completed(wanted: Mapping[str, object]) -> dict[str, object]:
    """The answer to a replay with these members: it is done, and there was nothing to do."""
    asked_for = {"idempotency_key": "key", "company_id": SOME_ID, "dry_run": False}
    lists: dict[str, list[str]] = {"items": [], "not_found": [], "ineligible": []}
    given = {name: wanted.get(name, usual) for name, usual in asked_for.items()}
    return {"status": "completed", "replay_run_id": SOME_ID, **given, "duplicate": False, "target_count": 0, **lists}


def _polite_yes(_real: str, release: str) -> Behaviour:
    """Success in the contract's form to every request."""

    def answer(asked: Asked) -> Reply:
        if page := _pages(release, asked.path):
            return page
        body: dict[str, object] = {"status": "processed", "committed_at": None, "effect_at": None}
        if asked.method == "POST":
            wanted = json_object(asked.body)
            body = {**completed(wanted), "event_id": wanted.get("event_id", SOME_ID), "path": "outbox"}
        status = 202 if asked.path.endswith("/events") else 200
        return Reply(status, (JSON, ("X-Request-Id", "1")), json.dumps(body).encode())

    return answer


def _polite_no(_real: str, release: str) -> Behaviour:
    """Healthy pages, but every request is refused in the contract's form."""
    refusal = problem(401, "unauthenticated")
    return lambda asked: _pages(release, asked.path) or refusal


def _previous(real: str, _release: str) -> Behaviour:
    """The build before: another release, which knows no signatures with a time."""

    def answer(asked: Asked) -> Reply:
        if asked.header("X-Transbot-Signature").startswith("t="):
            return problem(401, "unauthenticated")
        reply = forward(real, asked)
        if urlsplit(asked.path).path.endswith("/version") and reply.status == 200:
            told = {**json_object(reply.body), "release": "the-one-before", "commit": "0000000"}
            return Reply(200, (JSON,), json.dumps(told).encode())
        return reply

    return answer


def _half(real: str, _release: str) -> Behaviour:
    """Half a build: the pages are there, the functions are not."""
    missing = Reply(404, (("Content-Type", "text/plain"),), b"Not Found")
    return lambda asked: forward(real, asked) if urlsplit(asked.path).path.endswith(PAGES) else missing


def _every_other(real: str, _release: str) -> Behaviour:
    """One of two instances is missing: every other request ends at the load balancer."""
    turn = iter(range(10**12))
    away = Reply(502, (("Content-Type", "text/html"),), b"<h1>502 Bad Gateway</h1>")
    return lambda asked: away if next(turn) % 2 else forward(real, asked)


def _locked_out(header: str) -> Callable[[str, str], Behaviour]:
    """Whoever shows this credential is refused, even if it is valid; everything else works."""
    refusal = problem(401, "unauthenticated")
    return lambda real, _release: lambda asked: refusal if asked.header(header) else forward(real, asked)


SERVERS: tuple[DegenerateServer, ...] = (
    DegenerateServer("yes", "200 {} to everything", always(Reply(200, (JSON,), b"{}"))),
    DegenerateServer("polite-yes", "success in the contract's form to everything", _polite_yes),
    DegenerateServer("no", "401 to everything", always(problem(401, "unauthenticated"))),
    DegenerateServer("polite-no", "health pages that are well, 401 to everything else", _polite_no),
    DegenerateServer("empty", "200 without a body", always(Reply(200))),
    DegenerateServer("echo", "200 with the request's own body", _echo),
    DegenerateServer("error-500", "500 to everything", always(Reply(500, (("Content-Type", "text/plain"),), b"oops"))),
    DegenerateServer("hang", "takes connections and never answers", always(HANG)),
    DegenerateServer("garbage", "bytes that are no HTTP", always(raw(b"\x00\xff\x16\x03\x01 not HTTP\r\n\r\n"))),
    DegenerateServer("limit-429", "429 to everything", always(problem(429, "rate_limited", ("Retry-After", "60")))),
    DegenerateServer("redirect", "302 to a login page", _redirect),
    DegenerateServer("previous-build", "the build before: another release, no v2 signatures", _previous),
    DegenerateServer("half-a-build", "the pages are there, the functions are not", _half),
    DegenerateServer("no-signatures", "every signature is refused, good ones too", _locked_out("X-Transbot-Signature")),
    DegenerateServer("no-tokens", "every token is refused, good ones too", _locked_out("Authorization")),
    DegenerateServer("every-other", "every other request ends with 502", _every_other),
)


@dataclass(frozen=True, slots=True)
class Twin:
    """A database that shows nothing, or everything. `url` sets it up and returns the gate's DATABASE_URL."""

    name: str
    said: str
    url: Callable[[ProofBench], str]


BLIND = """create role prove_blind login password {0};
grant usage on schema public to prove_blind;
grant select, insert, update, delete on all tables in schema public to prove_blind"""
"""A login that may read every table, but to which row-level security shows no row."""


def _empty(bench: ProofBench) -> str:
    url = bench.stack.info.database_url
    with connect(url) as connection:
        connection.execute("create database prove_empty")
    return database_url(url, "prove_empty")


def _missing(bench: ProofBench) -> str:
    bench.execute("alter table public.replay_runs rename to replay_runs_gone")
    return bench.stack.info.database_url


def _blind(bench: ProofBench) -> str:
    url, password = bench.stack.info.database_url, "prove-blind-password"
    with connect(url) as connection:
        connection.execute(sql.SQL(BLIND).format(sql.Literal(password)))
    parts = urlsplit(url)
    return parts._replace(netloc=f"prove_blind:{password}@{parts.netloc.rpartition('@')[2]}").geturl()


def _all_seeing(bench: ProofBench) -> str:
    bench.execute("alter role authenticated bypassrls; alter role anon bypassrls")
    return bench.stack.info.database_url


TWINS: tuple[Twin, ...] = (
    Twin("empty-schema", "a database without a table", _empty),
    Twin("missing-table", "replay_runs is not there", _missing),
    Twin("blind-role", "a login that row-level security shows nothing", _blind),
    Twin("all-seeing-role", "tenants' roles that row-level security does not bind", _all_seeing),
)


def never_unpassed(checks: Sequence[str], unpassed: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """The HTTP checks among these that passed on every server."""
    seen = {check for one in unpassed for check in one}
    return tuple(c for c in checks if c.startswith(HTTP_CHECKS) and c not in seen)
