"""A process with a wrong wall clock: every way to read it is shifted, and nothing else."""

import datetime as dt
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gates.stack.service import SOURCE_ROOT

SHOWN = """
import datetime, json, sys, time
from datetime import date, datetime
import psycopg, uuid
true = time.monotonic()
now = datetime.now(datetime.UTC if hasattr(datetime, "UTC") else __import__("datetime").timezone.utc)
print(json.dumps({
    "argv": sys.argv[1:],
    "main": __name__,
    "time": time.time(),
    "time_ns": time.time_ns() / 1e9,
    "realtime": time.clock_gettime(time.CLOCK_REALTIME),
    "gmtime": __import__("calendar").timegm(time.gmtime()),
    "localtime": time.mktime(time.localtime()),
    "now": now.timestamp(),
    "utcnow": datetime.utcnow().replace(tzinfo=__import__("datetime").timezone.utc).timestamp(),
    "today": datetime.today().timestamp(),
    "date": date.today().isoformat(),
    "monotonic": time.monotonic(),
    "epoch": time.gmtime(0)[:3],
    "instances": [isinstance(datetime.now(), datetime), isinstance(date(2020, 1, 1), datetime),
                  isinstance(datetime(2020, 1, 1), date), isinstance(date.today(), date)],
    "sql": psycopg.adapters.get_dumper(type(now), psycopg.adapt.PyFormat.TEXT).oid,
}))
"""
CLOCKS = ("time", "time_ns", "realtime", "gmtime", "localtime", "now", "utcnow", "today")


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m gates.stack.skewed`; extension modules must accept its types."""
    (folder / "shown.py").write_text(SHOWN, encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-m", "gates.stack.skewed", *arguments],
        cwd=folder,
        env={"PYTHONPATH": f"{SOURCE_ROOT}:{folder}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("seconds", [600.0, -600.0, 86_400.0])
def test_every_clock_is_shifted_and_monotonic_is_not(seconds: float, tmp_path: Path) -> None:
    """All wall clocks are shifted equally, and the module runs as usual."""
    before, steady = time.time(), time.monotonic()
    ended = run(tmp_path, str(seconds), "shown", "a", "-b")
    after, later = time.time(), time.monotonic()
    assert ended.returncode == 0, ended.stderr
    shown = json.loads(ended.stdout)
    assert {c: before + seconds - 1 <= shown[c] <= after + seconds for c in CLOCKS} == dict.fromkeys(CLOCKS, True)
    days = {dt.datetime.fromtimestamp(t + seconds, dt.UTC).astimezone().date().isoformat() for t in (before, after)}
    assert shown["date"] in days
    assert steady <= shown["monotonic"] <= later
    assert (shown["argv"], shown["main"], shown["epoch"]) == (["a", "-b"], "__main__", [1970, 1, 1])


def test_dates_are_what_they_were(tmp_path: Path) -> None:
    """Shifted dates and times are instances of the original types, also for a database driver."""
    shown = json.loads(run(tmp_path, "60", "shown").stdout)
    assert shown["instances"] == [True, False, True, True]
    assert shown["sql"] == 1184  # timestamptz


@pytest.mark.parametrize("arguments", [(), ("600",), ("soon", "shown"), ("nan", "shown"), ("inf", "shown")])
def test_wrong_arguments_end_with_the_usage(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """Without a number of seconds and a module nothing runs."""
    ended = run(tmp_path, *arguments)
    assert ended.returncode == 1
    assert ended.stderr.startswith("usage: ")
    assert ended.stdout == ""
