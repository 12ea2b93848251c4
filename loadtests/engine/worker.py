"""One load process inside Locust: builds its drive from the plan, reports samples every second, ends in order."""

import math
import resource
import time
from collections.abc import Callable
from typing import Any

import gevent

from gates.deployment.pressure import CpuPressure
from loadtests.engine.canaries import Canaries
from loadtests.engine.drive import Drive
from loadtests.engine.executors import Executors, Traffic
from loadtests.engine.null_requests import NullRequests
from loadtests.engine.pairs import Pairs
from loadtests.engine.second_look import SecondLook
from loadtests.engine.workload import Workload
from loadtests.plan import Credentials, LoadPlan

REPORT_S = 0.5
REPORT, FINISH, RESUME = "load_report", "load_finish", "load_resume"
PATIENCE_S = 5.5
"""How long after the end a canary is waited for: past the checklist's limit for the lag, 5 s."""

Send = Callable[[dict[str, Any]], None]


class Worker:
    """`send` takes a report away (to the master, or straight to the conductor of this very process)."""

    def __init__(self, plan: LoadPlan, credentials: Credentials, index: int, of: int, send: Send) -> None:
        self.drive = Drive(plan, index, of)
        workload = Workload(plan, credentials, self.drive.address, index, of)
        ask = Pairs(self.drive).request if plan.baseline_url else self.drive.request
        canaries = Canaries(self.drive, workload, PATIENCE_S, ask)
        self.traffic = Traffic(self.drive, workload, canaries)
        self.second_look = SecondLook(self.drive, workload, canaries)
        self.send = send
        self.executors = Executors(self.traffic)
        self.sequence = 0
        self._cpu = _cpu_s()
        self._cpu_at = time.perf_counter()
        self.cpu_percent = 0.0
        self._reporter: gevent.Greenlet | None = None
        self._pressure = CpuPressure()
        self._null = NullRequests(self.drive.samples)

    def begin(self) -> None:
        """Start the null requests, the clock of the run and the reports."""
        self._null.start()
        self._pressure = CpuPressure()
        self.drive.started = time.perf_counter()
        self._cpu, self._cpu_at = _cpu_s(), self.drive.started
        self._reporter = gevent.spawn(self._report_forever)

    def _report_forever(self) -> None:
        while True:
            gevent.sleep(REPORT_S)
            self.report()

    def report(self, *, final: bool = False) -> None:
        """Send everything since the last report. Reports are numbered, so that a lost one is noticed."""
        drive, canaries = self.drive, self.traffic.canaries
        if not drive.stopping:
            self.cpu_percent = 100.0 * (_cpu_s() - self._cpu) / max(1e-9, time.perf_counter() - self._cpu_at)
        report = drive.samples.take_report()
        report |= {
            "sequence": self.sequence,
            "elapsed_s": drive.elapsed_s,
            "final": final,
            "dropped": drive.dropped,
            "silent_s": drive.silent_s,
            "cpu_percent": self.cpu_percent,
            "pressure": self._pressure.percent(),
            "users": self.executors.users + drive.open_requests,
            "done": self.executors.done,
            "canaries": [canaries.accepted, canaries.direct, len(canaries.watching)],
            "paused": self.traffic.paused,
            "acknowledged": list(drive.acknowledged),
            "replays": {company: [fared[True], fared[False]] for company, fared in drive.replays.items()},
        }
        drive.acknowledged.clear()
        self.sequence += 1
        self.send(report)

    def finish(self) -> None:
        """Stop, wait for requests and canaries under way, send the last report."""
        self.report()
        self.drive.stopping = True
        self.traffic.canaries.drain()
        self.drive.finish()
        self.second_look.take()
        self._null.settle()
        self.report(final=True)

    def close(self) -> None:
        """End this run; the process may serve another one."""
        if self._reporter is not None:
            self._reporter.kill()
        self._null.stop()
        self.drive.close()

    def resume(self) -> None:
        """Go on after `finish`: the requests then under way did not decide the thresholds."""
        self.traffic.canaries.give_up_at = math.inf
        self.drive.resume()


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
