"""Behind a balancer that spreads the requests of one connection, the drills judge all instances together."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import pytest

from faults.proxy.server import Forward, Reply, Sent, proxy
from gates.evidence import Outcome
from tests.drills.examination import examine


class _TwoInstances:
    """Two instances behind a balancer that sends every request to the other one, each counting for itself."""

    def __init__(self, *, counts: bool = True, tells_apart: bool = True) -> None:
        self.turn, self.counts, self.tells_apart = 0, counts, tells_apart
        self.seen = [Counter({"started": 40}), Counter({"started": 17})]

    def __call__(self, sent: Sent, forward: Forward) -> Reply:
        self.turn += 1
        own, reply = self.seen[self.turn % 2], forward(sent)
        if sent.path.endswith("/dlq-replay") and self.counts:
            own["refused" if reply.status != 200 and self.tells_apart else "started"] += 1
        if not sent.path.endswith("/metrics"):
            return reply
        kept = [line for line in reply.body.splitlines() if b"_total" not in line and b"_count" not in line]
        kept += [f'replay_requests_total{{outcome="{name}"}} {count}'.encode() for name, count in own.items()]
        return dataclasses.replace(reply, body=b"\n".join(kept) + b"\n")


@pytest.mark.parametrize(
    ("instances", "outcomes"),
    [
        (_TwoInstances(), {"replays": Outcome.PASS, "refusals": Outcome.PASS}),
        (_TwoInstances(counts=False), {"replays": Outcome.FAIL, "refusals": Outcome.UNKNOWN}),
        (_TwoInstances(tells_apart=False), {"replays": Outcome.PASS, "refusals": Outcome.FAIL}),
    ],
    ids=["healthy", "counts nothing", "tells refusals not apart"],
)
def test_counts_of_several_instances_are_added(
    instances: _TwoInstances, outcomes: dict[str, Outcome], variables: dict[str, str], tmp_path: Path
) -> None:
    """Behind a balancer that takes turns, the counts of all instances together are judged."""
    checks = {name: f"drill/observability/{name}-are-counted" for name in outcomes}
    with proxy(variables["BASE_URL"], instances) as url:
        found = examine({**variables, "BASE_URL": url}, list(checks.values()), tmp_path)
    seen = {name: found[check].outcome for name, check in checks.items()}
    assert seen == outcomes, {check: e.message for check, e in found.items()}
