"""Faults of the metrics, made by a proxy."""

import re
import uuid
from collections.abc import Callable
from dataclasses import replace

from faults.catalogue import proxy
from faults.proxy.rewriting import Make, World, after, answers
from faults.proxy.server import Defect, Forward, Reply, Sent

SEEN = "drill/observability"
TENANTS = b"".join(b'replays_by_company{company="%s"} 1\n' % str(uuid.UUID(int=n)).encode() for n in range(9))
_WAITS = (
    "select coalesce(extract(epoch from max(now() - inserted_at)), 0)::float from event_outbox"
    " where processed_at is null and dead_at is null"
)


def on_metrics(change: Callable[[World, bytes], bytes]) -> Make:
    """The metrics are other than they should be."""
    return after(lambda w, sent, reply: replace(reply, body=change(w, reply.body)) if sent.path == "/metrics" else None)


def showing(name: str, number: float) -> Callable[[World, bytes], bytes]:
    """Shows always the same number for every series of a family."""
    line = rb"(?m)^(%s(?:\{.*\})? ).*$" % name.encode()
    return lambda _world, body: re.sub(line, rb"\g<1>%s" % str(number).encode(), body)


def sums_everything(_world: World, body: bytes) -> bytes:
    """Shows one number of requests, whatever became of them, and no other counter."""
    lines = body.splitlines()
    total = sum(float(line.rsplit(b" ", 1)[1]) for line in lines if line.startswith(b"replay_requests_total"))
    kept = [line for line in lines if b"_total" not in line and b"_count" not in line]
    return b"\n".join([*kept, f"replay_requests_total {total}".encode()]) + b"\n"


def stands_still(world: World) -> Defect:
    """Shows for ever what it showed first."""
    first: list[bytes] = []

    def change(_world: World, body: bytes) -> bytes:
        first.append(body)
        return first[0]

    return on_metrics(change)(world)


def lag_never_falls(world: World) -> Defect:
    """Shows the longest lag that there was."""
    longest = 0.0

    def change(_world: World, body: bytes) -> bytes:
        nonlocal longest
        found = re.search(rb"(?m)^outbox_lag_seconds (.*)$", body)
        longest = max(longest, float(found[1]) if found else 0)
        return showing("outbox_lag_seconds", longest)(_world, body)

    return on_metrics(change)(world)


def labels_by_path(_world: World) -> Defect:
    """Has a series for each path that anybody asked for and that is not there."""
    asked: dict[str, int] = {}

    def defect(sent: Sent, forward: Forward) -> Reply:
        reply = forward(sent)
        if reply.status == 404:
            asked[sent.path] = asked.get(sent.path, 0) + 1
        if sent.path != "/metrics":
            return reply
        said = "".join(f'requests_by_path{{path="{path}"}} {times}\n' for path, times in asked.items())
        return replace(reply, body=reply.body + said.encode())

    return defect


def labels_by_request(_world: World) -> Defect:
    """Has a series for each refusal."""
    refused: list[str] = []

    def defect(sent: Sent, forward: Forward) -> Reply:
        reply = forward(sent)
        if sent.is_replay and reply.status == 403:
            refused.append(f'refusals_total{{request="r{len(refused)}"}} 1\n')
        return replace(reply, body=reply.body + "".join(refused).encode()) if sent.path == "/metrics" else reply

    return defect


def since_the_last_scrape(world: World) -> Defect:
    """Shows the count since the last scrape: every scrape resets the counter."""
    shown: dict[bytes, float] = {}

    def since(line: bytes) -> bytes:
        name, _, number = line.rpartition(b" ")
        before, shown[name] = shown.get(name, 0.0), float(number)
        return name + b" %g\n" % (shown[name] - before)

    return lines(b"replay_requests_total{", since)(world)


def lines(wanted: bytes, change: Callable[[bytes], bytes]) -> Make:
    """The lines of one family are others than they should be."""

    def changed(_world: World, body: bytes) -> bytes:
        return b"".join(change(x) if x.startswith(wanted) else x for x in body.splitlines(keepends=True))

    return on_metrics(changed)


def doubled(line: bytes) -> bytes:
    name, _, number = line.rpartition(b" ")
    return name + b" %g\n" % (float(number) * 2)


