"""A deployment to prove on: the embedded stack, with one fault put in and taken out again."""

import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import psycopg

from gates.evidence import TargetKind
from gates.proof.fault import Kind, ListedFault
from gates.proof.workbench import programs
from gates.proof.workbench.servant import Servant
from gates.stack.errors import StackError
from gates.stack.plan import StackOptions
from gates.stack.postgres import Postgres, connect
from gates.stack.roles import copy_database, database_url, drop_database
from gates.stack.service import module_path
from gates.stack.stack import Stack

TROUBLES = (StackError, psycopg.Error, OSError)
"""Errors of a deployment, or of what is done to it: then nothing was proved."""
READY_TIMEOUT_S = 30.0
ANSWER_TIMEOUT_S = 60.0
RENEW_TIMEOUT_S = 12.0
CLEAN = "as_it_was"
"""The template database of each `renew`: the state at the first one."""


@dataclass
class ProofBench:
    """A running stack, for a gate that may do `kind` on it."""

    stack: Stack
    environ: Mapping[str, str] = field(repr=False)
    kind: TargetKind = TargetKind.STAGING
    proxied: Mapping[str, str] = field(default_factory=dict)
    """The gate's variables while proxy faults are in."""
    _faults: Servant | None = None
    _has_template: bool = False

    def variables(self, kind: TargetKind | None = None) -> dict[str, str]:
        """The environment of a gate or a witness. In production the gate has its own least-privilege login."""
        wanted, info = kind or self.kind, self.stack.info
        told = {**info.variables(), "GATE_TARGET": wanted.value}
        if wanted is TargetKind.PRODUCTION:
            told["DATABASE_URL"] = info.gate_url
        if wanted is TargetKind.REFERENCE:
            told["GATE_STACK_CONTROL"] = info.control
        return programs.clean(self.environ, {**told, **self.proxied})

    def witness(self, fault: ListedFault) -> bool | str:
        """Whether the fault is on, by its own witness, which sees the deployment as a superuser; a text if it could not
        tell. A pair is on while one of the two is: each may hide the other from its witness.
        """
        said = [self._witness(one) for one in fault.each]
        return next((s for s in said if s is True), False) or next((s for s in said if isinstance(s, str)), False)

    def _witness(self, fault: ListedFault) -> bool | str:
        try:
            on: bool | str = self._ask("witness", fault.id)["on"]
        except StackError as error:
            return str(error)
        return on

    def _ask(self, what: str, of: str | list[str]) -> dict[str, Any]:
        if self._faults is None:
            words = (sys.executable, "-m", "faults", "serve")
            self._faults = Servant(words, programs.clean(self.environ, {}))
        question = {what: of, "environ": self.variables(TargetKind.STAGING)}
        return self._faults.ask(question, ANSWER_TIMEOUT_S)

    def put_in(self, fault: ListedFault) -> None:
        """Put the fault in. Raise StackError or psycopg.Error if that fails."""
        for one in fault.each:
            if one.sql:
                self.execute(one.sql)
        if _restarts(fault):
            env = {name: value for one in fault.each for name, value in one.env.items()}
            serve, work = (_composed(fault, kind, env) for kind in (Kind.SERVICE, Kind.WORKER))
            self.stack.recompose(serve, work, env)
        for one in fault.each:
            if one.event:
                self._signal_workers(signal.SIGSTOP if one.event == "stop-worker" else signal.SIGKILL)
        if proxied := [one.id for one in fault.each if one.kind is Kind.PROXY]:
            self.proxied = self._ask("proxy", proxied)["told"]

    def _signal_workers(self, number: signal.Signals) -> None:
        for process in self.stack.processes:
            if process.name.startswith("worker"):
                process.signal(number)

    def take_out(self, fault: ListedFault) -> None:
        self._end_proxy()
        if _restarts(fault) or any(one.event for one in fault.each):
            self.stack.recompose((), (), {})
        for one in reversed(fault.each):
            if one.undo_sql:
                self.execute(one.undo_sql)

    def _end_proxy(self) -> None:
        if self.proxied and self._faults is not None:
            self._faults.ask({}, ANSWER_TIMEOUT_S)
        self.proxied = {}

    def close(self) -> None:
        """Stop what runs beside the stack."""
        if self._faults is not None:
            self._faults.close()

    def kill(self) -> None:
        """Kill the service and its workers."""
        for process in self.stack.processes:
            if not isinstance(process, Postgres):
                process.signal(signal.SIGKILL)

    def renew(self, source: Path | None = None) -> None:
        """Restart service and workers, from these sources or their own, on the database as of the first call. Raise
        StackError or psycopg.Error.
        """
        self._end_proxy()
        self.kill()
        url = self.stack.info.database_url
        own = urlsplit(url).path.lstrip("/")
        with connect(database_url(url, "postgres")) as server:
            if self._has_template:
                drop_database(server, own)
                copy_database(server, own, CLEAN)
            else:
                copy_database(server, CLEAN, own)
                self._has_template = True
        self._start_anew(source)

    def rebuild(self, source: Path) -> None:
        """Make everything anew from these sources. Raise StackError if they fail, and leave what they made."""
        self._end_proxy()
        self.kill()
        with connect(database_url(self.stack.info.database_url, "postgres")) as server:
            drop_database(server, CLEAN)
        self._has_template = False
        try:
            self.stack.rebuild(source)
        finally:
            self._start_anew(source)

    def _start_anew(self, source: Path | None) -> None:
        path = module_path(self.environ, source) if source else {}
        self.stack.recompose((), (), path, RENEW_TIMEOUT_S if source else READY_TIMEOUT_S)

    def execute(self, sql: str) -> None:
        """Run statements as the superuser, as a person would type them: names are also looked up in `public`."""
        with connect(self.stack.info.database_url) as connection:
            connection.execute("set search_path = public")
            connection.execute(sql.encode())


def _restarts(fault: ListedFault) -> bool:
    """Whether service and workers are restarted differently while the fault is in."""
    return any(one.parts or (one.env and one.kind is Kind.SQL) for one in fault.each)


def _composed(fault: ListedFault, kind: Kind, env: dict[str, str]) -> tuple[str, ...]:
    """The arguments that put the parts of such faults into a program; two of them are passed in a variable."""
    places = [one.parts for one in fault.each if one.kind is kind]
    if len(places) > 1:
        env[f"FAULTS_OF_THE_{kind.upper()}"] = " ".join(places)
        places = [f"faults.together:{kind}"]
    return tuple(word for place in places for word in ("--parts", place))


class OpenBench(Protocol):
    """Opens a fresh deployment for a gate that may do `kind` on it; `options` are StackOptions'."""

    def __call__(self, kind: TargetKind, **options: Any) -> AbstractContextManager[ProofBench]: ...


@contextmanager
def bench(options: StackOptions, environ: Mapping[str, str], kind: TargetKind) -> Iterator[ProofBench]:
    """A stack for the time of a `with` block."""
    stack = Stack(options, environ, cancelled=programs.is_called_off)
    stack.start()
    made = ProofBench(stack, environ, kind)
    try:
        yield made
    finally:
        made.close()
        stack.stop()
