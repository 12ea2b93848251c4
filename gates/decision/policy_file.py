"""The shape of gate.yaml and how it becomes a Policy and Settings. One table serves the reader and the JSON Schema."""

import datetime as dt
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from gates.contract.contract import contract
from gates.contract.names import Names
from gates.contract.queues import Queue
from gates.contract.scope import Scope
from gates.decision.claims_file import CONTRACT, check_contract, queue_named, scope_of, too_far
from gates.decision.floor import on_floor
from gates.decision.names_file import NAMES, names_in
from gates.decision.queue_options import check_limits
from gates.decision.rules import UNWAIVABLE, Policy, PolicyRule, RolloutPlan, Waiver
from gates.errors import ConfigError, all_of, raise_all
from gates.evidence import CheckSpec, JsonValue, Severity, TargetKind
from gates.inputs.shapes import Boolean, Choice, Day, Fields, ListOf, MapOf, Number, Text, nearest
from gates.inputs.strict_yaml import YamlNode, read
from gates.text.patterns import matches
from gates.verdict import Effect

CHECK_ID = Text(r"[a-z0-9_.-]+(/[A-Za-z0-9_.{:}-]+)+", "the id of a check, like sql/spot/replay-runs-unique")
PATTERN = r"[A-Za-z0-9_.*?{:}-]+(/[A-Za-z0-9_.*?{:}-]+)*"
SECONDS = Number(1, 86_400)
STATE = "gate-state"
FLOOR_STAYS = "rules that leave the floor as it is (the target reached, the proof drill, tenancy)"
NARROWER = "Name the checks that you mean by a narrower pattern"

COHORTS = Fields(
    {
        "margin_points": (
            Number(0.1, 50, whole=False),
            "So many percentage points more of their events may fare badly than of tenants without the release.",
        ),
        "margin_percent": (Number(1, 1000, whole=False), "So much longer their events may wait."),
        "lag_floor_s": (Number(0.01, 60, whole=False), "A shorter wait counts as none."),
        "fewest_tenants": (Number(5, 1000), "So many tenants must have the release, and so many must not."),
        "most_events": (Number(2000, 1_000_000), "So many events one look reads; 20,000 take 0.1 to 0.4 s."),
    }
)
RULE = Fields(
    {
        "severity": (
            Choice(tuple(s.value for s in Severity)),
            "How bad a failure is: page rolls back, warn holds, investigate is noted.",
        ),
        "decides": (Choice(("rollback", "hold", "note")), "What a failure decides, whatever its severity."),
        "required": (Boolean(), "false: that the check is unknown does not hold."),
        "below": (Number(-1e12, 1e12, whole=False), "The observed number must be less than this."),
        "above": (Number(-1e12, 1e12, whole=False), "The observed number must be more than this."),
    }
)
WAIVER = Fields(
    {
        "check": (CHECK_ID, "The id of the check, no pattern."),
        "reason": (Text(), "Why it may fail for a while."),
        "owner": (Text(), "Who answers for it."),
        "expires": (Day(), "The last day (UTC) on which the waiver counts, within a year; after it, it is an error."),
    },
    needed=("check", "reason", "owner", "expires"),
)
ATTESTATION = Fields(
    {
        "box": (Text(), "The line of the production-ready checklist that a person answers for."),
        "by": (Text(), "Who says so."),
        "date": (Day(), "When; no day to come."),
    },
    needed=("box", "by", "date"),
)
STAGE = Fields({"timeout_s": (SECONDS, "After so many seconds what has not been seen is unknown.")})
DRILL_STAGE = Fields(
    {
        **STAGE.members,
        "workers": (Number(1, 64), "Drills at once; more where the target is slow."),
        "sessions": (Number(8, 400), "So many sessions of the database a run may hold, where a login has few."),
    }
)
LOAD_STAGE = Fields(
    {
        **STAGE.members,
        "slower_percent": (Number(0, 1000), "So much slower than BASELINE_URL, and 5 ms, a release may be."),
        "failed_percent": (Number(0.001, 99, whole=False), "In so many of the calls it alone may fail."),
    }
)

