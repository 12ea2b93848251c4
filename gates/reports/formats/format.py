"""What a format of a report is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gates.evidence import JsonValue
from gates.reports.formats.rows import Row
from gates.verdict import Verdict

Render = Callable[[Verdict, Sequence[Row], Mapping[str, JsonValue]], str]
"""A pure function of the verdict, a row for each check, and run.json."""


@dataclass(frozen=True, slots=True)
class Format:
    """file: written by every run; empty where the text is only sent or printed."""

    name: str
    file: str
    render: Render
