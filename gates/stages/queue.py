"""The queue stage: watches the backlog, sees one job done, and enqueues jobs at a rate. If the policy names no job that
the gate may enqueue, it only reads, and waits for a user's job to end.
"""

import dataclasses
import time
from collections.abc import Sequence

import psycopg

from gates.contract.queues import queue_of
from gates.decision.rules import QUEUE_STAGE
from gates.deployment.queue.jobs import DONE, JobState, QueueDoor, QueueTroubleError
from gates.deployment.redaction import hidden, redact_evidence
from gates.deployment.sql.failures import in_words
from gates.evidence import CheckSpec, Evidence, JsonValue, Outcome, Severity, Where, stamp
from gates.stages.context import Context, Progress, StageReport, now
from gates.stages.preflight.database import SIGHT

WATCHED = "watch/queue-backlog"
LEAST_WATCH_S = 8.0
EVERY_S = 1.0
POLL_S = 0.25
LEAST_POINTS = 6
LEAST_GROWTH = 10
"""Jobs: a smaller increase is no growth."""
MOST_LATE = 0.02
"""The share of jobs that may be late or fail; the checklist's 98 %."""
LEAST_JOBS = 20
LAG_LIMITS = {Severity.PAGE: 5.0, Severity.WARN: 2.0}


def _spec(name: str, claim: str, cost: str, *needs: str, severity: Severity = Severity.PAGE) -> CheckSpec:
    wanted = ("database", *needs)
    return CheckSpec(f"queue/{name}", claim, cost, severity, Where.SELF_CLEANING, wanted, (SIGHT.id,), ())


WORKED_OFF = _spec(
    "proof/worked-off",
    "A job is worked off: one that the gate enqueued, or else one of somebody's that ended well during the run.",
    "Nothing shows that anybody works here at all.",
)
GROWTH = _spec(
    "load/backlog-growth",
    "The backlog does not grow through the whole observation.",
    "More is enqueued than is worked off; every job waits longer than the one before.",
    "queue:waiting",
    severity=Severity.WARN,
)
LOAD_DONE = _spec(
    "load/worked-off",
    "Of the jobs enqueued at the policy's rate, 98 % are worked off in time.",
    "At this rate the queue falls behind.",
    "queue:load",
)
LOAD_P95 = _spec(
    "load/p95",
    "Of the jobs enqueued at the policy's rate, 95 % are worked off within the limits of the lag.",
    "At this rate customers wait.",
    "queue:load",
)
LOAD_ONCE = _spec(
    "load/once",
    "No job that the gate enqueued succeeded twice.",
    "A customer is charged, told or served twice.",
    "queue:load",
    "queue:counted",
)
SPECS = (WORKED_OFF, GROWTH, LOAD_DONE, LOAD_P95, LOAD_ONCE)


def queue(context: Context) -> list[StageReport]:
    """The stage, if the policy claims a queue; every check of it has evidence afterwards."""
    expected = context.applicable(QUEUE_STAGE)
    if not expected or not context.scope.queue:
        return []
    started, error, lines = now(), "", list[Evidence]()
    context.progress(Progress("queue", expected=len(expected)))
    try:
        with QueueDoor(queue_of(context.scope.queue), context.target.database_url) as door:
            lines += _seen(door)
    except (psycopg.Error, OSError, TimeoutError) as trouble:
        error = f"the queue could not be asked: {in_words(trouble)}"
    except QueueTroubleError as trouble:
        error = str(trouble)
    at, seconds = stamp(started), (now() - started).total_seconds()
    applicable = {s.id for s in expected} | {WATCHED}
    stamped = [dataclasses.replace(e, started_at=at, release=context.target.release) for e in lines]
    context.write([redact_evidence(e, hidden(context.target)) for e in stamped if e.check in applicable])
    context.account_for(expected, error or "the queue stage did not come to this")
    return [context.ended("queue", lines, len(expected), seconds, error)]


