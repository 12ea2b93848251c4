"""Runs the trials against deployments: the degenerate servers, the SQL twins, the healthy variants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

from gates.evidence import TargetKind
from gates.proof import degenerate, healthy, programs
from gates.proof.bench import Bench, OpenBench
from gates.proof.servers import serve
from gates.proof.trial import ProofPart, Trial, broken, trial
from gates.stack.errors import StackError
from gates.verdict import Decision

NOT_PROMOTED = (Decision.HOLD, Decision.ROLLBACK)
NEVER_ROLLED_BACK = (Decision.PROMOTE, Decision.HOLD)
TROUBLES = (StackError, psycopg.Error, OSError)


@dataclass(frozen=True, slots=True)
class Trials:
    """What the trials need. open_bench: a fresh stack with these options; wants: whether an id was asked for; done:
    called with each trial.
    """

    open_bench: OpenBench
    out: Path
    wants: Callable[[str], bool]
    done: Callable[[Trial], None]
    policy: tuple[str, ...] = ()

    def degenerate_targets(self) -> list[Trial]:
        """Every degenerate server before one healthy database, every SQL twin behind a healthy service of its own."""
        found: list[Trial] = []
        servers = [s for s in degenerate.SERVERS if self.wants(f"{ProofPart.DEGENERATE}/{s.name}")]
        try:
            if servers:
                with self.open_bench(TargetKind.STAGING) as bench:
                    for one in servers:
                        found.append(self._keep(self._server(one, bench)))  # noqa: PERF401  -- kept one by one
        except TROUBLES as error:
            why = f"{type(error).__name__}: {error}"
            left = servers[len(found) :]
            found += [self._keep(broken(ProofPart.DEGENERATE, s.name, s.said, NOT_PROMOTED, why)) for s in left]
        for twin in degenerate.TWINS:
            if self.wants(f"{ProofPart.DEGENERATE}/{twin.name}"):
                found.append(self._keep(self._twin(twin)))
        return found

    def _server(self, one: degenerate.DegenerateServer, bench: Bench) -> Trial:
        info = bench.stack.info
        parts = urlsplit(info.base_url)
        behaviour = one.make(f"{parts.scheme}://{parts.netloc}", info.release)
        with serve(behaviour) as base:
            variables = {**bench.variables(), "BASE_URL": base + parts.path}
            return self._run(ProofPart.DEGENERATE, one.name, one.said, NOT_PROMOTED, variables)

    def _twin(self, twin: degenerate.Twin) -> Trial:
        try:
            with self.open_bench(TargetKind.STAGING) as bench, degenerate.standing(twin, bench) as url:
                variables = {**bench.variables(), "DATABASE_URL": url}
                return self._run(ProofPart.DEGENERATE, twin.name, twin.said, NOT_PROMOTED, variables)
        except TROUBLES as error:
            return broken(ProofPart.DEGENERATE, twin.name, twin.said, NOT_PROMOTED, f"{type(error).__name__}: {error}")

    def healthy_targets(self) -> list[Trial]:
        """Every healthy variant on a deployment of its own."""
        return [self._keep(self._variant(v)) for v in healthy.VARIANTS if self.wants(f"{ProofPart.HEALTHY}/{v.name}")]

    def _variant(self, one: healthy.Variant) -> Trial:
        try:
            with self.open_bench(one.kind, **one.options) as bench, one.prepare(bench) as more:
                return self._run(
                    ProofPart.HEALTHY, one.name, one.said, NEVER_ROLLED_BACK, {**bench.variables(), **more}
                )
        except TROUBLES as error:
            return broken(ProofPart.HEALTHY, one.name, one.said, NEVER_ROLLED_BACK, f"{type(error).__name__}: {error}")

    def _run(
        self, suite: ProofPart, name: str, said: str, allowed: Sequence[Decision], variables: dict[str, str]
    ) -> Trial:
        run = programs.gate_run(variables, self.out / suite.value / name, "--dry-run", *self.policy)
        return trial(suite, name, said, tuple(allowed), run)

    def _keep(self, one: Trial) -> Trial:
        self.done(one)
        return one
