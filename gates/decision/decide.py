"""decide(): from evidence and policy to the verdict. Pure: standard library only, no clock, no I/O, no logging.

A rollback needs harm that was seen; what is unknown holds; only a complete set of passes promotes.
"""

import datetime as dt
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from gates.contract.scope import OWN, QUEUE
from gates.decision.assessment import Assessed, assess, distrust, is_lenient, is_undecided, number
from gates.decision.backlog import backlog_gone_in_s
from gates.decision.causes import in_order
from gates.decision.clock import SKEW, in_doubt, stepped
from gates.decision.difference import NEVER_PASSED, PASSED_HERE, may_be_a_difference
from gates.decision.floor import floor_of, not_claimed, on_floor, parts_of
from gates.decision.margin import nearest, wider
from gates.decision.rules import STAGES, Policy, Waiver, again
from gates.decision.unreachable import cause, excused
from gates.evidence import CAPABILITIES, UNREADABLE, CheckSpec, Evidence, Outcome, Severity, TargetKind, Where
from gates.text.patterns import matches
from gates.verdict import (
    UNDECIDED,
    Counts,
    Decision,
    Effect,
    Exempt,
    Finding,
    NotRequired,
    StageResult,
    Verdict,
    blocked_by_cause,
    grouped,
    not_required_text,
)

CAPABILITY = "preflight/capability/"
BACKLOG, QUEUE_BACKLOG = "watch/outbox-backlog", "watch/queue-backlog"
"""Evidence that is no check: events that are neither delivered nor held, and waiting jobs of a queue."""

DATABASE = "preflight/database"
"""Its details say who the gate's login is."""
VARIABLES = "preflight/variables"
"""Its details list all variables that are not set; every other check names only the first that it missed."""

FACTS = (CAPABILITY, "watch/", UNREADABLE)


def decide(evidence: Sequence[Evidence], policy: Policy, now: dt.datetime) -> Verdict:
    """The verdict on the evidence. Order and repetition of evidence make no difference. No policy promotes below the
    floor. A stage that was run alone always holds.
    """
    login = own_warnings(evidence, policy)
    shut, evidence = cause(evidence), excused(evidence)
    if not policy.stage:
        return replace(weigh(evidence, policy, now, whole=True, shut=shut), login=login)
    own = (*STAGES[policy.stage], CAPABILITY, UNREADABLE)
    verdict = weigh([e for e in evidence if e.check.startswith(own)], policy, now, shut=shut)
    failed = any(f.outcome == "fail" for f in verdict.deciding)
    result = "passed" if verdict.decision is Decision.PROMOTE else "failed" if failed else "unknown"
    said = (f"{verdict.reason}; a stage alone is no gate", policy.scope.queue_elsewhere(policy.stage))
    stage, reason = StageResult(policy.stage, result), ", and ".join(filter(None, said))
    return replace(verdict, decision=Decision.HOLD, stage=stage, reason=reason, login=login)


def own_warnings(evidence: Sequence[Evidence], policy: Policy) -> str:
    """Flaws in the gate's setup: a superuser's login, a server not verified, an unknown TEST_COMPANY_ID."""
    seen = [e.details for e in evidence if e.check == DATABASE and policy.target is not TargetKind.REFERENCE]
    told = [t for d in seen if isinstance(t := d.get("login"), dict)]
    found = sorted({f"{t.get('name')} {t['excess']}" for t in told if t.get("excess")})
    strong = (
        f"the gate's login {', '.join(found)}: the triggers and policies of the target run with its rights."
        " Use a login that has only the rights that the gate needs (replay_gate)"
    )
    others = {str(d[name]) for name in ("unverified", "nobody") for d in seen if d.get(name)}
    return "; ".join([*[strong] * bool(found), *sorted(others)])


