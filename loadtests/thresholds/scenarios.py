"""Reads k6's scenarios, and the options that stand for one (`vus`, `duration`, `iterations`, `stages`)."""

import re
from collections.abc import Collection, Mapping
from dataclasses import replace

from loadtests.scenario import ITERATIONS_S, Executor, Scenario, Stage
from loadtests.thresholds.literal import LiteralNode
from loadtests.thresholds.reading import Reader

Given = Mapping[str, LiteralNode]
Labels = tuple[tuple[str, str], ...]
SHORTCUTS = ("iterations", "duration", "stages", "vus")
_NAME = re.compile(r"[0-9a-zA-Z_-]+")
_OF_ALL = ("executor", "startTime", "gracefulStop", "exec", "env", "tags", "options")
_COUNTED, _ARRIVALS = ("vus", "iterations", "maxDuration"), ("timeUnit", "preAllocatedVUs", "maxVUs")
_FIELDS = {
    "shared-iterations": _COUNTED,
    "per-vu-iterations": _COUNTED,
    "constant-vus": ("vus", "duration"),
    "ramping-vus": ("startVUs", "stages", "gracefulRampDown"),
    "constant-arrival-rate": ("rate", "duration", *_ARRIVALS),
    "ramping-arrival-rate": ("startRate", "stages", *_ARRIVALS),
}
LEAST_S = 1.0
"""k6 refuses a shorter duration."""


