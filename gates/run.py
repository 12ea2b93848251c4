"""The sequence of a run: collect -> decide -> act -> report."""

import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, Any

from gates import disk, gate_version, past_decisions, record, reports
from gates.act.flag import FlagState, Order, look_at
from gates.act.rollout import act
from gates.decision.decide import decide
from gates.decision.rules import QUEUE_STAGE, Policy
from gates.deployment.identity import identity
from gates.deployment.redaction import hidden, redact_text, scrub
from gates.deployment.sql.kept import keeping
from gates.deployment.target import Target
from gates.errors import CannotWork, UsageError
from gates.evidence import Evidence, JsonValue, TargetKind, stamp
from gates.evidence_file import MOST_BYTES, EvidenceLog, Unwritten, read_bytes, read_log, vanished
from gates.past_decisions import PastDecision
from gates.reports import attestation, telemetry, webhook
from gates.reports.citation import cited, source_digest
from gates.reports.formats import FILES
from gates.request import RunRequest
from gates.stages import claims, passed
from gates.stages.backlog import BacklogWatch
from gates.stages.clock import ClockWatch
from gates.stages.context import COMPANIES, Context, StageReport
from gates.stages.drill import drills
from gates.stages.load import LOAD, clean_up, load
from gates.stages.pipeline import pipeline
from gates.stages.preflight import preflight, release_again
from gates.stages.preflight.endpoints import RELEASE
from gates.stages.queue import queue
from gates.stages.reachability import if_reached
from gates.stages.sql import ALERTS, DATA, data
from gates.stages.switches import switches
from gates.stages.turn import Turn
from gates.verdict import Decision, Verdict, settle

OWN = (*record.OURS, *record.FOLDERS, *FILES)
"""What a run writes in its folder."""
ALONE = "allowed: one gate alone in its folder. Give another --output"


def run_gate(request: RunRequest) -> Verdict:
    """Run the whole gate. Raise GateError if the gate itself cannot work; the folder then holds a hold.

    A full disk or a missing folder does not prevent a rollback: the gate acts on harm that was seen, and the error says
    what was done. It promotes only if that can be recorded before and after.
    """
    key = attestation.signing_key(request.environ)
    run = begin(request)
    context = request.context(str(run["run_id"]))
    run["past"] = past_decisions.newest(context.state)
    note(request, context.state, PastDecision.begun(run, request.policy.release))
    looked = collect(context, request)
    seen = looked.flag
    run[record.FLAG] = seen.to_json() if seen else None

    policy = request.policy_for(looked.target)
    decided_at = request.now()
    verdict = decide(looked.log.evidence, policy, decided_at)
    kept = remembered(looked.log.evidence, verdict, stamp(decided_at))
    order = request.order(policy, seen, verdict, kept)
    trouble = looked.trouble or intend(request, run, verdict, order)
    if trouble is not None and verdict.decision is not Decision.ROLLBACK:
        raise trouble

    action = act(verdict, order, looked.target.database_url, tell=request.warn)
    request.let_go()
    action = replace(action, message=redact_text(action.message, hidden(looked.target)))
    done = record.Decided(policy, decided_at, looked.log.end, action, stamp(request.now()))
    final = settle(verdict, action, str(run["started_at"]), done.finished_at)
    told: dict[str, dict[str, JsonValue]] = {}
    try:
        if trouble is not None:
            raise trouble  # noqa: TRY301
        recorded = keep(request, run, looked.stages, done, final)
        if kept and not request.dry_run:
            remember(request, context.state, kept, done.policy, verdict)
        note(request, context.state, PastDecision.of(run, recorded.verdict))
        told = {
            "slack": tell(request, recorded.verdict, recorded.evidence, run),
            "telemetry": observe(request, recorded, run),
        }
        if any(told.values()):
            record.write_run(request.out, {**run, **{name: one for name, one in told.items() if one}})
        attest(request, looked.target, final, key)
    except BaseException as error:  # even on a signal: the flag may still be on
        if not final.headline and not isinstance(error, OSError | CannotWork):
            raise
        with suppress(BaseException):  # a report may be what failed
            if not told:
                tell(request, final, looked.log.evidence, run)
        raise record.unkept(final, error) from error
    return recorded.verdict


def remembered(evidence: Sequence[Evidence], verdict: Verdict, at: str) -> dict[str, str]:
    """Area of the contract -> when it was last claimed and seen."""
    when = f"on {at[:10]}" + (f" (release {verdict.release[:100]})" if verdict.release else "")
    promoted = verdict.decision is Decision.PROMOTE
    return claims.kept(evidence, verdict.contract, verdict.areas_seen, promoted=promoted, when=when)