FILE = Fields(
    {
        "version": (Number(1, 1), "Version of this format."),
        "rollout": (
            Fields(
                {
                    "flag": (
                        Text(r"[A-Za-z0-9_.-]+", "the key of a feature flag"),
                        "The flag that the release is behind.",
                    ),
                    "steps": (ListOf(Number(1, 100), 1), "The rollout percentages, rising."),
                    "bake_minutes": (Number(0, 43_200), "The flag takes one step in so many minutes."),
                    "drain_timeout_s": (Number(1, 600), "How long a rollback waits for what is in flight."),
                    "rollback_patience_s": (
                        Number(1, 3600),
                        "How long a rollback that a lock or the network keeps from happening is tried again.",
                    ),
                    "settle_s": (Number(0, 600), "For so long a flag that was switched off must stay off."),
                    "cohorts": (COHORTS, "How much worse the tenants with the release may do (cohort/*)."),
                }
            ),
            "The steps of a release.",
        ),
        "evidence": (
            Fields({"max_age_minutes": (Number(1, 1440), "Older evidence is unknown.")}),
            "What evidence counts.",
        ),
        "checks": (
            MapOf(RULE, PATTERN, "the id of a check, or a pattern with * and ?"),
            "Rules by check; later ones win.",
        ),
        "lag_checks": (
            ListOf(Text(PATTERN, "a pattern of check ids")),
            "Checks, none of the floor, whose failure holds instead of rolling back while the backlog falls.",
        ),
        "unwaivable": (ListOf(Text(PATTERN, "a pattern of check ids")), "Checks that no waiver may touch."),
        "waivers": (ListOf(WAIVER), "Checks that may fail for a while."),
        "stages": (
            Fields(
                {
                    "drill": (DRILL_STAGE, "The drills."),
                    "sql": (STAGE, "SQL checks, alerts."),
                    "load": (LOAD_STAGE, "The load."),
                }
            ),
            "Limits of the stages.",
        ),
        "sql": (
            Fields(
                {
                    "spot_folders": (ListOf(Text()), "Further folders of spot checks, relative to this file."),
                    "alert_folders": (ListOf(Text()), "Further folders of alert rules."),
                    "manifest": (Text(), "The release's manifest."),
                    "require_checkpoint": (Boolean(), "true: an audit trail that no run verified before is unknown."),
                }
            ),
            "SQL checks of your own: a file dropped into such a folder is a check.",
        ),
        "names": (NAMES, "What the deployment calls the objects of the contract (docs/names.md)."),
        "state": (
            Text(),
            "Folder for what must outlive a run, relative to this file (else gate-state in the working directory).",
        ),
        "contract": (CONTRACT, "The part of the contract that this deployment claims."),
        "attestations": (ListOf(ATTESTATION), "Boxes of the checklist that people tick."),
    },
    needed=("version",),
)


@dataclass(frozen=True, slots=True)
class Attestation:
    """A line of the checklist that a person answers for."""

    box: str
    by: str
    date: dt.date