def _seen(door: QueueDoor) -> list[Evidence]:
    """The evidence of the stage: first from all jobs, then from the gate's own."""
    probe = door.queue.options.probe
    points, ended = watched(door, until_ended=probe is None)
    lines = [_watched_line(points), grown(points)]
    if probe is None:
        return [*lines, _observed(ended, door.queue.options.observe_s)]
    first = Probing(door)
    first.run(1.0, 1)
    lines.append(first.proof())
    if probe.rate is None:
        return lines
    load = Probing(door)
    load.run(1 / probe.rate, max(1, round(probe.rate * probe.seconds)))
    return [*lines, *load.load()]


def watched(door: QueueDoor, *, until_ended: bool) -> tuple[list[tuple[float, int]], int]:
    """The backlog, once a second: [seconds, jobs waiting]; and how many jobs succeeded meanwhile."""
    began, points = time.monotonic(), list[tuple[float, int]]()
    while True:
        at = time.monotonic() - began
        points.append((round(at, 2), door.waiting()))
        ended = door.ended()
        too_little = (until_ended and not ended) or len(points) < LEAST_POINTS
        patience_s = door.queue.options.observe_s if too_little else LEAST_WATCH_S
        if at >= max(patience_s, LEAST_WATCH_S):
            return points, ended
        time.sleep(EVERY_S)


def _watched_line(points: Sequence[tuple[float, int]]) -> Evidence:
    samples: list[JsonValue] = [[at, jobs] for at, jobs in points]
    last = points[-1][1]
    return Evidence(WATCHED, Outcome.PASS, "", last, unit="jobs", samples=len(points), details={"samples": samples})


def grown(points: Sequence[tuple[float, int]]) -> Evidence:
    """Judge the growth of the backlog. Pure. It grew if each number of the later half exceeds all of the earlier half,
    and the last is well above the first. A burst that is worked off, or fluctuation, is no growth.
    """
    jobs = [n for _, n in points]
    check, half = GROWTH.id, len(jobs) // 2
    if len(jobs) < LEAST_POINTS:
        said = f"the backlog was seen {len(jobs)} times, {LEAST_POINTS} are needed. Run the gate again"
        return Evidence(check, Outcome.UNKNOWN, said, samples=len(jobs))
    growth = jobs[-1] - jobs[0]
    witness = f"{jobs[0]} jobs waited at first, {jobs[-1]} after {points[-1][0]:.0f} s"
    if growth > LEAST_GROWTH and min(jobs[half:]) > max(jobs[:half]):
        said = f"the backlog grew through the whole observation: {witness}. See queue/workers and queue/standstill"
        return Evidence(check, Outcome.FAIL, said, growth, LEAST_GROWTH, "jobs", len(jobs), witness=witness)
    return Evidence(check, Outcome.PASS, "", growth, LEAST_GROWTH, "jobs", len(jobs), witness=witness)


def _observed(ended: int, waited_s: float) -> Evidence:
    if ended:
        return Evidence(WORKED_OFF.id, Outcome.PASS, "", ended, 1, "jobs", ended)
    said = (
        f"no job ended well within {waited_s:g} s. Enqueue one while the gate runs, or name one that the gate may"
        " enqueue (`probe` in `contract: options:`)"
    )
    return Evidence(WORKED_OFF.id, Outcome.UNKNOWN, said, 0, 1, "jobs")


def _too_few(check: CheckSpec, jobs: int) -> Evidence:
    said = f"{jobs} jobs were enqueued, {LEAST_JOBS} are needed. Raise `rate` or `seconds` of the probe"
    return Evidence(check.id, Outcome.UNKNOWN, said, samples=jobs)


