"""Judges what a rule's query saw. Pure: rows, limits and a clock in, a judgement out.

There is no way to `pass` but an observation: no row, NULL, NaN, too few samples, stale or impossible values are
unknown.
"""

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from gates.decision.dependence import spread, together
from gates.evidence import Outcome, Severity
from gates.text.quantity import with_unit
from sql_checks.rules.file import AlertRule, within
from sql_checks.rules.proof import FLEET, Count, floor_of, is_chance, is_sound, needed, needed_for_sound, proved

CLEARLY = 1.5
"""A message says that samples fail together where so many are worth one, or more."""
FUTURE_S = 60
"""Clocks differ by seconds; a newest row this far ahead of the database clock was written with another unit or zone."""


@dataclass(frozen=True, slots=True)
class RuleSample:
    """One row of a rule's query: a value of the fleet (`all`) or of one tenant, with what it rests on.

    bad: how many of the samples are beyond the paging limit, for rules that are judged by that share.
    groups, bad_groups: where samples may fail together, into how many groups they fall, and how many of those have a
    bad one.
    """

    subject: str
    value: float | None
    samples: int
    newest: dt.datetime | None = None
    witness: str = ""
    draining: bool = False
    bad: int | None = None
    groups: int = 0
    bad_groups: int = 0

    @property
    def counted(self) -> Count:
        """Its samples, in independent ones where they fail together."""
        bad = self.bad or 0
        return Count(bad, self.samples, together(bad, self.samples, self.groups, self.bad_groups))


@dataclass(frozen=True, slots=True)
class RuleResult:
    """The result of a rule. `severity` and `limit` are those of the worst limit that was broken.

    samples_needed: with how many samples the same share would be proof, where it is none yet.
    """

    outcome: Outcome
    message: str
    sample: RuleSample | None = None
    severity: Severity | None = None
    limit: float | None = None
    broken: int = 0
    samples_needed: int | None = None


Breach = tuple[tuple[Severity, float], RuleSample]
"""The worst limit that a row breaks, and the row."""


def judge(rule: AlertRule, samples: Sequence[RuleSample], now: dt.datetime) -> RuleResult:
    """Judge a rule by the numbers as seen, as an exported rule does."""
    return _judge(rule, samples, now, prove=False)


def judge_proved(rule: AlertRule, samples: Sequence[RuleSample], now: dt.datetime) -> RuleResult:
    """Judge likewise, but let only a proved breach page; one that may be chance is a warning."""
    return _judge(rule, samples, now, prove=rule.allowed_bad is not None)


def _judge(rule: AlertRule, samples: Sequence[RuleSample], now: dt.datetime, *, prove: bool) -> RuleResult:
    fleets = [s for s in samples if s.subject == FLEET]
    if len(fleets) != 1:
        return RuleResult(Outcome.UNKNOWN, f"{len(fleets)} rows for the fleet were observed, exactly 1 is needed")
    fleet = fleets[0]
    doubts = {s.subject: _doubt(rule, s, now) for s in samples}
    breaches = [(found, s) for s in samples if not doubts[s.subject] and (found := _broken(rule, s))]
    if breaches:
        worst = _proving(rule, breaches, samples, doubts) if prove else _firing(rule, breaches)
        if worst:
            return worst
    if doubts[FLEET]:
        return RuleResult(Outcome.UNKNOWN, doubts[FLEET], fleet)
    wrong = [s for s in samples if doubts[s.subject] and s.samples >= rule.min_samples_tenant]
    if wrong:
        return RuleResult(Outcome.UNKNOWN, f"{wrong[0].subject}: {doubts[wrong[0].subject]}", wrong[0])
    if prove and (lack := _lack(rule, fleet, _fleet_count(fleet, samples))):
        return lack
    chance = (
        f"{len(breaches)} tenants are over the limit, as chance has it in a fleet that keeps it" if breaches else ""
    )
    return RuleResult(Outcome.PASS, chance, fleet, limit=rule.limits[0][1])


def _lack(rule: AlertRule, fleet: RuleSample, count: Count) -> RuleResult | None:
    """Why a fleet that keeps its limit has too few samples to pass; else empty.

    A rule of two windows may keep its limit by the other window; then these samples did not decide.
    """
    allowed = rule.allowed_bad or 0.0
    if count.bad > allowed * count.samples or is_sound(count, allowed):
        return None
    enough = needed_for_sound(count, allowed)
    message = (
        f"{rule.name}: {count.bad} of {count.samples} samples are bad, which keeps the limit ({allowed:.3g}), but so"
        f" few may be chance where the true share is {floor_of(allowed):.2g}; {enough} samples would tell. Wait, and"
        " run again"
    )
    return RuleResult(Outcome.UNKNOWN, message, fleet, samples_needed=enough - fleet.samples)


