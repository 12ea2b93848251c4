"""Renders a verdict: html, markdown, junit, slack are pure functions to text; `write` puts all beside the evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from gates.evidence import CheckSpec, Evidence, JsonValue
from gates.reports.github import outputs
from gates.reports.html import html
from gates.reports.junit import junit
from gates.reports.markdown import markdown
from gates.reports.rows import rows_of
from gates.reports.slack import slack
from gates.verdict import Verdict


def render(
    kind: str,
    verdict: Verdict,
    evidence: Sequence[Evidence],
    catalogue: Sequence[CheckSpec],
    run: Mapping[str, JsonValue],
) -> str:
    """One report as text; kind: html, markdown, junit or slack."""
    rows = rows_of(verdict, evidence, catalogue)
    if kind == "html":
        return html(verdict, rows, run)
    if kind == "markdown":
        return markdown(verdict, rows, run)
    return {"junit": junit, "slack": slack}[kind](verdict, rows)


def write(
    folder: Path,
    verdict: Verdict,
    evidence: Sequence[Evidence],
    catalogue: Sequence[CheckSpec],
    run: Mapping[str, JsonValue],
    environ: Mapping[str, str],
) -> list[Path]:
    """Write report.html, summary.md, junit.xml and allure-results, and append to what GitHub Actions names.

    Returns the files.
    """
    from gates.reports.allure import write_allure  # noqa: PLC0415  -- its library takes commands without reports long

    rows = rows_of(verdict, evidence, catalogue)
    texts = {
        "report.html": html(verdict, rows, run),
        "summary.md": markdown(verdict, rows, run),
        "junit.xml": junit(verdict, rows),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    write_allure(folder, rows)
    for variable, text in (("GITHUB_STEP_SUMMARY", texts["summary.md"]), ("GITHUB_OUTPUT", outputs(verdict))):
        if environ.get(variable):
            with Path(environ[variable]).open("a", encoding="utf-8") as out:
                out.write(text)
    return [folder / name for name in texts]
