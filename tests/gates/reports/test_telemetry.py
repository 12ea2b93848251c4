"""Spans and metrics of a run as a local OTLP/HTTP receiver gets them. Skipped without the extra `otel`."""

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from gates.evidence import JsonValue, Outcome
from gates.proof.workbench.servers import Asked, Reply, serve
from gates.reports import telemetry
from gates.verdict import Action, Verdict
from tests.gates.reports.report_pages import CATALOGUE, KEYS, NOW, RELEASE, RUN, judged, saw
from tests.small_target import accepting

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the extra `otel` is not installed")
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

TRACE = "0af7651916cd43dd8448eb211c80319c"
OFF = Action("rollback", 50, 0, "done", flag="off")


@dataclass
class Receiver:
    """An OTLP/HTTP collector: keeps what it is sent, by path; answers with `status`."""

    status: int = 200
    address: str = ""
    bodies: dict[str, list[bytes]] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)

    def answer(self, asked: Asked) -> Reply:
        self.bodies.setdefault(asked.path, []).append(asked.body)
        self.tokens.add(asked.header("authorization"))
        return Reply(self.status)

    @property
    def environ(self) -> dict[str, str]:
        header = "authorization=Bearer%20abc"
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.address, "OTEL_EXPORTER_OTLP_HEADERS": header}

    def spans(self) -> list[Any]:
        found = []
        for body in self.bodies["/v1/traces"]:
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                found += [span for scope in resource.scope_spans for span in scope.spans]
        return found

    def metrics(self) -> dict[str, list[Any]]:
        (body,) = self.bodies["/v1/metrics"]
        (resource,) = ExportMetricsServiceRequest.FromString(body).resource_metrics
        assert "replaygate" in {a.value.string_value for a in resource.resource.attributes if a.key == "service.name"}
        return {
            metric.name: list(metric.gauge.data_points) for scope in resource.scope_metrics for metric in scope.metrics
        }


@pytest.fixture
def receiver(request: pytest.FixtureRequest) -> Iterator[Receiver]:
    made = Receiver(getattr(request, "param", 200))
    with serve(made.answer) as made.address:
        yield made


def broken() -> tuple[Verdict, list[Any]]:
    line = saw(KEYS, Outcome.FAIL, observed=1, limit=0, message="the constraint is missing", duration_ms=250.0)
    asked: JsonValue = {"request": {"status": 200, "trace_id": TRACE}, "twin": None}
    return judged({KEYS: replace(line, witness=asked)}, OFF)


def test_a_collector_gets_the_run_its_groups_and_its_checks(receiver: Receiver) -> None:
    """One trace, below the pipeline's span; each check with its outcome, time and parent; a failure is an error."""
    verdict, lines = broken()
    environ = {**receiver.environ, "TRACEPARENT": f"00-{TRACE}-00f067aa0ba902b7-01"}
    assert telemetry.send(verdict, lines, RUN, environ) == {"trace_id": TRACE, "error": ""}
    spans = {span.name: span for span in receiver.spans()}
    assert {span.trace_id.hex() for span in spans.values()} == {TRACE}
    assert set(spans) >= {s.id for s in CATALOGUE} | {"gate run", "sql/spot"}
    root, group, check = spans["gate run"], spans["sql/spot"], spans[KEYS]
    assert root.parent_span_id.hex() == "00f067aa0ba902b7"
    assert group.parent_span_id == root.span_id
    assert check.parent_span_id == group.span_id
    assert check.end_time_unix_nano - check.start_time_unix_nano == 250_000_000
    assert root.end_time_unix_nano == int(NOW.timestamp()) * 10**9
    assert (check.status.code, check.status.message) == (2, "the constraint is missing")
    said = {a.key: a.value for a in check.attributes}
    assert said["gate.outcome"].string_value == "fail"
    assert said["gate.trace_id"].string_value == TRACE
    assert sum(span.status.code == 2 for span in spans.values()) == 3
    assert receiver.tokens == {"Bearer abc"}


def test_a_collector_gets_the_outcome_as_metrics(receiver: Receiver) -> None:
    """The decision as 0 and 1, the checks by outcome, the seconds by stage."""
    telemetry.send(*broken(), RUN, receiver.environ)
    metrics = receiver.metrics()

    def by(name: str, key: str) -> dict[str, float]:
        points = metrics[name]
        attributes = [{a.key: a.value.string_value for a in p.attributes} for p in points]
        assert {one["gate.release"] for one in attributes} == {RELEASE}
        return {one[key]: p.as_int or p.as_double for one, p in zip(attributes, points, strict=True)}

    assert by("gate.decision", "gate.decision") == {"promote": 0, "hold": 0, "rollback": 1}
    rest = {"pass": len(CATALOGUE) - 1, "unknown": 0, "not_applicable": 0}
    assert by("gate.checks", "gate.outcome") == {"fail": 1, **rest}
    assert by("gate.stage.duration", "gate.stage") == {"drill": 61.5, "load": 34.2}
    assert by("gate.run.duration", "gate.target") == {"reference": 60.0}


def test_no_more_of_an_answer_is_read_than_it_may_have() -> None:
    """An endless answer of the collector neither fills memory nor delays the run."""
    sent = [0]

    def flood(peer: socket.socket, _number: int, closing: threading.Event) -> None:
        peer.recv(65_536)
        peer.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        while not closing.is_set():
            sent[0] += peer.send(b"x" * 65_536)

    with accepting(flood) as address:
        told = telemetry.send(*broken(), RUN, {"OTEL_EXPORTER_OTLP_ENDPOINT": address})
    assert told["error"] == ""
    assert sent[0] < 64 << 20


@pytest.mark.parametrize("receiver", [400, 401, 307], indirect=True)
def test_what_a_collector_refuses_is_said(receiver: Receiver) -> None:
    """One line reports it, without the secret header."""
    told = telemetry.send(*broken(), RUN, receiver.environ)
    assert told["error"] == "the collector did not take the traces; the collector did not take the metrics"


def test_a_collector_that_never_answers_holds_up_nobody() -> None:
    """One time limit covers all requests together."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        told = telemetry.send(*broken(), RUN, environ, limit_s=0.3)
    assert told["error"]


@pytest.mark.parametrize(
    "environ", [{}, {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}]
)
def test_nothing_is_sent_unasked(environ: dict[str, str]) -> None:
    """Nothing is sent without an endpoint, or if it is switched off."""
    assert telemetry.send(*broken(), RUN, environ) == {}


def test_one_signal_can_have_its_own_address(receiver: Receiver) -> None:
    """An endpoint variable for one signal sends only that signal."""
    address = receiver.environ["OTEL_EXPORTER_OTLP_ENDPOINT"]
    telemetry.send(*broken(), RUN, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{address}/own"})
    assert list(receiver.bodies) == ["/own"]