def weigh(
    evidence: Sequence[Evidence], policy: Policy, now: dt.datetime, *, whole: bool = False, shut: Evidence | None = None
) -> Verdict:
    """The verdict on the checks of the policy's catalogue. whole: whether it is a gate, which needs a floor. shut: the
    unreachable endpoint that ended the run.
    """
    lines = by_check(evidence)
    lacking = _lacking(lines, policy, now)
    exempt = [Exempt(s.id, r) for s in policy.catalogue if (r := _not_applicable(s, policy, lacking))]
    left_out = {e.check for e in exempt}
    required = [s for s in policy.catalogue if s.id not in left_out]
    step = stepped(lines.get(SKEW, ()))
    assessed = [in_doubt(assess(s, lines.get(s.id, ()), policy, now), step) for s in required]
    shut = shut or step
    findings = [_finding(a, policy, lines, now) for a in assessed if a.outcome is not Outcome.PASS]
    findings += _unlisted(lines, policy, now)
    findings += _unreadable(lines)
    findings += _below_the_floor(assessed, findings, policy) if whole else []
    findings = _without_false_blocks(findings, shut)
    findings = in_order(findings, {s.id: s.area for s in policy.catalogue})
    decision = _decision(findings, assessed)
    outcomes = Counter(a.outcome for a in assessed)
    counts = Counts(outcomes[Outcome.PASS], outcomes[Outcome.FAIL], outcomes[Outcome.UNKNOWN], len(exempt))
    spared = [NotRequired(s.id, "gate.yaml") for s in required if is_lenient(s, policy)]
    spared += [NotRequired(s.id, "waived") for s in required if _waiver(s.id, policy, now)]
    spared += [NotRequired(a.spec.id, UNDECIDED) for a in assessed if is_undecided(a)]
    return Verdict(
        decision=decision,
        reason=_reason(decision, findings, counts, spared, shut, _variables_not_set(lines), wider(policy)),
        release=policy.release,
        target=policy.target.value,
        policy_digest=policy.digest,
        counts=counts,
        findings=tuple(findings),
        contract=policy.scope,
        areas_seen=_areas_seen(assessed, policy),
        not_applicable=tuple(sorted(exempt, key=lambda e: e.check)),
        margin=nearest(a.line for a in assessed if a.outcome is Outcome.PASS and a.line is not None),
        ends_when=_ends(decision, findings),
        not_required=tuple(sorted(spared, key=lambda s: (s.check, s.by))),
    )


def _below_the_floor(assessed: Sequence[Assessed], findings: Sequence[Finding], policy: Policy) -> list[Finding]:
    """What the floor lacks: a pattern without a check in the catalogue, or a claimed area without a pass. Nothing if a
    finding holds anyway: a check of the floor that did not pass is one.
    """
    if any(f.effect in {Effect.ROLLBACK, Effect.HOLD} for f in findings):
        return []
    checks = [a.spec.id for a in assessed]
    lacking = {
        pattern: f"no check of this policy stands for {pattern} ({stands_for}), which no policy may leave out"
        for pattern, stands_for in floor_of(policy.scope).items()
        if not any(fnmatchcase(check, pattern) for check in checks)
    }
    seen = {part for a in assessed if a.outcome is Outcome.PASS for part in parts_of(a.spec)}
    chosen = policy.scope.claims if policy.scope.unclaimed else ()  # without claims: whatever the catalogue has
    due = {part for a in assessed for part in parts_of(a.spec)} | set(chosen)
    for part in sorted(due - seen):
        said = f"no check of {part} passed, and the policy requires none; at least one must be seen to pass"
        lacking[f"{part}/*"] = said
    return [
        Finding(name, "unknown", "warn", Effect.HOLD, message, ends_when=f"a check of {name} passes")
        for name, message in lacking.items()
    ]


def _areas_seen(assessed: Sequence[Assessed], policy: Policy) -> tuple[str, ...]:
    """The claimed areas of which a check passed or failed."""
    seen = {a.spec.area for a in assessed if a.outcome is not Outcome.UNKNOWN} - {"", OWN}
    return tuple(sorted(seen & set(policy.scope.claims or seen)))


