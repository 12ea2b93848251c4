"""The conductor of a run: gathers the reports of all load processes, looks at the thresholds, decides when to stop."""

from __future__ import annotations

import math
import time
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gates.deployment.capabilities import is_loopback
from loadtests.engine.samples import RequestGroup, Samples, timed_of
from loadtests.engine.schedule import length_s
from loadtests.engine.sinks import Sink, TrendSink
from loadtests.engine.tally import Tally
from loadtests.engine.written import LOST, Acknowledged
from loadtests.judgement import interleaved
from loadtests.judgement.looks import Looks
from loadtests.judgement.starvation import LATENESS, NULL, excuse
from loadtests.judgement.trend import distrust_rise, distrust_slowing
from loadtests.judgement.validity import RunFacts, doubts, invalid_reasons, weigh
from loadtests.judgement.verdict import ThresholdOutcome, ThresholdResult, Why, judge
from loadtests.plan import LoadPlan, no_sample, replays_of
from loadtests.thresholds.language import Expression, MetricKey, Threshold, ThresholdSet, k6_verdict

NO_ANSWER_S = 3.0
EARLY_S = 3.0
"""No failure ends the run earlier: a service that has just been started may be slow."""
LOOK_S = 2.0
K6_LOOK_S = 2.0
"""k6 evaluates its thresholds every two seconds."""
LOOK_SHARE = 20.0
"""Looking takes at most this fraction (1 in 20) of the time."""
FREEZE_S = 10
"""Above the cap of exact values, older seconds keep only their summary."""
SQL_METRICS = (
    *("dlq_items", "dlq_items_count", "outbox_oldest_age_ms", "outbox_backlog", "outbox_drained"),
    *("db_connections", "db_connections_growth"),
    *LOST.values(),
    "companies_failing",
)
MEMORY_METRICS = ("memory_mb", "memory_growth_mb")


@dataclass(slots=True)
class WorkerState:
    """The latest report of one load process."""

    sequence: int = -1
    finals: int = 0
    gap: bool = False
    cpu_percent: float = 0.0
    users: int = 0
    dropped: int = 0
    silent_s: float = 0.0
    shift_s: float = math.inf
    """Offset from its clock to that of the run."""
    pressure: Mapping[str, float] = field(default_factory=dict)
    canaries: tuple[int, int, int] = (0, 0, 0)
    paused: bool = False
    done: bool = False


@dataclass(slots=True)
class Second:
    """One second of the time series: durations in ms, and how many requests failed. `summary` is what is left of a
    second that was frozen: requests, p50, p95, max.
    """

    durations: array[float] = field(default_factory=lambda: array("d"))
    failed: int = 0
    summary: tuple[int, float, float, float] | None = None

    def numbers(self) -> tuple[int, float, float, float]:
        """Requests, p50, p95, max. Of what came after the freezing only number and maximum count."""
        trend = TrendSink(self.durations)
        if self.summary is None:
            return trend.samples, trend.percentile(50.0), trend.percentile(95.0), trend.percentile(100.0)
        count, p50, p95, most = self.summary
        return count + trend.samples, p50, p95, max(most, trend.percentile(100.0))

    def freeze(self) -> None:
        self.summary = self.numbers()
        del self.durations[:]


