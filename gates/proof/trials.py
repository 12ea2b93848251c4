"""Runs the trials on deployments: the degenerate servers, the SQL twins, the healthy variants."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from gates.config import POLICY_FILE
from gates.evidence import TargetKind
from gates.proof import degenerate
from gates.proof.healthy.variants import Variant
from gates.proof.trial import NOT_PROMOTED, ProofPart, Trial, broken, trial
from gates.proof.workbench import programs
from gates.proof.workbench.bench import TROUBLES, OpenBench, ProofBench
from gates.proof.workbench.lanes import side_by_side
from gates.proof.workbench.servers import serve
from gates.stages.suite import ROOT
from gates.verdict import Decision

NEVER_ROLLED_BACK = (Decision.PROMOTE, Decision.HOLD)


@dataclass(frozen=True, slots=True)
class Trials:
    """What the trials need.

    open_bench: a fresh stack with these options. wants: whether a trial is to be made. done: called with each trial.
    healthy_runs: runs on healthy variants (0: one on each), on so many lanes. over: whether to begin nothing more.
    """

    open_bench: OpenBench
    out: Path
    wants: Callable[[str], bool]
    done: Callable[[Trial], None]
    policy: tuple[str, ...] = ()
    healthy_runs: int = 0
    lanes: int = 1
    over: Callable[[], bool] = lambda: False

    def degenerate_targets(self) -> None:
        """Every degenerate server before one healthy database, every SQL twin behind a healthy service of its own."""
        left = [s for s in degenerate.SERVERS if self.wants(f"{ProofPart.DEGENERATE}/{s.name}")]
        try:
            if left:
                with self.open_bench(TargetKind.STAGING) as bench:
                    while left:
                        self.done(self._server(left[0], bench))
                        del left[0]
        except TROUBLES as error:
            for one in left:
                self.done(broken(ProofPart.DEGENERATE, one.name, one.said, NOT_PROMOTED, error))
        for twin in degenerate.TWINS:
            if self.wants(f"{ProofPart.DEGENERATE}/{twin.name}"):
                self.done(self._twin(twin))

    def _server(self, one: degenerate.DegenerateServer, bench: ProofBench) -> Trial:
        info = bench.stack.info
        parts = urlsplit(info.base_url)
        behaviour = one.make(f"{parts.scheme}://{parts.netloc}", info.release)
        with serve(behaviour) as base:
            variables = {**bench.variables(), "BASE_URL": base + parts.path}
            return self._run(ProofPart.DEGENERATE, one.name, one.said, NOT_PROMOTED, variables)

    def _twin(self, twin: degenerate.Twin) -> Trial:
        try:
            with self.open_bench(TargetKind.STAGING) as bench:
                variables = {**bench.variables(), "DATABASE_URL": twin.url(bench)}
                return self._run(ProofPart.DEGENERATE, twin.name, twin.said, NOT_PROMOTED, variables)
        except TROUBLES as error:
            return broken(ProofPart.DEGENERATE, twin.name, twin.said, NOT_PROMOTED, error)

    def healthy_targets(self, due: Sequence[Variant]) -> None:
        """Each healthy variant on a deployment of its own; repeated if asked for. Those that use the whole machine come
        first, one by one and once; the others run in parallel, on the lanes.
        """
        alone, beside = [v for v in due if v.fills_the_machine], [v for v in due if not v.fills_the_machine]
        count = max((self.healthy_runs or len(due)) - len(alone), 0) if beside else 0
        runs = [(beside[n % len(beside)], n // len(beside)) for n in range(count)]
        for one in alone:
            self._healthy(one, 0)
        with side_by_side(self.lanes, "healthy") as pool:
            try:
                list(pool.map(lambda run: self._healthy(*run), runs))
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _healthy(self, one: Variant, again: int) -> None:
        """A further run on a variant, if it was asked for and time is left."""
        name = f"{one.name}@{again + 1}" if again else one.name
        if not self.over() and self.wants(f"{ProofPart.HEALTHY}/{name}"):
            self.done(self._variant(one, name))

    def _variant(self, one: Variant, name: str) -> Trial:
        try:
            with (
                one.stand() as around,
                self.open_bench(one.kind, **one.options, **around.options) as bench,
                one.prepare(bench) as more,
            ):
                told = {**bench.variables(), **around.told(bench), **more}
                return self._run(ProofPart.HEALTHY, name, one.said, NEVER_ROLLED_BACK, told, one)
        except TROUBLES as error:
            return broken(ProofPart.HEALTHY, name, one.said, NEVER_ROLLED_BACK, error)

    def _run(
        self,
        suite: ProofPart,
        name: str,
        said: str,
        allowed: Sequence[Decision],
        variables: dict[str, str],
        variant: Variant | None = None,
    ) -> Trial:
        out, policy, under = self.out / suite.value / name, self.policy, variant.under if variant else ()
        if variant and (variant.policy or variant.own_manifest):
            base = Path(policy[-1]) if policy else ROOT / POLICY_FILE
            policy = _written(out, base.read_text(encoding="utf-8"), variant, variables)
        run = programs.gate_run(variables, out, "--dry-run", *policy, under=under)
        return trial(suite, name, said, tuple(allowed), run)


def _written(out: Path, base: str, variant: Variant, variables: Mapping[str, str]) -> tuple[str, str]:
    """The option for a variant's own policy, written beside the folder of its run."""
    named, manifest = out.with_suffix(".yaml"), out.with_suffix(".manifest.json")
    named.parent.mkdir(parents=True, exist_ok=True)
    named.write_text(base + variant.policy, encoding="utf-8")
    policy = "--policy", str(named)
    if variant.own_manifest:
        write = programs.gate(("sql", "--write-manifest", str(manifest), *policy), variables)
        programs.must_succeed(write, variables)
        named.write_text(f"{base}{variant.policy}\nsql: {{manifest: {manifest.name}}}\n", encoding="utf-8")
    return policy