def by_check(evidence: Sequence[Evidence]) -> dict[str, list[Evidence]]:
    found: dict[str, list[Evidence]] = {}
    for line in evidence:
        found.setdefault(line.check, []).append(line)
    return found


# --- what applies here -------------------------------------------------------------------------------------------


def _lacking(lines: dict[str, list[Evidence]], policy: Policy, now: dt.datetime) -> set[str]:
    """Capabilities that the target was seen to lack. Without evidence, or if it contradicts itself, it has them."""
    lacking = set()
    for name in (*CAPABILITIES, *policy.scope.may_lack):
        told = lines.get(CAPABILITY + name, [])
        sound = [e for e in told if e.outcome is Outcome.PASS and not distrust(e, policy, now)]
        if told and len(sound) == len(told) and all(e.observed is False for e in told):
            lacking.add(name)
    return lacking


def _not_applicable(spec: CheckSpec, policy: Policy, lacking: set[str]) -> str:
    if not policy.target.allows(spec.where, disruptive=policy.disruptive):
        if policy.target.allows(spec.where, disruptive=True):
            return "needs --disruptive"
        if spec.where is Where.DISRUPTIVE:
            return "may run on staging targets only, with --disruptive"
        return f"may run on {spec.where.value} targets only"
    if spec.deep and not policy.deep:
        return "runs with --deep"
    missing = [name for name in spec.needs if name in lacking]
    return f"the target does not claim {', '.join(missing)}" if missing else not_claimed(spec, policy.scope)


@dataclass(frozen=True, slots=True)
class _Relief:
    """Why a finding decides less than its check would. ends: what would end the hold; empty if the check says it."""

    effect: Effect
    why: str
    ends: str = ""


def _finding(one: Assessed, policy: Policy, lines: dict[str, list[Evidence]], now: dt.datetime) -> Finding:
    relief = _relief(one, policy, lines, now)
    line = one.line
    finding = Finding(
        check=one.spec.id,
        outcome=one.outcome.value,
        severity=one.severity.value,
        effect=relief.effect if relief else one.effect,
        message=one.message + _although_unclaimed(one.spec, policy),
        observed=line.observed if line else None,
        limit=line.limit if line else None,
        unit=line.unit if line else "",
        samples=line.samples if line else 0,
        witness=line.witness if line else None,
        reproduce=again(one.spec),
        blocked_by=one.blocked_by,
        ends_when=(relief.ends if relief else "") or _ends_when(one),
        symptom=str(line.details.get("symptom", "")) if line else "",
    )
    return replace(finding, message=f"{finding.said}; {relief.why}") if relief else finding


def _although_unclaimed(spec: CheckSpec, policy: Policy) -> str:
    """Why a check counts although its area is not claimed; empty for every other check."""
    why = policy.scope.leaves_out(spec)
    return f"; {why}, but this check is on the floor, which no claim removes (docs/claims.md)" if why else ""


def _relief(one: Assessed, policy: Policy, lines: dict[str, list[Evidence]], now: dt.datetime) -> _Relief | None:
    """A waiver; or, for a rollback, that the check never passed here; or, for a lag, that the backlog drains."""
    waiver = _waiver(one.spec.id, policy, now)
    if waiver is not None:
        return _Relief(Effect.WAIVED, f"waived until {waiver.expires} by {waiver.owner}: {waiver.reason}")
    if one.effect is not Effect.ROLLBACK:
        return None
    told = [e for e in lines.get(PASSED_HERE, ()) if not distrust(e, policy, now)]
    if may_be_a_difference(one.spec, policy, told):
        return _Relief(Effect.HOLD, NEVER_PASSED, f"{one.spec.id} passes, or the policy says that it rolls back")
    if on_floor(one.spec.id) or not matches(one.spec.id, policy.lag_checks):
        return None
    backlog = lines.get(QUEUE_BACKLOG if one.spec.area == QUEUE else BACKLOG, ())
    gone_in_s = backlog_gone_in_s([e for e in backlog if not distrust(e, policy, now)])
    if gone_in_s is not None:
        falling = f"the backlog fell through the whole run; it is gone in about {gone_in_s:.0f} s"
        return _Relief(Effect.HOLD, falling, falling)
    if _was_seen_draining([e for e in lines[one.spec.id] if not distrust(e, policy, now)]):
        why = "the backlog that was there before the run was gone after it; it has yet to leave the window"
        return _Relief(Effect.HOLD, why, "the backlog that was there before the run has left the window")
    return None


