"""Deployments that differ from the usual one and are right. The gate may hold, but must not roll back any of them."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from gates.deployment.client import HttpDoor, NoAnswer
from gates.deployment.requests import bucket, signed_post
from gates.evidence import TargetKind
from gates.proof.bench import READY_TIMEOUT_S, Bench
from gates.proof.relay import RelayOptions, relay
from gates.proof.servers import Asked, Behaviour, Reply, forward, serve
from gates.stack.plan import CANARY_FLAG, CANARY_PERCENT
from gates.stack.postgres import connect
from gates.stack.service import Supervised

SLOW_S = 0.06
"""Every answer comes so much later. The tightest limit of the load is a p95 of some hundred milliseconds."""
BACKLOG_ROWS = 30_000
SKEW_S = 1.0
NEIGHBOUR_PAUSE_S = 0.05
RETRIED = "order.retried"

Prepare = Callable[[Bench], AbstractContextManager[Mapping[str, str]]]


@contextmanager
def _as_it_is(_bench: Bench) -> Iterator[Mapping[str, str]]:
    yield {}


@dataclass(frozen=True, slots=True)
class Variant:
    """A healthy deployment: the options of its stack. `prepare` changes it and returns more variables for the gate."""

    name: str
    said: str
    options: Mapping[str, Any] = field(default_factory=dict)
    prepare: Prepare = _as_it_is
    kind: TargetKind = TargetKind.STAGING


def _moved(bench: Bench, base: str) -> dict[str, str]:
    return {"BASE_URL": base + urlsplit(bench.stack.info.base_url).path}


def _real(bench: Bench) -> str:
    parts = urlsplit(bench.stack.info.base_url)
    return f"{parts.scheme}://{parts.netloc}"


def _through_a_relay(way: RelayOptions) -> Prepare:
    @contextmanager
    def prepare(bench: Bench) -> Iterator[Mapping[str, str]]:
        with relay(_real(bench), way) as base:
            yield _moved(bench, base)

    return prepare


def _through_a_proxy(change: Callable[[Reply], Reply]) -> Prepare:
    @contextmanager
    def prepare(bench: Bench) -> Iterator[Mapping[str, str]]:
        real = _real(bench)
        with serve(lambda asked: change(forward(real, asked))) as base:
            yield _moved(bench, base)

    return prepare


def _by_sql(statement: str) -> Prepare:
    @contextmanager
    def prepare(bench: Bench) -> Iterator[Mapping[str, str]]:
        bench.execute(statement)
        yield {}

    return prepare


@contextmanager
def _cold(bench: Bench) -> Iterator[Mapping[str, str]]:
    for process in bench.stack.processes:
        process.restart()
    bench.stack.recompose((), (), {})
    yield {}


@contextmanager
def _skewed(bench: Bench) -> Iterator[Mapping[str, str]]:
    for process in bench.stack.processes:
        if isinstance(process, Supervised):
            process.restart(SKEW_S)
    bench.stack.note_processes()
    bench.stack.wait_ready(READY_TIMEOUT_S)
    yield {}


@contextmanager
def _backlog(bench: Bench) -> Iterator[Mapping[str, str]]:
    with connect(bench.stack.info.database_url) as connection:
        connection.execute(
            "insert into public.event_outbox (company_id, event_type, inserted_at) "
            "select %s, 'order.paid', now() - interval '20 seconds' from generate_series(1, %s)",
            (bench.stack.info.company_id, BACKLOG_ROWS),
        )
    yield {}


def _other_case(reply: Reply) -> Reply:
    swapped = tuple((name.swapcase(), value) for name, value in reply.headers)
    return Reply(reply.status, (*swapped, ("X-Served-By", "edge-7"), ("vary", "Origin")), reply.body)


def _with_a_member(reply: Reply) -> Reply:
    """One more member in every JSON object but the API's description."""
    kind = next((v for k, v in reply.headers if k.lower() == "content-type"), "")
    if "json" not in kind or b'"openapi"' in reply.body[:200]:
        return reply
    try:
        body = json.loads(reply.body)
    except ValueError:
        return reply
    if not isinstance(body, dict):
        return reply
    return Reply(reply.status, reply.headers, json.dumps({"served_by": "edge-7", **body}).encode())


