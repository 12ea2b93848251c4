"""Runs a plan on Locust: in this process, or as master of workers. The only module that knows Locust's runners."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import gevent
from locust import argument_parser, stats
from locust.env import Environment
from locust.event import Events
from locust.html import get_html_report
from locust.runners import STATE_MISSING, MasterRunner, WorkerRunner

from loadtests.engine.conductor import Conductor
from loadtests.engine.samples import RequestGroup
from loadtests.engine.users import LoadUser
from loadtests.engine.worker import FINISH, REPORT, RESUME, Worker
from loadtests.plan import Credentials, LoadPlan, dump_plan, load_plan

TICK_S = 0.25
FINAL_WAIT_S = 40.0
START_WAIT_S = 15.0
ROOT = Path(__file__).resolve().parents[2]
_LOG = logging.getLogger("loadtests")


def attach(environment: Any, credentials: Credentials, on_report: Callable[[str, Mapping[str, Any]], Any]) -> None:
    """Make an environment perform plans: its load process begins with Locust's test and ends with our message."""

    def begin(environment: Any, **_: Any) -> None:
        runner, options = environment.runner, environment.parsed_options
        if isinstance(runner, MasterRunner):
            return
        plan, of, index, send = load_plan(options.load_plan), 1, 0, lambda report: on_report("local", report)
        if isinstance(runner, WorkerRunner):
            of, index = options.load_of, runner.worker_index % max(1, options.load_of)
            send = lambda report: runner.send_message(REPORT, report)  # noqa: E731
        if before := getattr(environment, "load_worker", None):
            before.close()
        worker = environment.load_worker = Worker(plan, credentials, index, of, send)
        worker.begin()

    def finish(environment: Any, msg: Any, **_: Any) -> None:
        del msg
        environment.load_worker.finish()

    def resume(environment: Any, msg: Any, **_: Any) -> None:
        del msg
        environment.load_worker.resume()

    environment.events.test_start.add_listener(begin)
    if isinstance(environment.runner, WorkerRunner):
        environment.runner.register_message(FINISH, finish, concurrent=True)
        environment.runner.register_message(RESUME, resume, concurrent=True)


def _own_options() -> Any:
    """Locust's default options, without the user's files and variables."""
    return argument_parser.get_parser(default_config_files=[]).parse_args(["--headless"], env_vars={})


def environment_for(plan: LoadPlan) -> Any:
    """A Locust environment that performs the plan."""
    return Environment(
        user_classes=[LoadUser],
        events=Events(),
        host=plan.base_url,
        stop_timeout=30,
        parsed_options=_own_options(),
        catch_exceptions=True,
    )