def _was_seen_draining(lines: Sequence[Evidence]) -> bool:
    """Whether it failed only before the load, and the second look found the backlog falling or gone."""
    later = [e for e in lines if e.round != "before"]
    return bool(later) and all(
        e.outcome is Outcome.PASS
        or (e.outcome is Outcome.FAIL and e.details.get("draining") is True and e.severity == "warn")
        for e in later
    )


def _without_false_blocks(findings: Sequence[Finding], shut: Evidence | None) -> list[Finding]:
    """A check blocked by one that passed is a cause itself."""
    found = {f.check for f in findings} | ({shut.check} if shut else set())
    return [f if f.blocked_by in found else replace(f, blocked_by="") for f in findings]


def _unlisted(lines: dict[str, list[Evidence]], policy: Policy, now: dt.datetime) -> list[Finding]:
    """Failures of checks that are not in the catalogue hold: harm was seen, and no rule says how grave it is."""
    known = {s.id for s in policy.catalogue}
    findings = []
    for check, found in lines.items():
        if check in known or check.startswith(FACTS):
            continue
        spec = CheckSpec(check, "", "", Severity.WARN, Where.READ_ONLY)
        one = assess(spec, [replace(line, severity="") for line in found], policy, now)
        if one.outcome is Outcome.FAIL:
            findings.append(_finding(one, policy, lines, now))
    return findings


def _unreadable(lines: dict[str, list[Evidence]]) -> list[Finding]:
    """Unreadable evidence holds under every policy: it may have been a failure."""
    told = {line.message: line.check for check in lines if check.startswith(UNREADABLE) for line in lines[check]}
    return [
        Finding(check, "unknown", "warn", Effect.HOLD, message, ends_when="the gate is run again")
        for message, check in sorted(told.items())
    ]


def _waiver(check: str, policy: Policy, now: dt.datetime) -> Waiver | None:
    """The valid waiver of this check, if the check may be waived at all."""
    today = now.astimezone(dt.UTC).date()
    good = [w for w in policy.waivers if w.check == check and w.expires >= today]
    return good[0] if good and policy.may_waive(check) else None


def _ends_when(one: Assessed) -> str:
    """What would end the hold that this finding makes."""
    if one.blocked_by:
        return f"{one.blocked_by} passes"
    if one.line is None:
        return f"{one.spec.id} is observed"
    told = one.line.details.get("ends_when")
    if isinstance(told, str):
        return told
    needed = number(one.line.details.get("samples_needed"))
    if needed is not None:
        seconds = number(one.line.details.get("time_needed_s"))
        wait = f", about {seconds:.0f} s more" if seconds is not None else ""
        return f"{one.spec.id} has {needed:.0f} more samples{wait}"
    return f"{one.spec.id} passes"


# --- the decision and its words ----------------------------------------------------------------------------------


def _decision(findings: Sequence[Finding], assessed: Sequence[Assessed]) -> Decision:
    effects = {f.effect for f in findings}
    if Effect.ROLLBACK in effects:
        return Decision.ROLLBACK
    promotes = Effect.HOLD not in effects and any(a.outcome is Outcome.PASS for a in assessed)
    return Decision.PROMOTE if promotes else Decision.HOLD


def _variables_not_set(lines: dict[str, list[Evidence]]) -> tuple[str, ...]:
    told = [e.details.get("not_set") for e in lines.get(VARIABLES, ())]
    return tuple(str(name) for names in told if isinstance(names, list) for name in names)