def remember(request: RunRequest, folder: Path, areas: Mapping[str, str], policy: Policy, verdict: Verdict) -> None:
    """Keep for the next run what this target was seen to do. These are its claims, which the flag's audit rows also
    name, and, if it was not built from the contract, the checks that passed.
    """
    try:
        claims.write(folder, areas, verdict.contract, promoted=verdict.decision is Decision.PROMOTE)
        others = [f.check for f in verdict.findings] + [e.check for e in verdict.not_applicable]
        passed.remember(folder, policy, others)
    except OSError as error:
        request.warn(f"what this target was seen to keep could not be stored: {error}. Make --state writable")


def note(request: RunRequest, folder: Path, one: PastDecision) -> None:
    """Add the run to the history of its target (`gate history`, `gate serve`)."""
    try:
        past_decisions.remember(folder, one)
    except OSError as error:
        request.warn(f"the decision could not be added to the history of the target: {error}. Make --state writable")


def intend(request: RunRequest, run: dict[str, JsonValue], verdict: Verdict, order: Order) -> CannotWork | None:
    """Record the action before it is taken. Returns the error if that was not possible, else None."""
    if verdict.decision is Decision.HOLD or request.dry_run:
        return None
    try:
        at = order.seen.shown if order.seen else None
        record.intend(request.out, run, verdict.decision, order.plan.flag, at)
    except CannotWork as error:
        return error
    return None


def keep(
    request: RunRequest,
    run: dict[str, JsonValue],
    stages: Sequence[StageReport],
    done: record.Decided,
    decided: Verdict,
) -> record.Recorded:
    """Complete run.json, and read from disk the one verdict that files, terminal and reports show. Raise CannotWork if
    it is not what was decided.
    """
    companies = request.out / COMPANIES
    run |= done.facts() | {
        "stages": [s.to_json() for s in stages],
        "companies": list[JsonValue]([] if disk.missing(companies) else disk.read_text(companies).split()),
        "proof": cited(request.proof, done.policy, source_digest()),
    }
    record.write_run(request.out, run)
    recorded = record.read(request.out, decided)
    record.write(request.out / record.VERDICT, recorded.verdict.dump())
    github = {} if done.policy.stage else request.environ
    specs = recorded.specs(request.catalogue)
    reports.write(request.out, recorded.verdict, recorded.evidence, specs, run, github, request.warn)
    return recorded


@dataclass(frozen=True, slots=True)
class Collected:
    """What the stages saw. flag: as it was before them. trouble: why they did not finish."""

    target: Target
    flag: FlagState | None
    stages: tuple[StageReport, ...]
    log: EvidenceLog
    trouble: OSError | CannotWork | None = None


def collect(context: Context, request: RunRequest) -> Collected:
    """Run all stages in order; each appends to the evidence. If the target cannot be reached, the run ends at the
    preflight, and that is the one cause of all unknowns.
    """
    # readable even if the folder is removed meanwhile
    with disk.opened(context.evidence, "ab+") as held, keeping(one_lent=True):
        with ThreadPoolExecutor(1, "flag") as beside:
            looks = beside.submit(look_at, request.target.database_url, request.policy.rollout.flag)
            first = preflight(context, whole_run=True)
        flag = looks.result()
        context = replace(context, target=first.target)
        stages = [first.report]
        try:
            if first.unreachable:
                context.block(context.applicable(("",)), first.unreachable[0])
            else:
                stages += in_turn(context, request)
            if not os.path.samestat(os.fstat(held.fileno()), context.evidence.stat()):
                said = f"{context.evidence} is not the file that this run wrote to: somebody put another one there"
                raise CannotWork(f"{said}; {ALONE}")  # noqa: TRY301
            if gone := vanished(context.evidence, _text(held), context.run_id):
                said = f"{context.evidence} lacks lines that were read in it before: somebody cut it, or wrote over it"
                raise Unwritten(f"{said}; {ALONE}", (*gone,))
            scrub(request.out, hidden(context.target), OWN)
            return Collected(first.target, flag, tuple(stages), read_log(context.evidence, run=context.run_id))
        except (OSError, CannotWork) as error:
            log = read_bytes(_text(held), run=context.run_id)
            with suppress(OSError):
                scrub(request.out, hidden(context.target), OWN)
            more = error.evidence if isinstance(error, Unwritten) else ()
            log = replace(log, evidence=(*log.evidence, *more))
            return Collected(first.target, flag, tuple(stages), log, error)


