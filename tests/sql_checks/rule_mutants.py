"""Mutants of an alert rule: each is one small mistake that the rule's fixtures must notice."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from gates.contract.fragments import expand
from sql_checks.rules.file import ALERTS, AlertRule
from sql_checks.rules.judge import RuleSample
from sql_checks.rules.proof import FLEET
from sql_checks.rules.run import Measurement

INTERVAL = re.compile(r"interval '(\d+) (\w+)'")
PREDICATE = re.compile(r"^(\s*)(and|where|or) (.+?)(\)?)$", re.IGNORECASE)

SHARED_TESTED_BY = "outbox-lag"
"""Fragments are mutated in one rule; in the others only what is their own."""


def text_of(rule: AlertRule) -> str:
    return rule.query if rule.name == SHARED_TESTED_BY else rule.source


def with_text(rule: AlertRule, text: str) -> AlertRule:
    return replace(rule, query=expand(text, (ALERTS / "fragments",)))


@dataclass(frozen=True)
class Mutant:
    """A mutated rule, or one whose measurement is changed before it is judged."""

    name: str
    rule: AlertRule
    change: Callable[[Measurement], Measurement] = lambda m: m


def mutants(rule: AlertRule) -> Iterator[Mutant]:
    """All mutants of a rule: operator, limits, predicates, grouping, windows, NULL as 0, minimum samples."""
    yield from _limit_mutants(rule)
    yield from _predicate_mutants(rule)
    yield from _window_mutants(rule)
    yield Mutant("NULL is 0", rule, _zeroed)
    yield Mutant("minimum samples 0", replace(rule, min_samples=0, min_samples_tenant=0))
    yield Mutant("any value is possible", replace(rule, low=float("-inf"), high=float("inf")))
    if "grouping" in rule.query:
        yield Mutant("grouping dropped", rule, _fleet_only)
    if "draining" in rule.query:
        yield Mutant("draining ignored", rule, lambda m: _each(m, draining=False))
        yield Mutant("always draining", rule, lambda m: _each(m, draining=True))
    if rule.stale_after_s is not None:
        yield Mutant("never stale", replace(rule, stale_after_s=None))


def _limit_mutants(rule: AlertRule) -> Iterator[Mutant]:
    yield Mutant("operator turned", replace(rule, above=not rule.above))
    for index, (severity, limit) in enumerate(rule.limits):
        inclusive = limit - 1e-9 if rule.above else limit + 1e-9
        for name, number in (
            ("inclusive", inclusive),
            ("beyond", max(limit * 2, limit + 1)),
            ("halved", limit / 2 - 1e-6),
        ):
            limits = list(rule.limits)
            limits[index] = (severity, number)
            yield Mutant(f"{severity} limit {name}", replace(rule, limits=tuple(limits)))


def _predicate_mutants(rule: AlertRule) -> Iterator[Mutant]:
    """Each line that is a whole predicate is removed once."""
    lines = text_of(rule).splitlines()
    for index, line in enumerate(lines):
        match = PREDICATE.match(line)
        if not match or line.count("(") != line.count(")") or line.lstrip().startswith("--"):
            continue
        neutral = {"and": "and true", "where": "where true", "or": "or false"}[match.group(2).lower()]
        mutated = [*lines[:index], match.group(1) + neutral, *lines[index + 1 :]]
        yield Mutant(f"without `{line.strip()}`", with_text(rule, "\n".join(mutated)))


def _window_mutants(rule: AlertRule) -> Iterator[Mutant]:
    for number, match in enumerate(INTERVAL.finditer(text_of(rule))):
        longer = f"interval '{int(match.group(1)) * 10} {match.group(2)}'"
        text = text_of(rule)
        text = text[: match.start()] + longer + text[match.end() :]
        yield Mutant(f"window {number} ({match.group(0)}) tenfold", with_text(rule, text))


def _each(measured: Measurement, **changes: object) -> Measurement:
    return replace(measured, samples=tuple(replace(s, **changes) for s in measured.samples))  # type: ignore[arg-type]


def _zeroed(measured: Measurement) -> Measurement:
    def zeroed(sample: RuleSample) -> RuleSample:
        return replace(sample, value=sample.value or 0.0)

    return replace(measured, samples=tuple(map(zeroed, measured.samples)))


def _fleet_only(measured: Measurement) -> Measurement:
    return replace(measured, samples=tuple(s for s in measured.samples if s.subject == FLEET))
