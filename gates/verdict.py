"""The verdict: the decision, its reason in one sentence, the findings that decided, the action, the margin."""

from __future__ import annotations

import enum
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from gates.contract.scope import WHOLE, Scope
from gates.evidence import JsonValue, members_of, typed
from gates.text import characters
from gates.text.quantity import shown, with_unit


class Decision(enum.StrEnum):
    """May this release go to the next rollout step?"""

    PROMOTE = "promote"
    HOLD = "hold"
    ROLLBACK = "rollback"

    @property
    def exit_code(self) -> int:
        """0 promote, 10 hold, 20 rollback."""
        return {Decision.PROMOTE: 0, Decision.HOLD: 10, Decision.ROLLBACK: 20}[self]


class Effect(enum.StrEnum):
    """What a finding does to the decision."""

    ROLLBACK = "rollback"
    HOLD = "hold"
    NOTE = "note"
    WAIVED = "waived"


EFFECT_ORDER = (Effect.ROLLBACK, Effect.HOLD, Effect.NOTE, Effect.WAIVED)


@dataclass(frozen=True, slots=True)
class Finding:
    """A check that did not pass, and its effect on the decision. ends_when: what would end the hold, if known. symptom:
    what several checks see of one cause, such as a status 500 or a wrong charge.
    """

    check: str
    outcome: str
    severity: str
    effect: Effect
    message: str = ""
    observed: JsonValue = None
    limit: JsonValue = None
    unit: str = ""
    samples: int = 0
    witness: JsonValue = None
    reproduce: str = ""
    blocked_by: str = ""
    ends_when: str = ""
    symptom: str = ""

    @property
    def said(self) -> str:
        """What was seen, in words: the message, else the numbers."""
        if self.message:
            return self.message
        return f"observed {with_unit(self.observed, self.unit)}, allowed {with_unit(self.limit, self.unit)}"

    def to_json(self) -> dict[str, JsonValue]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Finding:
        """A finding of verdict.json; `behind` is counted again. Raise KeyError, TypeError or ValueError."""
        members = {name: value for name, value in data.items() if name != "behind"}
        return cls(**{**members, "effect": Effect(data["effect"])})


@dataclass(frozen=True, slots=True)
class Exempt:
    """A check that is not applicable here, and why."""

    check: str
    reason: str


@dataclass(frozen=True, slots=True)
class NotRequired:
    """A check that the policy does not require. by: `gate.yaml`, `waived`, or `undecided` for a check that may be
    unknown (gates.decision.floor.OPTIONAL) and was.
    """

    check: str
    by: str


def not_required_text(spared: Sequence[NotRequired]) -> str:
    """How many checks the policy does not require, and by what; empty if it requires all."""
    by = Counter(s.by for s in spared)
    parts = [f"{with_unit(by['gate.yaml'], 'checks')} by gate.yaml"] * bool(by["gate.yaml"])
    parts += [f"{by['waived']} waived"] * bool(by["waived"])
    parts += [f"{with_unit(by[UNDECIDED], 'checks')} of cohorts, which saw too little"] * bool(by[UNDECIDED])
    return f"not required: {', '.join(parts)}" if parts else ""


@dataclass(frozen=True, slots=True)
class StageResult:
    """The result of a stage that was run alone: `passed`, `failed` or `unknown`."""

    name: str
    result: str


@dataclass(frozen=True, slots=True)
class Margin:
    """The nearest limit. room: the share of it that was left, from 0 (at the limit) to 1."""

    check: str
    observed: float
    limit: float
    unit: str
    room: float

    @property
    def sentence(self) -> str:
        limit = with_unit(float(self.limit), self.unit)
        return f"nearest limit: {self.check} {shown(float(self.observed))} of {limit} ({self.room * 100:.0f} % left)"


@dataclass(frozen=True, slots=True)
class Counts:
    """How many checks have each outcome. Not applicable ones are in no other count."""

    passed: int = 0
    failed: int = 0
    unknown: int = 0
    not_applicable: int = 0

    def to_json(self) -> dict[str, JsonValue]:
        return {{"passed": "pass", "failed": "fail"}.get(k, k): v for k, v in members_of(self).items()}


