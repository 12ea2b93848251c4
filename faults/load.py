"""Faults of metrics, and of speed and errors that only show under load."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from faults.catalogue import service
from faults.probe import Probe
from faults.surface import SEEN, answering, waiting
from replay_service.parts import Parts
from replay_service.settings import Settings


def _metrics(settings: Settings, change: Callable[[str], str]) -> Parts:
    def changed(scope: Any, status: int, headers: Any, body: bytes) -> Any:
        is_metrics = scope["path"].endswith("/metrics")
        return status, headers, change(body.decode()).encode() if is_metrics else body

    return answering(settings, changed)


@service(
    "The metrics stand still.",
    lambda p: _counted(p) == 0,
    (f"{SEEN}/replays-are-counted", f"{SEEN}/refusals-are-counted"),
    names=("replay_requests_total", "count"),
    decision="hold",
)
def metrics_stand_still(settings: Settings) -> Parts:
    first: list[str] = []

    def kept(text: str) -> str:
        first.append(text)
        return first[0]

    return _metrics(settings, kept)


def _counted(probe: Probe) -> int:
    def total() -> float:
        lines = probe.get("/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("replay_requests_total{"))

    before = total()
    with probe.tenant() as company:
        probe.replay(company, dry_run=True)
    return int(total() - before)


@service(
    "Of every replay two are counted.",
    lambda p: _counted(p) == 2,
    (f"{SEEN}/replays-are-counted",),
    names=("replay_requests_total", "count"),
    decision="hold",
)
def counted_twice(settings: Settings) -> Parts:
    def doubled(text: str) -> str:
        lines = text.splitlines()
        named = [line.rpartition(" ") for line in lines]
        return (
            "\n".join(
                f"{n} {float(v) * 2:g}" if n.startswith("replay_requests_total{") else line
                for line, (n, _, v) in zip(lines, named, strict=True)
            )
            + "\n"
        )

    return _metrics(settings, doubled)


@service(
    "The lag of the outbox is not among the metrics.",
    lambda p: "outbox_lag_seconds" not in p.get("/metrics").text,
    (f"{SEEN}/series-are-there",),
    names=("outbox_lag_seconds",),
    decision="hold",
)
def lag_not_measured(settings: Settings) -> Parts:
    return _metrics(settings, lambda text: "".join(x for x in text.splitlines(True) if "outbox_lag" not in x))


@service(
    "Metrics have a label for each tenant.",
    lambda p: "company=" in p.get("/metrics").text,
    (f"{SEEN}/no-tenants-in-labels",),
    names=("label", "tenant", "uuid", "company"),
    decision="hold",
)
def tenants_in_labels(settings: Settings) -> Parts:
    lines = "".join(f'replays_by_company{{company="00000000-0000-4000-8000-{n:012d}"}} 1\n' for n in range(9))
    return _metrics(settings, lambda text: f"{text}# TYPE replays_by_company counter\n{lines}")


@service(
    "`dlq_items` is always 0.",
    lambda p: _dlq_metric(p) == 0,
    (f"{SEEN}/dlq-depth-is-the-tables",),
    names=("dlq_items",),
    decision="hold",
)
def dlq_metric_is_zero(settings: Settings) -> Parts:
    def zero(text: str) -> str:
        lines = text.splitlines()
        return "\n".join(f"{x.rpartition(' ')[0]} 0" if x.startswith("dlq_items") else x for x in lines) + "\n"

    return _metrics(settings, zero)


def _dlq_metric(probe: Probe) -> float:
    with probe.tenant() as company:
        probe.letters(company, 3)
        probe.within(1.5, lambda: False)
        lines = probe.get("/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("dlq_items"))


@service(
    "Every request leaves 400 KB behind.",
    lambda p: _grown_mb(p, requests=50) > 10,
    ("load/memory_growth_mb/count",),
    names=("memory", "mb"),
    decision="hold",
)
def memory_leaks(settings: Settings) -> Parts:
    kept: list[bytes] = []

    def leaking(scope: Any, status: int, headers: Any, body: bytes) -> Any:
        kept.append(b"x" * 400_000)
        return status, headers, body

    return answering(settings, leaking)


def _grown_mb(probe: Probe, *, requests: int) -> float:
    def resident() -> float:
        lines = probe.get("/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("process_resident_memory_bytes"))

    before = resident()
    for _ in range(requests):
        probe.get("/healthz")
    return (resident() - before) / 1e6


@service(
    "6 % of all requests fail with 500.",
    lambda p: any(p.get("/healthz").status_code == 500 for _ in range(200)),
    ("load/http_req_failed/rate",),
    names=("rate", "fail", "error"),
)
def six_percent_fail(settings: Settings) -> Parts:
    def failing(scope: Any, status: int, headers: Any, body: bytes) -> Any:
        if random.random() < 0.06:
            return 500, headers, b'{"type": "about:blank", "title": "x", "status": 500, "code": "internal_error"}'
        return status, headers, body

    return answering(settings, failing)


@service(
    "Every request takes 2.6 s more.",
    lambda p: p.get("/healthz").elapsed.total_seconds() > 2.5,
    ("load/http_req_duration/p95",),
    names=("p95", "duration", "ms"),
)
def all_slow(settings: Settings) -> Parts:
    async def wait(scope: Any) -> None:
        # whoever waits for it to be ready would give up
        if not scope["path"].endswith("/readyz"):
            await asyncio.sleep(2.6)

    return waiting(settings, wait)


@service(
    "Replays, and only they, take 3 s more in 8 % of the calls.",
    lambda p: any(p.replay("00000000-0000-4000-8000-0000000000ff").elapsed.total_seconds() > 2.5 for _ in range(60)),
    ("load/http_req_duration{operation:replay}/p95",),
    names=("p95", "p99", "duration", "replay"),
    decision="hold",
)
def replays_slow_in_the_tail(settings: Settings) -> Parts:
    async def wait(scope: Any) -> None:
        if scope["path"].endswith("/dlq-replay") and random.random() < 0.08:
            await asyncio.sleep(3)

    return waiting(settings, wait)
