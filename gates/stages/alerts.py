"""The alert stage: every alert rule, evaluated now."""

from __future__ import annotations

from gates.stages.context import Context, StageReport
from gates.stages.sql import ALERTS, sql


def alerts(context: Context) -> list[StageReport]:
    """Evaluate the alert rules."""
    return sql(context, ALERTS, name="alerts")