class Probing:
    """The gate's own jobs, and what became of them."""

    def __init__(self, door: QueueDoor) -> None:
        self._door = door
        self._sent: dict[str, float] = {}
        self._done: dict[str, float] = {}
        self._last: dict[str, JobState] = {}
        probe = door.queue.options.probe
        self._name, self._within_s = (probe.name, probe.within_s) if probe else ("", 0.0)

    def run(self, every_s: float, count: int) -> None:
        """Enqueue the jobs, and wait until all have ended or the time is over. Unclaimed ones are removed."""
        began = time.monotonic()
        for n in range(count):
            while (wait_s := began + n * every_s - time.monotonic()) > 0:
                time.sleep(min(wait_s, POLL_S))
                self._look()
            self._sent[self._door.enqueue()] = time.monotonic()
        deadline = time.monotonic() + self._within_s
        while self._look() and time.monotonic() < deadline:
            time.sleep(POLL_S)
        self._door.remove(self._open())

    def _open(self) -> list[str]:
        return [i for i in self._sent if i not in self._done]

    def _look(self) -> bool:
        """Whether jobs are still open; records when each was first seen done."""
        for job in self._door.look(self._open()):
            self._last[job.id] = job
            if job.state == DONE and job.id in self._sent:
                seen_s = time.monotonic() - self._sent[job.id]
                self._done[job.id] = min(seen_s, job.took_s) if job.took_s is not None else seen_s
        return bool(self._open())

    def _told(self, job: str) -> str:
        last = self._last.get(job)
        return f"job {job} of {self._name} is {last.state if last else 'not to be found'} after {self._within_s:g} s"

    def proof(self) -> Evidence:
        """Whether the one job was done in time."""
        (job,) = self._sent
        took_s, limit_s = self._done.get(job), self._within_s
        if took_s is None:
            said = f"{self._told(job)}; it must be done by then. See queue/workers, and the worker's log"
            return Evidence(WORKED_OFF.id, Outcome.FAIL, said, None, limit_s, "s", 1, witness=job)
        late = took_s > limit_s
        said = f"job {job} of {self._name} took {took_s:.1f} s; allowed: {limit_s:g} s" if late else ""
        outcome = Outcome.FAIL if late else Outcome.PASS
        return Evidence(WORKED_OFF.id, outcome, said, round(took_s, 3), limit_s, "s", 1, witness=job)

    def load(self) -> list[Evidence]:
        """Results of the load: how many jobs were done in time, their durations, and whether one was done twice."""
        return [self._done_in_time(), self._p95(), self._once()]

    def _done_in_time(self) -> Evidence:
        sent = len(self._sent)
        bad = [i for i in self._sent if self._done.get(i, self._within_s + 1) > self._within_s]
        share = len(bad) / sent
        if share > MOST_LATE:
            said = f"{len(bad)} of {sent} jobs were not done within {self._within_s:g} s; {self._told(bad[0])}"
            return Evidence(LOAD_DONE.id, Outcome.FAIL, said, round(share, 4), MOST_LATE, "ratio", sent, witness=bad[0])
        if sent < LEAST_JOBS:
            return _too_few(LOAD_DONE, sent)
        return Evidence(LOAD_DONE.id, Outcome.PASS, "", round(share, 4), MOST_LATE, "ratio", sent)

    def _p95(self) -> Evidence:
        took = sorted(self._done.get(i, float("inf")) for i in self._sent)
        if len(took) < LEAST_JOBS:
            return _too_few(LOAD_P95, len(took))
        p95_s = took[max(0, -(-len(took) * 95 // 100) - 1)]
        own = {**self._door.queue.preset.limits.get("lag", {}), **self._door.queue.options.limits.get("lag", {})}
        limits = {severity: own.get(severity.value, limit) for severity, limit in LAG_LIMITS.items()}
        shown = round(p95_s, 3) if p95_s != float("inf") else None
        for severity, limit in limits.items():
            if p95_s > limit:
                how_long = f"{p95_s:.1f} s" if shown is not None else f"over {self._within_s:g} s"
                said = f"the 95th percentile of {len(took)} jobs took {how_long}; allowed: {limit:g} s"
                return Evidence(LOAD_P95.id, Outcome.FAIL, said, shown, limit, "s", len(took), severity=severity.value)
        return Evidence(LOAD_P95.id, Outcome.PASS, "", shown, limits[Severity.PAGE], "s", len(took))

    def _once(self) -> Evidence:
        known = self._door.look(list(self._sent))
        twice = [job.id for job in known if job.effects > 1]
        if twice:
            said = f"{len(twice)} of {len(known)} jobs succeeded more than once, such as {twice[0]}"
            return Evidence(LOAD_ONCE.id, Outcome.FAIL, said, len(twice), 0, "jobs", len(known), witness=twice[0])
        return Evidence(LOAD_ONCE.id, Outcome.PASS, "", 0, 0, "jobs", sum(job.effects == 1 for job in known))
