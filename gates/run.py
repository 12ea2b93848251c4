"""THE STORY of a run: collect -> decide -> act -> report."""

from __future__ import annotations

import dataclasses
import datetime as dt
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from gates import attestation, record, reports
from gates.act.flag import FlagState, Order, look_at
from gates.act.rollout import act
from gates.decision.decide import decide
from gates.decision.policy_file import PolicyFile
from gates.decision.rules import STAGES, Policy
from gates.deployment.credentials import UNUSABLE
from gates.deployment.identity import identity
from gates.deployment.redaction import hidden, redact_text, scrub
from gates.deployment.target import Target
from gates.errors import CannotWork, UsageError
from gates.evidence import CheckSpec, Evidence, JsonValue, Outcome, TargetKind
from gates.evidence_file import EvidenceLog, Unwritten, read_bytes, read_lines, read_log, write_lines
from gates.reports import webhook
from gates.reports.citation import cited, source_digest
from gates.stages.alerts import alerts
from gates.stages.backlog import BacklogWatch
from gates.stages.context import Context, Progress, StageReport, silent
from gates.stages.drill import drill
from gates.stages.pipeline import pipeline
from gates.stages.preflight import Preflight, preflight, refused_by_now
from gates.stages.preflight.credentials import ADMIN, SIGNING
from gates.stages.preflight.database import DATABASE
from gates.stages.reach import if_reached
from gates.stages.sql import ALERTS, DATA, data, sql
from gates.stages.switches import switches
from gates.stages.turn import Turn
from gates.stages.watchdog import known_shut
from gates.verdict import Action, Decision, Verdict, settle

LOAD = ("load/",)
COMPANIES = "companies.txt"


def utc_now() -> dt.datetime:
    """The clock of a run."""
    return dt.datetime.now(dt.UTC)


@dataclass(frozen=True, slots=True)
class Request:
    """What a run is asked to do.

    load: runs the load stage, None where there is none; after_load: removes what that left, once the data was looked
    at again, and says why if it could not; load_checks: the checks of `gate load` where its options make others than
    the catalogue's; url_only: a URL is loaded, whatever stands behind it, so that no target is looked at;
    proof: the proof.json that the reports cite, None for the one shipped.
    """

    target: Target
    policy_file: PolicyFile
    catalogue: tuple[CheckSpec, ...]
    out: Path
    deep: bool = False
    disruptive: bool = False
    dry_run: bool = False
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    load: Callable[[Target, Path], list[Evidence]] | None = None
    after_load: Callable[[Target, Path], str] | None = None
    load_checks: tuple[CheckSpec, ...] | None = None
    url_only: bool = False
    proof: Path | None = None
    progress: Callable[[Progress], None] = silent
    now: Callable[[], dt.datetime] = utc_now
    warn: Callable[[str], None] = lambda _text: None


def run_gate(request: Request) -> Verdict:
    """The whole gate. Raises GateError where the gate itself cannot work; the folder then holds a hold.

    A disk that is full, or a folder that is gone, keeps no rollback from happening: harm that was seen is acted upon,
    and what was done is in the error. A promotion is made only where it can be written down before and after.
    """
    run = begin(request)
    context = context_of(request, str(run["run_id"]))
    seen = look_at(request.target.database_url, policy_of(request, request.target).rollout.flag)
    run[record.FLAG] = seen.to_json() if seen else None
    looked = collect(context, request)

    policy = policy_of(request, looked.target)
    decided_at = request.now()
    verdict = decide(looked.log.evidence, policy, decided_at)
    order = order_of(request, policy, seen, verdict)
    trouble = looked.trouble or intend(request, run, verdict, order)
    if trouble is not None and verdict.decision is not Decision.ROLLBACK:
        raise trouble

    action = act(verdict, order, looked.target.database_url, tell=request.warn)
    action = dataclasses.replace(action, message=redact_text(action.message, hidden(looked.target)))
    done = record.Decided(policy, decided_at, looked.log.end, action, record.stamp(request.now()))
    final = settle(verdict, action, str(run["started_at"]), done.finished_at)
    try:
        if trouble is not None:
            raise trouble
        recorded = keep(request, run, looked.stages, done)
        told = tell(request, recorded.verdict, recorded.evidence, run)
        if told:
            record.write_run(request.out, {**run, "slack": told})
    except (OSError, CannotWork) as error:
        tell(request, final, looked.log.evidence, run)
        raise record.unkept(final, error) from error
    attest(request, looked.target)
    return recorded.verdict


