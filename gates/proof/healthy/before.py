"""What may be in front of a healthy deployment: relays, proxies that rewrite answers, poolers."""

import gzip
import json
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Concatenate, ParamSpec
from urllib.parse import urlsplit

from gates.evidence import TargetKind
from gates.proof.workbench.bench import ProofBench
from gates.proof.workbench.pooler import temporary_pgbouncer
from gates.proof.workbench.relay import Cut, RelayOptions, Tap, relay
from gates.proof.workbench.servers import Asked, Reply, forward, serve

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
OF_A_LIBRARY = b"""# TYPE target info
target_info{service_instance_id="627cc493-f310-47de-96bd-71410b7dec09"} 1
# TYPE gc_pause_seconds summary
gc_pause_seconds{quantile="0.5"} NaN
gc_pause_seconds_sum 0
gc_pause_seconds_count 0
# EOF
"""
OF_TABLES = re.compile(rb"^(?:dlq_items|outbox_pending|outbox_lag_seconds|agent_tasks_total)\b.*\n", re.MULTILINE)
UUID = re.compile(r'"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"')
HTML = (("Content-Type", "text/html"),)
PROBLEM = (("Content-Type", "application/problem+json"), ("X-Request-Id", "of-the-replica"))
NO_BODY = frozenset({"GET", "HEAD", "DELETE", "TRACE"})
"""haproxy refuses one of these with a body over HTTP/1.0, which nginx uses."""
KEY = '"idempotency_key": '
TEXTS = re.compile(r'"(?:[^"\\]|\\.)*"')
RARELY_S = 15.0
"""As often as Prometheus scrapes."""
READ_LATE_S = 0.3
IDLE_S = 1.5
"""The shortest idle timeout of common servers is 2 s (gunicorn)."""
Prepare = Callable[[ProofBench], AbstractContextManager[Mapping[str, str]]]
Given = ParamSpec("Given")


def prepares(make: Callable[Concatenate[ProofBench, Given], Iterator[Mapping[str, str]]]) -> Callable[Given, Prepare]:
    """A factory: called with all arguments of `make` except the bench, it returns a function that prepares a bench."""
    made = contextmanager(make)
    return lambda *args, **kwargs: lambda bench: made(bench, *args, **kwargs)


class Impatient(Tap):
    """A server that closes idle connections early, and so at the worst moment: when the next request is on its way."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    async def sent(self, piece: bytes) -> bytes:
        if time.monotonic() - self._last > IDLE_S:
            raise Cut
        self._last = time.monotonic()
        return piece

    async def answered(self, piece: bytes) -> bytes:
        self._last = time.monotonic()
        return piece


def moved(bench: ProofBench, base: str) -> dict[str, str]:
    """The variables for a gate that reaches the deployment at another base (scheme, host, port)."""
    return {"BASE_URL": base + urlsplit(bench.stack.info.base_url).path}


def real(bench: ProofBench) -> str:
    """The base of the deployment itself."""
    parts = urlsplit(bench.stack.info.base_url)
    return f"{parts.scheme}://{parts.netloc}"


@prepares
def through_a_relay(bench: ProofBench, way: RelayOptions) -> Iterator[Mapping[str, str]]:
    """HTTP goes through a relay."""
    with relay(real(bench), way) as base:
        yield moved(bench, base)


@prepares
def sql_through_a_relay(bench: ProofBench, way: RelayOptions) -> Iterator[Mapping[str, str]]:
    """The gate's SQL goes through a relay."""
    parts = urlsplit(bench.variables()["DATABASE_URL"])
    with relay(f"tcp://{parts.hostname}:{parts.port}", way) as base:
        login = parts.netloc.rpartition("@")[0]
        yield {"DATABASE_URL": parts._replace(netloc=f"{login}@{urlsplit(base).netloc}").geturl()}


@prepares
def through_a_proxy(
    bench: ProofBench,
    change: Callable[[Reply], Reply],
    ask: Callable[[Asked], Asked] = lambda asked: asked,
    prefix: str = "",
) -> Iterator[Mapping[str, str]]:
    """HTTP goes through a proxy that rewrites requests and answers, and serves under a longer path."""
    there = real(bench)

    def behave(asked: Asked) -> Reply:
        inside = Asked(asked.method, asked.path.removeprefix(prefix), asked.headers, asked.body)
        return change(forward(there, ask(inside)))

    with serve(behave) as base:
        yield moved(bench, base + prefix)


@contextmanager
def in_turns(bench: ProofBench) -> Iterator[Mapping[str, str]]:
    """HTTP goes through a proxy with one connection per request, which refuses a body that has no meaning."""
    there = real(bench)

    def behave(asked: Asked) -> Reply:
        refused = asked.body and asked.method in NO_BODY
        return Reply(413, HTML, b"<h1>413 Payload Too Large</h1>") if refused else forward(there, asked)

    with serve(behave) as base:
        yield moved(bench, base)


