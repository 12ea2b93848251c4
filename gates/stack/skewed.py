"""Runs a Python module in a process whose wall clock is shifted by so many seconds; positive: ahead.

Run as `python -m gates.stack.skewed SECONDS MODULE ARGUMENTS...`; otherwise like `python -m MODULE ARGUMENTS...`. The
module itself is unchanged: Python's own clock functions are replaced before it is loaded. Monotonic clocks stay, as
they would on a machine whose time is set wrongly. C code that asks the kernel itself (TLS, a database driver's library)
still sees the true time.
"""

import datetime as dt
import math
import runpy
import sys
import time
from collections.abc import Callable
from datetime import date as true_date
from datetime import datetime as true_datetime
from typing import Any

NS = 1_000_000_000


def shift_clock(seconds: float) -> None:
    """Make the wall clock of this process wrong, until its end."""
    _shift_time(round(seconds * NS))
    _shift_datetime(dt.timedelta(seconds=seconds))


def _shift_time(shift_ns: int) -> None:
    true_time_ns, true_clock_ns = time.time_ns, time.clock_gettime_ns

    def time_ns() -> int:
        return true_time_ns() + shift_ns

    def now() -> float:
        return time_ns() / NS

    def clock_gettime_ns(clock: int, /) -> int:
        return true_clock_ns(clock) + (shift_ns if clock == time.CLOCK_REALTIME else 0)

    def clock_gettime(clock: int, /) -> float:
        return clock_gettime_ns(clock) / NS

    shifted = {
        "time": now,
        "time_ns": time_ns,
        "clock_gettime": clock_gettime,
        "clock_gettime_ns": clock_gettime_ns,
        "gmtime": _from_now(time.gmtime, now),
        "localtime": _from_now(time.localtime, now),
        "ctime": _from_now(time.ctime, now),
    }
    for name, function in shifted.items():
        setattr(time, name, function)


def _from_now(function: Callable[[float], Any], now: Callable[[], float]) -> Callable[..., Any]:
    """A function of seconds since the epoch that defaults to `now`."""

    def shifted(seconds: float | None = None, /) -> Any:
        return function(now() if seconds is None else seconds)

    return shifted


def _shift_datetime(shift: dt.timedelta) -> None:
    """Replace `date` and `datetime` by subclasses: the built-in types' methods cannot be replaced."""

    class AnyDate(type):
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, true_datetime if issubclass(cls, true_datetime) else true_date)

    class Date(true_date, metaclass=AnyDate):
        __slots__ = ()  # the size that compiled modules expect

        @classmethod
        def today(cls) -> Any:
            return (true_datetime.now().astimezone() + shift).date()

    class DateTime(true_datetime, metaclass=AnyDate):
        __slots__ = ()

        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Any:
            return true_datetime.now(tz) + shift

        @classmethod
        def utcnow(cls) -> Any:
            return true_datetime.now(dt.UTC).replace(tzinfo=None) + shift

        @classmethod
        def today(cls) -> Any:
            return true_datetime.now().astimezone().replace(tzinfo=None) + shift

    for name, kind in (("date", Date), ("datetime", DateTime)):
        kind.__name__ = kind.__qualname__ = name
        kind.__module__ = "datetime"
        setattr(dt, name, kind)


def main(argv: list[str]) -> None:
    """Shift the clock and run the module; SystemExit with one line for wrong arguments."""
    try:
        seconds = float(argv[1])
        module = argv[2]
    except (IndexError, ValueError):
        seconds, module = math.nan, ""
    if not math.isfinite(seconds):
        raise SystemExit("usage: python -m gates.stack.skewed SECONDS MODULE ARGUMENTS...")
    shift_clock(seconds)
    sys.argv = [module, *argv[3:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv)
