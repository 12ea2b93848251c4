"""Each request begins a trace that the server receives and a finding cites."""

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable

import pytest

from gates.checks.observation import Observer, Unmet
from gates.deployment.http.client import HttpDoor
from gates.deployment.http.wire import WireDoor
from gates.deployment.requests import Answer, Request, post
from gates.deployment.target import Target
from gates.evidence import CheckSpec, Outcome, Severity, TargetKind, Where
from gates.proof.workbench.servers import Asked, Reply, serve
from tests.sources import ROOT

TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-0[01]")
SPEC = CheckSpec("drill/a/b", "c", "c", Severity.PAGE, Where.READ_ONLY)
LOAD = """
import sys
from loadtests.engine.wire import Connection, parse_address, request_bytes
address = parse_address(sys.argv[1])
for _ in range(2):
    connection = Connection(address)
    for _ in range(150):
        assert connection.exchange(request_bytes(address, "GET", "/version", [("A", "b")]), 5.0) == 200
"""


class Heard:
    """A server that keeps the requests."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []

    def __call__(self, asked: Asked) -> Reply:
        self.asked.append(asked)
        return Reply(200, body=b"{}")

    @property
    def parents(self) -> list[str]:
        """The one traceparent of each request."""
        found = [[v for k, v in asked.headers if k.lower() == "traceparent"] for asked in self.asked]
        assert all(len(values) == 1 for values in found)
        return [values[0] for values in found]


def by_client(url: str, request: Request) -> Answer:
    with HttpDoor(url) as door:
        return door.send(request)


def by_wire(url: str, request: Request) -> Answer:
    return WireDoor(url).send(request)


@pytest.mark.parametrize("send", [by_client, by_wire])
def test_each_request_begins_a_trace_that_its_answer_knows(send: Callable[[str, Request], Answer]) -> None:
    """Each has its own sampled W3C trace, which its answer knows."""
    heard = Heard()
    with serve(heard) as url:
        answers = [send(url, Request("GET", "/version")), send(url, post("/events", b"{}"))]
    assert all(TRACEPARENT.fullmatch(parent) for parent in heard.parents)
    assert [parent.split("-")[1] for parent in heard.parents] == [answer.trace for answer in answers]
    assert len({answer.trace for answer in answers}) == 2
    assert {parent[-2:] for parent in heard.parents} == {"01"}


def test_a_trace_that_a_request_is_part_of_is_left_alone() -> None:
    """A given traceparent is sent unchanged, and only once."""
    heard, given = Heard(), f"00-{'a' * 32}-{'b' * 16}-01"
    with serve(heard) as url:
        answer = by_client(url, Request("GET", "/version", (("Traceparent", given),)))
    assert (heard.parents, answer.trace) == ([given], "")


def test_what_is_no_deployment_is_told_no_trace() -> None:
    """Other services, such as a webhook, get no traceparent."""
    heard = Heard()
    with serve(heard) as url, HttpDoor(url, as_it_is=True) as door:
        door.send(post("/hook", b"{}"))
    assert heard.asked[0].header("traceparent") == ""


def test_a_finding_cites_the_trace_of_the_request_that_failed_and_of_its_twin() -> None:
    """The command to repeat it has none: it begins its own trace."""
    heard, seen = Heard(), Observer(Target(TargetKind.STAGING, base_url="http://x.example"))
    request = Request("GET", "/version")
    with serve(heard) as url, HttpDoor(url) as door:
        seen.expect(request, door.send(request), 200, control=True)
        with pytest.raises(AssertionError):
            seen.expect(request, door.send(request), 401)
    line = seen.evidence_of(SPEC, Outcome.FAIL, "no", "", 1.0)
    assert isinstance(line.witness, dict)
    told = [line.witness[name] for name in ("twin", "request")]
    assert [one["trace_id"] for one in told if isinstance(one, dict)] == [p.split("-")[1] for p in heard.parents]
    assert "traceparent" not in line.reproduce


def test_an_unknown_cites_the_trace_of_the_control_that_did_not_hold() -> None:
    """A failed control has the trace that a person looks up."""
    heard, seen = Heard(), Observer(Target(TargetKind.STAGING, base_url="http://x.example"))
    with serve(heard) as url, HttpDoor(url) as door, pytest.raises(Unmet):
        seen.expect(Request("GET", "/version"), door.send(Request("GET", "/version")), 202, control=True)
    line = seen.evidence_of(SPEC, Outcome.UNKNOWN, "no", "", 1.0)
    assert [line.details["trace_id"]] == [parent.split("-")[1] for parent in heard.parents]


def test_the_load_asks_the_service_to_keep_one_trace_of_a_hundred() -> None:
    """Every request begins a trace, and one of a hundred is sampled."""
    heard = Heard()
    with serve(heard) as url:
        subprocess.run([sys.executable, "-c", LOAD, url], cwd=ROOT, check=True, timeout=60)
    assert all(TRACEPARENT.fullmatch(parent) for parent in heard.parents)
    assert len({parent.split("-")[1] for parent in heard.parents}) == 300
    assert Counter(parent[-2:] for parent in heard.parents) == {"00": 297, "01": 3}
