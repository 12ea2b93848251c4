"""What goes on in a healthy deployment while it is gated: vacuum, long readers, users, a rolling restart."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

from gates.deployment.tenants import OWNED_TABLES
from gates.proof.bench import Bench
from gates.proof.healthy import VARIANTS
from gates.stack.postgres import connect
from gates.stack.service import Supervised
from gates.stack.stack import Stack

TABLES = (*OWNED_TABLES, "companies", "edge_rate_limits", "audit_logs", "audit_heads")
ROUND_S = 0.5
RESTART_S = 15.0
JOIN_S = 30.0


@contextmanager
def _again_and_again(step: Callable[[], object], every_s: float) -> Iterator[None]:
    """Take the step with this pause, from a thread of its own, for the time of the block. An error in it is raised."""
    done, raised = threading.Event(), list[BaseException]()

    def work() -> None:
        try:
            while not done.wait(every_s):
                step()
        except BaseException as error:  # noqa: BLE001  -- for the block to raise
            raised.append(error)

    thread = threading.Thread(target=work, name="beside", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(JOIN_S)
    if raised:
        raise raised[0]


@contextmanager
def _vacuum(stack: Stack) -> Iterator[None]:
    """Every table is vacuumed and analyzed, twice a second."""
    with connect(stack.info.database_url) as connection:

        def step() -> None:
            for table in TABLES:
                connection.execute(f"vacuum (analyze) public.{table}".encode())

        with _again_and_again(step, ROUND_S):
            yield


@contextmanager
def _reader(stack: Stack) -> Iterator[None]:
    """A report holds one snapshot from before the run to after it, and reads every table twice a second."""
    with connect(stack.info.database_url) as connection:
        connection.execute("begin isolation level repeatable read, read only")

        def step() -> None:
            for table in TABLES:
                connection.execute(f"select count(*), min(t::text) from public.{table} t".encode())

        step()
        with _again_and_again(step, ROUND_S):
            yield
        connection.execute("rollback")


@contextmanager
def _traffic(stack: Stack) -> Iterator[None]:
    """A tenant emits twenty events a second."""
    busy = next(variant for variant in VARIANTS if variant.name == "busy-neighbour")
    with busy.prepare(Bench(stack, os.environ)):
        yield


@contextmanager
def _restart(stack: Stack) -> Iterator[None]:
    """A rolling restart: one instance or worker after the other is asked to end, and started again."""
    turns = iter([process for process in stack.processes if isinstance(process, Supervised)])

    def step() -> None:
        for process in itertools.islice(turns, 1):
            process.terminate()
            process.stop()
            process.start()
            stack.note_processes()

    with _again_and_again(step, RESTART_S):
        yield


SITUATIONS: Mapping[str, Callable[[Stack], AbstractContextManager[None]]] = {
    "vacuum": _vacuum,
    "reader": _reader,
    "traffic": _traffic,
    "restart": _restart,
}