class ScenarioReader(Reader):
    """Reads scenarios; `operations` are what they may `exec`."""

    def __init__(self, name: str, operations: Collection[str]) -> None:
        super().__init__(name)
        self.operations = operations

    def of_options(self, options: Mapping[str, tuple[LiteralNode, LiteralNode]]) -> tuple[tuple[Scenario, ...], int]:
        """The scenarios of a file, and its `vus` where they stand alone. The first shortcut that fits counts."""
        given = {key: pair for key, pair in options.items() if key in SHORTCUTS and pair[1].value != []}
        values = {key: value for key, (_, value) in given.items()}
        if "scenarios" in options and self.members(options["scenarios"][1], "scenarios"):
            for key, (at, _) in given.items():
                raise self.error(at, f"{key!r} beside 'scenarios' contradicts them; keep one of the two")
            return tuple(self.scenario(*pair) for pair in options["scenarios"][1].value.items.values()), 0  # type: ignore[union-attr]
        if "stages" in given and len(given.keys() - {"vus"}) > 1:
            other = next(key for key in SHORTCUTS if key in given)
            raise self.error(given[other][0], f"{other!r} beside 'stages' contradicts them; keep one of the two")
        labels = (("scenario", "default"),)
        users = {"vus": values["vus"]} if "vus" in values else {}
        match next((key for key in SHORTCUTS if key in given), ""):
            case "iterations":
                lasts = {"maxDuration": values["duration"]} if "duration" in values else {}
                counted = {**users, **lasts, "iterations": values["iterations"]}
                return (self.counted(values["iterations"], counted, Executor.SHARED, labels),), 0
            case "duration":
                return (self.constant_users(values["duration"], values, labels),), 0
            case "stages":
                ramp = {"stages": values["stages"], **({"startVUs": values["vus"]} if users else {})}
                return (self.ramping_users(values["stages"], ramp, labels),), 0
            case "vus":
                self.note(
                    given["vus"][0], "'vus' without a duration load for 10 s, or --duration; k6 would iterate once"
                )
                return (), self.whole(values["vus"], 1)
        return (), 0

    def scenario(self, at: LiteralNode, node: LiteralNode) -> Scenario:
        """One scenario of the block; `at` is its name."""
        name = str(at.value)
        if not _NAME.fullmatch(name):
            raise self.error(at, f"scenario {name!r}: a name consists of letters, digits, _ and -")
        given = {key: value for key, (_, value) in self.members(node, "a scenario").items() if value.value is not None}
        if "executor" not in given:
            raise self.error(node, f"scenario {name!r} has no executor; one of {', '.join(_FIELDS)} is needed")
        executor = self.text(given["executor"])
        if executor not in _FIELDS:
            raise self.error(given["executor"], f"executor {executor!r} is not one of {', '.join(_FIELDS)}")
        self.given(node, "a scenario", (*_OF_ALL, *_FIELDS[executor]))
        labels = tuple(sorted({**self.tags(given), "scenario": name}.items()))
        match executor:
            case "shared-iterations":
                return self.counted(node, given, Executor.SHARED, labels)
            case "per-vu-iterations":
                return self.counted(node, given, Executor.EACH, labels)
            case "constant-vus":
                return self.constant_users(node, given, labels)
            case "ramping-vus":
                return self.ramping_users(node, given, labels)
        return self.arrivals(node, given, labels)

    def tags(self, given: Given) -> dict[str, str]:
        if "options" in given:
            raise self.error(given["options"], "options of a browser are not supported; leave them out")
        if "env" in given:
            self.texts(given, "env")
            self.note(given["env"], "'env' of a scenario has no effect here: scripts are not run")
        return self.texts(given, "tags")

    def texts(self, given: Given, key: str) -> dict[str, str]:
        """A member that holds texts alone; nothing where it is not there."""
        members = self.members(given[key], key) if key in given else {}
        return {name: self.text(value) for name, (_, value) in members.items()}

    def counted(self, node: LiteralNode, given: Given, executor: Executor, labels: Labels) -> Scenario:
        users, iterations = self.number(given, "vus", 1, 1), self.number(given, "iterations", 1, 1)
        if executor is Executor.SHARED and iterations < users:
            at = given.get("iterations", node)
            raise self.error(at, f"{iterations} iterations are fewer than {users} vus; give each at least one")
        duration_s = self.seconds(given["maxDuration"], LEAST_S) if "maxDuration" in given else ITERATIONS_S
        return self.timed(given, Scenario(executor, users=users, iterations=iterations, duration_s=duration_s), labels)

    def constant_users(self, node: LiteralNode, given: Given, labels: Labels) -> Scenario:
        users = self.number(given, "vus", 1, 1)
        stages = (Stage(self.needed_s(node, given), users),)
        return self.timed(given, Scenario(Executor.USERS, users, stages), labels)

    def ramping_users(self, node: LiteralNode, given: Given, labels: Labels) -> Scenario:
        users, stages = self.number(given, "startVUs", 1), self.stages(node, given, 1.0)
        if not any((users, *(stage.target for stage in stages))):
            raise self.error(node, "no stage has a user; give a target above 0")
        ramp_down_s = self.seconds(given["gracefulRampDown"]) if "gracefulRampDown" in given else 30.0
        return self.timed(given, Scenario(Executor.USERS, users, stages, ramp_down_s=ramp_down_s), labels)

    def arrivals(self, node: LiteralNode, given: Given, labels: Labels) -> Scenario:
        unit_s = self.seconds(given["timeUnit"], 1e-9) if "timeUnit" in given else 1.0
        if "preAllocatedVUs" not in given:
            raise self.error(node, "preAllocatedVUs is missing: how many requests may be open at once")
        allocated = self.whole(given["preAllocatedVUs"])
        most = self.number(given, "maxVUs", allocated)
        if most < max(1, allocated):
            at = given.get("maxVUs", given["preAllocatedVUs"])
            raise self.error(at, f"maxVUs must be at least 1 and not less than preAllocatedVUs ({allocated})")
        if "stages" in given or "startRate" in given:
            level, stages = self.number(given, "startRate", 0) / unit_s, self.stages(node, given, unit_s)
        elif "rate" in given:
            level = self.whole(given["rate"], 1) / unit_s
            stages = (Stage(self.needed_s(node, given), level),)
        else:
            raise self.error(node, "the rate is missing: how many iterations start in each timeUnit (1s)")
        return self.timed(given, Scenario(Executor.ARRIVALS, level, stages, users=most), labels)

    def timed(self, given: Given, one: Scenario, labels: Labels) -> Scenario:
        """The scenario with what all executors have."""
        executed = self.text(given["exec"]) if "exec" in given else "default"
        if executed not in {"default", *self.operations}:
            known = ", ".join(self.operations) or "default"
            what = f"exec names {executed!r}; functions of a script are not run here, only: {known}"
            raise self.error(given["exec"], f"{what}. Leave it out, or name one of these")
        return replace(
            one,
            start_s=self.seconds(given["startTime"]) if "startTime" in given else one.start_s,
            grace_s=self.seconds(given["gracefulStop"]) if "gracefulStop" in given else one.grace_s,
            exec="" if executed == "default" else executed,
            labels=labels,
        )

    def number(self, given: Given, key: str, default: int, least: int = 0) -> int:
        return self.whole(given[key], least) if key in given else default

    def needed_s(self, node: LiteralNode, given: Given) -> float:
        if "duration" not in given:
            raise self.error(node, "the duration is missing, as in duration: '30s'")
        return self.seconds(given["duration"], LEAST_S)

    def stages(self, node: LiteralNode, given: Given, unit_s: float) -> tuple[Stage, ...]:
        """At least one; targets by `unit_s` become targets by the second."""
        some = self.listed(given["stages"], "[{duration: '30s', target: 10}]") if "stages" in given else []
        if not some:
            raise self.error(node, "at least one stage is needed, as in stages: [{duration: '30s', target: 10}]")
        return tuple(self.stage(one, unit_s) for one in some)

    def stage(self, node: LiteralNode, unit_s: float) -> Stage:
        given = self.given(node, "a stage", ("duration", "target"))
        if len(given) < 2:
            raise self.error(node, "a stage needs both 'duration' and 'target'")
        return Stage(self.seconds(given["duration"]), self.whole(given["target"]) / unit_s)
