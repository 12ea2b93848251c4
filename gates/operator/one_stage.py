"""One stage alone: a result on its own checks. It never decides about a release, and never changes the flag."""

import dataclasses
from collections.abc import Callable

from gates import record, run
from gates.decision.decide import decide
from gates.decision.rules import STAGES
from gates.deployment.redaction import hidden, scrub
from gates.evidence import stamp
from gates.evidence_file import read_log
from gates.reports import attestation
from gates.request import RunRequest
from gates.stages.context import StageReport
from gates.stages.drill import drill
from gates.stages.load import load
from gates.stages.preflight import Preflight, preflight
from gates.stages.preflight.database import DATABASE
from gates.stages.sql import alerts, sql
from gates.stages.switches import switches
from gates.stages.turn import Turn
from gates.verdict import Action, Verdict, settle


def run_stage(request: RunRequest, stage: str) -> Verdict:
    """Run one stage after the preflight."""
    key = attestation.signing_key(request.environ)
    begun = run.begin(request)
    context = request.context(str(begun["run_id"]))
    reading = stage in {"sql", "alerts"}  # read-only stages disturb nobody, and need only the database
    if request.url_only:
        first = Preflight(request.target, StageReport("preflight", 0.0))
    else:
        first = preflight(context, reads=reading)
    target = first.target
    context = dataclasses.replace(context, target=target)
    unreachable = [e for e in first.unreachable if e.check == DATABASE.id or not reading]
    works: dict[str, Callable[[], list[StageReport]]] = {
        "drill": lambda: drill(context),
        "sql": lambda: sql(context),
        "alerts": lambda: alerts(context),
        "load": lambda: load(context, request.load),
    }
    stages: list[StageReport] = []
    if stage == "drill" and not unreachable:
        switches(context)
    if unreachable:
        context.block(context.applicable(STAGES[stage]), unreachable[0])
    elif reading or request.url_only:
        stages = works[stage]()
    else:
        with Turn(context) as turn:
            if turn.busy:
                turn.block()
            else:
                stages = works[stage]()
    scrub(request.out, hidden(context.target), run.OWN)
    policy, now = request.policy_for(target).of_stage(stage), request.now()
    log, nothing = read_log(context.evidence, run=context.run_id), Action("none", result="nothing_to_do")
    done = record.Decided(policy, now, log.end, nothing, stamp(now))
    decided = settle(decide(log.evidence, policy, now), nothing, str(begun["started_at"]), stamp(now))
    recorded = run.keep(request, begun, stages, done, decided)
    run.attest(request, target, decided, key)
    return recorded.verdict
