"""The checks as JUnit XML: a failure is a failure, an unknown is an error, not applicable is skipped. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from xml.sax.saxutils import escape, quoteattr

from gates.reports.rows import Row
from gates.verdict import Verdict

_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(verdict: Verdict, rows: Sequence[Row]) -> str:
    """One test suite a stage, one case a check. Waived and noted findings count as passed, with what was seen."""
    suites: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda r: r.check):
        suites.setdefault(row.check.split("/", 1)[0], []).append(row)
    body = "".join(_suite(name, suites[name]) for name in sorted(suites))
    properties = "".join(
        f"<property name={_attribute(name)} value={_attribute(value)}/>"
        for name, value in (
            ("decision", verdict.decision.value),
            ("reason", verdict.reason),
            ("release", verdict.release),
            *((("headline", verdict.headline), ("by_hand", verdict.action.by_hand)) if verdict.headline else ()),
        )
    )
    head = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<testsuites name="replaygate"><properties>{properties}</properties>\n'
    )
    return f"{head}{body}</testsuites>\n"


def _suite(name: str, rows: Sequence[Row]) -> str:
    kinds = Counter(_kind(row) for row in rows)
    seconds = sum(row.duration_ms for row in rows) / 1000
    cases = "".join(_case(row) for row in rows)
    return (
        f'<testsuite name={_attribute(name)} tests="{len(rows)}" failures="{kinds["failure"]}" '
        f'errors="{kinds["error"]}" skipped="{kinds["skipped"]}" time="{seconds:.3f}">\n{cases}</testsuite>\n'
    )


def _kind(row: Row) -> str:
    if row.outcome == "not applicable":
        return "skipped"
    if row.outcome == "pass" or row.effect in {"note", "waived"}:
        return ""
    return "failure" if row.outcome == "fail" else "error"


def _case(row: Row) -> str:
    group, _, name = row.check.rpartition("/")
    names = f"classname={_attribute(group.replace('/', '.'))} name={_attribute(name)}"
    head = f'<testcase {names} time="{row.duration_ms / 1000:.3f}"'
    kind = _kind(row)
    if kind == "skipped":
        return f"{head}><skipped message={_attribute(row.message)}/></testcase>\n"
    if kind:
        text = _text(f"{row.claim}\n{row.cost}\n{row.reproduce}".strip())
        return f"{head}><{kind} message={_attribute(row.message or row.compared)}>{text}</{kind}></testcase>\n"
    if row.message:
        return f"{head}><system-out>{_text(row.message)}</system-out></testcase>\n"
    return f"{head}/>\n"


def _text(value: str) -> str:
    return escape(_NOT_XML.sub("\ufffd", value))


def _attribute(value: str) -> str:
    return quoteattr(_NOT_XML.sub("\ufffd", value))
