"""The release policy as data: what gate.yaml says, with the catalogue of checks. Nothing here decides."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

from gates.contract.scope import WHOLE, Scope
from gates.decision.cohorts import CohortLimits
from gates.decision.floor import EVERY_FLOOR
from gates.evidence import CheckSpec, JsonValue, Severity, TargetKind, Where, typed
from gates.text.patterns import matches
from gates.verdict import EFFECT_ORDER, Effect

QUEUE_STAGE = ("queue/proof/", "queue/load/")
"""Checks of queues that are no alert rules: they are made between the two looks at the data."""
QUEUE_LAG = ("queue/lag", "queue/oldest-age", "queue/backlog")
LAG = ("load/outbox_lag_ms/*", "alert/outbox-lag*", "alert/pending-outbox", "cohort/lag-*", *QUEUE_LAG)
UNWAIVABLE = ("preflight/*", *EVERY_FLOOR)
"""Checks that no policy can waive: the floor, and the preflight, which tells what the gate looks at."""

BY_SEVERITY = {Severity.PAGE: Effect.ROLLBACK, Severity.WARN: Effect.HOLD, Severity.INVESTIGATE: Effect.NOTE}

STAGES: dict[str, tuple[str, ...]] = {
    "drill": ("drill/",),
    "sql": ("sql/",),
    "alerts": ("alert/", "queue/", "cohort/"),
    "load": ("load/",),
}
"""A stage that can be run alone -> the prefixes of the ids of its checks."""


def again(spec: CheckSpec) -> str:
    """The command that repeats a check, alone if its stage can leave the others out."""
    alone = not spec.id.startswith(QUEUE_STAGE)
    stage = next((name for name, prefixes in STAGES.items() if alone and spec.id.startswith(prefixes)), "")
    words = [f"gate {stage}" if stage else "gate run --dry-run"]
    words += ["--deep"] * spec.deep + ["--disruptive"] * (spec.where is Where.DISRUPTIVE)
    return " ".join([*words, *[f"--only '{spec.id}'"] * (stage not in {"", "load"})])


RUN_ONLY = ("release", "target", "deep", "disruptive", "stage", "names")
"""What one run chooses, and a deployment's names: members that differ between runs by the same rules."""

RULES, PART_LENGTH = "rules", 19
"""The name of the part of a policy that is no check, and how many digits of a check's digest are kept."""

PROSE = ("claim", "cost", "covers")
"""Members of a check for people; they do not affect the decision."""


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """What the policy says about checks whose id matches `pattern`; None keeps the check's own."""

    pattern: str
    severity: Severity | None = None
    decides: Effect | None = None
    required: bool | None = None
    below: float | None = None
    above: float | None = None

    def matches(self, check: str) -> bool:
        return fnmatchcase(check, self.pattern)

    def lowers(self, spec: CheckSpec) -> str:
        """The member that would make a failure or unknown of the check count for less; empty if none."""
        by_itself = EFFECT_ORDER.index(worst(BY_SEVERITY[spec.severity], Effect.HOLD))
        if self.required is False:
            return "required"
        if self.decides is not None and EFFECT_ORDER.index(self.decides) > by_itself:
            return "decides"
        milder = self.severity is not None and EFFECT_ORDER.index(BY_SEVERITY[self.severity]) > by_itself
        return "severity" if milder else ""


def worst(*effects: Effect) -> Effect:
    """The gravest of the effects."""
    return min(effects, key=EFFECT_ORDER.index)


@dataclass(frozen=True, slots=True)
class Waiver:
    """A check that may fail or stay unknown until a day (inclusive, UTC), for which somebody answers."""

    check: str
    reason: str
    owner: str
    expires: dt.date


@dataclass(frozen=True, slots=True)
class RolloutPlan:
    """The flag of the release, its steps in percent, and the bake time of a step.

    drain_timeout_s: how long a rollback waits for what is in flight. rollback_patience_s: how long it retries.
    settle_s: how long the flag must then stay off.
    """

    flag: str = "outbox.enabled"
    steps: tuple[int, ...] = (10, 50, 100)
    bake_minutes: int = 60
    drain_timeout_s: int = 30
    rollback_patience_s: int = 60
    settle_s: int = 3
    cohorts: CohortLimits = field(default_factory=CohortLimits)

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> RolloutPlan:
        """The plan in a policy's `rollout`, or in what to_json wrote. Raise TypeError for another member."""
        given: dict[str, Any] = {**data, "cohorts": typed(CohortLimits(**data.get("cohorts", {})))}
        given |= {"steps": tuple(data["steps"])} if "steps" in data else {}
        return typed(cls(**given))