@dataclass(frozen=True, slots=True)
class Settings:
    """What gate.yaml says beyond the policy: limits of the stages, folders, attestations. state: the folder for what
    outlives a run; every target has a folder of its own in it (`state_of`).
    """

    drill_timeout_s: int = 180
    drill_workers: int = 10
    drill_sessions: int = 0
    sql_timeout_s: int = 60
    load_timeout_s: int = 180
    load_slower_percent: int = 25
    load_failed_percent: float = 2.0
    spot_folders: tuple[Path, ...] = ()
    alert_folders: tuple[Path, ...] = ()
    manifest: Path | None = None
    require_checkpoint: bool = False
    state: Path = Path(STATE)
    attestations: tuple[Attestation, ...] = field(default=())
    rollout: RolloutPlan = field(default_factory=RolloutPlan)
    """What the SQL checks compare the flag with."""

    def state_of(self, target: str) -> Path:
        """The folder of one target, by its identity (`gates.deployment.identity`): targets must not share memory."""
        return self.state / target


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """gate.yaml as read. It becomes a Policy once the catalogue and the target are known."""

    root: YamlNode
    values: Mapping[str, Any]
    settings: Settings
    names: Names

    @property
    def plan(self) -> RolloutPlan:
        """The rollout plan, which needs no catalogue."""
        return RolloutPlan.of(self.values.get("rollout", {}))

    @property
    def max_age_minutes(self) -> int:
        """How old evidence, and a promote made of it, may be."""
        given: int = self.values.get("evidence", {}).get("max_age_minutes", Policy().max_age_minutes)
        return given

    @property
    def scope(self) -> Scope:
        """The claims on the contract, without what the deployment says it lacks, and with its own limits."""
        scope = scope_of(self._contract)
        absent = (*scope.absent, *contract().without(self.names.lacking))
        return replace(scope, absent=absent, limits=self.names.own_limits, objects=self.names.spoken)

    @property
    def queue(self) -> Queue | None:
        """The queue that the policy names, with its options."""
        return queue_named(self._contract)

    @property
    def _contract(self) -> Mapping[str, Any]:
        given: Mapping[str, Any] = self.values.get("contract", {})
        return given

    def policy(
        self, catalogue: Sequence[CheckSpec], target: TargetKind, release: str, *, deep: bool, disruptive: bool = False
    ) -> Policy:
        """The policy for this target. Raise ConfigError if a rule or waiver names no check of the catalogue."""
        raise_all(chain(self._names_wrong([s.id for s in catalogue]), self._floor_wrong(catalogue)))
        if self.queue is not None:
            check_limits(self.values["contract"].get("options"), [s.id for s in catalogue])
        values = self.values
        optional = {k: values[k] for k in ("lag_checks", "unwaivable") if k in values}
        return Policy(
            catalogue=tuple(sorted(catalogue, key=lambda s: s.id)),
            target=target,
            release=release,
            deep=deep,
            disruptive=disruptive,
            rules=tuple(_rule(name, rule) for _, name, rule in values.get("checks", ())),
            waivers=tuple(Waiver(**w) for w in values.get("waivers", ())),
            rollout=self.plan,
            scope=self.scope,
            names=self.names.dump() if self.names else "",
            settings=_judging(self.settings),
            **values.get("evidence", {}),
            **optional,
        )

    def check_folders(self) -> None:
        """Raise ConfigError if a folder of checks is missing: nobody would notice that its checks did not run."""
        sql = self.root.member("sql")
        nodes = [*_items(sql, "spot_folders"), *_items(sql, "alert_folders")] if sql else []
        folders = (*self.settings.spot_folders, *self.settings.alert_folders)
        raise_all(
            node.place.error(f"{path}, which is no folder", "a folder, relative to gate.yaml", "Correct the path")
            for node, path in zip(nodes, folders, strict=True)
            if not path.is_dir()
        )

    def _floor_wrong(self, catalogue: Sequence[CheckSpec]) -> Iterator[ConfigError]:
        """Rules that would make a check of the floor count for less: the first such check of each."""
        floor = [s for s in catalogue if on_floor(s.id)]
        for node, pattern, values in self.values.get("checks", ()):
            rule = _rule(pattern, values)
            lowered = ((spec, rule.lowers(spec)) for spec in floor if rule.matches(spec.id))
            for spec, member in [(spec, member) for spec, member in lowered if member][:1]:
                said = f"{member}: {str(values[member]).lower()} of {pattern!r}, which matches {spec.id}"
                yield node.place_of(member).error(said, FLOOR_STAYS, NARROWER)
        for node, pattern in self._listed("lag_checks"):
            for spec in [spec for spec in floor if fnmatchcase(spec.id, pattern)][:1]:
                yield node.place.error(f"{pattern!r}, which matches {spec.id}", FLOOR_STAYS, NARROWER)

    def _listed(self, name: str) -> list[tuple[YamlNode, str]]:
        return list(zip(_items(self.root, name), self.values.get(name, ()), strict=True))

    def _names_wrong(self, known: Sequence[str]) -> Iterator[ConfigError]:
        """Rules, lists and waivers that name no check."""
        rules = [(node, pattern) for node, pattern, _ in self.values.get("checks", ())]
        for node, pattern in (*rules, *self._listed("lag_checks"), *self._listed("unwaivable")):
            if not any(fnmatchcase(check, pattern) for check in known):
                yield node.place.error(
                    f"{pattern!r}, which matches no check", "ids of `gate explain`", nearest(pattern, tuple(known))
                )
        for node, waiver in zip(_items(self.root, "waivers"), self.values.get("waivers", ()), strict=True):
            if waiver["check"] not in known:
                yield node.place.error(
                    f"a waiver of the unknown check {waiver['check']!r}",
                    "ids of `gate explain`",
                    nearest(waiver["check"], tuple(known)),
                )


def parse(text: str, file: str, folder: Path, today: dt.date) -> PolicyFile:
    """Read gate.yaml. Raise ConfigError (file:line:column) for anything unknown, repeated, malformed or expired."""
    root = read(text, file)
    values = FILE.read(root)
    contract = root.member("contract")
    parts: list[Callable[[], Any]] = [partial(names_in, root)]
    if contract is not None:
        parts.append(partial(check_contract, contract, values["contract"], today))
    wrong = chain(_steps_wrong(root, values), *(of(root, values, today) for of in (_waivers_wrong, _ticks_wrong)))
    names, *_ = all_of(parts, wrong)
    made = PolicyFile(root, values, _settings(values, folder), names)
    return replace(made, names=made.names.within(made.scope.unclaimed))