class Conductor:
    """Knows the plan, everything that was reported, and what may end the run. Does not know Locust."""

    def __init__(
        self, plan: LoadPlan, thresholds: ThresholdSet, absent: Mapping[str, str], *, has_database: bool
    ) -> None:
        self.plan = plan
        self.thresholds = thresholds
        self.samples = Samples(most_exact=plan.most_exact)
        self.tally = Tally(thresholds, length_s(plan))
        self.seconds: dict[int, Second] = {}
        self.workers: dict[str, WorkerState] = {}
        self.lost: list[str] = []
        self.looks = 0
        self.reached_s: float | None = None
        """When the planned time was over."""
        self.ended = self.switched = ""
        self._proved: dict[tuple[MetricKey, str], ThresholdResult] = {}
        """Thresholds that were proved to be broken before the end, by their source."""
        self.started = time.perf_counter()
        self.acknowledged = Acknowledged()
        self.replays: dict[str, tuple[int, int]] = {}
        self.stopped = 0.0
        self.users_wanted = self.users_spawned = self.users_most = 0
        self._absent = dict(absent)
        self._has_database = has_database

    @property
    def elapsed_s(self) -> float:
        return (self.stopped or time.perf_counter()) - self.started

    def on_report(self, worker: str, report: Mapping[str, Any]) -> list[RequestGroup]:
        """Merge one report. A gap in the sequence numbers means that samples are missing."""
        seen = self.workers.setdefault(worker, WorkerState())
        seen.gap = seen.gap or report["sequence"] != seen.sequence + 1
        seen.sequence = report["sequence"]
        seen.finals += 1 if report["final"] else 0
        seen.cpu_percent, seen.users, seen.dropped = report["cpu_percent"], report["users"], report["dropped"]
        seen.silent_s, seen.pressure, seen.done = report["silent_s"], report["pressure"], report["done"]
        seen.canaries, seen.paused = tuple(report["canaries"]), seen.paused or report["paused"]
        self.acknowledged.take(report["acknowledged"])
        self.replays |= {company: tuple(fared) for company, fared in report["replays"].items()}
        came = self.samples.merge_report(report)
        seen.shift_s = min(seen.shift_s, time.perf_counter() - self.started - report["elapsed_s"])
        self.tally.take(came, timed_of(report), seen.shift_s)
        users = sum(one.users for one in self.workers.values())
        self.users_most = max(self.users_most, users)
        self.samples.add("vus", users, at=self.elapsed_s)
        self.samples.add("vus_max", self.users_most, at=self.elapsed_s)
        now = int(report["elapsed_s"])
        second = self.seconds.setdefault(now, Second())
        for group in came:
            second.durations.extend(group.timings["http_req_duration"])
            second.failed += group.count if group.failed else 0
        if "http_req_duration" in self.samples.folded:
            for number, old in self.seconds.items():
                if old.durations and number < now - FREEZE_S:
                    old.freeze()
        return came

    def lose(self, worker: str) -> None:
        """Note that a load process ended without its last report."""
        if worker not in self.lost:
            self.lost.append(worker)

    def absent(self, metric: str) -> str:
        """Why a metric cannot be measured in this run; empty where it can."""
        plan = self.plan
        switches = {
            "TEST_OUTBOX": (plan.test_outbox, ("outbox_lag_ms", *(m for m in SQL_METRICS if m.startswith("outbox_")))),
            "TEST_DLQ": (plan.test_dlq, ("dlq_items", "dlq_items_count")),
            "TEST_AGENTS": (plan.test_agents, ("agent_success",)),
        }
        for name, (on, metrics) in switches.items():
            if metric in metrics and not on:
                return f"switched off ({name}=false)"
        if metric in self._absent:
            return self._absent[metric]
        if metric in interleaved.METRICS:
            return interleaved.lacks(self._sink(interleaved.ANSWERED), self._sink(interleaved.DIFFERS))
        if plan.is_url and metric in {"outbox_lag_ms", "agent_success", *SQL_METRICS}:
            return "a plain URL was loaded; only a whole deployment has it"
        if metric in SQL_METRICS and not self._has_database:
            return "it is counted by SQL and no DATABASE_URL was given"
        if metric == "answers_mixed" and not self._sink(metric).samples:
            return "no answer said whose it is"
        if metric in {"outbox_lag_ms", "agent_success", "outbox_drained"}:
            if any(seen.paused for seen in self.workers.values()):
                return "agents are paused, so events are held; resume them and run again"
            accepted, direct = (sum(seen.canaries[i] for seen in self.workers.values()) for i in (0, 1))
            if metric == "outbox_lag_ms" and accepted and accepted == direct:
                return "every canary took the direct path; outbox.enabled is off for its company"
        return ""

    def lack(self, metrics: Iterable[str], why: str) -> None:
        """Note while running that metrics cannot be measured."""
        self._absent |= dict.fromkeys(metrics, why)

    def judgements(self) -> list[ThresholdResult]:
        """All thresholds judged over what was seen so far; a stuck oldest event makes the lag worse, never better."""
        found = []
        for key, thresholds in self.thresholds.by_metric.items():
            sink = self.samples.select(key)
            absent = self.absent(key.name) or (no_sample(self.plan, key) if not sink.samples else "")
            for threshold in thresholds:
                one = self._judge(key, threshold, sink, absent)
                if one.why is Why.UNDECIDED:  # what was proved at any time stays so, whatever came until the end
                    one = self._proved.get((key, threshold.expression.source), one)
                if str(key) == "outbox_lag_ms" and not absent:
                    one = distrust_rise(self._worse_of_oldest(one, threshold), self._trend(key.name).values)
                if key.name == "http_req_duration" and self.plan.is_even:
                    one = distrust_slowing(one, self.samples.by_request(key), self._trend(NULL).values)
                found.append(one)
        return weigh(found, self.facts()) if self.stopped else found

    def _judge(self, key: MetricKey, threshold: Threshold, sink: Sink, absent: str = "") -> ThresholdResult:
        """One threshold judged by the samples. A latency that the generator may have caused itself is no failure."""
        sink = self._summed(key, threshold, sink)
        looks = self._looks(key, threshold.expression, sink)
        one = judge(key, threshold, sink, self.elapsed_s, looks=looks, absent=absent)
        if key.name == interleaved.FAILED:
            return interleaved.against(one, sink, self._sink(interleaved.SPARED))
        return excuse(one, key, threshold, sink, self._trend(NULL), looks=looks)

    def _summed(self, key: MetricKey, threshold: Threshold, sink: Sink) -> Sink:
        if isinstance(sink, TrendSink):
            sink.total = self.tally.total(key, threshold.expression, sink.samples)
        return sink

    def _looks(self, key: MetricKey, e: Expression, sink: Sink) -> Looks:
        variance, most = 0.0, (self._most_s() + self.plan.grace_s) * 1000.0
        if isinstance(sink, TrendSink) and e.method == "avg" and sink.samples:
            variance, most = sink.variance(sink.mean()), max(most, sink.percentile(100.0))
        ran_on = self.looks > 1
        return self.tally.looks(key, e, reached_s=self.reached_s, ran_on=ran_on, variance=variance, most=most)

    def _sink(self, metric: str) -> Sink:
        return self.samples.select(MetricKey(metric))

    def _trend(self, metric: str) -> TrendSink:
        sink = self._sink(metric)
        return sink if isinstance(sink, TrendSink) else TrendSink()

    def _open(self) -> tuple[bool, bool]:
        """Whether more samples could decide a threshold, and whether one failed that rolls back: the load need not go
        on for the others.

        Of replay calls no more come than the companies of the run allow. Of our own thresholds, the latency of one
        operation, or against the baseline, only holds.
        """
        only_holds = () if self.plan.thresholds_text else ("http_req_duration{", *interleaved.SLOWER)
        judged = self.judgements()
        return (
            any(j.wants_more and j.samples < self._most_of(j) for j in judged),
            any(j.verdict is ThresholdOutcome.FAIL and not j.metric.startswith(only_holds) for j in judged),
        )

    def _most_of(self, judged: ThresholdResult) -> float:
        return replays_of(self.plan) if "operation:replay" in judged.metric else math.inf

    def _worse_of_oldest(self, canary: ThresholdResult, threshold: Threshold) -> ThresholdResult:
        sink = self._sink("outbox_oldest_age_ms")
        if not sink.samples or threshold.expression.operator not in {"<", "<="} or canary.verdict.value == "fail":
            return canary
        looks = Looks(reached=self.reached_s is not None)
        oldest = judge(MetricKey("outbox_lag_ms"), threshold, sink, self.elapsed_s, looks=looks)
        return oldest if oldest.verdict.value == "fail" else canary

    def goes_on(self) -> bool:
        """Whether the run should be taken up again, now that everything under way has come in.

        At the look before, requests still open were missing; with them an outcome may be open again.
        """
        elapsed = time.perf_counter() - self.started
        if not self.plan.run_on or self.ended.startswith("aborted") or elapsed + LOOK_S > self._most_s():
            return False
        if all(seen.done for seen in self.workers.values()):
            return False
        is_open, has_failed = self._open()
        if not is_open or has_failed or self.invalid_reasons():
            return False
        self.stopped, self.ended = 0.0, ""
        self._look_at = min(self._most_s(), elapsed + LOOK_S)
        return True

    def facts(self) -> RunFacts:
        """The facts of the run beside its samples."""
        null = self._trend(NULL)
        gone = [*self.lost, *(f"{name} (reports missing)" for name, seen in self.workers.items() if seen.gap)]
        if self.stopped and not gone and (silent := self._processes - len(self.workers)) > 0:
            gone = [f"{silent} that never reported"]
        return RunFacts(
            requests=self.samples.requests,
            answers=self.samples.answers,
            dropped_iterations=sum(seen.dropped for seen in self.workers.values()),
            users_wanted=self.users_wanted,
            users_spawned=self.users_spawned,
            workers_wanted=self._processes,
            workers_lost=tuple(gone),
            cpu_percent={name: seen.cpu_percent for name, seen in self.workers.items()},
            lateness_ms=self._trend("schedule_lateness_ms").percentile(95.0),
            elapsed_s=self.elapsed_s,
            silent_s=max((seen.silent_s for seen in self.workers.values()), default=0.0),
            null_ms={
                "requests": null.samples,
                **{f"p{q:g}": null.percentile(q) for q in (50.0, 95.0, 99.0, 100.0)},
                "loop_lateness_p95": self._trend(LATENESS).percentile(95.0),
            },
            pressure={name: seen.pressure for name, seen in self.workers.items()},
            errors=tuple(sorted({dict(g.tags).get("error", "") for g in self.samples.groups.values()} - {""})),
            failed=sum(g.count for g in self.samples.groups.values() if g.failed),
            limited=self._sink("limited").samples,
            switched=self.switched,
            shares_machine=is_loopback(self.plan.base_url),
        )

    def invalid_reasons(self) -> tuple[str, ...]:
        """Why the run is invalid, or cannot pass anything."""
        facts = self.facts()
        return (*invalid_reasons(facts), *doubts(facts))

    def stop_reason(self) -> str:
        """Why the run should end now; empty while it should go on. Call it about every half second."""
        if self.lost:
            return f"aborted: {len(self.lost)} load workers were lost"
        elapsed = self.elapsed_s
        if elapsed > NO_ANSWER_S and self.samples.requests >= 20 and self.samples.answers == 0:
            return "aborted: the target gives no answer at all"
        early = self._early(elapsed)
        if early:
            return early
        done = len(self.workers) >= self._processes and all(seen.done for seen in self.workers.values())
        if elapsed < (self._look_at or length_s(self.plan)) and not done:
            return ""
        self.looks += 1
        self.reached_s = elapsed if self.reached_s is None else self.reached_s
        begun = time.perf_counter()
        is_open, has_failed = self._open()
        if is_open and has_failed:
            return "as planned; more samples could not mend what failed"
        if not is_open:
            return "as planned" if self.looks == 1 else "decided after running on"
        if done or not self.plan.run_on or elapsed >= self._most_s():
            return "as planned, undecided" if self.looks == 1 else "undecided at the limit of running on"
        wait_s = max(LOOK_S, LOOK_SHARE * (time.perf_counter() - begun))
        self._look_at = min(self._most_s(), elapsed + wait_s)
        return ""

    _look_at = 0.0
    _early_at = 0.0
    _k6_looks = 0

    @property
    def _processes(self) -> int:
        return max(1, self.plan.workers + self.plan.expect_workers)

    def _most_s(self) -> float:
        return max(self.plan.most_s, length_s(self.plan))

    def _early(self, elapsed: float) -> str:
        """Why to stop before the planned end. Checked less often the longer a check takes (many samples)."""
        if elapsed < self._early_at:
            return ""
        begun = time.perf_counter()
        found = self._abort_on_fail(elapsed)
        if not found and self.plan.early_abort and elapsed > EARLY_S and self.reached_s is None:
            found = self._failed_early()
        self._early_at = elapsed + LOOK_SHARE * (time.perf_counter() - begun)
        return found

    def _abort_on_fail(self, elapsed: float) -> str:
        """With --compat k6 whatever k6 calls failed, at the times when it looks; else what is proved to be broken."""
        if self.plan.compat_k6 and elapsed < K6_LOOK_S * (self._k6_looks + 1):
            return ""
        self._k6_looks = int(elapsed / K6_LOOK_S)
        for key, thresholds in self.thresholds.by_metric.items():
            for threshold in thresholds:
                if not threshold.aborts(int(elapsed * 1e9)) or self.absent(key.name):
                    continue
                sink = self.samples.select(key)
                if not sink.samples:
                    continue
                if self.plan.compat_k6:
                    failed = not k6_verdict(self._summed(key, threshold, sink), threshold.expression, elapsed)
                else:
                    failed = self._is_proved_broken(key, threshold, sink)
                if failed:
                    return f"aborted: {key} {threshold.expression.source} failed and has abortOnFail"
        return ""

    def _failed_early(self) -> str:
        for key, thresholds in self.thresholds.by_metric.items():
            only_holds = not self.plan.thresholds_text and (key.tags or key.name in interleaved.SLOWER)
            if only_holds or self.absent(key.name):
                continue  # of our own thresholds, such a one must not end the run before the others are measured
            sink = self.samples.select(key)
            for threshold in thresholds:
                if self._is_proved_broken(key, threshold, sink, counted_only=True):
                    return f"aborted: {key} {threshold.expression.source} is proved to be broken"
        return ""

    def _is_proved_broken(
        self, key: MetricKey, threshold: Threshold, sink: Sink, *, counted_only: bool = False
    ) -> bool:
        """Before the planned end: by the test for any time; or a statement about the run that nothing can undo."""
        e = threshold.expression
        if not self.tally.counts(key, e) and (counted_only or not e.stays_broken):
            return False
        found = self._judge(key, threshold, sink)
        if found.verdict is ThresholdOutcome.FAIL:
            self._proved[key, e.source] = found
        return found.verdict is ThresholdOutcome.FAIL