GOES_ON = ("done", "dry_run", "nothing_to_do", "baking")
"""Results of an action that need not hold a promotion."""
SETTLED = (*GOES_ON[:3], "pending")
"""Results after which nothing that was ordered remains to be done, or nothing was tried yet."""
FLAG_STANDS = {"on": "THE FLAG IS STILL ON", "unknown": "THE FLAG MAY STILL BE ON"}
SUPERSEDED = "superseded"
"""The result of a rollback that came too late: its order holds no longer, so nothing is to be done by hand either."""
PAUSE = "pause all agents"
PAUSE_STANDS = {"failed": "THE AGENTS ARE NOT PAUSED", "unknown": "THE AGENTS MAY NOT BE PAUSED"}
NOT_ROLLED_BACK = 21
UNDECIDED = "undecided"
"""Why a check is not required: it compares cohorts, and saw too little to decide."""
BESIDE = {"fail": "also failed", "unknown": "also unknown"}
"""Outcome -> what reports call a finding that decided nothing, in the order of the report."""


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """One part of an action. result: `done`, `failed`, or `unknown` if it could not be read back."""

    name: str
    result: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Action:
    """What was done about the flag.

    kind: `none`, `promote`, `rollback` or `emergency`. from_percent, to_percent: the global row's rollout before and
    after (0 for off), None if unknown. result: one of `done`, `dry_run`, `nothing_to_do`, `baking`, `busy`, `changed`,
    `unknown`, `off`, `override`, `unexplained`, `not_possible`, `refused`, `failed`, `superseded`, `pending`. holds:
    whether a promotion with this result is a hold. recovery: what was proved after a rollback. flag: how it was read
    back after a rollback, on a new connection (`off`, `on`, `unknown`). by_hand: the SQL for what was not done. steps:
    the result of each part of an emergency.
    """

    kind: str = "none"
    from_percent: int | None = None
    to_percent: int | None = None
    result: str = "pending"
    message: str = ""
    holds: bool = False
    recovery: dict[str, JsonValue] = field(default_factory=dict)
    flag: str = ""
    by_hand: str = ""
    steps: tuple[StepOutcome, ...] = ()

    @property
    def headline(self) -> str:
        """Says that an ordered rollback was not carried out; empty otherwise."""
        paused = next((s.result for s in self.steps if s.name == PAUSE), "")
        return FLAG_STANDS.get(self.flag) or PAUSE_STANDS.get(paused, "")

    def to_json(self) -> dict[str, JsonValue]:
        members = {**members_of(self), "steps": [asdict(s) for s in self.steps]}
        return {name.removesuffix("_percent"): value for name, value in members.items()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Action:
        """Read what `to_json` wrote. Raise KeyError, TypeError or ValueError for anything else."""
        needed = [data[name] for name in ("kind", "from", "to", "result", "message", "holds", "recovery")]
        steps = tuple(typed(StepOutcome(**s)) for s in data.get("steps", ()))
        return typed(replace(cls(*needed), flag=data.get("flag", ""), by_hand=data.get("by_hand", ""), steps=steps))


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict. `to_json` has the members that pipelines rely on, and more for people."""

    decision: Decision
    reason: str
    release: str = ""
    target: str = ""
    started_at: str = ""
    finished_at: str = ""
    policy_digest: str = ""
    counts: Counts = Counts()
    findings: tuple[Finding, ...] = ()
    not_applicable: tuple[Exempt, ...] = ()
    action: Action = field(default_factory=Action)
    margin: Margin | None = None
    ends_when: tuple[str, ...] = ()
    not_required: tuple[NotRequired, ...] = ()
    login: str = ""
    """Warnings about the gate's setup: a login with more rights than it needs, or a company that does not exist."""
    stage: StageResult | None = None
    contract: Scope = WHOLE
    areas_seen: tuple[str, ...] = ()
    """The claimed areas of which a check passed or failed."""

    @property
    def outcome(self) -> str:
        """The decision; for a stage that was run alone, its result, since a stage is no gate."""
        return self.decision.value if self.stage is None else f"{self.stage.name} stage {self.stage.result}"

    @property
    def title(self) -> str:
        """The outcome, and the part of the contract that it is about; without that part if it is all of it."""
        return ", ".join(filter(None, (self.outcome, self.contract.text)))

    @property
    def shown_as(self) -> Decision:
        """The decision whose colour the title gets: a passed stage is as green as a promote."""
        if self.stage is None:
            return self.decision
        if any(f.effect is Effect.ROLLBACK for f in self.findings):
            return Decision.ROLLBACK
        return Decision.PROMOTE if self.stage.result == "passed" else Decision.HOLD

    @property
    def headline(self) -> str:
        """Says that an ordered rollback was not carried out; empty otherwise."""
        went_up = self.action.kind == Decision.PROMOTE  # in a record that somebody changed
        if self.decision is not Decision.ROLLBACK or (self.action.result in SETTLED and not went_up):
            return ""
        return self.action.headline or FLAG_STANDS["unknown"]

    @property
    def exit_code(self) -> int:
        """The exit code of the decision, or 21 if a rollback could not be carried out. For a stage: 0 passed, 20 if it
        failed so that a whole run would roll back, 10 anything else.
        """
        return NOT_ROLLED_BACK if self.headline else self.shown_as.exit_code

    def exit_code_unless(self, spared: str | None) -> int:
        """The exit code, but 0 for a hold if that is `spared` (--exit-zero-on)."""
        return 0 if spared == "hold" and self.exit_code == Decision.HOLD.exit_code else self.exit_code

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader should know beside the reason: the gate's setup, what is not required, the nearest limit. The
        nearest limit is left out if another one was broken.
        """
        failed = any(f.outcome == "fail" for f in self.deciding)
        margin = self.margin.sentence if self.margin is not None and not failed else ""
        return tuple(filter(None, (self.contract.let_go, self.login, not_required_text(self.not_required), margin)))

    @property
    def deciding(self) -> tuple[Finding, ...]:
        """The findings that made the decision, causes only: what they block is left out."""
        effect = {Decision.ROLLBACK: Effect.ROLLBACK, Decision.HOLD: Effect.HOLD}.get(self.shown_as)
        return tuple(f for f in self.findings if f.effect is effect and not f.blocked_by)

    def beside(self, outcome: str) -> list[tuple[Finding, ...]]:
        """Findings that failed or are unknown without deciding anything, by cause. They are easily overlooked."""
        decided = {f.check for f in self.deciding}
        return grouped(
            [f for f in self.findings if f.outcome == outcome and not f.blocked_by and f.check not in decided]
        )

    def behind(self, group: Sequence[Finding]) -> int:
        """How many checks could not be carried out because of these."""
        blocked = blocked_by_cause(self.findings)
        return sum(blocked[f.check] for f in group)

    def to_json(self) -> dict[str, JsonValue]:
        blocked = blocked_by_cause(self.findings)
        margin: dict[str, JsonValue] | None = None
        if self.margin is not None:
            margin = {**asdict(self.margin), "sentence": self.margin.sentence}
        return {
            "decision": self.decision.value,
            "reason": self.reason,
            "release": self.release,
            "target": self.target,
            "started_at": self.started_at,
            "finished_at": self.finished_at,
            "policy_digest": self.policy_digest,
            "counts": self.counts.to_json(),
            "findings": [{**f.to_json(), "behind": blocked[f.check]} for f in self.findings],
            "not_applicable": [asdict(n) for n in self.not_applicable],
            "action": self.action.to_json(),
            "margin": margin,
            "ends_when": list(self.ends_when),
            "not_required": [asdict(s) for s in self.not_required],
            "login": self.login,
            "contract": {**self.contract.to_json(), "seen": list(self.areas_seen)},
            **({} if self.stage is None else {"stage": asdict(self.stage)}),
        }

    def dump(self) -> str:
        """The text of verdict.json, inert wherever it is printed; the same verdict gives the same bytes."""
        text = json.dumps(self.to_json(), ensure_ascii=False, indent=2, allow_nan=False)
        return characters.without_commands(characters.document(text)) + "\n"


def blocked_by_cause(findings: Sequence[Finding]) -> Counter[str]:
    """How many findings each cause blocks, directly or indirectly."""
    blocker = {f.check: f.blocked_by for f in findings if f.blocked_by}
    counts: Counter[str] = Counter()
    for check, cause in blocker.items():
        passed = {check}
        first = cause
        while first in blocker and first not in passed:
            passed.add(first)
            first = blocker[first]
        counts[first] += 1
    return counts


def behind_text(count: int) -> str:
    """How many checks a cause blocks, in words."""
    return f"one cause, {count} check{'s' * (count != 1)} behind it"


def grouped(findings: Sequence[Finding]) -> list[tuple[Finding, ...]]:
    """The findings in their order, but those with the same reason or symptom together."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for one in findings:
        alike = ("unknown", one.message) if one.outcome == "unknown" and one.message else ("", one.check)
        alike = ("symptom", one.symptom) if one.symptom else alike
        groups.setdefault(alike, []).append(one)
    return [tuple(group) for group in groups.values()]


def named(group: Sequence[Finding], behind: int = 0) -> str:
    """The checks of a group in a few words; behind: how many more it blocks. Of unknowns that share a reason alone,
    none is the cause.
    """
    first, count = group[0].check, len(group) + behind
    if len(group) > 1 and group[0].outcome == "unknown" and not group[0].symptom:
        return f"{count} checks, like {first}"
    return f"{first} and {count - 1} more" if count > 1 else first


def settle(verdict: Verdict, action: Action, started_at: str, finished_at: str) -> Verdict:
    """The verdict after the action. A promotion that was not carried out becomes a hold; a dry run of another action
    than the decision's counts as none.
    """
    decision, reason, ends = verdict.decision, verdict.reason, verdict.ends_when
    if action.result == "dry_run" and action.kind in set(Decision) - {decision}:
        action = Action(result="nothing_to_do")
    if decision is Decision.PROMOTE and (action.holds or action.kind not in {"none", decision}):
        why = action.message or f"what was done is a {action.kind}"
        decision, reason, ends = Decision.HOLD, f"the checks passed, but {why}", (*ends, why)
    elif action.message:
        reason = f"{reason}; {action.message}"
    return replace(
        verdict,
        decision=decision,
        reason=reason,
        action=action,
        started_at=started_at,
        finished_at=finished_at,
        ends_when=ends,
    )
