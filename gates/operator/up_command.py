"""`gate up`: runs a stack until it is interrupted. Stdout has the variables of the contract (by default one line of
JSON), the only output with secrets; everything else goes to stderr.
"""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType

import psycopg

from gates.deployment.tenants.loans import Changed, give_back_for_the_dead
from gates.errors import ENDING_SIGNALS, CannotWork, of_file
from gates.inputs.values import company, option, whole
from gates.reports.console import Console
from gates.stack.plan import DEFAULT_COMPANY_ID, MOST_PROCESSES, StackOptions, default_release
from gates.stack.stack import Cancelled, Stack

WATCH_INTERVAL_S = 0.5
GIVE_BACK_EVERY = 10
"""How many intervals until switches left by a killed gate are restored."""


def _dotenv(value: str) -> str:
    """In single quotes, in which readers of dotenv files expand nothing."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


FORMATS: dict[str, Callable[[Mapping[str, str]], str]] = {
    "json": lambda variables: json.dumps(dict(variables)) + "\n",
    "env": lambda variables: "".join(f"export {k}={shlex.quote(v)}\n" for k, v in variables.items()),
    "dotenv": lambda variables: "".join(f"{k}={_dotenv(v)}\n" for k, v in variables.items()),
}


def add_arguments(made: argparse.ArgumentParser, _name: str) -> None:
    made.add_argument("--server", default="", metavar="URL", help="create a database on this server")
    count = option(whole(1, MOST_PROCESSES))
    made.add_argument("--instances", type=count, default=1, metavar="N", help="service processes (default: 1)")
    made.add_argument("--workers", type=count, default=1, metavar="N", help="outbox workers (default: 1)")
    made.add_argument("--release", default=default_release(), metavar="R", help="what /version says")
    made.add_argument(
        "--company-id",
        type=option(company),
        default=DEFAULT_COMPANY_ID,
        metavar="UUID",
        help="the tenant with the history",
    )
    made.add_argument(
        "--format", choices=FORMATS, default="json", help="how the variables are printed; env: for a shell's eval"
    )


def carry_out(options: argparse.Namespace, console: Console) -> int:
    """Run a stack until a signal ends it; the exit code is 128 plus the signal's number. Raise StackOptionError for an
    invalid option, StackError if the stack does not start, or leaves something.
    """
    wanted = StackOptions(
        options.server, options.instances, options.workers, options.release, options.company_id.lower()
    )
    started = time.monotonic()
    with _interruptible() as interruption:
        try:
            stack = Stack(wanted, console.environ, cancelled=interruption.is_set)
            info = stack.start()
        except Cancelled:
            return interruption.exit_code
        try:
            console.reveal(FORMATS[options.format](info.variables()))
            if console.lost is not None:  # nobody could use it
                raise CannotWork(f"stdout: {of_file(console.lost)}; its variables are lost or cut. Make room there")
            took_s = time.monotonic() - started
            where = f"logs in {info.folder / 'log'}; Ctrl-C ends it"
            console.say(f"gate up: up in {took_s:.1f} s at {info.base_url}; {where}")
            _watch(stack, interruption, console)
        finally:
            stack.stop()
            console.say("gate up: down; nothing is left")
        return interruption.exit_code


def _watch(stack: Stack, interruption: Interruption, console: Console) -> None:
    """Wait for the signal; report once for each process that it ended."""
    ended: set[str] = set()
    url, rounds = stack.info.database_url, 0
    while not interruption.wait(WATCH_INTERVAL_S):
        now = {p.name for p in stack.processes if p.pid is None}
        for process in stack.processes:
            if process.name in now - ended:
                said = f"{process.name} ended with exit code {process.exit_code}; it is not started again"
                console.say(f"gate up: {said}")
        ended = now
        rounds += 1
        if rounds % GIVE_BACK_EVERY == 0:
            with suppress(psycopg.Error, Changed):  # the database may only be down for now: the next round asks again
                for loan, ending in give_back_for_the_dead(url):
                    said = f"a gate was killed while its drill had set {loan.switch.name}: {ending}"
                    console.say(f"gate up: {said}")


class Interruption(threading.Event):
    """Set by the first signal. Later ones change nothing: stopping has limits of its own."""

    _signal = 0

    def take(self, signal_number: int, _frame: FrameType | None) -> None:
        self._signal = self._signal or signal_number
        self.set()

    @property
    def exit_code(self) -> int:
        return 128 + self._signal


@contextmanager
def _interruptible() -> Iterator[Interruption]:
    """Signals set a flag instead of raising, so that no step of starting or stopping is interrupted."""
    interruption = Interruption()
    before = {number: signal.signal(number, interruption.take) for number in ENDING_SIGNALS}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
