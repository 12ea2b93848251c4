"""A deployment may refresh its gauges only now and then, so they show the state of some seconds ago."""

import dataclasses
import re
from pathlib import Path

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