@contextmanager
def read_late(bench: ProofBench) -> Iterator[Mapping[str, str]]:
    """HTTP goes through a proxy that asks a replica for reads: it does not find what is younger than READ_LATE_S."""
    there, found_from = real(bench), dict[str, float]()

    def behave(asked: Asked) -> Reply:
        if asked.method == "GET" and found_from.get(asked.path.rpartition("/")[2], 0.0) > time.monotonic():
            return Reply(404, PROBLEM, b'{"code": "not_found"}')
        reply = forward(there, asked)
        if asked.method == "POST" and reply.status in {200, 202}:
            for found in UUID.finditer(reply.body.decode()):
                found_from.setdefault(found[0].strip('"'), time.monotonic() + READ_LATE_S)
        return reply

    with serve(behave) as base:
        yield moved(bench, base)


@prepares
def through_a_pooler(bench: ProofBench, mode: str) -> Iterator[Mapping[str, str]]:
    """The gate's own login reaches the database through pgbouncer."""
    with temporary_pgbouncer(bench.variables(TargetKind.PRODUCTION)["DATABASE_URL"], mode) as pooled:
        yield {"DATABASE_URL": pooled}


def other_case(reply: Reply) -> Reply:
    """Headers in other cases, unknown ones, and request ids of the proxy's own."""
    swapped = tuple((name.swapcase(), value) for name, value in reply.headers)
    own = ("X-Request-Id", uuid.uuid4().hex)
    return Reply(reply.status, (own, *swapped, ("X-Served-By", "edge-7"), ("vary", "Origin")), reply.body)


def packed(reply: Reply) -> Reply:
    """The body in gzip, though nobody asked for it: who sends no Accept-Encoding accepts all."""
    coded = (*reply.headers, ("Content-Encoding", "gzip"), ("Vary", "Accept-Encoding"))
    return Reply(reply.status, coded, gzip.compress(reply.body)) if reply.body else reply


def with_a_member(reply: Reply) -> Reply:
    """One more member in every JSON object but the API's description."""
    return _with_body(reply, lambda body: json.dumps({"served_by": "edge-7", **body}).encode())


def spelled_otherwise(reply: Reply) -> Reply:
    """Equivalent JSON: members in reverse order, indented, UUIDs in capitals, all letters of texts escaped. A key
    stays, whatever it looks like.
    """
    return _with_body(
        reply, lambda body: TEXTS.sub(_escaped, json.dumps(dict(reversed(body.items())), indent=3)).encode()
    )


def _escaped(found: re.Match[str]) -> str:
    """A string of a JSON document, with its quotes; one with escapes stays."""
    is_key = found.string[: found.start()].endswith(KEY)
    inner = found[0][1:-1].upper() if UUID.fullmatch(found[0]) and not is_key else found[0][1:-1]
    return found[0] if "\\" in inner else '"' + "".join(f"\\u{ord(letter):04x}" for letter in inner) + '"'


def in_chunks(reply: Reply) -> Reply:
    """The answer in chunks of a few bytes without a length, after a `100 Continue`."""
    head = ["HTTP/1.1 100 Continue", "", f"HTTP/1.1 {reply.status} X", *(f"{k}: {v}" for k, v in reply.headers)]
    lines = [*head, "Transfer-Encoding: chunked", "Connection: close", "", ""]
    pieces = [reply.body[i : i + 61] for i in range(0, len(reply.body), 61)]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    has_body = reply.status not in {204, 304}
    return Reply(reply.status, stream=lambda: ["\r\n".join(lines).encode() + chunks]) if has_body else reply


def openmetrics(reply: Reply) -> Reply:
    """Metrics as OpenMetrics: exemplars, times, counters declared without `_total`, and the series of a library."""
    if b"# TYPE replay_requests_total" not in reply.body:
        return reply
    declared = re.sub(rb"^(# (?:TYPE|HELP) \S+)_total ", rb"\1 ", reply.body, flags=re.MULTILINE)
    shown = re.sub(
        rb"^(\w+_total(?:\{.*\})? \S+)$", rb'\1 # {trace_id="7f"} 1 1700000000.125', declared, flags=re.MULTILINE
    )
    headers = tuple((k, OPENMETRICS if k.lower() == "content-type" else v) for k, v in reply.headers)
    return Reply(reply.status, headers, shown + OF_A_LIBRARY)


class RareGauges:
    """Gauges from tables show values up to RARELY_S old."""

    def __init__(self) -> None:
        self._shown: list[bytes] = []
        self._until = 0.0

    def __call__(self, reply: Reply) -> Reply:
        found = OF_TABLES.findall(reply.body)
        if not found:
            return reply
        if time.monotonic() > self._until:
            self._shown, self._until = found, time.monotonic() + RARELY_S
        return Reply(reply.status, reply.headers, OF_TABLES.sub(b"", reply.body) + b"".join(self._shown))


def _with_body(reply: Reply, change: Callable[[dict[str, Any]], bytes]) -> Reply:
    kind = next((v for k, v in reply.headers if k.lower() == "content-type"), "")
    if "json" not in kind or b'"openapi"' in reply.body[:200]:
        return reply
    try:
        body = json.loads(reply.body)
    except ValueError:
        return reply
    return Reply(reply.status, reply.headers, change(body)) if isinstance(body, dict) else reply
