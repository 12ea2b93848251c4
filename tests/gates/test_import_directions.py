"""Who may import whom: reads the syntax trees of the whole harness."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.sources import ROOT, below, nodes_of

ALLOWED: dict[str, set[str]] = {
    "gates.foreign": set(),
    # what a target says is made safe where it is kept: no value can keep an evidence line from being written
    "gates.evidence": {"gates.foreign"},
    "gates.errors": set(),
    "gates.values": set(),
    "gates.evidence_file": {"gates.errors", "gates.evidence", "gates.foreign"},
    "gates.characters": set(),
    "gates.inert": {"gates.characters"},
    # the last border of every text: it makes inert, redacts, and shows progress
    "gates.console": {
        "gates.characters",
        "gates.inert",
        "gates.stages",
        "gates.target",
        "gates.terminal",
        "gates.verdict",
    },
    "gates.verdict": {"gates.characters", "gates.evidence"},
    "gates.floor": set(),
    "gates.rules": {
        "gates.evidence",
        "gates.floor",
        "gates.verdict",
    },  # the policy as data: effects are words of the verdict
    "gates.assessment": {"gates.evidence", "gates.floor", "gates.rules", "gates.verdict"},
    "gates.backlog": {"gates.assessment", "gates.evidence"},
    "gates.unreachable": {"gates.evidence"},
    "gates.policy": {
        "gates.assessment",
        "gates.backlog",
        "gates.evidence",
        "gates.floor",
        "gates.rules",
        "gates.unreachable",
        "gates.verdict",
    },
    "gates.strict_yaml": {"gates.errors"},
    "gates.shapes": {"gates.evidence", "gates.strict_yaml"},
    "gates.policy_file": {
        "gates.evidence",
        "gates.errors",
        "gates.floor",
        "gates.rules",
        "gates.shapes",
        "gates.strict_yaml",
        "gates.verdict",
    },
    "gates.catalogue": {"gates.evidence", "gates.errors"},
    # config -> target: a plain `pytest drills` must parse the environment once and in one place
    # values: the parsers that variables share with options; shapes: the nearest of some words
    "gates.config": {
        "gates.evidence",
        "gates.errors",
        "gates.policy_file",
        "gates.shapes",
        "gates.target",
        "gates.values",
    },
    "gates.observation": {"gates.evidence", "gates.target"},
    # recorder -> config: likewise; the recorder gives a test its target
    "gates.recorder": {
        "gates.evidence",
        "gates.evidence_file",
        "gates.config",
        "gates.foreign",
        "gates.observation",
        "gates.target",
    },
    "gates.pipeline_checks": {"gates.recorder"},
    # evidence_file: a file without its secrets is chained anew
    "gates.target": {"gates.evidence", "gates.evidence_file", "gates.foreign", "gates.target"},
    # stages never see the policy or the rollout; the load stage owns its companies, the suites' launcher is the stack's
    "gates.stages": {
        "gates.evidence",
        "gates.evidence_file",
        "gates.errors",
        "gates.config",
        "gates.foreign",
        "gates.policy_file",
        "gates.target",
        "gates.stages",
        "gates.unreachable",  # what the watchdog writes and the verdict reads
        "gates.values",  # the options of `gate load` stand beside it
    },
    # rules: the plan of steps; never evidence of checks (JsonValue is the type of what it returns)
    "gates.act": {"gates.act", "gates.evidence", "gates.rules", "gates.target", "gates.verdict"},
    # rounds, incidents, trends: what the reports of a watch show, as pure as the verdict
    "gates.reports": {
        "gates.characters",
        "gates.evidence",
        "gates.inert",
        "gates.verdict",
        "gates.reports",
        "gates.rounds",
        "gates.incidents",
        "gates.trends",
    },
    "gates.rounds": {"gates.evidence", "gates.verdict"},
    "gates.incidents": {"gates.evidence", "gates.rounds"},
    "gates.trends": {"gates.evidence", "gates.rounds"},
    "gates.history": {"gates.errors", "gates.evidence", "gates.rounds", "gates.trends"},
    # the watch and what it is told by are a story like run: policy, rollout and reports meet there and nowhere below
    "gates.watch": {"gates"},
    "gates.watch_command": {"gates"},
    "gates.status": {"gates.errors", "gates.evidence", "gates.history", "gates.record", "gates.stages", "gates.target"},
    "gates.status_command": {"gates"},
    # target: the stack tells its users what the target is, and asks its own readiness through the same door
    "gates.stack": {"gates.evidence", "gates.config", "gates.target", "gates.stack", "gates.values"},
    # the operator's hand takes the same path as a run
    "gates.act.operations": {"gates.errors", "gates.act", "gates.target", "gates.verdict"},
    "gates.hand_command": {"gates"},
    "gates.boxes": {"gates.policy_file", "gates.reports"},
    "gates.record": {
        "gates.errors",
        "gates.evidence",
        "gates.evidence_file",
        "gates.policy",
        "gates.rules",
        "gates.verdict",
    },
    "gates.attestation": {"gates.errors", "gates.evidence", "gates.foreign", "gates.record"},
    # whether a verdict may be acted upon: the policy, the record and the rollout's order meet here
    "gates.handover": {
        "gates.act",
        "gates.attestation",
        "gates.policy",
        "gates.record",
        "gates.rules",
        "gates.target",
        "gates.verdict",
    },
    "gates.notify": {"gates.target"},  # one HTTP client, with its limits, for the webhook as well
    "gates.lint": {  # it writes docs/checks.md, which is rendered like a report
        "gates.reports.promises",
        "gates.catalogue",
        "gates.config",
        "gates.errors",
        "gates.evidence",
        "gates.policy_file",
        "gates.stages",
    },
    "gates.terminal": {"gates.evidence", "gates.inert", "gates.stages", "gates.verdict"},
    # proof, evidence: the words that --suite and --target take
    # watch_command, status_command: the options of a command stand beside it
    # console, inert: the parser's own words go the way of all others
    "gates.arguments": {
        "gates.console",
        "gates.inert",
        "gates.evidence",
        "gates.proof",
        "gates.rules",
        "gates.stack",
        "gates.stages",
        "gates.status_command",
        "gates.values",
        "gates.watch_command",
    },
    "drills": {
        "gates.target",
        "gates.recorder",
        "gates.evidence",
        "drills",
    },  # evidence: the words of severity and place
    # config, observation: a .sql or .yaml file is an item without fixtures, so it makes its own target and observer
    # errors, strict_yaml: rule files are read as strictly as gate.yaml, by the same code
    "sql_checks": {
        "gates.config",
        "gates.errors",
        "gates.evidence",
        "gates.foreign",
        "gates.intervals",
        "gates.strict_yaml",
        "gates.observation",
        "gates.recorder",
        "gates.target",
        "sql_checks",
    },
    # the property over thousands of mutations runs the very judgements in process: a suite takes seconds to start
    "gates.proof.mutations": {"gates", "drills.short_drill.test_short_drill", "loadtests", "sql_checks"},
    "gates.intervals": set(),
    "loadtests": {"gates.target", "gates.evidence", "gates.foreign", "gates.intervals", "loadtests"},
    "replay_service": {"replay_service"},
    "faults": {
        "faults",
        "replay_service",
    },  # known-bad twins of the reference's parts; their probes share no code with the gate
}
"""Package or module -> what of ours it may import. Modules that are not listed (run, cli) may import any of gates."""

ANY_OF_GATES = {"gates.run", "gates.cli", "gates.__main__"}
COMMANDS = {"gates.stack.__main__"}
"""Another spelling of a command: imports the command line alone."""
OURS = ("gates", "drills", "sql_checks", "loadtests", "replay_service", "faults", "tests")


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path) -> set[str]:
    """Modules of ours that the file imports, `from gates import x` as gates.x."""
    found = set()
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            parent = ROOT.joinpath(*node.module.split("."))
            found |= {f"{node.module}.{a.name}" if parent.is_dir() else node.module for a in node.names}
    return {name for name in found if name.split(".")[0] in OURS}


def owner(module: str) -> str | None:
    """The entry of ALLOWED that a module falls under: the longest that it begins with."""
    own = [name for name in ALLOWED if module == name or module.startswith(name + ".")]
    return max(own, key=len, default=None)


def broken(path: Path) -> str:
    """Which rule the file breaks, and by what; empty for none."""
    module = module_of(path)
    rule = owner(module)
    if module in COMMANDS:
        return "" if imported(path) == {"gates.cli"} else f"{module} is another spelling of gates.cli, and no more"
    if rule is None:
        if module != "gates" and module not in ANY_OF_GATES and not module.startswith("gates.proof"):
            return f"{module} has no rule; add it to ALLOWED with what it may import"
        allowed = {"gates"}
    else:
        allowed = ALLOWED[rule] | {rule}
    wrong = {m for m in imported(path) if not any(m == a or m.startswith(a + ".") for a in allowed)}
    return f"{module} imports {sorted(wrong)}; allowed: {sorted(allowed)}" if wrong else ""


def test_a_module_imports_only_what_it_may() -> None:
    """The directions of the layout hold; where a need breaks them, the list is changed, with the reason beside it."""
    if found := [said for path in below(*OURS[:-1]) if (said := broken(path))]:
        pytest.fail("\n".join(found))


def test_the_decision_needs_the_standard_library_only() -> None:
    """policy, assessment, rules, verdict and evidence import nothing that has to be installed."""
    for name in ("policy", "assessment", "floor", "rules", "verdict", "evidence"):
        nodes = nodes_of(ROOT / "gates" / f"{name}.py")
        tops = {a.name.split(".")[0] for n in nodes if isinstance(n, ast.Import) for a in n.names}
        tops |= {n.module.split(".")[0] for n in nodes if isinstance(n, ast.ImportFrom) and n.module}
        assert tops <= {"gates", "__future__", "collections", "dataclasses", "datetime", "enum", "fnmatch", "functools",
                        "hashlib", "itertools", "json", "math", "pathlib", "typing"}, name  # fmt: skip