def intend(request: Request, run: dict[str, JsonValue], verdict: Verdict, order: Order) -> CannotWork | None:
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
    request: Request, run: dict[str, JsonValue], stages: Sequence[StageReport], done: record.Decided
) -> record.Recorded:
    """End run.json, and make from what is on disk the one verdict that files, terminal and reports show."""
    companies = request.out / COMPANIES
    run |= done.facts() | {
        "stages": [s.to_json() for s in stages],
        "companies": list[JsonValue](companies.read_text().split() if companies.exists() else []),
        "proof": cited(request.proof, done.policy.proof_digest, source_digest()),
    }
    record.write_run(request.out, run)
    recorded = record.read(request.out)
    record.write(request.out / record.VERDICT, recorded.verdict.dump())
    github = {} if done.policy.stage else request.environ
    specs = recorded.specs(catalogue_of(request))
    reports.write(request.out, recorded.verdict, recorded.evidence, specs, run, github)
    return recorded


@dataclass(frozen=True, slots=True)
class Collected:
    """What the stages saw. trouble: why they did not come to their end."""

    target: Target
    stages: tuple[StageReport, ...]
    log: EvidenceLog
    trouble: OSError | CannotWork | None = None


def collect(context: Context, request: Request) -> Collected:
    """All stages, in their order; each appends to the evidence.

    A target that cannot be reached ends the run at the preflight: all the rest is unknown for that one cause.
    """
    # readable also when somebody removes the folder
    with context.evidence.open("ab+") as held:
        first = preflight(context)
        context = dataclasses.replace(context, target=first.target)
        stages = [first.report]
        try:
            if first.unreachable:  # the run ends here: all the rest is unknown for that one cause
                context.block(context.applicable(("",)), first.unreachable[0])
            else:
                stages += in_turn(context, request)
            scrub(request.out, hidden(context.target))
            context.evidence.stat()
            return Collected(first.target, tuple(stages), read_log(context.evidence))
        except (OSError, CannotWork) as error:
            held.seek(0)
            log = read_bytes(held.read())
            more = error.evidence if isinstance(error, Unwritten) else ()
            log = dataclasses.replace(log, evidence=(*log.evidence, *more))
            return Collected(first.target, tuple(stages), log, error)


def in_turn(context: Context, request: Request) -> list[StageReport]:
    """The gate itself, what an earlier run left set, and then the stages, unless another run is at it."""
    stages = pipeline(context)
    switches(context)
    with Turn(context) as turn:
        if turn.busy:
            turn.block()
        else:
            stages += examine(context, request)
    return stages


def examine(context: Context, request: Request) -> list[StageReport]:
    """The stages that change something, and the data before and after them."""
    stages: list[StageReport] = []
    with BacklogWatch(context):
        stages += data(context, before=True)
        stages += if_reached(context, "drill", ("drill/",), lambda: drill(context))
        try:
            stages += if_reached(context, "load", LOAD, lambda: load(context, request))
            stages += if_reached(context, "data after", (*DATA, *ALERTS), lambda: data(context))
        finally:
            stages += clean_up(context, request)
    return stages


def load(context: Context, request: Request) -> list[StageReport]:
    """The load stage; where there is none, or the target refuses what it would sign with, its checks are unknown.

    A credential that got no answer is no reason: a release that is too slow or busy to answer must be seen to be so.
    """
    expected = context.applicable(LOAD)
    credential = (SIGNING if context.target.hmac_secret else ADMIN).id
    refused = unaccepted(context, credential)
    if refused and refused.observed in UNUSABLE:
        context.block(expected, refused)
        context.progress(Progress("load", unknown=len(expected), expected=len(expected), done=True))
        return [StageReport("load", 0.0, 0, refused.message)]
    started = request.now()
    context.progress(Progress("load", expected=len(expected)))
    error = "" if request.load else "the load stage is not installed"
    found: list[Evidence] = []
    if request.load is not None:
        found = [stamped(e, context.target, started) for e in request.load(context.target, context.out)]
        if refused and (now := refused_by_now(context, credential)):
            found = []
            error = f"what the load saw proves nothing: {now.message}"
        write_lines(context.evidence, found)
    if shut := known_shut(context.evidence):
        error = shut[0].message
        context.block(expected, shut[0])
    context.account_for(expected, error or "the load stage did not come to this")
    seconds = (request.now() - started).total_seconds()
    passed, failed, unknown = (
        sum(e.outcome is o for e in found) for o in (Outcome.PASS, Outcome.FAIL, Outcome.UNKNOWN)
    )
    context.progress(Progress("load", passed, failed, unknown, len(expected), seconds, done=True, error=error))
    return [StageReport("load", seconds, 0, error)]


def unaccepted(context: Context, credential: str) -> Evidence | None:
    """The preflight's evidence that the target was not seen to accept a credential that is given."""
    lines = [e for e in read_lines(context.evidence) if e.check == credential and not e.blocked_by]
    return next((e for e in lines if e.outcome is not Outcome.PASS), None)


