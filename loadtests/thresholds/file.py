"""Reads a thresholds file (k6 options as JavaScript, JSON or YAML) into thresholds and scenarios.

Every error says file:line:column. Unknown and duplicate keys are errors; a typo must not switch a threshold off.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from loadtests.scenario import Scenario
from loadtests.thresholds import language
from loadtests.thresholds.literal import LiteralNode
from loadtests.thresholds.reading import Reader, ThresholdsFileError, nearest, read_nodes
from loadtests.thresholds.scenarios import SHORTCUTS, ScenarioReader

__all__ = ["ThresholdsFile", "ThresholdsFileError", "parse_thresholds", "read_thresholds"]

OPTIONS = (
    *("thresholds", "scenarios", *SHORTCUTS),
    *("rps", "noConnectionReuse", "insecureSkipTLSVerify", "setupTimeout"),
)
IGNORED_OPTIONS = (
    *("summaryTrendStats", "summaryTimeUnit", "tags", "systemTags", "userAgent", "discardResponseBodies"),
    *("noUsageReport", "cloud", "ext", "throw", "noTeardown", "teardownTimeout", "batch", "batchPerHost"),
    *("maxRedirects", "noCookiesReset", "consoleOutput", "httpDebug", "linger"),
)
"""Options of k6 that change nothing about the verdict here; reading them leaves a note."""
_HOST, _SCRIPT, _TLS = (
    "give the address itself as --url or BASE_URL",
    "scripts are not run here; leave it out",
    "TLS is what this machine's Python offers; leave it out",
)
REFUSED = {
    **dict.fromkeys(("hosts", "dns", "blacklistIPs", "blockHostnames", "localIPs"), _HOST),
    **dict.fromkeys(("paused", "noSetup"), _SCRIPT),
    **dict.fromkeys(("tlsAuth", "tlsVersion", "tlsCipherSuites"), _TLS),
    **dict.fromkeys(("executionSegment", "executionSegmentSequence"), "spread the load with --workers"),
    "noVUConnectionReuse": "use noConnectionReuse, which is stricter",
    "minIterationDuration": "use an arrival-rate executor, which keeps its rate whatever an iteration takes",
}
"""Options of k6 that are not supported and change the load; and what to do instead."""


@dataclass(frozen=True, slots=True)
class ThresholdsFile:
    """What a file asks for. `notes` are sentences a person should read: lints and options without effect here.

    users: those of `vus` alone, which says nothing of a time. rps, setup_s: 0 where they are not given.
    """

    thresholds: language.ThresholdSet
    scenarios: tuple[Scenario, ...] = ()
    users: int = 0
    rps: int = 0
    setup_s: float = 0.0
    new_connections: bool = False
    any_certificate: bool = False
    notes: tuple[str, ...] = field(default=())


def read_thresholds(path: Path, types: Mapping[str, language.MetricType]) -> ThresholdsFile:
    """Read a file; `.yaml` and `.yml` are YAML, all else JavaScript or JSON. Raise ThresholdsFileError or OSError."""
    return parse_thresholds(path.read_text(encoding="utf-8"), path.name, types)


def parse_thresholds(
    text: str, name: str, types: Mapping[str, language.MetricType], operations: Collection[str] = ()
) -> ThresholdsFile:
    """Read the text of a thresholds file called `name`; `operations` are what a scenario may `exec`.

    Raise ThresholdsFileError.
    """
    return _OptionsReader(name, types, operations).build(read_nodes(text, name))


class _OptionsReader(Reader):
    """Reads options, or a thresholds block alone."""

    def __init__(self, name: str, types: Mapping[str, language.MetricType], operations: Collection[str]) -> None:
        super().__init__(name)
        self.types = types
        self.operations = operations

    def build(self, root: LiteralNode) -> ThresholdsFile:
        members = self.members(root, "the file")
        if not any(key in {*OPTIONS, *IGNORED_OPTIONS, *REFUSED} for key in members):
            return ThresholdsFile(self.thresholds(root), notes=tuple(self.notes))
        for key, (at, value) in members.items():
            if key in REFUSED and value.value is not None:
                raise self.error(at, f"option {key!r} is not supported: {REFUSED[key]}")
            if key in IGNORED_OPTIONS:
                self.note(at, f"option {key!r} has no effect here")
        options = self.given(root, "the file", (*OPTIONS, *IGNORED_OPTIONS, *REFUSED))
        if "thresholds" not in options:
            raise self.error(root, "there is no thresholds block; without a threshold nothing can be judged")
        thresholds = self.thresholds(options["thresholds"])
        scenarios = ScenarioReader(self.name, self.operations)
        found, users = scenarios.of_options({key: (members[key][0], value) for key, value in options.items()})
        return ThresholdsFile(
            thresholds,
            found,
            users,
            rps=self.whole(options["rps"]) if "rps" in options else 0,
            setup_s=self.seconds(options["setupTimeout"], 0.001) if "setupTimeout" in options else 0.0,
            new_connections="noConnectionReuse" in options and self.boolean(options["noConnectionReuse"]),
            any_certificate="insecureSkipTLSVerify" in options and self.boolean(options["insecureSkipTLSVerify"]),
            notes=(*self.notes, *scenarios.notes),
        )

    def thresholds(self, node: LiteralNode) -> language.ThresholdSet:
        found: dict[language.MetricKey, tuple[language.Threshold, ...]] = {}
        for source, (at, value) in self.members(node, "thresholds").items():
            key = self.metric(at, source)
            if value.value is None:
                continue
            if key in found:
                self.note(at, f"{source!r} names {key} again; both lists count")
            found[key] = (
                *found.get(key, ()),
                *(self.threshold(key, one) for one in self.listed(value, "['p(95)<2500']")),
            )
        if not any(found.values()):
            raise self.error(node, "there is no threshold; without one nothing can be judged")
        return language.ThresholdSet(found)

    def metric(self, at: LiteralNode, source: str) -> language.MetricKey:
        try:
            key = language.parse_metric_key(source)
        except language.ThresholdError as error:
            raise self.error(at, str(error)) from error
        if key.name not in self.types:
            raise self.error(at, f"metric {key.name!r} does not exist; {nearest(key.name, self.types)}")
        return key

    def threshold(self, key: language.MetricKey, node: LiteralNode) -> language.Threshold:
        if isinstance(node.value, str):
            return self.checked(key, language.Threshold(self.expression(key, node)), node)
        members = self.members(node, "a threshold (if it is not a string)")
        by_name = {name.lower(): pair for name, pair in members.items()}
        for name, (at, _) in members.items():
            if name.lower() not in {"threshold", "abortonfail", "delayaborteval"}:
                self.known(at, name, ("threshold", "abortOnFail", "delayAbortEval"))
        if "threshold" not in by_name:
            raise self.error(node, "the member 'threshold' is missing; it holds the expression")
        abort, delay = by_name.get("abortonfail"), by_name.get("delayaborteval")
        return self.checked(
            key,
            language.Threshold(
                self.expression(key, by_name["threshold"][1]),
                abort_on_fail=abort is not None and abort[1].value is not None and self.boolean(abort[1]),
                delay_abort_ns=self.duration_ns(delay[1]) if delay and delay[1].value is not None else None,
            ),
            node,
        )

    def checked(self, key: language.MetricKey, threshold: language.Threshold, node: LiteralNode) -> language.Threshold:
        try:
            language.ThresholdSet({key: (threshold,)}).validate(self.types)
        except language.ThresholdError as error:
            raise self.error(node, str(error)) from error
        self.notes += [f"{self.name}:{node.line}:{node.column}: {note}" for note in language.lint(key, threshold)]
        return threshold

    def expression(self, key: language.MetricKey, node: LiteralNode) -> language.Expression:
        if not isinstance(node.value, str):
            raise self.error(node, f"a threshold of {key} must be a string, as in 'p(95)<2500'")
        try:
            return language.parse_expression(node.value)
        except language.ThresholdError as error:
            raise self.error(node, str(error)) from error
