"""The memory of the target while a run lasts, as its /metrics shows it in `process_resident_memory_bytes`."""

import math

import gevent
from gevent.event import Event

from gates.deployment.http.client import HttpDoor, NoAnswer
from gates.deployment.http.metrics import MEMORY_METRIC, parse_metrics
from gates.deployment.requests import Request
from loadtests.engine.samples import Samples
from loadtests.judgement.trend import LEAST_VALUES, rise_of

POLL_S = 0.5
TIMEOUT_S = 3.0
MB = 1e6
SCRAPE = Request("GET", "/metrics")


class MemoryWatch:
    """Reads the memory again and again; of several instances, which answer in turn, the least one counts."""

    def __init__(self, base_url: str, samples: Samples) -> None:
        self._door = HttpDoor(base_url, timeout_s=TIMEOUT_S)
        self._samples = samples
        self._ending = Event()
        self._greenlet: gevent.Greenlet | None = None
        self.megabytes: list[float] = []

    def start(self) -> None:
        """First reading now, then again and again."""
        self._greenlet = gevent.spawn(self._poll_forever)

    def _poll_forever(self) -> None:
        while not self._ending.is_set():
            self.poll()
            self._ending.wait(POLL_S)

    def poll(self) -> None:
        """One reading; an answer without one is left out."""
        try:
            answer = self._door.send(SCRAPE)
        except NoAnswer:
            return
        if answer.status != 200:
            return
        found = [one.value for one in parse_metrics(answer.body).named(MEMORY_METRIC)]
        if found and all(math.isfinite(value) and value > 0 for value in found):  # of NaN nothing is above a limit
            self.megabytes.append(max(found) / MB)
            self._samples.add("memory_mb", self.megabytes[-1])

    def finish(self) -> str:
        """The growth becomes a sample. Returns why there is none, empty where there is one."""
        self._ending.set()
        if self._greenlet is not None:
            self._greenlet.join(timeout=2 * TIMEOUT_S)
        self._door.close()
        if len(self.megabytes) < LEAST_VALUES:
            return f"{len(self.megabytes)} readings of {MEMORY_METRIC} where {LEAST_VALUES} are needed; see /metrics"
        self._samples.add("memory_growth_mb", rise_of(self.megabytes))
        return ""
