"""report.html: one self-contained file. Placeholder layout; see the template beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gates.evidence import JsonValue
from gates.reports.rows import Row
from gates.verdict import Verdict


def html(verdict: Verdict, rows: Sequence[Row], run: Mapping[str, JsonValue]) -> str:
    return f"<!doctype html><title>{verdict.decision}</title>"
