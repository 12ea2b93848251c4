"""Writes alert rules for Prometheus: rules, queries for a PostgreSQL exporter, and unit tests for promtool."""

from collections.abc import Sequence
from typing import Any

import yaml

from gates.deployment.dialect.current import named
from sql_checks.rules.file import AlertRule, within
from sql_checks.rules.judge import FUTURE_S
from sql_checks.rules.proof import FLEET

NO_DATA_MINUTES = 15
TARGET_GONE = "replaygate-target-gone"
SCENARIOS = ("on the limit", "beyond the limit", "too few samples")


def metric(rule: AlertRule, column: str) -> str:
    """The name of one column of a rule's query in Prometheus."""
    return f"replaygate_{rule.name.replace('-', '_')}_{column}"


def rules_yaml(rules: Sequence[AlertRule]) -> str:
    """The rule file: an alert for each limit, `no data` for each rule, one for targets of which fewer are there than
    within the last day, a dead man's switch that always fires.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for rule in rules:
        groups.setdefault(rule.group, []).extend([*_alerts(rule), _no_data(rule)])
    groups["dead-man"] = [
        {
            "alert": "replaygate-dead-man",
            "expr": "vector(1)",
            "labels": {"severity": "none"},
            "annotations": {"summary": "Always fires. When it stops, alerting itself is broken."},
        },
        _target_gone(rules[0]),
    ]
    return _dump({"groups": [{"name": name, "rules": alerts} for name, alerts in groups.items()]})


def _expression(rule: AlertRule, limit: float) -> str:
    sign = ">" if rule.above else "<"
    value, samples = metric(rule, "value"), metric(rule, "samples")
    fleet = f'({value}{{subject="{FLEET}"}} {sign} {limit:g} and {samples}{{subject="{FLEET}"}} >= {rule.min_samples})'
    other = f'{{subject!="{FLEET}"}}'
    return f"{fleet} or ({value}{other} {sign} {limit:g} and {samples}{other} >= {rule.min_samples_tenant})"


def _alerts(rule: AlertRule) -> list[dict[str, Any]]:
    return [
        {
            "alert": f"{rule.name}-{severity.value}",
            "expr": _expression(rule, limit),
            "for": f"{rule.for_s}s",
            "labels": {"severity": severity.value, "check": rule.spec.id},
            "annotations": {
                "summary": rule.spec.claim,
                "description": _description(rule, "{{ $labels.subject }}", "{{ $value }}"),
                "runbook_url": rule.runbook,
            },
        }
        for severity, limit in rule.limits
    ]


def _description(rule: AlertRule, subject: str, value: str) -> str:
    return f"{subject}: {value} {rule.unit} {within('over', rule.window)}. {rule.spec.cost}"


def _no_data(rule: AlertRule) -> dict[str, Any]:
    """Whether no limit can be applied: no row, too few samples, no number (NaN does not equal itself)."""
    return {
        "alert": f"{rule.name}-no-data",
        "expr": (
            f"absent({_samples(rule)}) or ({_samples(rule)} unless ({_samples(rule)} >= {rule.min_samples} and"
            f" {_number(rule)})) or ({_samples(rule, '!=')} >= {rule.min_samples_tenant} unless {_number(rule, '!=')})"
        ),
        "for": f"{NO_DATA_MINUTES}m",
        "labels": {"severity": "investigate", "check": rule.spec.id},
        "annotations": {"summary": f"Nothing to judge by: {rule.spec.claim}", "runbook_url": rule.runbook},
    }


def _target_gone(rule: AlertRule) -> dict[str, Any]:
    """One rule's series stand for all rules of a target; `absent` cannot tell that one of several targets is gone."""
    there = f"count by (job) ({_samples(rule)})"
    return {
        "alert": TARGET_GONE,
        "expr": f"max_over_time({there}[1d:1m]) > {there}",
        "for": f"{NO_DATA_MINUTES}m",
        "labels": {"severity": "investigate"},
        "annotations": {"summary": "Fewer targets show the figures of the rules than within the last day."},
    }


def _samples(rule: AlertRule, sign: str = "=") -> str:
    """The series of the fleet; with `!=` those of the tenants."""
    return f'{metric(rule, "samples")}{{subject{sign}"{FLEET}"}}'


def _number(rule: AlertRule, sign: str = "=") -> str:
    value = f'{metric(rule, "value")}{{subject{sign}"{FLEET}"}}'
    return f"{value} == {value}"


