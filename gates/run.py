"""THE STORY of a run: collect -> decide -> act -> report."""

import dataclasses
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
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
from gates.stages.context import Context, StageReport
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

COMPANIES = "companies.txt"
OWN = (*record.OURS, *record.FOLDERS, *FILES)
"""What a run writes in its folder."""
ALONE = "allowed: one gate alone in its folder. Give another --output"


def run_gate(request: RunRequest) -> Verdict:
    """The whole gate. Raises GateError where the gate itself cannot work; the folder then holds a hold.

    A disk that is full, or a folder that is gone, keeps no rollback from happening: harm that was seen is acted upon,
    and what was done is in the error. A promotion is made only where it can be written down before and after.
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
    action = dataclasses.replace(action, message=redact_text(action.message, hidden(looked.target)))
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
    except BaseException as error:  # a signal, too, is no excuse for a flag that may be on
        if not final.headline and not isinstance(error, OSError | CannotWork):
            raise
        with suppress(BaseException):  # a report may be the very thing that failed
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
    """Keep what this target was seen to keep for the next run: its claims, which the audit rows of the flag say, too,
    and, of another dialect, the checks that passed.
    """
    try:
        claims.write(folder, areas, verdict.contract, promoted=verdict.decision is Decision.PROMOTE)
        others = [f.check for f in verdict.findings] + [e.check for e in verdict.not_applicable]
        passed.remember(folder, policy, others)
    except OSError as error:
        request.warn(f"what this target was seen to keep could not be remembered: {error}. See to --state")


def note(request: RunRequest, folder: Path, one: PastDecision) -> None:
    """Add the run to the history of its target (`gate history`, `gate serve`)."""
    try:
        past_decisions.remember(folder, one)
    except OSError as error:
        request.warn(f"the decision could not be added to the history of the target: {error}. See to --state")


def intend(request: RunRequest, run: dict[str, JsonValue], verdict: Verdict, order: Order) -> CannotWork | None:
    """Write down what is about to be done; why that was not possible, or None."""
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
    """End run.json, and make from what is on disk the one verdict that files, terminal and reports show.

    Raise CannotWork where that is not what was decided.
    """
    companies = request.out / COMPANIES
    run |= done.facts() | {
        "stages": [s.to_json() for s in stages],
        "companies": list[JsonValue](disk.read_text(companies).split() if companies.exists() else []),
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
    """What the stages saw. flag: as it was before them; trouble: why they did not come to their end."""

    target: Target
    flag: FlagState | None
    stages: tuple[StageReport, ...]
    log: EvidenceLog
    trouble: OSError | CannotWork | None = None


def collect(context: Context, request: RunRequest) -> Collected:
    """All stages, in their order; each appends to the evidence.

    A target that cannot be reached ends the run at the preflight: all the rest is unknown for that one cause.
    """
    # readable also when somebody removes the folder
    with disk.opened(context.evidence, "ab+") as held, keeping(one_lent=True):
        with ThreadPoolExecutor(1, "flag") as beside:
            looks = beside.submit(look_at, request.target.database_url, request.policy.rollout.flag)
            first = preflight(context, whole_run=True)
        flag = looks.result()
        context = dataclasses.replace(context, target=first.target)
        stages = [first.report]
        try:
            if first.unreachable:  # the run ends here: all the rest is unknown for that one cause
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
            log = dataclasses.replace(log, evidence=(*log.evidence, *more))
            return Collected(first.target, flag, tuple(stages), log, error)


def _text(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read(MOST_BYTES)


def in_turn(context: Context, request: RunRequest) -> list[StageReport]:
    """The gate itself, what an earlier run claimed and left set, and then the stages, unless another run is at it."""
    with data(context, before=True) as look:
        with ThreadPoolExecutor(2, "before") as beside:  # the one asks the target nothing, the other may be far
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
    """The stages that change something, the data before (`look`) and after them, and that it was one release
    throughout. What the next stages need is begun beside the one before.
    """
    stages: list[StageReport] = []
    with ClockWatch(context), BacklogWatch(context), ExitStack() as ahead:
        with drills(context) as drill:
            stages += look()
            again = ahead.enter_context(data(context))
            ahead.enter_context(request.begin_load(context.target, context.out))
            stages += if_reached(context, "drill", ("drill/",), drill)
        stages += if_reached(context, "queue", QUEUE_STAGE, lambda: queue(context))
        try:
            stages += if_reached(context, "load", LOAD, lambda: load(context, request.load))
            stages += if_reached(context, "data after", (*DATA, *ALERTS), again)
            stages += if_reached(context, "release", (RELEASE.id,), lambda: release_again(context))
        finally:
            stages += clean_up(context, request.after_load)
    return stages


def tell(
    request: RunRequest, verdict: Verdict, evidence: Sequence[Evidence], run: Mapping[str, JsonValue]
) -> dict[str, JsonValue]:
    """Post the verdict to Slack, where there is a webhook: last of all, when everything is done.

    A dry run tells nobody. That it was not taken is a warning, and stands in run.json.
    """
    url = request.target.slack_webhook_url
    if not url or request.dry_run:
        return {}
    error = webhook.post(url, reports.render("slack", verdict, evidence, request.catalogue, run))
    if error:
        request.warn(f"the verdict was not posted to Slack: {error}; see SLACK_WEBHOOK_URL. It stands all the same")
    return {"posted": not error, "error": error}


def observe(request: RunRequest, recorded: record.Recorded, run: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Send the run to OpenTelemetry's collector, where its variables name one. What was not taken is a warning."""
    told = telemetry.send(recorded.verdict, recorded.evidence, run, request.environ)
    if told.get("error"):
        request.warn(f"the run was not sent to OpenTelemetry: {told['error']}. The verdict stands all the same")
    return told


def attest(request: RunRequest, target: Target, decided: Verdict, key: Any | None) -> None:
    """Sign what is on disk, where there is a key: the last thing that is written. Raise CannotWork where that is not
    what was decided.
    """
    if key is not None:
        attestation.attest(request.out, record.read(request.out, decided), identity(target), key)


def begin(request: RunRequest) -> dict[str, JsonValue]:
    """Leave a hold on disk before anything is asked. Raise UsageError where production is to be disturbed."""
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
