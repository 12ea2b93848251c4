"""The outcome of one check, judged from all its evidence. Pure; standard library only.

If lines differ, the worst counts. A line that cannot be trusted (stale, of another release, without a time, beyond the
policy's limit) is never a pass.
"""

import datetime as dt
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from gates.decision.floor import is_optional, on_floor
from gates.decision.rules import BY_SEVERITY, Policy, PolicyRule, worst
from gates.evidence import CheckSpec, Evidence, Outcome, Severity, dump_line
from gates.verdict import EFFECT_ORDER, Effect

T = TypeVar("T")

NO_EVIDENCE = "its stage left no evidence of it. See the stages in run.json, and run the gate again"
NOT_SEEN_AGAIN = "it was seen before the load only, and not looked at again after it. Run the gate again"

CLOCK_TOLERANCE = dt.timedelta(minutes=5)
"""Evidence from further in the future was stamped by a clock that jumped."""
DISTRUSTED = "the evidence "
"""The prefix of each reason why a line proves nothing. Headlines show that reason instead of the check's subject."""


@dataclass(frozen=True, slots=True)
class Assessed:
    """A judged check. line: the evidence that decided it, None if there is none."""

    spec: CheckSpec
    outcome: Outcome
    severity: Severity
    effect: Effect
    message: str
    line: Evidence | None

    @property
    def blocked_by(self) -> str:
        return self.line.blocked_by if self.line is not None and self.outcome is Outcome.UNKNOWN else ""


@dataclass(frozen=True, slots=True)
class _Judged:
    outcome: Outcome
    message: str
    line: Evidence


def assess(spec: CheckSpec, lines: Sequence[Evidence], policy: Policy, now: dt.datetime) -> Assessed:
    """The worst of the check's lines; unknown without a line. A line of round `before` also needs a later one."""
    rules = [rule for rule in policy.rules if rule.matches(spec.id)]
    judged = [_judge(line, rules, policy, now) for line in lines]
    severity = _last(r.severity for r in rules) or spec.severity
    effect = Effect.HOLD if _is_required(spec, rules) else Effect.NOTE
    final = [j for j in judged if j.line.round != "before"]
    failed = [j for j in judged if j.outcome is Outcome.FAIL]
    if failed:
        gravest = _worst_failure(spec, failed, rules)
        unseen = any(j.outcome is Outcome.UNKNOWN for j in final)
        # a failure that is only noted must not hide that the check could not be completed
        if not unseen or EFFECT_ORDER.index(gravest.effect) <= EFFECT_ORDER.index(effect):
            return gravest
    unknown = [j for j in final or judged if j.outcome is Outcome.UNKNOWN]
    if unknown:
        first = _first(unknown, lambda j: (bool(j.line.blocked_by), dump_line(j.line)))
        return Assessed(spec, Outcome.UNKNOWN, severity, effect, first.message, first.line)
    if not judged:
        return Assessed(spec, Outcome.UNKNOWN, severity, effect, NO_EVIDENCE, None)
    if not final:
        return Assessed(spec, Outcome.UNKNOWN, severity, effect, NOT_SEEN_AGAIN, None)
    best = _first(final, lambda j: dump_line(j.line))
    return Assessed(spec, Outcome.PASS, severity, Effect.NOTE, "", best.line)


def _is_required(spec: CheckSpec, rules: Sequence[PolicyRule]) -> bool:
    """Whether the decision is hold if the check is unknown."""
    said = _last(r.required for r in rules)
    return on_floor(spec.id) or (not is_optional(spec.id) if said is None else said)


def _first(judged: Sequence[_Judged], order: Callable[[_Judged], Any]) -> _Judged:
    """The first in that order. Skips the sort for one line: dump_line costs more than judging."""
    return judged[0] if len(judged) == 1 else min(judged, key=order)


def is_lenient(spec: CheckSpec, policy: Policy) -> bool:
    """Whether a rule of the policy lets a release pass although the check failed or was not seen."""
    rules = [rule for rule in policy.rules if rule.matches(spec.id)]
    severity = _last(r.severity for r in rules) or spec.severity
    noted = (_last(r.decides for r in rules) or BY_SEVERITY[severity]) is Effect.NOTE
    made_so = noted and BY_SEVERITY[spec.severity] is not Effect.NOTE
    return not on_floor(spec.id) and (made_so or _last(r.required for r in rules) is False)