@dataclass(frozen=True, slots=True)
class Policy:
    """Everything that decide() uses. The required set follows from this alone, never from what happened to run.

    stage: if one stage was run alone, its name in STAGES; its verdict covers only its checks and is never a promote.
    scope: the claims on the contract; by default all of it. settings: non-default stage settings that shape the
    evidence: name in gate.yaml -> value. names: those of gate.yaml as one line of JSON, so that other names make
    another policy.
    """

    catalogue: tuple[CheckSpec, ...] = ()
    target: TargetKind = TargetKind.PRODUCTION
    release: str = ""
    deep: bool = False
    disruptive: bool = False
    rules: tuple[PolicyRule, ...] = ()
    waivers: tuple[Waiver, ...] = ()
    unwaivable: tuple[str, ...] = ()
    max_age_minutes: int = 60
    lag_checks: tuple[str, ...] = LAG
    rollout: RolloutPlan = field(default_factory=RolloutPlan)
    stage: str = ""
    scope: Scope = WHOLE
    names: str = ""
    settings: Mapping[str, float] = field(default_factory=dict)

    def of_stage(self, stage: str) -> Policy:
        """The same policy for one stage alone."""
        listed = (s for s in self.catalogue if s.id.startswith(STAGES[stage]))
        own = tuple(s for s in listed if not s.id.startswith(QUEUE_STAGE))
        return dataclasses.replace(self, stage=stage, catalogue=own)

    @property
    def touches_live_flags(self) -> bool:
        """Whether drills of such a run may switch a live flag, and restore it."""
        return self.target.allows(Where.DISRUPTIVE, disruptive=self.disruptive)

    @property
    def is_of_another_dialect(self) -> bool:
        """Whether the deployment was not built from the contract: the policy has names for it, or claims a part."""
        return bool(self.names) or (bool(self.scope.unclaimed) and not self.scope.is_queue)

    def may_waive(self, check: str) -> bool:
        return not matches(check, (*UNWAIVABLE, *self.unwaivable))

    def to_json(self) -> dict[str, JsonValue]:
        """The whole policy, without the prose of the checks."""
        return {
            "target": self.target.value,
            "release": self.release,
            "deep": self.deep,
            "stage": self.stage,
            "disruptive": self.disruptive,
            "contract": self.scope.to_json(),
            "max_age_minutes": self.max_age_minutes,
            "lag_checks": list(self.lag_checks),
            "unwaivable": list(self.unwaivable),
            "rollout": {**dataclasses.asdict(self.rollout), "steps": list(self.rollout.steps)},
            "rules": [dataclasses.asdict(r) for r in self.rules],
            "waivers": [{**dataclasses.asdict(w), "expires": w.expires.isoformat()} for w in self.waivers],
            "catalogue": [_lean(s) for s in self.catalogue],
            **({"names": self.names} if self.names else {}),
            **({"settings": dict(self.settings)} if self.settings else {}),
        }

    @property
    def digest(self) -> str:
        """sha256 over the canonical text of the policy and its catalogue."""
        return _digest(self.to_json())

    @property
    def proof_digest(self) -> str:
        """The digest without what one run chose: a proof holds for every release that is judged by these rules."""
        return _digest(dict(self.proof_parts))

    @property
    def proof_parts(self) -> dict[str, str]:
        """A digest for each check, by its id, and one for all rules; they show where two policies differ."""
        lean = replace(self, catalogue=(), scope=replace(self.scope, objects=()))
        rules = {k: v for k, v in lean.to_json().items() if k not in {*RUN_ONLY, "catalogue"}}
        return {RULES: _digest(rules)} | {s.id: _part(s) for s in self.catalogue}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Policy:
        """Raise KeyError, ValueError or TypeError for anything that to_json did not write."""
        found = cls(
            catalogue=tuple(CheckSpec.from_json({"claim": "", "cost": "", **s}) for s in data["catalogue"]),
            target=TargetKind(data["target"]),
            release=data["release"],
            deep=data["deep"],
            stage=data["stage"],
            disruptive=data["disruptive"],
            scope=Scope.from_json(data["contract"]),
            rules=tuple(_rule(r) for r in data["rules"]),
            waivers=tuple(
                typed(Waiver(**{**w, "expires": dt.date.fromisoformat(w["expires"])})) for w in data["waivers"]
            ),
            unwaivable=tuple(data["unwaivable"]),
            names=data.get("names", ""),
            settings={str(name): float(value) for name, value in data.get("settings", {}).items()},
            max_age_minutes=data["max_age_minutes"],
            lag_checks=tuple(data["lag_checks"]),
            rollout=RolloutPlan.of(data["rollout"]),
        )
        if typed(found).stage and found.stage not in STAGES:
            raise ValueError(f"there is no stage {found.stage[:40]!r}")
        return found


def _digest(value: JsonValue) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


@lru_cache(maxsize=2048)
def _part(spec: CheckSpec) -> str:
    return _digest(_lean(spec))[:PART_LENGTH]


@lru_cache(maxsize=2048)  # the policy of a run is written and cited several times
def _lean(spec: CheckSpec) -> dict[str, JsonValue]:
    return {k: v for k, v in spec.to_json().items() if k not in PROSE and v not in ("", [], False)}


def _rule(data: Mapping[str, Any]) -> PolicyRule:
    severity = Severity(data["severity"]) if data["severity"] else None
    decides = Effect(data["decides"]) if data["decides"] else None
    return typed(PolicyRule(**{**data, "severity": severity, "decides": decides}))