class Engine:
    """One run. `processes` are the workers that this machine starts itself.

    guest_of: the environment of Locust's own command line, which starts and ends the users itself and has its workers.
    """

    def __init__(
        self,
        plan: LoadPlan,
        conductor: Conductor,
        credentials: Credentials,
        tick: Callable[[], None],
        guest_of: Any = None,
    ) -> None:
        self.plan = plan
        self.conductor = conductor
        self.tick = tick
        self.is_guest = guest_of is not None
        self.environment = guest_of or environment_for(plan)
        self.performing = False
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self.finishes = 0
        self.expected = plan.workers + plan.expect_workers
        options = self.environment.parsed_options
        options.load_plan, options.load_of = dump_plan(plan), max(1, self.expected)
        if self.is_guest:
            self.runner = self.environment.runner
        elif self.expected:
            host = "127.0.0.1" if not plan.expect_workers else plan.master_host
            self.runner = self.environment.create_master_runner(host, plan.master_port)
            self.runner.register_message(REPORT, self._on_message)
        else:
            self.runner = self.environment.create_local_runner()
        if not self.is_guest:
            attach(self.environment, credentials, self.on_report)

    def run(self) -> None:
        """Perform the plan to its end. No load process outlives it."""
        try:
            if self.is_guest or not self.expected or self._gather_workers():
                self._perform()
        finally:
            if not self.is_guest:
                self._quit()

    def _on_message(self, environment: Any, msg: Any, **_: Any) -> None:
        del environment
        self.on_report(str(msg.node_id), msg.data)

    def on_report(self, worker: str, report: Mapping[str, Any]) -> None:
        feed(self.environment.stats, self.conductor.on_report(worker, report))

    def _gather_workers(self) -> bool:
        port = self.runner.server.socket.getsockopt_string(32).rpartition(":")[2]  # zmq.LAST_ENDPOINT
        for number in range(self.plan.workers):
            command = [sys.executable, "-m", "loadtests", "--worker", "127.0.0.1", port]
            self.processes[number] = subprocess.Popen(
                command, cwd=ROOT, env=dict(os.environ), stdout=subprocess.DEVNULL
            )
        deadline = time.monotonic() + self.plan.connect_s
        while len(self.runner.clients.ready) < self.expected:
            if time.monotonic() > deadline:
                came = len(self.runner.clients.ready)
                self.conductor.lose(f"{self.expected - came} that never connected within {self.plan.connect_s:g} s")
                return False
            gevent.sleep(0.05)
        return True

    def _perform(self) -> None:
        conductor, environment = self.conductor, self.environment
        environment.stats.reset_all()
        conductor.started = time.perf_counter()
        conductor.users_wanted = max(1, self.expected)
        self.performing = True
        if not self.is_guest:
            gevent.spawn(stats.stats_history, self.runner)
            gevent.spawn(self.runner.start, conductor.users_wanted, 100 * conductor.users_wanted)
        self._wait_for_users(conductor.users_wanted)
        while not conductor.ended:
            gevent.sleep(TICK_S)
            conductor.users_spawned = max(self.runner.user_count, 0)
            self._watch_workers()
            conductor.ended = conductor.stop_reason()
            self.tick()
            if conductor.ended:
                conductor.stopped = time.perf_counter()
                self._finish()
                if conductor.goes_on():
                    self._resume()

    def _wait_for_users(self, target: int) -> None:
        """Let the clock of the run begin when its first users are there."""
        deadline = time.monotonic() + START_WAIT_S
        while self.runner.user_count < target and time.monotonic() < deadline:
            gevent.sleep(0.01)
        self.conductor.started = time.perf_counter()

    def _watch_workers(self) -> None:
        for number, process in self.processes.items():
            if process.poll() is not None:
                self.conductor.lose(f"local worker {number} (exit {process.returncode})")
        if not self.expected:
            return
        for client in self.runner.clients.all:
            if client.state == STATE_MISSING:
                self.conductor.lose(str(client.id))
        alive = self.runner.worker_count
        if alive < self.expected and not self.conductor.lost:
            self.conductor.lose(f"{self.expected - alive} that went away")

    def _resume(self) -> None:
        if self.expected:
            self.runner.send_message(RESUME)
        else:
            self.environment.load_worker.resume()

    def _finish(self) -> None:
        self.finishes += 1
        if not self.expected:
            self.environment.load_worker.finish()
            return
        self.runner.send_message(FINISH)
        deadline = time.monotonic() + FINAL_WAIT_S
        while not self._all_final():
            self._watch_workers()
            alive = self.expected - len(self.conductor.lost)
            if alive <= sum(seen.finals >= self.finishes for seen in self.conductor.workers.values()):
                break
            if time.monotonic() > deadline:
                for name, seen in self.conductor.workers.items():
                    if seen.finals < self.finishes:
                        self.conductor.lose(f"{name} (no last report within {FINAL_WAIT_S:g} s)")
                break
            gevent.sleep(0.02)

    def _all_final(self) -> bool:
        workers = self.conductor.workers.values()
        return len(workers) >= self.expected and all(seen.finals >= self.finishes for seen in workers)

    def html(self) -> str:
        """Locust's own report; empty where Locust could not make one."""
        try:
            return str(get_html_report(self.environment, show_download_link=False))
        except Exception as error:  # noqa: BLE001  -- an attachment is not worth a verdict
            _LOG.warning("no Locust report: %s", error)
            return ""

    def _quit(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait(timeout=10)
        self.environment.stop_timeout = 0
        with gevent.Timeout(3, False), contextlib.suppress(Exception):
            self.runner.quit()


def serve_worker(host: str, port: int, credentials: Credentials) -> None:
    """Be a worker of a master until it goes away. Returns when the master is done with us."""
    options = _own_options()
    options.load_plan, options.load_of = "", 1
    environment = Environment(user_classes=[LoadUser], events=Events(), stop_timeout=30, parsed_options=options)
    runner = environment.create_worker_runner(host, port)
    attach(environment, credentials, lambda _worker, _report: None)
    runner.greenlet.join()


def feed(stats: Any, groups: Iterable[RequestGroup]) -> None:
    """Add what a report brought to Locust's statistics, for its HTML report. They are rounded, and never judged."""
    now = time.time()
    for group in groups:
        tags = dict(group.tags)
        entry = stats.get(tags["name"], tags["method"])
        for one in (entry, stats.total):
            _add(one, group, now)


def _add(entry: Any, group: RequestGroup, now: float) -> None:
    durations = group.timings["http_req_duration"]
    if not durations:
        return
    entry.num_requests += len(durations)
    entry.num_reqs_per_sec[int(now)] += len(durations)
    entry.last_request_timestamp = now
    entry.total_response_time += sum(durations)
    low, high = min(durations), max(durations)
    entry.min_response_time = low if entry.min_response_time is None else min(entry.min_response_time, low)
    entry.max_response_time = max(entry.max_response_time, high)
    entry.total_content_length += group.received
    for value, count in Counter(map(_round, durations)).items():
        entry.response_times[value] += count
    if group.failed:
        entry.num_failures += len(durations)
        entry.num_fail_per_sec[int(now)] += len(durations)


def _round(value: float) -> int:
    if value < 100:
        return round(value)
    return round(value, -1 if value < 1000 else -2).__int__()
