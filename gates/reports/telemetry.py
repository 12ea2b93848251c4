"""Sends a run to an OpenTelemetry collector: spans of the run, its groups and its checks, and metrics of its outcome.

They are made from the record when the run is over, and sent over OTLP/HTTP within a time limit. A failure never changes
a verdict. The variables are OpenTelemetry's own (docs/outputs.md); the packages are the extra `otel`.
"""

import datetime as dt
import io
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from gates.deployment.http.limits import within
from gates.evidence import Evidence, JsonValue, Outcome
from gates.verdict import Decision, Verdict

BASE = "OTEL_EXPORTER_OTLP_ENDPOINT"
SIGNALS = ("traces", "metrics")
INSTALL = "pip install 'replaygate[otel]'"
LIMIT_S = 10.0
"""The limit for everything together: a collector that does not answer delays nobody."""
MOST_ANSWER = 64 * 1024
"""The most bytes of an answer that are read: it is empty, or says why something was refused."""
MOST_AT_ONCE = 500
MOST_SAID = 1000


def endpoints(environ: Mapping[str, str]) -> dict[str, str]:
    """Signal -> its address; empty if no telemetry is wanted."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return {}
    base = environ.get(BASE, "").strip().rstrip("/")
    own = {signal: environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT", "").strip() for signal in SIGNALS}
    return {s: found for s in SIGNALS if (found := own[s] or (f"{base}/v1/{s}" if base else ""))}


def send(
    verdict: Verdict,
    evidence: Sequence[Evidence],
    run: Mapping[str, JsonValue],
    environ: Mapping[str, str],
    limit_s: float = LIMIT_S,
) -> dict[str, JsonValue]:
    """What run.json says of it: `trace_id`, and `error`, empty on success; {} if no telemetry is wanted."""
    wanted = endpoints(environ)
    if not wanted:
        return {}
    try:
        import opentelemetry.exporter.otlp.proto.http  # noqa: PLC0415
        import opentelemetry.sdk  # noqa: F401, PLC0415  -- an extra, and slow to load
    except ImportError:
        return {"error": f"the packages of OpenTelemetry are not installed: {INSTALL}"}
    sender = _Sender(verdict, evidence, run, environ, limit_s)
    try:
        return within(lambda: sender.sent(wanted), limit_s)
    except TimeoutError:
        return {"error": f"the collector did not answer within {limit_s:g} s"}


class _Sender:
    """Sends one run to a collector."""

    def __init__(
        self,
        verdict: Verdict,
        evidence: Sequence[Evidence],
        run: Mapping[str, JsonValue],
        environ: Mapping[str, str],
        limit_s: float,
    ) -> None:
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.util.re import parse_env_headers  # noqa: PLC0415

        self.verdict, self.evidence, self.run, self.environ = verdict, evidence, run, environ
        self.options: dict[str, Any] = {
            "headers": parse_env_headers(environ.get("OTEL_EXPORTER_OTLP_HEADERS", ""), liberal=True),
            "session": _session(),
            "timeout": limit_s / 4,  # of one request with its retries: two signals, the spans in parts
        }
        name = environ.get("OTEL_SERVICE_NAME", "").strip() or "replaygate"
        self.resource = Resource.create({"service.name": name, "service.version": str(run.get("gate", ""))})
        self.about = {
            "gate.run_id": str(run.get("run_id", "")),
            "gate.release": verdict.release,
            "gate.target": verdict.target,
            "gate.decision": verdict.decision.value,
        }
        self.trace_id = ""

    def sent(self, wanted: Mapping[str, str]) -> dict[str, JsonValue]:
        """Send both signals, each whatever becomes of the other."""
        # the exporters' log messages become one line, `error`
        logger = logging.getLogger("opentelemetry")
        logger.addHandler(logging.NullHandler())
        logger.propagate = False
        errors = []
        for signal, send_signal in (("traces", self._traces), ("metrics", self._metrics)):
            try:
                taken = signal not in wanted or send_signal(wanted[signal])
                errors += [f"the collector did not take the {signal}"] * (not taken)
            except Exception as failure:  # noqa: BLE001  -- a failure of a library must not affect the verdict
                errors.append(f"the {signal} could not be sent ({type(failure).__name__})")
        return {"trace_id": self.trace_id, "error": "; ".join(errors)}

    def _traces(self, endpoint: str) -> bool:
        """A span for the run, for each group of checks, and for each check that was carried out."""
        from opentelemetry import trace  # noqa: PLC0415
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider, sampling  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult  # noqa: PLC0415
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter  # noqa: PLC0415
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

        made = InMemorySpanExporter()
        provider = TracerProvider(resource=self.resource, sampler=sampling.ALWAYS_ON, shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(made))
        tracer = provider.get_tracer("replaygate")

        def span(name: str, start: int, end: int, parent: Any, attributes: Mapping[str, Any], failed: str = "") -> Any:
            begun = tracer.start_span(name, parent, start_time=start, attributes=dict(attributes))
            if failed:
                begun.set_status(trace.Status(trace.StatusCode.ERROR, failed))
            begun.end(end)
            return trace.set_span_in_context(begun, parent)

        verdict = self.verdict
        parent = TraceContextTextMapPropagator().extract({"traceparent": self.environ.get("TRACEPARENT", "")})
        failed = "" if verdict.decision is Decision.PROMOTE else verdict.reason[:MOST_SAID]
        start, end = (_nanoseconds(at) or 0 for at in (verdict.started_at, verdict.finished_at))
        about = {**self.about, "gate.reason": verdict.reason[:MOST_SAID], "gate.action": verdict.action.kind}
        root = span("gate run", start, max(start, end), parent, about, failed)
        self.trace_id = format(trace.get_current_span(root).get_span_context().trace_id, "032x")
        for group, lines in _groups(self.evidence).items():
            worst = next((e.message for e in lines if e.outcome is Outcome.FAIL), "")
            whole = min(_times(e)[0] for e in lines), max(_times(e)[1] for e in lines)
            within = span(group, *whole, root, {"gate.checks": len(lines)}, worst[:MOST_SAID])
            for one in lines:
                said = one.message[:MOST_SAID] if one.outcome is Outcome.FAIL else ""
                span(one.check, *_times(one), within, _attributes(one), said)
        exporter = OTLPSpanExporter(endpoint, **self.options)
        spans = made.get_finished_spans()
        parts = (spans[at : at + MOST_AT_ONCE] for at in range(0, len(spans), MOST_AT_ONCE))
        return all(exporter.export(part) is SpanExportResult.SUCCESS for part in parts)

    def _metrics(self, endpoint: str) -> bool:
        """The decision, the checks by outcome, the seconds of the run and of its stages, the nearest limit."""
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter  # noqa: PLC0415
        from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricExportResult  # noqa: PLC0415

        reader = InMemoryMetricReader()
        provider = MeterProvider([reader], resource=self.resource, shutdown_on_exit=False)
        meter = provider.get_meter("replaygate")
        verdict, counts = self.verdict, self.verdict.counts
        about = {name: self.about[name] for name in ("gate.release", "gate.target")}

        decision = meter.create_gauge("gate.decision", description="1 for the decision of the run, 0 for the others")
        for one in Decision:
            decision.set(int(one is verdict.decision), {**about, "gate.decision": one.value})
        checks = meter.create_gauge("gate.checks", "{check}", "Checks of the run by outcome")
        outcomes = {"pass": counts.passed, "fail": counts.failed, "unknown": counts.unknown}
        for name, number in {**outcomes, "not_applicable": counts.not_applicable}.items():
            checks.set(number, {**about, "gate.outcome": name})
        seconds = meter.create_gauge("gate.run.duration", "s", "Seconds from the beginning of the run to its end")
        start, end = (_nanoseconds(at) or 0 for at in (verdict.started_at, verdict.finished_at))
        seconds.set(max(0, end - start) / 1e9, about)
        stages: Any = self.run.get("stages")
        stage = meter.create_gauge("gate.stage.duration", "s", "Seconds of each stage")
        for told in stages if isinstance(stages, list) else []:
            if isinstance(told, dict):
                stage.set(float(told.get("seconds") or 0.0), {**about, "gate.stage": str(told.get("stage"))})
        if verdict.margin is not None:
            room = meter.create_gauge("gate.margin", "1", "Part of the nearest limit that is left")
            room.set(verdict.margin.room, {**about, "gate.check": verdict.margin.check})
        found = reader.get_metrics_data()
        exporter = OTLPMetricExporter(endpoint, **self.options)
        return found is not None and exporter.export(found) is MetricExportResult.SUCCESS


def _session() -> Any:
    """The session of the exporters: bounds the size of an answer, and follows no redirect."""
    import requests  # noqa: PLC0415  -- comes with the exporters

    class Limited(requests.adapters.HTTPAdapter):
        def send(self, *asked: Any, **more: Any) -> Any:
            answer = super().send(*asked, **{**more, "stream": True})
            with answer.raw as sent:
                body = sent.read(MOST_ANSWER, decode_content=False)
            answer.raw = io.BytesIO(body)
            if 300 <= answer.status_code < 400:  # the headers hold a secret; exporters take a redirect for success
                raise requests.TooManyRedirects("the collector names another address")
            return answer

    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, Limited())
    return session


def _groups(evidence: Sequence[Evidence]) -> dict[str, list[Evidence]]:
    """Stage and promise -> its checks that were carried out."""
    groups: dict[str, list[Evidence]] = {}
    for one in evidence:
        if _nanoseconds(one.started_at) is not None:
            groups.setdefault("/".join(one.check.split("/")[:2]), []).append(one)
    return groups


def _times(one: Evidence) -> tuple[int, int]:
    start = _nanoseconds(one.started_at) or 0
    return start, start + int(one.duration_ms * 1e6)


def _attributes(one: Evidence) -> dict[str, str | int | float]:
    witness: Any = one.witness
    failed = witness.get("request") if isinstance(witness, dict) else None
    trace_id: Any = (failed if isinstance(failed, dict) else one.details).get("trace_id")
    numbers = {"gate.observed": one.observed, "gate.limit": one.limit}
    return {
        "gate.outcome": one.outcome.value,
        "gate.samples": one.samples,
        **{name: value for name, value in numbers.items() if isinstance(value, int | float)},
        **({"gate.message": one.message[:MOST_SAID]} if one.message else {}),
        **({"gate.blocked_by": one.blocked_by} if one.blocked_by else {}),
        **({"gate.trace_id": trace_id} if isinstance(trace_id, str) else {}),
    }


def _nanoseconds(at: str) -> int | None:
    """A time as OpenTelemetry has it; None if there is none."""
    try:
        return int(dt.datetime.fromisoformat(at).timestamp() * 1e9)
    except ValueError:
        return None