def _waivers_wrong(root: YamlNode, values: Mapping[str, Any], today: dt.date) -> Iterator[ConfigError]:
    unwaivable = (*UNWAIVABLE, *values.get("unwaivable", ()))
    waived = set[str]()
    for node, waiver in zip(_items(root, "waivers"), values.get("waivers", ()), strict=True):
        if waiver["expires"] < today:
            yield node.place.error(
                f"the waiver of {waiver['check']} expired on {waiver['expires']}",
                f"{today} or later",
                f"Ask {waiver['owner']}: repair the check, or renew the waiver",
            )
        yield from too_far(node, f"a waiver of {waiver['check']}", waiver["expires"], today)
        if by := [p for p in unwaivable if matches(waiver["check"], (p,))]:
            never = f"checks that may be waived, and {by[0]} may not"
            yield node.place.error(f"a waiver of {waiver['check']}", never, "Remove the waiver")
        if waiver["check"] in waived:
            yield node.place.error(f"a second waiver of {waiver['check']}", "one of each check", "Remove one")
        waived.add(waiver["check"])


def _ticks_wrong(root: YamlNode, values: Mapping[str, Any], today: dt.date) -> Iterator[ConfigError]:
    """Boxes that are ticked by a day to come. `today` is of UTC: elsewhere it may be tomorrow."""
    for node, said in zip(_items(root, "attestations"), values.get("attestations", ()), strict=True):
        if said["date"] > today + dt.timedelta(days=1):
            yield node.place_of("date").error(f"{said['date']}", f"{today} or earlier", "Say when it was ticked")


def _steps_wrong(root: YamlNode, values: Mapping[str, Any]) -> Iterator[ConfigError]:
    steps = values.get("rollout", {}).get("steps", ())
    if list(steps) != sorted(set(steps)):
        yield root.place_of("rollout", "steps").error(f"{list(steps)}", "percentages that rise", "Put them in order")


def _items(root: YamlNode, name: str) -> list[YamlNode]:
    member = root.member(name)
    return member.items() if member else []


def _settings(values: Mapping[str, Any], folder: Path) -> Settings:
    stages, sql = values.get("stages", {}), values.get("sql", {})
    limits = {f"{name}_{key}": value for name, stage in stages.items() for key, value in stage.items()}
    return Settings(
        **limits,
        spot_folders=tuple(folder / p for p in sql.get("spot_folders", ())),
        alert_folders=tuple(folder / p for p in sql.get("alert_folders", ())),
        manifest=folder / sql["manifest"] if "manifest" in sql else None,
        require_checkpoint=sql.get("require_checkpoint", False),
        state=folder / values["state"] if "state" in values else Path(STATE),
        attestations=tuple(Attestation(**a) for a in values.get("attestations", ())),
        rollout=RolloutPlan.of(values.get("rollout", {})),
    )


def _judging(settings: Settings) -> dict[str, float]:
    """The non-default settings that affect the verdict."""
    usual = Settings()
    members = {
        "stages.load.slower_percent": (settings.load_slower_percent, usual.load_slower_percent),
        "stages.load.failed_percent": (settings.load_failed_percent, usual.load_failed_percent),
        "sql.require_checkpoint": (settings.require_checkpoint, usual.require_checkpoint),
    }
    return {name: float(given) for name, (given, default) in members.items() if given != default}


def _rule(pattern: str, values: Mapping[str, Any]) -> PolicyRule:
    severity = Severity(values["severity"]) if "severity" in values else None
    decides = Effect(values["decides"]) if "decides" in values else None
    limits = {k: float(values[k]) for k in ("below", "above") if k in values}
    return PolicyRule(pattern, severity, decides, values.get("required"), **limits)


def schema() -> str:
    """The JSON Schema of gate.yaml for editors (gates/decision/gate.schema.json), one setting per line."""
    top: dict[str, JsonValue] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "gate.yaml: the release policy of replaygate",
        **FILE.schema(),
    }
    properties = top.pop("properties")
    members = [f"{json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in top.items()]
    settings = dict(properties) if isinstance(properties, dict) else {}
    lines = [f"  {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in settings.items()]
    return ",\n".join(["{\n" + ",\n".join(members), '"properties": {\n' + ",\n".join(lines) + "\n}"]) + "\n}\n"