def _company(bench: Bench) -> str:
    """A new tenant that the canary has on."""
    company = next(c for c in (str(uuid.uuid4()) for _ in range(10_000)) if bucket(CANARY_FLAG, c) < CANARY_PERCENT)
    with connect(bench.stack.info.database_url) as connection:
        connection.execute("insert into public.companies (id, name) values (%s, 'A neighbour')", (company,))
    return company


@contextmanager
def _neighbour(bench: Bench, event_type: str = "order.paid", pause_s: float = NEIGHBOUR_PAUSE_S) -> Iterator[None]:
    """A tenant of its own that emits events all the time."""
    company, done = _company(bench), threading.Event()

    def emit() -> None:
        with HttpDoor(bench.stack.info.base_url) as door:
            number = 0
            while not done.wait(pause_s):
                number += 1
                fields = {"company_id": company, "event_type": event_type, "payload": {"n": number}}
                keyed = {**fields, "aggregate_key": f"order-{number % 7}"}
                with suppress(NoAnswer):  # the neighbour's trouble is not what is proved here
                    door.send(signed_post("/events", keyed, bench.stack.info.hmac_secret))

    thread = threading.Thread(target=emit, name="proof-neighbour", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(timeout=10.0)


@contextmanager
def _busy(bench: Bench) -> Iterator[Mapping[str, str]]:
    with _neighbour(bench):
        yield {}


@contextmanager
def _retrying(bench: Bench) -> Iterator[Mapping[str, str]]:
    """An HTTP agent that refuses the first attempt of a neighbour's events and takes the second."""

    def agent(asked: Asked) -> Reply:
        event = json.loads(asked.body or b"{}")
        first = event.get("event_type") == RETRIED and event.get("attempt") == 1
        return Reply(503) if first else Reply(200)

    behaviour: Behaviour = agent
    with serve(behaviour) as base:
        told = {"AGENT": "http", "AGENT_URL": f"{base}/events", "AGENT_SECRET": "proof-" * 6}
        bench.stack.recompose((), (), told)
        with _neighbour(bench, RETRIED, 0.5):
            yield {}


V2 = (
    "update public.feature_flags set enabled = true, rollout_percentage = 100 where key ="
    " 'security.signing_v2_required'"
)
AT_100 = "update public.feature_flags set rollout_percentage = 100 where key = 'outbox.enabled'"

VARIANTS: tuple[Variant, ...] = (
    Variant("plain", "the reference as it is"),
    Variant("production", "a production target, by the gate's own login", kind=TargetKind.PRODUCTION),
    Variant(
        "port-forward", "behind a relay, which hides where calls come from", prepare=_through_a_relay(RelayOptions())
    ),
    Variant(
        "slow", f"every answer {SLOW_S * 1000:.0f} ms later", prepare=_through_a_relay(RelayOptions(delay_s=SLOW_S))
    ),
    Variant("cold", "PostgreSQL and the service have just started", prepare=_cold),
    Variant("empty", "a database without history", {"history": False}),
    Variant("backlog", f"{BACKLOG_ROWS} events wait, and drain", prepare=_backlog),
    Variant("three-instances", "three instances and two workers", {"instances": 3, "workers": 2}),
    Variant("ipv6", "at an IPv6 address", prepare=_through_a_relay(RelayOptions("::1"))),
    Variant("clock-skew", "the service's clocks are one second ahead", prepare=_skewed),
    Variant("retrying-agent", "an agent that fails a neighbour's events once", prepare=_retrying),
    Variant("header-case", "headers in other cases, and unknown ones", prepare=_through_a_proxy(_other_case)),
    Variant("unknown-members", "unknown members in every answer", prepare=_through_a_proxy(_with_a_member)),
    Variant("busy-neighbour", "another tenant emits twenty events a second", prepare=_busy),
    Variant("v2-required", "only signatures with a time are accepted", prepare=_by_sql(V2)),
    Variant("at-100", "the flag is at its last step", prepare=_by_sql(AT_100)),
)