def _fleet_count(fleet: RuleSample, samples: Sequence[RuleSample]) -> Count:
    """Also tenants that have too few samples to be judged show how much tenants differ."""
    apart = spread((s.bad or 0, s.samples) for s in samples if s.subject != FLEET)
    return replace(fleet.counted, weight=max(apart, fleet.counted.weight))


def _doubt(rule: AlertRule, sample: RuleSample, now: dt.datetime) -> str:
    """Why this row proves nothing, or an empty string."""
    needed = rule.min_samples if sample.subject == FLEET else rule.min_samples_tenant
    if sample.samples < needed:
        window = rule.samples_window or rule.window
        return f"{with_unit(sample.samples, 'samples')} observed {within('in', window)}, at least {needed} needed"
    if sample.value is None or math.isnan(sample.value):
        return "the query gave no number"
    if not rule.low <= sample.value <= rule.high:
        return (
            f"{_short(sample.value)} {rule.unit} is impossible; allowed: {rule.low:g} to {rule.high:g}: a wrong unit?"
        )
    if sample.newest is None:
        return ""
    age_s = (now - sample.newest).total_seconds()
    if age_s < -FUTURE_S:
        return f"the newest row is {-age_s:.0f} s in the future: a wrong clock, zone or unit?"
    if rule.stale_after_s is not None and age_s > rule.stale_after_s:
        return f"the newest row is {age_s:.0f} s old, at most {rule.stale_after_s} s are allowed: stale"
    return ""


def _broken(rule: AlertRule, sample: RuleSample) -> tuple[Severity, float] | None:
    """The worst limit that the row breaks. A value on the limit keeps it."""
    value = sample.value or 0.0
    for severity, limit in rule.limits:
        if (value > limit) if rule.above else (value < limit):
            return severity, limit
    return None


def _firing(rule: AlertRule, breaches: Sequence[Breach]) -> RuleResult:
    """The worst breach: by severity, then by distance from the limit."""
    order = [severity for severity, _ in rule.limits]

    def rank(breach: Breach) -> tuple[int, float]:
        (severity, _), sample = breach
        value = sample.value or 0.0
        return order.index(severity), -value if rule.above else value

    (severity, limit), sample = min(breaches, key=rank)
    sign = ">" if rule.above else "<"
    message = (
        f"{rule.name} of {sample.subject}: {_short(sample.value)} {rule.unit} observed {within('over', rule.window)},"
        f" {sign} {limit:g} {rule.unit} is {severity}; {with_unit(sample.samples, 'samples')};"
        f" {sample.witness}. See {rule.runbook}"
    )
    if sample.draining and severity is Severity.PAGE:
        # a large backlog that only falls is a working system: neither promote nor roll back
        severity, message = Severity.WARN, f"{message}. The backlog is falling: wait until it is gone"
    return RuleResult(Outcome.FAIL, message, sample, severity, limit, len(breaches))


def _proving(
    rule: AlertRule, breaches: Sequence[Breach], samples: Sequence[RuleSample], doubts: Mapping[str, str]
) -> RuleResult | None:
    """The worst breach that is proved; where none is, a warning about the worst; None where chance explains them."""
    allowed = rule.allowed_bad or 0.0
    counts = {
        s.subject: _fleet_count(s, samples) if s.subject == FLEET else s.counted
        for s in samples
        if not doubts[s.subject]
    }
    sure = proved(counts, allowed)
    certain = [b for b in breaches if b[0][0] is not Severity.PAGE or b[1].subject in sure]
    if not certain and is_chance(len(breaches), counts, allowed):
        return None
    found = _firing(rule, certain or breaches)
    if found.severity is not Severity.PAGE or found.sample is None or found.sample.subject in sure:
        return found
    count = counts[found.sample.subject]
    more = needed(count, len(counts), allowed)
    wait = f"{more} samples would tell" if more else "no number of samples would tell"
    worth = f", which fail together: {count.weight:.2g} are worth one" if count.weight >= CLEARLY else ""
    message = (
        f"{found.message}. That may be chance: {count.bad} of {count.samples} samples are bad{worth}, {allowed:.0%} may"
        f" be, and {len(counts)} subjects were looked at; at this share {wait}"
    )
    return replace(found, severity=Severity.WARN, message=message, samples_needed=more and more - count.samples)


def _short(value: float | None) -> str:
    return "NULL" if value is None else f"{value:.6g}"
