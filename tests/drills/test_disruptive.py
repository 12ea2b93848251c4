"""Drills that change a live row: only with permission, never over a person's change, restored even after a kill."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from gates.deployment.tenants.leftovers import sweep
from gates.deployment.tenants.loans import GIVEN_BACK, SET, Ending, Loan, give_back_for_the_dead
from gates.evidence import Evidence, Outcome
from gates.evidence_file import read_lines
from gates.stack.procfs import wait_until
from tests.drills.examination import ROOT

FLAG, FLEET, V2 = "drill/flags/global-switch-is-wired", "drill/pause/fleet", "drill/flags/signing-v2-required"
FILES = [
    *(f"drills/switches/test_{name}.py" for name in ("flags", "held", "pause")),
    "drills/authentication/test_signature_v2.py",
]
DISRUPTIVE = {FLAG, FLEET, V2, "drill/authentication/v1-refused-when-v2-is-required"}
STANDING = (
    "select (select jsonb_agg(jsonb_build_array(key, enabled, rollout_percentage) order by key) from feature_flags"
    " where company_id is null), (select jsonb_agg(agents_paused) from agent_controls where company_id is null)"
)
SET_NOW = "select count(*) from feature_flags where key like 'drill.loan.%'"
TRIES = 5


@pytest.fixture
def person(variables: dict[str, str]) -> Iterator[Callable[[str], Any]]:
    """A person with psql: the first row of a statement, if any."""
    with psycopg.connect(variables["DATABASE_URL"], autocommit=True) as connection:

        def say(statement: str) -> Any:
            cursor = connection.execute(statement.encode())
            return cursor.fetchone() if cursor.description else None

        yield say


@contextmanager
def drilling(variables: Mapping[str, str], out: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A drill in its own process, which ends with the block."""
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--evidence={out}", *FILES, *options]
    with subprocess.Popen(words, cwd=ROOT, env={**os.environ, **variables}, stdout=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def stopped(
    variables: Mapping[str, str], out: Path, check: str, say: Callable[[str], Any]
) -> Iterator[subprocess.Popen[bytes]]:
    """The drill, stopped while it has changed a live row; if it was over too soon, it is started again."""
    for _ in range(TRIES):
        out.unlink(missing_ok=True)
        with drilling(variables, out, f"--only={check}") as process:
            wait_until(lambda p=process: p.poll() is not None or say(SET_NOW)[0], 60.0, 0.002)  # type: ignore[misc]
            process.send_signal(signal.SIGSTOP)
            if process.poll() is None and say(SET_NOW)[0]:
                yield process
                return
            process.send_signal(signal.SIGCONT)
            process.wait(timeout=90)
    pytest.fail(f"{TRIES} times the drill was over before it could be stopped")


def only(out: Path, check: str) -> Evidence:
    (found,) = [e for e in read_lines(out) if e.check == check]
    return found


def test_on_staging_nobody_is_disturbed_unasked(variables: dict[str, str], tmp_path: Path) -> None:
    """They run there only with --disruptive, and then pass; in production nothing allows them."""
    only_these = [f"--only={check}" for check in DISRUPTIVE]
    for kind, options, seen in (
        ("staging", [], set()),
        ("production", ["--disruptive"], set()),
        ("staging", ["--disruptive"], DISRUPTIVE),
    ):
        out = tmp_path / f"{kind}{len(options)}"
        with drilling({**variables, "GATE_TARGET": kind}, out, *only_these, *options) as process:
            process.wait(timeout=90)
        found = {e.check: e for e in read_lines(out)}
        assert set(found) == seen
        assert all(e.outcome is Outcome.PASS for e in found.values()), found


@pytest.mark.parametrize(
    ("check", "statement", "undo"),
    [
        (
            FLAG,
            "update feature_flags set enabled = false where key = 'outbox.enabled' and company_id is null",
            "update feature_flags set enabled = true, rollout_percentage = 10 where key = 'outbox.enabled'",
        ),
        (
            FLEET,
            "update agent_controls set agents_paused = true, pause_reason = 'emergency' where company_id is null",
            "update agent_controls set agents_paused = false where company_id is null",
        ),
    ],
)
def test_a_persons_change_stays_and_the_check_is_unknown(
    check: str, statement: str, undo: str, variables: dict[str, str], person: Callable[[str], Any], tmp_path: Path
) -> None:
    """A person's write wins, even with the same values as the drill's."""
    before, out = person(STANDING), tmp_path / "evidence"
    try:
        with stopped(variables, out, check, person) as process, ThreadPoolExecutor(1) as pool:
            changed = pool.submit(person, statement)
            wait([changed], timeout=2.0)  # for longer where the drill was stopped with the row's lock
            process.send_signal(signal.SIGCONT)
            changed.result()
            left = person(STANDING)
            process.wait(timeout=90)
        seen = only(out, check)
        assert (seen.outcome, "somebody else changed" in seen.message) == (Outcome.UNKNOWN, True), seen.message
        now = person(STANDING)
        assert now != before
        assert now[1] == left[1]
        assert [r for r in left[0] if not r[0].startswith("drill.loan.")] == now[0]
    finally:
        person(undo)
    assert person(STANDING) == before


@pytest.mark.parametrize("check", [FLAG, FLEET, V2])
def test_what_a_killed_drill_left_set_is_given_back(
    check: str, variables: dict[str, str], person: Callable[[str], Any], tmp_path: Path
) -> None:
    """While the drill lives nobody restores its row; after SIGKILL the next run does, once."""
    before, url = person(STANDING), variables["DATABASE_URL"]
    audited = f"select count(*) filter (where action = '{SET}'), count(*) filter (where action = '{GIVEN_BACK}')"
    with stopped(variables, tmp_path / "evidence", check, person) as process:
        was = person(f"{audited} from audit_logs")
        assert give_back_for_the_dead(url) == []
        process.kill()
        process.wait(timeout=30)
    assert person(STANDING) != before
    deadline = time.monotonic() + 10
    ended: list[tuple[Loan, Ending]] = []
    while not ended and time.monotonic() < deadline:  # until the server has seen that the connection is gone
        with ThreadPoolExecutor(4) as pool:
            ended = [one for few in pool.map(give_back_for_the_dead, [url] * 4) for one in few]
    assert len(ended) == 1
    assert person(STANDING) == before
    assert person(f"{audited} from audit_logs") == (was[0], was[1] + 1)
    sweep(url)
