"""Whether a run measured the target at all, and whether a pass of it can be trusted. Pure.

A run that measured nothing proves nothing. A run in doubt passes no threshold, but its failures count.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from loadtests.judgement.starvation import CLOCKED
from loadtests.judgement.verdict import ThresholdOutcome, ThresholdResult, Why


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What is known about a run apart from its samples; the validity of the run is decided on these alone.

    `null_ms` and `pressure` say how much the instrument itself was in need; see starvation.py and
    gates/deployment/pressure.py. `shares_machine`: the target is reached by a loopback address. failed: requests;
    limited: those of them that something before the service refused (expectations.is_limited).
    switched: what somebody switched off while the load ran.
    """

    requests: int
    answers: int
    dropped_iterations: int
    users_wanted: int
    users_spawned: int
    workers_wanted: int
    workers_lost: tuple[str, ...]
    cpu_percent: Mapping[str, float]
    lateness_ms: float
    elapsed_s: float
    silent_s: float = 0.0
    null_ms: Mapping[str, float] = field(default_factory=dict)
    pressure: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    errors: tuple[str, ...] = ()
    failed: int = 0
    limited: int = 0
    switched: str = ""
    shares_machine: bool = False

    @property
    def waiting_percent(self) -> float:
        """How much of its time the load process that fared worst waited for a CPU."""
        return max((one.get("waiting_percent", 0.0) for one in self.pressure.values()), default=0.0)


LIMITED_SHARE = 0.005
"""A smaller share cannot decide any threshold."""
REFUSED = ("http_req_failed", "checks", "companies_failing", "baseline_failed")
"""Metrics to which a refusal is a failure."""
CPU_LIMIT_PERCENT = 85.0
LATENESS_LIMIT_MS = 100.0
CROWDED_PERCENT, CROWDED_LATE_MS = 25.0, 40.0
"""A load process that waits longer for a CPU, and runs later than that, is on a crowded machine; an idle one of two
cores shows 2 % and 0.3 ms. There a time over its limit is no failure; one within it passes, if the schedule was kept.
"""


def invalid_reasons(facts: RunFacts) -> tuple[str, ...]:
    """Why the run is no measurement of the target, one sentence each; empty where it is one."""
    found: list[str] = []
    if facts.workers_lost:
        lost = ", ".join(facts.workers_lost)
        found.append(f"{len(facts.workers_lost)} of {facts.workers_wanted} load workers were lost ({lost})")
    if facts.requests == 0:
        found.append("not one request was made")
    elif facts.answers == 0:
        seen = f" ({', '.join(facts.errors)})" if facts.errors else ""
        found.append(f"the target gave not one answer to {facts.requests} requests{seen}; is the address right?")
    if facts.users_spawned < facts.users_wanted:
        found.append(f"{facts.users_spawned} of {facts.users_wanted} users started")
    if crowd := _crowd(facts, LATENESS_LIMIT_MS):
        found.append(crowd)
    return tuple(found)


def refusals(facts: RunFacts) -> tuple[str, ...]:
    """Why refusals are nobody's failure, one sentence each; empty where they are what they are."""
    found: list[str] = []
    if 2 * facts.limited > facts.failed and facts.limited > LIMITED_SHARE * facts.requests:
        found.append(
            f"{facts.limited} answers were refusals by something before the service (a limiter, a firewall); let the"
            " gate's address through, or lower the rate"
        )
    if facts.switched:
        found.append(f"{facts.switched} while the load ran: what was refused since is no failure; run again")
    return tuple(found)


def doubts(facts: RunFacts) -> tuple[str, ...]:
    """Why the run passes nothing, one sentence each; empty where its passes stand."""
    found = [*refusals(facts)]
    if facts.silent_s:
        found.append(
            f"the target stopped answering: no answer came in the last {facts.silent_s:.1f} s of the load, though"
            " requests were open; look for a crash or a deadlock"
        )
    if facts.dropped_iterations:
        found.append(
            f"{facts.dropped_iterations} arrivals or iterations were dropped because too many requests were still open"
            " (maxVUs), maxDuration was over, or this machine had no descriptor or port left; lower the rate, see"
            " `ulimit -n`, or look why the target answers so slowly"
        )
    for name, percent in sorted(facts.cpu_percent.items()):
        if percent > CPU_LIMIT_PERCENT:
            found.append(
                f"the load generator {name} used {percent:.0f} % of a core, {CPU_LIMIT_PERCENT:.0f} % are allowed;"
                " spread the load (--workers 2) or lower the rate"
            )
    if facts.lateness_ms > LATENESS_LIMIT_MS and not _crowd(facts, LATENESS_LIMIT_MS):
        found.append(
            f"the schedule ran {facts.lateness_ms:.0f} ms late (p95), {LATENESS_LIMIT_MS:.0f} ms are allowed:"
            " this machine is too busy to load anything; run again when it is idle, or from another one"
        )
    return tuple(found)


def crowded(facts: RunFacts) -> str:
    """That the machine had no time for a target beside the load: a time over its limit is nobody's; else empty."""
    return _crowd(facts, CROWDED_LATE_MS)


def _crowd(facts: RunFacts, most_ms: float) -> str:
    """That gate and target are on one machine which had no time for either, and ran later than that; else empty."""
    late_ms = _late_ms(facts)
    if not (facts.shares_machine and facts.waiting_percent > CROWDED_PERCENT and late_ms > most_ms):
        return ""
    return (
        f"this machine, which the target shares, was too busy: the load waited for a CPU in"
        f" {facts.waiting_percent:.0f} % of its time, and ran {late_ms:.0f} ms late; run again when idle"
    )


def _late_ms(facts: RunFacts) -> float:
    """How late the load process was (p95): with its schedule; where time-outs alone failed, with all it had to do."""
    loop_ms = facts.null_ms.get("loop_lateness_p95", 0.0)
    return max(facts.lateness_ms, loop_ms if _only_late(facts) else 0.0)


def _only_late(facts: RunFacts) -> bool:
    """Whether all that failed is what no answer came to in time."""
    return facts.errors == ("timeout",) and facts.failed == facts.requests - facts.answers


def weigh(judgements: Sequence[ThresholdResult], facts: RunFacts) -> list[ThresholdResult]:
    """What the judgements are worth in a run of these facts."""
    nothing, crowd = invalid_reasons(facts), crowded(facts)
    text = "; ".join((*nothing, *doubts(facts)))
    refused = REFUSED if refusals(facts) or (crowd and _only_late(facts)) else ()
    excused = ("",) if nothing else (*refused, *CLOCKED) if crowd else refused

    def worth(one: ThresholdResult) -> ThresholdResult:
        if one.verdict is not ThresholdOutcome.PASS and not one.metric.startswith(excused):
            return one
        why = text if one.verdict is ThresholdOutcome.PASS else text or crowd
        return _weighed(one, why) if why else one

    return [worth(one) for one in judgements]


def _weighed(one: ThresholdResult, text: str) -> ThresholdResult:
    message = f"the run is not valid ({text}); {one.message}"
    return replace(one, verdict=ThresholdOutcome.UNKNOWN, why=Why.INVALID_RUN, message=message)
