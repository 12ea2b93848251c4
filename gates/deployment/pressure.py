"""What the kernel says of CPU time that this process did not get. Unavailable figures are left out.

`waiting_percent`: this thread was ready and waited in the run queue. `pressure_percent`: some task of the machine did.
`throttled_percent`: the quota of our cgroup was used up. `stolen_percent`: the hypervisor ran somebody else.
"""

import contextlib
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path

_CGROUPS = re.compile(r"^\d+:(?:|.*\bcpu\b.*):(?P<path>/.*)$", re.MULTILINE)
_THROTTLED = {"throttled_usec": 1e-6, "throttled_time": 1e-9}
"""The counter of cgroup v2 and that of v1, in seconds."""


class CpuPressure:
    """Counts from its creation. `root` stands for `/` in tests; times are time.monotonic() seconds."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._before, self._at = self._seconds(), time.monotonic()

    def percent(self) -> dict[str, float]:
        """Each figure as a share of the time since the start, in percent."""
        elapsed_s = max(1e-9, time.monotonic() - self._at)
        now = self._seconds()
        return {
            f"{name}_percent": 100.0 * max(0.0, now[name] - before) / elapsed_s
            for name, before in self._before.items()
            if name in now
        }

    def _seconds(self) -> Mapping[str, float]:
        found: dict[str, float] = {}
        for name, read in (
            ("waiting", self._waiting),
            ("pressure", self._pressure),
            ("throttled", self._throttled),
            ("stolen", self._stolen),
        ):
            with contextlib.suppress(OSError, ValueError, IndexError):
                found[name] = read()
        return found

    def _text(self, path: str) -> str:
        return (self._root / path).read_text(encoding="ascii")

    def _waiting(self) -> float:
        return int(self._text("proc/self/schedstat").split()[1]) * 1e-9

    def _pressure(self) -> float:
        some = self._text("proc/pressure/cpu").partition("some ")[2].splitlines()[0]
        return int(some.rpartition("total=")[2]) * 1e-6

    def _throttled(self) -> float:
        for group in _CGROUPS.finditer(self._text("proc/self/cgroup")):
            for mount in ("sys/fs/cgroup", "sys/fs/cgroup/cpu"):
                with contextlib.suppress(OSError):
                    return _counter(self._text(f"{mount}{group['path'].rstrip('/')}/cpu.stat"))
        raise ValueError("no cpu.stat of our cgroup")

    def _stolen(self) -> float:
        total = self._text("proc/stat").splitlines()[0].split()
        return int(total[8]) / os.sysconf("SC_CLK_TCK") / (os.cpu_count() or 1)


def _counter(text: str) -> float:
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name in _THROTTLED:
            return int(value) * _THROTTLED[name]
    raise ValueError("cpu.stat counts no throttling")