def _reason(
    decision: Decision,
    findings: Sequence[Finding],
    counts: Counts,
    spared: Sequence[NotRequired],
    shut: Evidence | None,
    not_set: tuple[str, ...],
    wide: str,
) -> str:
    """One sentence that cites the causes; blocked checks are only counted."""
    if decision is Decision.PROMOTE:
        return f"all {counts.passed} required checks passed" + _noted(findings, spared, wide)
    wanted = Effect.ROLLBACK if decision is Decision.ROLLBACK else Effect.HOLD
    holding = [f for f in findings if f.effect is wanted]
    causes = [f for f in holding if not f.blocked_by] or holding
    if not causes:
        return "no check was required, or nothing was seen: that proves nothing"
    first = next((f for f in causes if f.check.startswith(UNREADABLE)), causes[0])
    if first.check.startswith(UNREADABLE) and decision is Decision.HOLD:
        return first.message
    failed = [f for f in causes if f.outcome == Outcome.FAIL.value]
    if shut and decision is Decision.HOLD and any(shut.check in {f.check, f.blocked_by} for f in holding):
        before = f"; before that {failed[0].check} failed: {failed[0].said}" if failed else ""
        return f"{shut.check} is unknown: {shut.message}{before}"
    if failed and first not in failed:  # while this is unknown, the failures may mean nothing
        return f"{first.check} is unknown: {first.said}{_more([first, *failed], findings)}"
    if failed:
        return f"{failed[0].check} failed: {failed[0].said}{_more(failed, findings)}"
    alike = [f for f in causes if f.message == first.message]
    usual, often = Counter(f.message for f in causes).most_common(1)[0]
    if len(causes) == 1:
        return f"{first.check} is unknown: {first.said}{_more(causes, findings)}"
    if len(alike) == len(causes):
        return f"{len(causes)} checks are unknown: {first.said}"
    for told in (f for f in causes if f.check == VARIABLES):
        if usual.startswith(not_set):
            return f"{len(causes)} checks are unknown: {told.message}"
    if often == 1:
        return f"{len(causes)} checks are unknown; the first is {first.check}: {first.said}"
    share = f"most of them ({often})" if 2 * often > len(causes) else f"{often} of them"
    return f"{len(causes)} checks are unknown, {share} because: {usual}; the first is {first.check}"


def _more(causes: Sequence[Finding], findings: Sequence[Finding]) -> str:
    """How many checks the first cause explains, and how many others there are."""
    first, *others = causes
    alike = [f for f in others if f.symptom and f.symptom == first.symptom]
    blocked = blocked_by_cause(findings)
    behind = sum(blocked[f.check] for f in (first, *alike)) + len(alike)
    parts = [f"one cause, {behind} checks behind it"] * (behind > 1)
    left = len(others) - len(alike)
    parts += [f"and {left} more failed"] * bool(left)
    return f" ({'; '.join(parts)})" if parts else ""


def _noted(findings: Sequence[Finding], spared: Sequence[NotRequired], wide: str) -> str:
    """The reservations of a promote: failures only noted, checks not required, wide margins."""
    noted = sum(f.effect is Effect.NOTE for f in findings)
    parts = [part for part in (f"{noted} noted" if noted else "", not_required_text(spared), wide) if part]
    return f" ({'; '.join(parts)})" if parts else ""


def _ends(decision: Decision, findings: Sequence[Finding]) -> tuple[str, ...]:
    """What would end a hold, one entry for each cause."""
    if decision is not Decision.HOLD:
        return ()
    holding = [f for f in findings if f.effect is Effect.HOLD and not f.blocked_by and f.ends_when]
    said = []
    for one, *others in grouped(holding):
        more = len({f.ends_when for f in others} - {one.ends_when})
        said.append(f"{one.ends_when}, and {more} more that hold for the same reason" if more else one.ends_when)
    return tuple(dict.fromkeys(said))
