"""The checks as JUnit XML: failure, error (unknown), skipped (does not apply, or decides nothing). Pure."""

import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence

from gates.reports.formats.format import Format, ReportSource
from gates.reports.formats.rows import Row
from gates.reports.sentences import brief
from gates.text.inert import Terminal, xml


def junit(source: ReportSource) -> str:
    """One test suite per stage, one case per check. Waived and noted findings are skipped, with what was seen."""
    verdict, suites = source.verdict, dict[str, list[Row]]()
    for row in sorted(source.rows, key=lambda r: r.check):
        suites.setdefault(row.check.split("/", 1)[0], []).append(row)
    top = ET.Element("testsuites", {"name": "replaygate", **{k: str(v) for k, v in _totals(source.rows).items()}})
    properties = _under(top, "properties")
    told = brief(Terminal, verdict, source.promises, source.plan)
    facts = [("decision", verdict.decision.value), ("reason", verdict.reason), ("release", verdict.release)]
    facts += [("happened", told.happened), ("done", told.done), ("now", told.now)]
    facts += [("stage", verdict.title)] if verdict.stage else []
    facts += [("contract", verdict.contract.text)] if verdict.contract.text else []
    facts += [("headline", verdict.headline), ("by_hand", verdict.action.by_hand)] if verdict.headline else []
    for name, value in facts:
        _under(properties, "property", name=name, value=value)
    for name in sorted(suites):
        _suite(top, name, suites[name])
    ET.indent(top, "")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(top, encoding="unicode")}\n'


def _under(parent: ET.Element, tag: str, text: str = "", /, **attributes: object) -> ET.Element:
    """A child element; only here text is made fit for XML."""
    made = ET.SubElement(parent, tag, {name: xml(value) for name, value in attributes.items()})
    made.text = xml(text) or None
    return made


def _totals(rows: Sequence[Row]) -> dict[str, object]:
    kinds = Counter(_kind(row) for row in rows)
    failures, errors, skipped = (kinds[kind] for kind in ("failure", "error", "skipped"))
    seconds = f"{sum(row.duration_ms for row in rows) / 1000:.3f}"
    return {"tests": len(rows), "failures": failures, "errors": errors, "skipped": skipped, "time": seconds}


def _suite(top: ET.Element, name: str, rows: Sequence[Row]) -> None:
    made = _under(top, "testsuite", **{"name": name, **_totals(rows)})
    for row in rows:
        _case(made, row)


def _kind(row: Row) -> str:
    if row.outcome == "not applicable" or row.aside:
        return "skipped"
    return {"pass": "", "fail": "failure"}.get(row.outcome, "error")


def _case(suite: ET.Element, row: Row) -> None:
    group, _, name = row.check.rpartition("/")
    time = f"{row.duration_ms / 1000:.3f}"
    made = _under(suite, "testcase", classname=group.replace("/", "."), name=name, time=time)
    kind = _kind(row)
    if kind == "skipped":
        _under(made, kind, message=": ".join(filter(None, (row.aside, row.message or row.compared))))
    elif kind:
        about = "\n".join(filter(None, (row.claim, row.cost, row.reproduce)))
        _under(made, kind, about, message=row.message or row.compared)
    elif row.message:
        _under(made, "system-out", row.message)


FORMAT = Format("junit", "junit.xml", junit)
