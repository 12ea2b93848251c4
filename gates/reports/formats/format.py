"""What a format of a report is, and what it is made from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gates.decision.rules import RolloutPlan
from gates.evidence import Evidence, JsonValue
from gates.reports.formats.rows import Row
from gates.verdict import Verdict


@dataclass(frozen=True, slots=True)
class ReportSource:
    """The verdict, a row for each check, run.json, and the evidence."""

    verdict: Verdict
    rows: Sequence[Row]
    run: Mapping[str, JsonValue]
    evidence: Sequence[Evidence] = ()

    @property
    def promises(self) -> dict[str, str]:
        """Check -> its claim and what a failure costs."""
        return {row.check: row.promise for row in self.rows}

    @property
    def plan(self) -> RolloutPlan:
        """The rollout plan of the run's policy; the default one if run.json has none."""
        policy: Any = self.run.get("policy")
        if not isinstance(policy, dict) or "rollout" not in policy:
            return RolloutPlan()
        return RolloutPlan.of(policy["rollout"])


Render = Callable[[ReportSource], str]


@dataclass(frozen=True, slots=True)
class Format:
    """file: the name of the file that every run writes; empty if the text is only sent or printed."""

    name: str
    file: str
    render: Render
