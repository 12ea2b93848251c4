"""The request of a run, and what it gives to stages, decision and act."""

import datetime as dt
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from gates.act.flag import FlagState, Order
from gates.decision.policy_file import Settings
from gates.decision.rules import Policy
from gates.deployment.target import Target
from gates.evidence import CheckSpec
from gates.stages.context import Context, Progress, now, silent
from gates.stages.load import Loader
from gates.verdict import Verdict


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What a run is asked to do.

    policy: with the catalogue; if its release is empty, the preflight asks the target. load: runs the load stage, None
    if there is none. begin_load: starts its process early, beside the stages before it. after_load: removes what the
    load left once the data was looked at again; returns why if it could not. only: patterns of the checks of a stage,
    none for all. actor: on whose behalf, for audit rows. url_only: load one URL, and look at no target. proof: the
    proof.json that reports cite, else the shipped one. let_go: called before the reports: the target is not needed.
    """

    target: Target
    policy: Policy
    settings: Settings
    out: Path
    dry_run: bool = False
    only: tuple[str, ...] = ()
    actor: str = ""
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    load: Loader | None = None
    begin_load: Callable[[Target, Path], AbstractContextManager[None]] = lambda _target, _out: nullcontext()
    after_load: Callable[[Target, Path], str] | None = None
    let_go: Callable[[], None] = lambda: None
    url_only: bool = False
    proof: Path | None = None
    progress: Callable[[Progress], None] = silent
    now: Callable[[], dt.datetime] = now
    warn: Callable[[str], None] = lambda _text: None

    @property
    def catalogue(self) -> tuple[CheckSpec, ...]:
        return self.policy.catalogue

    def policy_for(self, target: Target) -> Policy:
        """The policy with the release that the target runs."""
        return replace(self.policy, release=target.release)

    def context(self, run_id: str) -> Context:
        """What the stages are given."""
        return Context(
            target=self.target,
            settings=self.settings,
            out=self.out.resolve(),
            run_id=run_id,
            catalogue=self.catalogue,
            deep=self.policy.deep,
            disruptive=self.policy.disruptive,
            only=self.only,
            scope=self.policy.scope,
            environ=self.environ,
            progress=self.progress,
        )

    def order(self, policy: Policy, seen: FlagState | None, verdict: Verdict, claims: Iterable[str] = ()) -> Order:
        """The order to change the flag, with the text of its audit row."""
        return Order(
            plan=policy.rollout,
            release=policy.release,
            actor=f"replaygate:{self.actor}" if self.actor else "replaygate",
            reason=verdict.reason[:500],
            seen=seen,
            same_version=not policy.touches_live_flags,
            dry_run=self.dry_run,
            flagless=policy.scope.is_queue,
            claims=tuple(claims),
            since=seen.at if seen else "",
            good_for_min=policy.max_age_minutes,
        )
