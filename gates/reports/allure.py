"""The checks as Allure results: one file per check of the catalogue, from the evidence and the verdict. Not from
pytest: checks that no test saw would be missing, and a quality gate over what is present would pass.
"""

import datetime as dt
import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path

from allure_commons.logger import AllureFileLogger
from allure_commons.model2 import Attachment, Label, Parameter, Status, StatusDetails, TestResult

from gates import disk
from gates.evidence import Severity
from gates.reports.formats.rows import Row
from gates.text.characters import line, log, without_commands
from gates.text.inert import Markdown
from gates.text.quantity import shown

FOLDER = "allure-results"
OLD = ("*-result.json", "*-attachment.json")
_STATUS = {"pass": Status.PASSED, "fail": Status.FAILED, "unknown": Status.BROKEN, "not applicable": Status.SKIPPED}
_SEVERITY = {Severity.PAGE: "critical", Severity.WARN: "normal", Severity.INVESTIGATE: "minor"}

CATEGORIES = (
    {"name": "Broken promises", "matchedStatuses": ["failed"]},
    {"name": "Behind another cause", "matchedStatuses": ["broken"], "messageRegex": "(?s)blocked by .*"},
    {"name": "Not seen", "matchedStatuses": ["broken"]},
    {
        "name": "Decides nothing",
        "matchedStatuses": ["skipped"],
        "messageRegex": r"(?s)(fail|unknown) \((note|waived)\).*",
    },
    {"name": "Not applicable", "matchedStatuses": ["skipped"]},
)


def write_allure(folder: Path, rows: Iterable[Row], environment: Mapping[str, str]) -> None:
    """Write all of `allure-results` in the folder of a run, replacing that of an earlier report. environment: what the
    report shows of the run, by name.
    """
    results = disk.folder(folder / FOLDER)
    for pattern in OLD:
        for old in results.glob(pattern):
            old.unlink()
    logger = AllureFileLogger(results)
    for row in rows:
        result = result_of(row)
        if row.witness is not None:
            name = f"{uuid.uuid4()}-attachment.json"
            logger.report_attached_data(log(json.dumps(row.witness, ensure_ascii=False, indent=1)), name)
            result.attachments.append(Attachment(name="witness", source=name, type="application/json"))
        logger.report_result(result)
    properties = "".join(f"{name}={_property(value)}\n" for name, value in environment.items())
    disk.write(results / "environment.properties", properties)
    disk.write(results / "categories.json", json.dumps(CATEGORIES, indent=1) + "\n")


def _line(value: str) -> str:
    return without_commands(line(value))


def _property(value: str) -> str:
    """A value of a Java properties file: on one line, with nothing in it read as an escape."""
    escaped = _line(value).replace("\\", "\\\\")
    return "".join(c if c.isascii() else "".join(f"\\u{unit}" for unit in _utf16(c)) for c in escaped)


def _utf16(character: str) -> list[str]:
    code = character.encode("utf-16-be", "replace").hex()
    return [code[at : at + 4] for at in range(0, len(code), 4)]


def result_of(row: Row) -> TestResult:
    """One check: a failure is failed, an unknown broken; waived and noted ones are skipped, with what was seen."""
    stage, _, _ = row.check.partition("/")
    start = _milliseconds(row.started_at)
    identity = hashlib.sha256(line(row.check).encode()).hexdigest()
    name = _line(row.check)
    labels = {"parentSuite": stage, "suite": row.group, "framework": "replaygate", "language": "python"}
    if row.severity:
        labels["severity"] = _SEVERITY[Severity(row.severity)]
    if row.effect:
        labels["tag"] = row.effect
    numbers = {"observed": row.compared, "samples": str(row.samples) if row.samples else ""}
    return TestResult(
        uuid=str(uuid.uuid4()),
        historyId=identity,
        testCaseId=identity,
        fullName=name,
        name=name,
        titlePath=name.split("/")[:-1],
        status=Status.SKIPPED if row.aside else _STATUS[row.outcome],
        statusDetails=_details(row),
        description=Markdown("\n\n").join(text for text in (row.claim, row.cost) if text),
        labels=[Label(label, _line(value)) for label, value in labels.items()],
        # excluded from the identity of the check across runs
        parameters=[Parameter(what, _line(shown(value)), excluded=True) for what, value in numbers.items() if value],
        start=start,
        stop=None if start is None else start + round(row.duration_ms),
    )


def _details(row: Row) -> StatusDetails | None:
    """The details of a check that did not pass, or passed with a remark."""
    if row.outcome == "pass" and not row.message:
        return None
    message = ": ".join(filter(None, (row.aside, row.message or row.compared)))
    return StatusDetails(message=log(message), trace=log(row.reproduce))


def _milliseconds(stamp: str) -> int | None:
    """RFC 3339 as Allure's milliseconds; None without a time, if nothing was seen."""
    try:
        return round(dt.datetime.fromisoformat(stamp).timestamp() * 1000)
    except ValueError:
        return None