proxy("load/metrics-stand-still", stands_still, (f"{SEEN}/replays-are-counted",), "The metrics stand still.")
proxy(
    "load/counted-since-the-last-scrape",
    since_the_last_scrape,
    (f"{SEEN}/replays-are-counted",),
    "Each scrape sets the counter of replays back.",
)
proxy(
    "load/counted-twice",
    lines(b"replay_requests_total{", doubled),
    (f"{SEEN}/replays-are-counted",),
    "Of every replay two are counted.",
)
proxy(
    "load/replays-that-move-items-count-twice",
    lines(b'replay_requests_total{outcome="started"', doubled),
    (f"{SEEN}/replays-are-counted",),
    "A replay that moves items is counted twice.",
)
proxy(
    "load/duplicates-not-counted",
    lines(b'replay_requests_total{outcome="duplicate"', lambda _line: b""),
    (f"{SEEN}/replays-are-counted",),
    "Duplicates of a replay are not counted.",
)
proxy(
    "load/lag-not-measured",
    on_metrics(lambda _world, body: body.replace(b"outbox_lag_seconds", b"outbox_delay_seconds")),
    (f"{SEEN}/series-are-there",),
    "The lag of the outbox is not among the metrics.",
)
proxy(
    "load/metrics-of-another-type",
    answers(lambda sent: sent.path == "/metrics", lambda reply: reply.having("Content-Type", "application/json")),
    (f"{SEEN}/series-are-there",),
    "The metrics are served as JSON: Prometheus 3 does not read them.",
)
proxy(
    "metrics/text-says-it-is-openmetrics",
    answers(
        lambda sent: sent.path == "/metrics",
        lambda reply: reply.having("Content-Type", "application/openmetrics-text; version=1.0.0; charset=utf-8"),
    ),
    (f"{SEEN}/series-are-there",),
    "Metrics in the older format are served as OpenMetrics: without `# EOF` Prometheus drops all of them.",
)
proxy(
    "metrics/a-line-that-prometheus-cannot-read",
    on_metrics(lambda _world, body: body + b'x{code="1",code="2"} 1\n'),
    (f"{SEEN}/series-are-there",),
    "One series has a label twice: Prometheus drops the whole page.",
)
proxy(
    "load/tenants-in-labels",
    on_metrics(lambda _world, body: body + TENANTS),
    (f"{SEEN}/no-tenants-in-labels",),
    "Metrics have a label for each tenant.",
)
proxy(
    "metrics/paths-in-labels",
    labels_by_path,
    (f"{SEEN}/no-tenants-in-labels",),
    "Metrics have a label for each path that a caller makes up.",
)
proxy(
    "metrics/requests-in-labels",
    labels_by_request,
    (f"{SEEN}/refusals-are-counted",),
    "Metrics have a series for each refusal.",
)
proxy(
    "load/dlq-metric-is-zero",
    on_metrics(showing("dlq_items", 0)),
    (f"{SEEN}/dlq-depth-is-the-tables",),
    "`dlq_items` is always 0.",
)
proxy(
    "metrics/held-rows-are-lag",
    on_metrics(lambda world, body: showing("outbox_lag_seconds", world.value(_WAITS))(world, body)),
    ("drill/held/does-not-count-as-lag",),
)
proxy(
    "metrics/a-histogram-is-broken",
    on_metrics(lambda _world, body: body + b'x_bucket{le="1"} 5\nx_bucket{le="+Inf"} 3\nx_count 5\n'),
    (f"{SEEN}/histograms-are-sound",),
)
proxy("metrics/lag-never-falls", lag_never_falls, (f"{SEEN}/waiting-events-show",))
proxy("metrics/no-lag-is-ever-shown", on_metrics(showing("outbox_lag_seconds", 0)), (f"{SEEN}/waiting-events-show",))
proxy(
    "metrics/the-same-number-always-waits", on_metrics(showing("outbox_pending", 3)), (f"{SEEN}/waiting-events-show",)
)
proxy("metrics/effects-are-not-counted", on_metrics(showing("agent_tasks_total", 9)), (f"{SEEN}/effects-are-counted",))
proxy("metrics/refusals-are-not-told-apart", on_metrics(sums_everything), (f"{SEEN}/refusals-are-counted",))
