"""A verdict handed from one job to another: whether `gate promote --from DIR` may act on it here and now."""

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from gates.act.flag import FlagState, Order
from gates.decision.decide import decide
from gates.decision.rules import Policy
from gates.deployment.identity import identity
from gates.deployment.target import Target
from gates.evidence import Evidence, Outcome
from gates.past_decisions import PastDecision
from gates.record import FLAG, Recorded
from gates.reports.attestation import Attested
from gates.stages.preflight.endpoints import RELEASE
from gates.verdict import Action, Decision


@dataclass(frozen=True, slots=True)
class HandoverContext:
    """Where and when somebody acts on a verdict. release: empty if none is named. digest: of the policy that gate.yaml
    now gives for such a run. runs: which release answers at a target. past: earlier decisions about the target.
    """

    target: Target
    release: str
    flag: str
    digest: Callable[[Policy, str], str]
    now: dt.datetime
    runs: Callable[[Target], Evidence]
    past: Sequence[PastDecision] = ()


def order_from(found: Attested, here: HandoverContext, order: Order) -> Order | Action:
    """The order of that run, or, as an action that holds, the first mismatch. Writes nothing."""
    if found.recorded is None:
        return _refused(f"it is not verified: {'; '.join(found.doubts)}")
    misfit = next(_misfits(found.recorded, found.target, here), "")
    if misfit:
        return _refused(misfit)
    run, judged = found.recorded.run, Policy.from_json(found.recorded.run["policy"])
    seen = FlagState.from_json(run[FLAG])
    return Order(
        judged.rollout,
        found.recorded.verdict.release,
        order.actor,
        order.reason,
        seen=seen,
        same_version=not judged.touches_live_flags,
        dry_run=order.dry_run,
        verdict=str(run["run_id"]),
        claims=found.recorded.verdict.areas_seen,
        since=seen.at or found.recorded.verdict.started_at,
        good_for_min=judged.max_age_minutes,
    )


def _refused(why: str) -> Action:
    return Action("none", result="refused", message=f"the verdict is not acted upon: {why}", holds=True)


def _misfits(recorded: Recorded, signed_for: str, here: HandoverContext) -> Iterator[str]:
    run, verdict, target = recorded.run, recorded.verdict, here.target
    if verdict.stage is not None:
        yield f"it is of the {verdict.stage.name} stage alone, and a whole run is needed"
    if verdict.decision is not Decision.PROMOTE:
        yield f"its decision is {verdict.decision.value}: {verdict.reason}"
    if here.release and here.release != verdict.release:
        yield f"it is of release {verdict.release or '(not known)'}, and the release here is {here.release}"
    if target.kind.value != verdict.target:
        yield f"it is of a target that is {verdict.target}, and GATE_TARGET is {target.kind.value}"
    if identity(target) != signed_for:
        yield "it is of another deployment than BASE_URL and DATABASE_URL name here"
    judged = Policy.from_json(run["policy"])
    if here.flag != judged.rollout.flag:
        yield f"it is about the flag {judged.rollout.flag}, and the flag here is {here.flag}"
    if here.digest(judged, verdict.release) != verdict.policy_digest:
        yield "it was decided by another policy than gate.yaml and the checks are now"
    if not run.get(FLAG):
        yield f"its run could not read the flag {judged.rollout.flag}"
    if (undone := _rolled_back(recorded, here.past)) is not None:
        yield f"its release was rolled back after it ({undone.finished_at}: {undone.reason})"
    again = decide(recorded.evidence, judged, here.now)
    if again.decision is not Decision.PROMOTE:
        yield f"it comes too late, or a clock is wrong: judged now, {again.reason}"
    if any(e.check == RELEASE.id and e.outcome is Outcome.PASS for e in recorded.evidence):
        answers = here.runs(replace(target, release=verdict.release))
        if answers.outcome is not Outcome.PASS:
            yield f"its release is not seen to be the one that answers now: {answers.message}"


def _rolled_back(recorded: Recorded, past: Sequence[PastDecision]) -> PastDecision | None:
    """The rollback of the verdict's release, or of an unnamed one, after the run began. "After" by time, or by its
    place in the history behind that run, whatever the clocks said.
    """
    verdict, run_id = recorded.verdict, recorded.run["run_id"]
    begun = dt.datetime.fromisoformat(verdict.started_at)
    own = next((number for number, one in enumerate(past) if one.run_id == run_id), len(past))
    later = [p for n, p in enumerate(past) if n > own or (p.finished is not None and p.finished >= begun)]
    return next((p for p in later if p.decision is Decision.ROLLBACK and p.release in {verdict.release, ""}), None)