def is_undecided(one: Assessed) -> bool:
    """Whether the check is unknown and allowed to be."""
    return one.outcome is Outcome.UNKNOWN and one.effect is Effect.NOTE and is_optional(one.spec.id)


def _worst_failure(spec: CheckSpec, failed: Sequence[_Judged], rules: Sequence[PolicyRule]) -> Assessed:
    """The failure with the gravest effect; among equals the first by text."""

    def weigh(one: _Judged) -> tuple[int, str]:
        return EFFECT_ORDER.index(_effect(spec, one.line, rules)), dump_line(one.line)

    first = _first(failed, weigh)
    severity = _severity(spec, first.line, rules)
    return Assessed(spec, Outcome.FAIL, severity, _effect(spec, first.line, rules), first.message, first.line)


def _severity(spec: CheckSpec, line: Evidence, rules: Sequence[PolicyRule]) -> Severity:
    own = Severity(line.severity) if line.severity else spec.severity
    return _last(r.severity for r in rules) or own


def _effect(spec: CheckSpec, line: Evidence, rules: Sequence[PolicyRule]) -> Effect:
    """The effect of a failure by the policy. On the floor it is at least a hold, and at least the check's own."""
    ruled = _last(r.decides for r in rules) or BY_SEVERITY[_severity(spec, line, rules)]
    own = Severity(line.severity) if line.severity else spec.severity
    return worst(ruled, BY_SEVERITY[own], Effect.HOLD) if on_floor(spec.id) else ruled


def _last(values: Iterable[T | None]) -> T | None:
    """The last value that is set: later rules of the policy win."""
    found: T | None = None
    for value in values:
        found = value if value is not None else found
    return found


def _judge(line: Evidence, rules: Sequence[PolicyRule], policy: Policy, now: dt.datetime) -> _Judged:
    doubt = distrust(line, policy, now)
    if doubt:
        return _Judged(Outcome.UNKNOWN, doubt, line)
    if line.outcome is Outcome.PASS:
        for rule in rules:
            outcome, message = _against_limit(line, rule)
            if outcome is not Outcome.PASS:
                return _Judged(outcome, message, line)
    return _Judged(line.outcome, line.message, line)


def distrust(line: Evidence, policy: Policy, now: dt.datetime) -> str:
    """Why the line proves nothing about this release now; empty if it does."""
    if policy.release and line.release != policy.release:
        found = line.release or "(not said)"
        return f"{DISTRUSTED}is of release {found}, not of {policy.release}. Run the gate on {policy.release}"
    try:
        seen_at = dt.datetime.fromisoformat(line.started_at)
        age = now - seen_at
    except (ValueError, TypeError):
        return f"{DISTRUSTED}does not say when it was seen ({line.started_at or 'no time'}). Run the gate again"
    if age < -CLOCK_TOLERANCE:
        return f"{DISTRUSTED}is from the future: a clock jumped. Correct it, and run the gate again"
    if age > dt.timedelta(minutes=policy.max_age_minutes):
        minutes = age.total_seconds() / 60
        return f"{DISTRUSTED}is {minutes:.0f} minutes old; allowed are {policy.max_age_minutes}. Run the gate again"
    return ""


def _against_limit(line: Evidence, rule: PolicyRule) -> tuple[Outcome, str]:
    if rule.below is None and rule.above is None:
        return Outcome.PASS, ""
    seen = number(line.observed)
    if seen is None:
        return Outcome.UNKNOWN, f"observed {line.observed!r}; the policy has a limit for it, so a number is needed"
    unit = f" {line.unit}" if line.unit else ""
    if rule.below is not None and not seen < rule.below:
        return Outcome.FAIL, f"observed {seen:g}{unit}; the policy allows less than {rule.below:g}"
    if rule.above is not None and not seen > rule.above:
        return Outcome.FAIL, f"observed {seen:g}{unit}; the policy allows more than {rule.above:g}"
    return Outcome.PASS, ""


def number(value: object) -> float | None:
    """The value as a finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