def _text(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read(MOST_BYTES)


def in_turn(context: Context, request: RunRequest) -> list[StageReport]:
    """Check the gate itself and what an earlier run claimed or left set, then run the stages unless another run is
    active.
    """
    with data(context, "before") as look:
        with ThreadPoolExecutor(2, "before") as beside:  # the first does not ask the target; the second may be slow
            own, claimed = beside.submit(pipeline, context), beside.submit(claims.claims, context)
            switches(context)
            claimed.result()
            stages = own.result()
        passed.passed(context, request.policy)
        with Turn(context) as turn:
            if turn.busy:
                turn.block()
            else:
                stages += examine(context, request, look)
    return stages


def examine(context: Context, request: RunRequest, look: Callable[[], list[StageReport]]) -> list[StageReport]:
    """Run the stages that change something, the looks at the data before (`look`) and after them, and the last look at
    the release. The processes of later stages are started early, beside the stages before.
    """
    stages: list[StageReport] = []
    loads: list[list[StageReport]] = []

    def load_it(*, beside_drills: bool) -> None:
        one = partial(load, context, request.load, beside_drills=beside_drills)
        loads.append(if_reached(context, "load", LOAD, one))

    with ClockWatch(context), BacklogWatch(context), ExitStack() as ahead:
        try:
            with drills(context, partial(load_it, beside_drills=True)) as drill:
                stages += look()
                again = ahead.enter_context(data(context, "after"))
                ahead.enter_context(request.begin_load(context.target, context.out))
                stages += if_reached(context, "drill", ("drill/",), drill)
            stages += if_reached(context, "queue", QUEUE_STAGE, lambda: queue(context))
            if not loads or not loads[-1]:  # no drill asked for it, or it did not pass beside them
                stages += clean_up(context, request.after_load) if loads else []
                load_it(beside_drills=False)
            stages += loads[-1]
            stages += if_reached(context, "data after", (*DATA, *ALERTS), again)
            stages += if_reached(context, "release", (RELEASE.id,), lambda: release_again(context))
        finally:
            stages += clean_up(context, request.after_load)
    return stages


def tell(
    request: RunRequest, verdict: Verdict, evidence: Sequence[Evidence], run: Mapping[str, JsonValue]
) -> dict[str, JsonValue]:
    """Post the verdict to Slack if there is a webhook. It comes last, when everything is done. A dry run posts nothing.
    A failed post is a warning, recorded in run.json.
    """
    url = request.target.slack_webhook_url
    if not url or request.dry_run:
        return {}
    error = webhook.post(url, reports.render("slack", verdict, evidence, request.catalogue, run))
    if error:
        request.warn(f"the verdict was not posted to Slack: {error}; see SLACK_WEBHOOK_URL. It stands all the same")
    return {"posted": not error, "error": error}


def observe(request: RunRequest, recorded: record.Recorded, run: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Send the run to an OpenTelemetry collector if its variables name one. A failure is a warning."""
    told = telemetry.send(recorded.verdict, recorded.evidence, run, request.environ)
    if told.get("error"):
        request.warn(f"the run was not sent to OpenTelemetry: {told['error']}. The verdict stands all the same")
    return told


def attest(request: RunRequest, target: Target, decided: Verdict, key: Any | None) -> None:
    """Sign what is on disk if there is a key; this is the last file written. Raise CannotWork if the folder does not
    yield what was decided.
    """
    if key is not None:
        attestation.attest(request.out, record.read(request.out, decided), identity(target), key)


def begin(request: RunRequest) -> dict[str, JsonValue]:
    """Leave a hold on disk before the target is asked. Raise UsageError for --disruptive on production."""
    if request.policy.disruptive and request.target.kind is TargetKind.PRODUCTION:
        raise UsageError("--disruptive with GATE_TARGET=production; allowed: staging or reference. Leave it out")
    started_at = stamp(request.now())
    facts: dict[str, JsonValue] = {
        "run_id": secrets.token_hex(4),
        "gate": gate_version(),
        "started_at": started_at,
        "dry_run": request.dry_run,
        "attestation": attestation.FILE if attestation.signing_key(request.environ) else attestation.UNSIGNED,
        **record.facts_of(request.policy),
    }
    return record.begin(request.out, facts, FILES)
