"""`gate up`: runs a stack until it is interrupted. Stdout has the variables of the contract (by default one line of
JSON), the only output with secrets; everything else goes to stderr.
"""

from __future__ import annotations

import argparse
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType

import psycopg

from gates import gate_version
from gates.deployment.tenants.loans import Changed, give_back_for_the_dead
from gates.errors import ENDING_SIGNALS
from gates.inputs.values import company, option, whole
from gates.stack.errors import StackError, StackOptionError
from gates.stack.plan import DEFAULT_COMPANY_ID, MOST_PROCESSES, StackOptions
from gates.stack.stack import Cancelled, Stack

EXIT_CONFIGURATION, EXIT_GATE_CANNOT_WORK = 3, 4
Tell = Callable[[str], None]
"""Writes a text to its destination."""
WATCH_INTERVAL_S = 0.5
GIVE_BACK_EVERY = 10
"""How many intervals until switches left by a killed gate are restored."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--server", default="", metavar="URL", help="create a database on this server")
    count = option(whole(1, MOST_PROCESSES))
    parser.add_argument("--instances", type=count, default=1, metavar="N", help="service processes (default: 1)")
    parser.add_argument("--workers", type=count, default=1, metavar="N", help="outbox workers (default: 1)")
    parser.add_argument("--release", default=default_release(), metavar="R", help="what /version says")
    parser.add_argument(
        "--company-id",
        type=option(company),
        default=DEFAULT_COMPANY_ID,
        metavar="UUID",
        help="the tenant with the history",
    )


def options_of(arguments: argparse.Namespace) -> StackOptions:
    company = arguments.company_id.lower()
    return StackOptions(arguments.server, arguments.instances, arguments.workers, arguments.release, company)


def default_release() -> str:
    """The default release of the reference: it is part of this distribution."""
    return f"reference-{gate_version()}"


def up(
    options: StackOptions, environ: Mapping[str, str], reveal: Callable[[Mapping[str, str]], None], say: Tell
) -> int:
    """Run a stack until a signal ends it. Exit code: 128 plus the signal's number; 3 for an invalid option, 4 if the
    stack does not start.
    """
    started = time.monotonic()
    with _interruptible() as interruption:
        try:
            stack = Stack(options, environ, cancelled=interruption.is_set)
            info = stack.start()
        except Cancelled:
            return interruption.exit_code
        except StackOptionError as error:
            say(f"gate up: {error}")
            return EXIT_CONFIGURATION
        except StackError as error:
            say(f"gate up: {error}")
            return EXIT_GATE_CANNOT_WORK
        try:
            reveal(info.variables())
            took_s = time.monotonic() - started
            say(f"gate up: up in {took_s:.1f} s at {info.base_url}; logs in {info.folder / 'log'}; Ctrl-C ends it")
            _watch(stack, interruption, say)
        finally:
            down = _take_down(stack, say)
        return interruption.exit_code if down else EXIT_GATE_CANNOT_WORK


def _take_down(stack: Stack, say: Tell) -> bool:
    """Stop the stack; False, and a message, if something is left."""
    try:
        stack.stop()
    except (StackError, OSError) as error:
        say(f"gate up: {error}")
        return False
    say("gate up: down; nothing is left")
    return True


def _watch(stack: Stack, interruption: Interruption, say: Tell) -> None:
    """Wait for the signal; report once for each process that it ended."""
    ended: set[str] = set()
    url, rounds = stack.info.database_url, 0
    while not interruption.wait(WATCH_INTERVAL_S):
        now = {p.name for p in stack.processes if p.pid is None}
        for process in stack.processes:
            if process.name in now - ended:
                say(f"gate up: {process.name} ended with exit code {process.exit_code}; it is not started again")
        ended = now
        rounds += 1
        if rounds % GIVE_BACK_EVERY == 0:
            with suppress(psycopg.Error, Changed):  # the database may only be down for now: the next round asks again
                for loan, ending in give_back_for_the_dead(url):
                    say(f"gate up: a gate was killed while its drill had set {loan.switch.name}: {ending}")


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
