"""One whole run: thresholds read, companies made, load driven, thresholds judged, everything written."""

import contextlib
import dataclasses
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg

from gates import disk
from gates.deployment.identity import without_login
from gates.deployment.sql.failures import in_words
from gates.text.quantity import shown
from loadtests import report
from loadtests.asked import requests_of, thresholds_of
from loadtests.engine import database
from loadtests.engine.conductor import MEMORY_METRICS, SQL_METRICS, Conductor
from loadtests.engine.locust_engine import Engine  # first: Locust patches the process before psycopg is imported
from loadtests.engine.memory import MemoryWatch
from loadtests.engine.sinks import RateSink
from loadtests.judgement.verdict import ThresholdOutcome
from loadtests.plan import LoadPlan, credentials_from
from loadtests.profiles import resolve
from loadtests.thresholds.file import ThresholdsFile


class OrphanedError(SystemExit):
    """The process that asked for the run is gone: the load ends, and the companies are removed."""


class SetupTimeoutError(Exception):
    """The companies were not made in the time that setupTimeout gives."""


@contextlib.contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raise SetupTimeoutError after a time (0: never). Uses a signal, because libpq waits outside of Python."""

    def late(*_: object) -> None:
        raise SetupTimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _watch_parent(parent: int, then: Callable[[], None]) -> Callable[[], None]:
    def tick() -> None:
        if parent and os.getppid() != parent:
            raise OrphanedError(143)
        then()

    return tick


def run(
    plan: LoadPlan, out: Path, environ: Mapping[str, str], engine: Callable[..., Engine] = Engine
) -> dict[str, Any]:
    """Perform a plan and write its result to `out`. Returns the result. Raise ThresholdsFileError before any load.

    engine: makes the Engine, of its arguments.
    """
    thresholds = thresholds_of(plan)
    plan = dataclasses.replace(resolve(plan, thresholds), requests=requests_of(plan))
    url = "" if plan.url_only else environ.get("DATABASE_URL", "")
    out.mkdir(parents=True, exist_ok=True)
    created: list[str] = []
    with disk.opened(out / "companies.txt", "w", buffering=1) as listing:

        def note(company: str) -> None:  # before it exists: a run that is killed leaves the names of what to remove
            created.append(company)
            listing.write(f"{company}\n")

        watched = url
        try:
            prepared, notes = _prepare(url, plan, [*plan.notes, *thresholds.notes], note)
            if prepared is None:  # as in k6: without its setup a test makes no request
                absent = dict.fromkeys((*SQL_METRICS, "outbox_lag_ms", "agent_success"), notes[-1])
                prepared, plan = database.Prepared(absent=absent), dataclasses.replace(plan, scenarios=())
                watched = ""
            plan = dataclasses.replace(plan, tenants=prepared.tenants if url else plan.tenants)
            return _drive(plan, thresholds, prepared, notes, out, environ, watched, engine)
        except OrphanedError:  # nobody is left who would look at the companies, or remove them
            plan = dataclasses.replace(plan, keep_tenants=False)
            raise
        finally:
            _leave(url, plan, created)


def _leave(url: str, plan: LoadPlan, created: Sequence[str]) -> None:
    """Remove the companies of the run, or keep them without the dead letters that nobody replayed."""
    if not created:
        return
    if not plan.keep_tenants:
        _clean_up(url, created)
        return
    try:
        database.settle(url, created)
    except psycopg.Error as error:
        sys.stderr.write(f"dead letters that were not replayed stay ({type(error).__name__})\n")


def _clean_up(url: str, companies: Sequence[str]) -> None:
    """Remove the companies of the run; where the database refuses, say which are left and let the result stand."""
    try:
        database.clean_up(url, companies)
    except psycopg.Error as error:
        left = ", ".join(companies)
        sys.stderr.write(f"companies not removed ({type(error).__name__}): {left}; delete them by hand\n")


def _prepare(
    url: str, plan: LoadPlan, notes: list[str], note: Callable[[str], None]
) -> tuple[database.Prepared | None, list[str]]:
    """The companies of the run, and what a person should read; None where they took longer than setupTimeout."""
    if not url:
        return database.Prepared(), notes
    try:
        with _at_most(plan.setup_s):
            return database.prepare(url, plan, note), notes
    except SetupTimeoutError:
        return None, [*notes, f"no request was made: the companies took more than {plan.setup_s:g} s (setupTimeout)"]
    except psycopg.Error as error:
        why = f"no company could be created: {in_words(error)}"
        return database.Prepared(absent={"outbox_lag_ms": why, "agent_success": why}), [*notes, why]


def _drive(
    plan: LoadPlan,
    thresholds: ThresholdsFile,
    prepared: database.Prepared,
    notes: list[str],
    out: Path,
    environ: Mapping[str, str],
    url: str,
    make: Callable[..., Engine],
) -> dict[str, Any]:
    conductor = Conductor(plan, thresholds.thresholds, prepared.absent, has_database=bool(url))
    watch = database.BacklogPoller(url, plan, conductor.samples) if url else None
    given = environ.get("BASE_URL", "").strip().rstrip("/")  # the plan has no login
    base_url = given if without_login(given) == plan.base_url else plan.base_url
    memory = None if plan.is_url else MemoryWatch(base_url, conductor.samples)
    show = _progress(conductor) if sys.stderr.isatty() else (lambda: None)
    engine = make(plan, conductor, credentials_from(environ), _watch_parent(plan.parent, show))
    for started in (watch, memory):
        if started is not None:
            started.start()
    engine.run()
    conductor.stopped = conductor.stopped or conductor.started + 1e-9
    extra: dict[str, Any] = {"database_error": "", "agents": {}, "backlog": {}}
    if watch is not None:
        extra = _settle(watch, conductor)
        notes = [*notes, *watch.notes]
    why = memory.finish() if memory is not None else "the memory of a plain URL is not looked at"
    if why:
        conductor.lack(MEMORY_METRICS, why)
    extra["peak_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0
    judgements = conductor.judgements()
    document = report.result(conductor, judgements, notes=notes, companies=prepared.created, extra=extra)
    report.write(out, document, conductor.samples, engine.html())
    return document


def _settle(watch: database.BacklogPoller, conductor: Conductor) -> dict[str, Any]:
    """The last look at the database. Its counts of agent tasks replace those of the canaries over HTTP."""
    fate = watch.finish(conductor.acknowledged, conductor.replays)
    conductor.switched = watch.switched
    if watch.error or watch.first_items is None:
        conductor.lack(SQL_METRICS, watch.error or "the database was not asked in time")
    elif watch.too_few:
        conductor.lack(["db_connections_growth"], watch.too_few)
    for metric, why in watch.unread.items():
        conductor.lack([metric], conductor.absent(metric) or why)
    settled = fate.get("succeeded", 0) + fate.get("failed", 0)
    if settled:
        canaries = ("agent_success", (("source", "canary"),))
        conductor.samples.series.pop(canaries, None)
        sink = conductor.samples.sink("agent_success", {"source": "database"})
        if isinstance(sink, RateSink):
            sink.merge(RateSink(fate["succeeded"], settled))
    return {"database_error": watch.error, "agents": fate, "backlog": backlog(watch.backlog)}


def backlog(points: list[tuple[float, float]]) -> dict[str, Any]:
    """How the backlog went: whether it fell through the whole observation, and when it will be gone at that pace."""
    if len(points) < 4:
        return {}
    counts = [count for _, count in points]
    thirds = [counts[: len(counts) // 3], counts[len(counts) // 3 : -len(counts) // 3], counts[-len(counts) // 3 :]]
    means = [sum(third) / len(third) for third in thirds if third]
    falling = len(means) == 3 and means[0] > means[1] > means[2] and counts[-1] < counts[0]
    per_s = (counts[0] - counts[-1]) / max(1e-9, points[-1][0] - points[0][0])
    gone_s = counts[-1] / per_s if falling and per_s > 0 else None
    return {"first": counts[0], "last": counts[-1], "most": max(counts), "falling": falling, "gone_in_s": gone_s}


def _progress(conductor: Conductor) -> Callable[[], None]:
    """A line on the terminal, written over about once a second: time, requests, thresholds that are broken now."""
    last = [0.0]

    def show() -> None:
        if conductor.elapsed_s - last[0] < 1.0 and not conductor.ended:
            return
        last[0] = conductor.elapsed_s
        parts = [f"{conductor.elapsed_s:5.1f} s", f"{conductor.samples.requests} requests"]
        broken = [j for j in conductor.judgements() if j.verdict is ThresholdOutcome.FAIL]
        parts += [f"{j.metric} {j.aggregation} {shown(j.observed)}{j.operator}{j.limit:g}" for j in broken]
        sys.stderr.write(f"\r\x1b[2K\x1b[?7l· load {'  '.join(parts)}\x1b[?7h")
        sys.stderr.flush()

    return show
