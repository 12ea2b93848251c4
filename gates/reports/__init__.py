"""Renders a verdict: one pure function per format; `write` puts the formats with a file beside the evidence."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from gates import disk
from gates.evidence import CheckSpec, Evidence, JsonValue
from gates.reports.formats import FORMATS
from gates.reports.formats.format import ReportSource
from gates.reports.formats.rows import rows_of
from gates.text.characters import line
from gates.verdict import Verdict


def render(
    kind: str,
    verdict: Verdict,
    evidence: Sequence[Evidence],
    catalogue: Sequence[CheckSpec],
    run: Mapping[str, JsonValue],
) -> str:
    """One report as text; kind: the name of a format."""
    (chosen,) = (f for f in FORMATS if f.name == kind)
    return chosen.render(ReportSource(verdict, rows_of(verdict, evidence, catalogue), run, evidence))


def write(
    folder: Path,
    verdict: Verdict,
    evidence: Sequence[Evidence],
    catalogue: Sequence[CheckSpec],
    run: Mapping[str, JsonValue],
    environ: Mapping[str, str],
    warn: Callable[[str], None],
) -> list[Path]:
    """Write all report files and allure-results; append to the files that GitHub Actions names. Returns the files. A
    failure to append is a warning: a container may have the host's variables, but not the files.
    """
    from gates.reports.allure import write_allure  # noqa: PLC0415  -- slow, and not all commands need it

    rows = rows_of(verdict, evidence, catalogue)
    source = ReportSource(verdict, rows, run, evidence)
    texts = {f.name: f.render(source) for f in FORMATS if f.file}
    files = {f.name: folder / f.file for f in FORMATS if f.file}
    for name, path in files.items():
        disk.write(path, texts[name])
    environment = {
        "release": verdict.release,
        "target": verdict.target,
        "decision": verdict.title,
        "gate": str(run.get("gate", "")),
        "policy": verdict.policy_digest,
    }
    write_allure(folder, rows, environment)
    for variable, text in (("GITHUB_STEP_SUMMARY", texts["markdown"]), ("GITHUB_OUTPUT", outputs(verdict))):
        if environ.get(variable):
            try:
                disk.append(Path(environ[variable]), text)
            except OSError as error:
                warn(f"{variable} could not be written: {error}. The verdict stands all the same")
    return list(files.values())


def outputs(verdict: Verdict) -> str:
    """Lines for $GITHUB_OUTPUT; every value is on one line, so none can add an output of its own."""
    values = {
        "decision": verdict.decision.value,
        "reason": line(verdict.reason),
        "release": line(verdict.release),
        "action": verdict.action.kind,
        "exit-code": str(verdict.exit_code),
        **({"contract": line(verdict.contract.text)} if verdict.contract.text else {}),
        **({"headline": verdict.headline} if verdict.headline else {}),
    }
    return "".join(f"{name}={value}\n" for name, value in values.items())
