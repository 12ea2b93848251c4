"""The matrix as JSON in Stryker's mutation-testing report schema (schemaVersion 2), for its viewer. Pure.

A fault is a mutant, a check is a test. Only killed faults raise the score: a cell that says nothing about the gate is
`NoCoverage`, not `RuntimeError`, because the schema's viewer leaves errors out of the score.
"""

import ast
from collections.abc import Callable, Sequence

from gates.evidence import JsonValue
from gates.proof.fault import ListedFault
from gates.proof.judgement import Cell, Status
from gates.proof.proof import Proof
from gates.proof.trial import Trial

STATUSES = {
    Status.KILLED: "Killed",
    **dict.fromkeys((Status.KILLED_COLLATERAL, Status.MASKED, Status.SURVIVED), "Survived"),
    **dict.fromkeys((Status.NOT_INSTALLED, Status.INVALID_BASELINE, Status.HARNESS_ERROR), "NoCoverage"),
}
LANGUAGES = {"py": "python", "sql": "sql"}
ReadSource = Callable[[str], str]


def matrix(proof: Proof, pending: Sequence[ListedFault], source_of: ReadSource) -> dict[str, JsonValue]:
    """The report. source_of(path) gives the text of a file of the package faults, empty if there is none."""
    files: dict[str, JsonValue] = {}
    mutants: dict[str, list[JsonValue]] = {}
    sources: dict[str, str] = {}
    for fault, mutant in [(c.fault, _of_cell(c)) for c in proof.cells] + [(f, _waiting(f)) for f in pending]:
        path, text, function = _place(fault, source_of)
        sources[path] = text
        mutants.setdefault(path, []).append({**mutant, "location": _location(text, function)})
    for path, found in mutants.items():
        language = LANGUAGES.get(path.rpartition(".")[2], "plaintext")
        files[path] = {"language": language, "source": sources[path], "mutants": found}
    tests = sorted({check for c in proof.cells for check in (*c.killers, *c.failed)})
    listed: list[JsonValue] = [{"id": check, "name": check} for check in tests]
    return {
        "schemaVersion": "2",
        "thresholds": {"high": 100, "low": 90},
        "framework": {"name": "replaygate", "version": proof.gate},
        "config": {**proof.summary(), "trials": [_trial(t) for t in proof.trials]},
        "files": files,
        "testFiles": {"checks": {"tests": listed}},
    }


def _trial(one: Trial) -> JsonValue:
    return {
        "id": one.id,
        "said": one.said,
        "allowed": list(one.allowed),
        "decision": one.decision,
        "ok": one.ok,
        "reason": one.reason,
        "seconds": one.seconds,
    }


def _of_cell(cell: Cell) -> dict[str, JsonValue]:
    ignored = cell.fault.is_noop and cell.as_declared
    reason = "the no-op survived, as it must" if ignored else f"{cell.status}: {cell.reason}"
    return {
        "id": cell.fault.id,
        "mutatorName": cell.fault.id.partition("/")[0],
        "description": cell.fault.breaks,
        "replacement": cell.fault.sql or cell.fault.parts or cell.fault.event or "nothing",
        "status": "Ignored" if ignored else STATUSES[cell.status],
        "statusReason": reason,
        "killedBy": list[JsonValue](cell.killers if cell.status is Status.KILLED else ()),
        "coveredBy": list[JsonValue](sorted({*cell.killers, *cell.failed})),
        "duration": round(cell.seconds * 1000),
    }


def _waiting(fault: ListedFault) -> dict[str, JsonValue]:
    return {
        "id": fault.id,
        "mutatorName": fault.id.partition("/")[0],
        "description": fault.breaks,
        "status": "Pending",
        "statusReason": "it was not examined",
    }


def _place(fault: ListedFault, source_of: ReadSource) -> tuple[str, str, str]:
    """The file, its text and the function that represent a fault. Faults outside Python have a file of their own."""
    if fault.parts:
        module, _, function = fault.parts.partition(":")
        path = module.replace(".", "/") + ".py"
        return path, source_of(path) or f"{fault.parts}\n", function
    ending = "sql" if fault.sql else "txt"
    return f"faults/{fault.id}.{ending}", (fault.sql or fault.event or fault.breaks).rstrip() + "\n", ""


def _location(text: str, function: str) -> JsonValue:
    """From 1, columns too; the end is where the text ends."""
    lines = text.splitlines() or [""]
    first, last = 1, len(lines)
    if function:
        try:
            nodes = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
        except SyntaxError:
            nodes = []
        first, last = next(((n.lineno, n.end_lineno or n.lineno) for n in nodes if n.name == function), (1, 1))
    return {"start": {"line": first, "column": 1}, "end": {"line": last, "column": len(lines[last - 1]) + 1}}