def queries_yaml(rules: Sequence[AlertRule]) -> str:
    """Custom queries in the format of postgres_exporter, which turns NULL into NaN. NULL stands for a value that proves
    nothing: an impossible one, or one of stale or future rows.
    """
    found: dict[str, Any] = {}
    for rule in rules:
        fresh = "" if rule.stale_after_s is None else f" and newest >= now() - interval '{rule.stale_after_s} seconds'"
        found[f"replaygate_{rule.name.replace('-', '_')}"] = {
            "query": (
                "select subject,"
                f" case when value between {rule.low:g} and {rule.high:g} and coalesce(newest <= now() + interval"
                f" '{FUTURE_S} seconds'{fresh}, true) then value::float8 end as value,"
                f" coalesce(samples, 0)::float8 as samples from (\n{named(rule.query)}\n) q"
            ),
            "metrics": [
                {"subject": {"usage": "LABEL", "description": "all, or a company"}},
                {"value": {"usage": "GAUGE", "description": f"{rule.spec.claim} ({rule.unit})"}},
                {"samples": {"usage": "GAUGE", "description": "what the value rests on"}},
            ],
        }
    return _dump(found)


def unit_tests_yaml(rules: Sequence[AlertRule]) -> str:
    """Unit tests for promtool: on each limit quiet, beyond it firing after `for`, with too few samples quiet; what is
    not a number is `no data`.
    """
    most = max(len(rule.limits) for rule in rules)
    tests = [_test(scenario, n, [r for r in rules if len(r.limits) > n]) for n in range(most) for scenario in SCENARIOS]
    tests += [_no_data_test(subject, number, rules) for subject in (FLEET, "a tenant") for number in ("0", "NaN", "_")]
    tests += [_target_test(rules[0], ends) for ends in ("1x60", "1x20 stale")]
    return _dump({"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": tests})


def _test(scenario: str, index: int, rules: Sequence[AlertRule]) -> dict[str, Any]:
    """One scenario for the limit number `index` of all rules at once; the time is the longest `for` and a bit."""
    minutes = max(rule.for_s for rule in rules) // 60 + 2
    series: list[dict[str, str]] = []
    alerts: list[dict[str, Any]] = []
    for rule in rules:
        severity, limit = rule.limits[index]
        beyond = limit + 1 if rule.above else limit / 2
        value = limit if scenario == "on the limit" else beyond
        samples = rule.min_samples - 1 if scenario == "too few samples" else rule.min_samples
        series += [
            {"series": f'{metric(rule, column)}{{subject="{FLEET}"}}', "values": f"{number:g}x{minutes}"}
            for column, number in (("value", value), ("samples", float(samples)))
        ]
        expected = [_expected(rule, severity.value, value)] if scenario == "beyond the limit" else []
        alerts.append(
            {"eval_time": f"{minutes}m", "alertname": f"{rule.name}-{severity.value}", "exp_alerts": expected}
        )
    return {
        "name": f"{scenario}, limit {index + 1}",
        "interval": "1m",
        "input_series": series,
        "alert_rule_test": alerts,
    }


def _no_data_test(subject: str, number: str, rules: Sequence[AlertRule]) -> dict[str, Any]:
    """The fleet has the value 0, a subject another one (`_`: none): where that is no number, there is no data."""
    minutes = NO_DATA_MINUTES + 1
    series: list[dict[str, str]] = []
    alerts: list[dict[str, Any]] = []
    for rule in rules:
        values = {FLEET: "0", subject: number}
        samples = {subject: f"{rule.min_samples_tenant}", FLEET: f"{rule.min_samples}"}
        series += [
            {"series": f'{metric(rule, column)}{{subject="{name}"}}', "values": " ".join([one] * (minutes + 1))}
            for column, said in (("value", values), ("samples", samples))
            for name, one in said.items()
        ]
        alert = _no_data(rule)
        expected = {"exp_labels": {**alert["labels"], "subject": subject}, "exp_annotations": alert["annotations"]}
        alerts.append(
            {"eval_time": f"{minutes}m", "alertname": alert["alert"], "exp_alerts": [] if number == "0" else [expected]}
        )
    return {
        "name": f"{subject} with the value {number}",
        "interval": "1m",
        "input_series": series,
        "alert_rule_test": alerts,
    }


def _target_test(rule: AlertRule, ends: str) -> dict[str, Any]:
    """Two targets: one goes on, and the series of the other end this way."""
    alert, series = _target_gone(rule), _samples(rule).removesuffix("}")
    gone = {"exp_labels": {**alert["labels"], "job": "db"}, "exp_annotations": alert["annotations"]}
    return {
        "name": f"two targets, one with {ends}",
        "interval": "1m",
        "input_series": [
            {"series": f'{series}, job="db", instance="{name}"}}', "values": values}
            for name, values in (("a", "1x60"), ("b", ends))
        ],
        "alert_rule_test": [
            {"eval_time": "50m", "alertname": TARGET_GONE, "exp_alerts": [gone] if "stale" in ends else []}
        ],
    }


def _expected(rule: AlertRule, severity: str, value: float) -> dict[str, Any]:
    return {
        "exp_labels": {"severity": severity, "check": rule.spec.id, "subject": FLEET},
        "exp_annotations": {
            "summary": rule.spec.claim,
            "description": _description(rule, FLEET, f"{value:.6g}"),
            "runbook_url": rule.runbook,
        },
    }


def _dump(value: Any) -> str:
    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120)
    return "# Generated: do not edit.\n" + text
