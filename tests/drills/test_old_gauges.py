"""A deployment may refresh its gauges only now and then, so they show the state of some seconds ago."""

import dataclasses
import re
import time
from pathlib import Path

import pytest

from drills.observability import test_metrics
from faults.proxy.server import Forward, Reply, Sent, proxy
from gates.evidence import Outcome
from tests.drills.examination import examine

COMPLETED = re.compile(rb'(?m)^(agent_tasks_total\{status="completed"\}) (\d+)$')
GONE = 3


def test_a_first_count_of_tasks_that_are_gone_since(variables: dict[str, str], tmp_path: Path) -> None:
    """Tasks deleted after the first count hide the same number of new ones, once."""
    emitted: list[str] = []

    def old_at_first(sent: Sent, forward: Forward) -> Reply:
        reply = forward(sent)
        if sent.path.endswith("/events"):
            emitted.append(sent.path)
        if not sent.path.endswith("/metrics") or emitted:
            return reply
        shown, found = COMPLETED.subn(lambda m: b"%s %d" % (m[1], int(m[2]) + GONE), reply.body)
        assert found
        return dataclasses.replace(reply, body=shown)

    check = "drill/observability/effects-are-counted"
    with proxy(variables["BASE_URL"], old_at_first) as url:
        found = examine({**variables, "BASE_URL": url}, [check], tmp_path)[check]
    assert found.outcome is Outcome.PASS, found.message


def test_gauges_that_are_late_for_a_look(
    variables: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lag that is counted anew only after the first look of each step is late, and not wrong."""
    monkeypatch.setattr(test_metrics, "GAUGES_S", 1.0)
    kept: list[tuple[float, Reply]] = []

    def kept_for_a_while(sent: Sent, forward: Forward) -> Reply:
        if not sent.path.endswith("/metrics"):
            return forward(sent)
        if not kept or time.monotonic() - kept[-1][0] > 1.6:
            kept.append((time.monotonic(), forward(sent)))
        return kept[-1][1]

    check = "drill/observability/waiting-events-show"
    with proxy(variables["BASE_URL"], kept_for_a_while) as url:
        found = examine({**variables, "BASE_URL": url}, [check], tmp_path)[check]
    assert found.outcome is Outcome.PASS, found.message
    assert len(kept) > 2