def tell(
    request: Request, verdict: Verdict, evidence: Sequence[Evidence], run: Mapping[str, JsonValue]
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


def clean_up(context: Context, request: Request) -> list[StageReport]:
    """Remove the companies of the load, however the stages ended; nothing is said unless that was refused."""
    if request.after_load is None:
        return []
    started = request.now()
    error = redact_text(request.after_load(context.target, context.out), hidden(context.target))
    seconds = (request.now() - started).total_seconds()
    if error:
        context.progress(Progress("clean up", seconds=seconds, done=True, error=error))
    return [StageReport("clean up", seconds, 1 if error else 0, error)]


def stamped(one: Evidence, target: Target, started: dt.datetime) -> Evidence:
    """Evidence of a stage that ran just now, with the release and the time that it was seen."""
    at = one.started_at or record.stamp(started)
    return dataclasses.replace(one, release=one.release or target.release, started_at=at)


def run_stage(request: Request, stage: str) -> Verdict:
    """One stage after the preflight: a result on the checks of this stage alone, and nothing is done to the flag."""
    run = begin(request)
    catalogue = catalogue_of(request)
    context = dataclasses.replace(context_of(request, str(run["run_id"])), catalogue=catalogue)
    first = Preflight(request.target, StageReport("preflight", 0.0)) if request.url_only else preflight(context)
    target = first.target
    context = dataclasses.replace(context, target=target)
    reading = stage in {"sql", "alerts"}  # what only reads disturbs nobody, and needs the database alone
    unreachable = [e for e in first.unreachable if e.check == DATABASE.id or not reading]
    works: dict[str, Callable[[], list[StageReport]]] = {
        "drill": lambda: drill(context),
        "sql": lambda: sql(context),
        "alerts": lambda: alerts(context),
        "load": lambda: load(context, request),
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
    scrub(request.out, hidden(context.target))
    policy, now = policy_of(request, target), request.now()
    end, nothing = read_log(context.evidence).end, Action("none", result="nothing_to_do")
    done = record.Decided(policy.of_stage(stage, catalogue), now, end, nothing, record.stamp(now))
    recorded = keep(request, run, stages, done)
    attest(request, target)
    return recorded.verdict


def attest(request: Request, target: Target) -> None:
    """Sign what is on disk, where there is a key: the last thing that is written."""
    key = attestation.signing_key(request.environ)
    if key is not None:
        attestation.attest(request.out, record.read(request.out), identity(target), key)


# --- parts -------------------------------------------------------------------------------------------------------


def begin(request: Request) -> dict[str, JsonValue]:
    """Leave a hold on disk before anything is asked. Raise UsageError where production is to be disturbed."""
    if request.disruptive and request.target.kind is TargetKind.PRODUCTION:
        raise UsageError("--disruptive with GATE_TARGET=production; allowed: staging or reference. Leave it out")
    started_at = record.stamp(request.now())
    facts: dict[str, JsonValue] = {
        "run_id": secrets.token_hex(4),
        "gate": gate_version(),
        "started_at": started_at,
        "dry_run": request.dry_run,
        "attestation": attestation.FILE if attestation.signing_key(request.environ) else attestation.UNSIGNED,
        **record.facts_of(policy_of(request, request.target)),
    }
    return record.begin(request.out, facts)


def catalogue_of(request: Request) -> tuple[CheckSpec, ...]:
    """The catalogue, with the checks of the load as the options made them."""
    if request.load_checks is None:
        return request.catalogue
    return (*(s for s in request.catalogue if not s.id.startswith(LOAD)), *request.load_checks)


def policy_of(request: Request, target: Target) -> Policy:
    """The policy of this run; the target's release is known only once the preflight has asked for it."""
    kind, release, file = target.kind, target.release, request.policy_file
    return file.policy(request.catalogue, kind, release, deep=request.deep, disruptive=request.disruptive)


def context_of(request: Request, run_id: str) -> Context:
    """What the stages are given."""
    return Context(
        target=request.target,
        settings=request.policy_file.settings,
        out=request.out.resolve(),
        run_id=run_id,
        catalogue=request.catalogue,
        deep=request.deep,
        disruptive=request.disruptive,
        environ=request.environ,
        progress=request.progress,
    )


def order_of(request: Request, policy: Policy, seen: FlagState | None, verdict: Verdict) -> Order:
    """What to do about the flag, and what its audit row says."""
    return Order(
        plan=policy.rollout,
        release=policy.release,
        actor="replaygate",
        reason=verdict.reason[:500],
        seen=seen,
        same_version=not policy.touches_live_flags,
        dry_run=request.dry_run,
    )


def gate_version() -> str:
    """The version of this package."""
    try:
        return version("replaygate")
    except PackageNotFoundError:
        return "0"
