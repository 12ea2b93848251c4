"""Behind a balancer that spreads a connection's requests, drills judge all instances together."""

import dataclasses
import uuid
from collections import Counter
from pathlib import Path

import pytest

from faults.proxy.server import Forward, Reply, Sent, proxy
from gates.evidence import Outcome
from tests.drills.examination import examine


class _TwoInstances:
    """Two instances behind a balancer that sends every request to the other one, each counting for itself; `together`:
    two processes of one instance, which shows what each has counted. `hidden`: how many series no scrape meets
    before the first refusal. `in_a_row`: requests that one gets before the other has its turn.
    """

    def __init__(
        self,
        *,
        counts: bool = True,
        tells_apart: bool = True,
        every: int = 0,
        together: bool = False,
        hidden: int = 0,
        in_a_row: int = 1,
    ) -> None:
        self.in_a_row = in_a_row
        self.turn, self.counts, self.tells_apart, self.every = 0, counts, tells_apart, every
        self.together, self.hidden, self.refused, self.others = together, hidden, False, 0
        self.seen = [Counter({"started": 40}), Counter({"started": 17})]

    def __call__(self, sent: Sent, forward: Forward) -> Reply:
        self.turn += 1
        own, reply = self.seen[self.turn // self.in_a_row % 2], forward(sent)
        if sent.path.endswith("/dlq-replay") and self.counts:
            own["refused" if reply.status != 200 and self.tells_apart else "started"] += 1
        self.refused |= reply.status == 403
        if not sent.path.endswith("/metrics"):
            return reply
        if self.every and self.turn % self.every == 0:
            own["started"] += 1  # somebody else's call
            self.others += 1
        kept = [line for line in reply.body.splitlines() if b"_total" not in line and b"_count" not in line]
        for process, shown in enumerate(self.seen if self.together else [own]):
            of_it = f',pid="{process}"' if self.together else ""
            kept += [f'replay_requests_total{{outcome="{name}"{of_it}}} {n}'.encode() for name, n in shown.items()]
        kept += [b'http_requests_total{path="/%d"} 9' % n for n in range(self.hidden * self.refused)]
        return dataclasses.replace(reply, body=b"\n".join(kept) + b"\n")


class _Sought:
    """A service that others also call; its series name the instance, as OpenTelemetry's do."""

    def __init__(self, times: int = 1) -> None:
        self.others, self.times = 0, times

    def __call__(self, sent: Sent, forward: Forward) -> Reply:
        reply = forward(sent)
        if not sent.path.endswith("/metrics"):
            return reply
        self.others += 1
        own = [line for line in reply.body.splitlines() if line.startswith(b"replay_requests_total{")]
        count = self.times * (self.others + sum(float(line.rpartition(b" ")[2]) for line in own))
        kept = [line for line in reply.body.splitlines() if line not in own]
        of_k8s = f'target_info{{k8s_cluster_uid="{uuid.UUID(int=9)}",k8s_node_uid="{uuid.UUID(int=8)}"}} 1'
        shown = [*kept, b"replay_requests_total %g" % count, of_k8s.encode()]
        return dataclasses.replace(reply, body=b"\n".join(shown) + b"\n")


@pytest.mark.parametrize(("times", "outcome"), [(1, Outcome.PASS), (0, Outcome.FAIL)])
def test_calls_of_others_are_no_fault_of_the_counter(
    times: int, outcome: Outcome, variables: dict[str, str], tmp_path: Path
) -> None:
    """The count may grow by more than the drill's calls, not by fewer."""
    check, labels = "drill/observability/replays-are-counted", "drill/observability/no-tenants-in-labels"
    with proxy(variables["BASE_URL"], _Sought(times)) as url:
        found = examine({**variables, "BASE_URL": url}, [check, labels], tmp_path)
    assert found[check].outcome is outcome, found[check].message
    assert found[labels].outcome is Outcome.PASS, found[labels].message


@pytest.mark.parametrize(
    ("instances", "outcomes"),
    [
        (_TwoInstances(), {"replays": Outcome.PASS, "refusals": Outcome.PASS}),
        (_TwoInstances(together=True), {"replays": Outcome.PASS, "refusals": Outcome.PASS}),
        (_TwoInstances(together=True, tells_apart=False), {"replays": Outcome.PASS, "refusals": Outcome.FAIL}),
        (_TwoInstances(hidden=4), {"refusals": Outcome.PASS}),
        (_TwoInstances(hidden=4, in_a_row=1000), {"refusals": Outcome.PASS}),
        (_TwoInstances(every=17), {"replays": Outcome.PASS, "refusals": Outcome.PASS}),
        (_TwoInstances(counts=False), {"replays": Outcome.FAIL, "refusals": Outcome.UNKNOWN}),
        (_TwoInstances(tells_apart=False), {"replays": Outcome.PASS, "refusals": Outcome.FAIL}),
    ],
    ids=[
        "healthy",
        "processes",
        "processes that tell not apart",
        "one of them is met late",
        "one of them is met late, and kept",
        "others call, too",
        "counts nothing",
        "tells refusals not apart",
    ],
)
def test_counts_of_several_instances_are_added(
    instances: _TwoInstances, outcomes: dict[str, Outcome], variables: dict[str, str], tmp_path: Path
) -> None:
    """The counts of all instances together are judged."""
    checks = {name: f"drill/observability/{name}-are-counted" for name in outcomes}
    with proxy(variables["BASE_URL"], instances) as url:
        found = examine({**variables, "BASE_URL": url}, list(checks.values()), tmp_path)
    seen = {name: found[check].outcome for name, check in checks.items()}
    assert seen == outcomes, {check: e.message for check, e in found.items()}
    assert bool(instances.others) is bool(instances.every), "others were to call, and none did"
