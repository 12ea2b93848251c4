"""Writes alert rules for Prometheus: rules, queries for a PostgreSQL exporter, and unit tests for promtool."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from gates.deployment.dialect.current import named
from sql_checks.rulefile import AlertRule
from sql_checks.ruleproof import FLEET

NO_DATA_FOR = "15m"
SCENARIOS = ("on the limit", "beyond the limit", "too few samples")


def metric(rule: AlertRule, column: str) -> str:
    """The name of one column of a rule's query in Prometheus."""
    return f"replaygate_{rule.name.replace('-', '_')}_{column}"


def rules_yaml(rules: Sequence[AlertRule]) -> str:
    """The rule file: an alert for each limit, `no data` for each rule, a dead man's switch that always fires."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for rule in rules:
        groups.setdefault(rule.group, []).extend([*_alerts(rule), _no_data(rule)])
    groups["dead-man"] = [
        {
            "alert": "replaygate-dead-man",
            "expr": "vector(1)",
            "labels": {"severity": "none"},
            "annotations": {"summary": "Always fires. When it stops, alerting itself is broken."},
        }
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
    return f"{subject}: {value} {rule.unit} over {rule.window}. {rule.spec.cost}"


def _no_data(rule: AlertRule) -> dict[str, Any]:
    samples = f'{metric(rule, "samples")}{{subject="{FLEET}"}}'
    return {
        "alert": f"{rule.name}-no-data",
        "expr": f"absent({samples}) or {samples} < {rule.min_samples}",
        "for": NO_DATA_FOR,
        "labels": {"severity": "investigate", "check": rule.spec.id},
        "annotations": {"summary": f"Too few samples to judge: {rule.spec.claim}", "runbook_url": rule.runbook},
    }


def queries_yaml(rules: Sequence[AlertRule]) -> str:
    """Custom queries in the format of postgres_exporter; NULL and impossible values give no series."""
    found: dict[str, Any] = {}
    for rule in rules:
        found[f"replaygate_{rule.name.replace('-', '_')}"] = {
            "query": (
                "select subject,"
                f" case when value between {rule.low:g} and {rule.high:g} then value::float8 end as value,"
                f" coalesce(samples, 0)::float8 as samples from (\n{named(rule.query)}\n) q"
            ),
            "metrics": [
                {"subject": {"usage": "LABEL", "description": "all, or a company"}},
                {"value": {"usage": "GAUGE", "description": f"{rule.spec.claim} ({rule.unit})"}},
                {"samples": {"usage": "GAUGE", "description": "what the value rests on"}},
            ],
        }
    return _dump(found)


def unit_tests_yaml(rules: Sequence[AlertRule], rules_file: str) -> str:
    """Unit tests for promtool: on each limit quiet, beyond it firing after `for`, with too few samples quiet."""
    most = max(len(rule.limits) for rule in rules)
    tests = [_test(scenario, n, [r for r in rules if len(r.limits) > n]) for n in range(most) for scenario in SCENARIOS]
    return _dump({"rule_files": [rules_file], "evaluation_interval": "1m", "tests": tests})


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
