"""Suites of a few checks, a target that answers, and the request of a run."""

import dataclasses
import json
from pathlib import Path
from xml.etree import ElementTree as ET

from gates import record
from gates.checks.observation import Observer
from gates.deployment.target import Target
from gates.evidence import CheckSpec, Evidence, Outcome, Severity, Where, stamp
from gates.proof.workbench.servers import Asked, Reply
from gates.reports.terminal import verdict_text
from gates.request import RunRequest
from gates.stages import suite
from gates.stages.context import Context, now
from gates.stages.preflight import endpoints
from gates.verdict import Verdict

COMPANY = "11111111-1111-4111-8111-111111111111"

SECRET = "planted-secret-0123456789"

ROOT = Path(__file__).resolve().parents[2]

SMALL = """
import os, time
from pathlib import Path
import pytest
from gates.checks.recorder import check

@pytest.fixture(autouse=True)
def ground(seen):
    seen.control("x")
    seen.count()
"""

DRILL = (
    SMALL
    + '''
@check("drill/small/first", phase="first")
def test_first(seen, request):
    """A sentinel."""
    Path(request.config.getoption("--companies")).open("a").write("COMPANY\\n")

@check("drill/small/main", after=("drill/small/first",))
def test_main(seen):
    """A drill."""
    print(os.environ["TRANSBOT_HMAC_SECRET"])
    seen.details["said"] = os.environ["TRANSBOT_HMAC_SECRET"]
    seen.witness = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJlLXRoYXQtd29ya3M"
    MAIN

@check("drill/small/last", phase="last")
def test_last(seen):
    """Alone."""
'''
)

SQL = (
    SMALL
    + '''
@check("sql/small/data")
def test_data(seen, request):
    """Data."""
    excluded = Path(request.config.getoption("--exclude-companies")).read_text().split()
    seen.value(len(excluded), 10, "companies")

@check("alert/small")
def test_alert(seen, request):
    """An alert that has its samples only after the load."""
    seen.require(request.config.getoption("--round") != "before", "too few samples")
'''
)

OPTIONS = """
def pytest_addoption(parser):
    for name in ("--companies", "--lease", "--trip-ms", "--at-once", "--beside", "--beside-load"):
        parser.addoption(name)
    for name in ("--exclude-companies", "--crowded-companies", "--manifest", "--state", "--steps"):
        parser.addoption(name)
    for name in ("--flag", "--cohorts", "--bake-minutes"):
        parser.addoption(name)
    for name in ("--spot-folder", "--alert-folder"):
        parser.addoption(name, action="append")
"""


class SmallTarget:
    """A target that is alive, ready and names a release; its first `away` answers of /version are a proxy's."""

    release, away = "r1", 0

    def __call__(self, asked: Asked) -> Reply:
        refused = asked.path == "/version" and self.away > 0
        self.away -= refused
        return Reply(503 if refused else 200, (), json.dumps({"release": self.release, "drill_agent": True}).encode())


SMALL_TARGET = SmallTarget()


def spec(check: str, phase: str = "main") -> CheckSpec:
    return CheckSpec(check, "c", "c", Severity.PAGE, Where.READ_ONLY, phase=phase)


WITHOUT_SQL = (endpoints.REACHABLE, endpoints.RELEASE, endpoints.READY)

CATALOGUE = (
    *WITHOUT_SQL,
    spec("drill/small/first", "first"),
    spec("drill/small/main"),
    spec("drill/small/last", "last"),
    spec("sql/small/data"),
    spec("alert/small"),
    spec("load/small"),
)

HARM = "assert False"


def written(one: CheckSpec, context: Context, *, before: bool) -> Evidence:
    """What the small suite writes about its check. The test of the stages' order sees that it is the same."""
    observer, outcome, message = Observer(context.target), Outcome.PASS, ""
    observer.control("x")
    observer.count()
    if one.id == "drill/small/first":
        context.companies.write_text(COMPANY, encoding="utf-8")
    if one.id == "sql/small/data":
        observer.value(len(context.companies.read_text(encoding="utf-8").split()), 10, "companies")
    if one.id == "drill/small/main" and HARM in (suite.ROOT / "drills" / "test_drills.py").read_text(encoding="utf-8"):
        outcome, message = Outcome.FAIL, HARM
    if one.id == "alert/small" and before:
        outcome, message = Outcome.UNKNOWN, "too few samples"
    line = observer.evidence_of(one, outcome, message, stamp(now()), 1.0)
    return dataclasses.replace(line, round="before" if before else "")


def loaded(_target: Target, out: Path) -> list[Evidence]:
    (out / "load").mkdir(exist_ok=True)
    (out / "load" / "load.log").write_text(f"the secret is {SECRET}", encoding="utf-8")
    return [Evidence("load/small", Outcome.PASS, samples=60, observed=1.0, limit=2.0)]


def change(request: RunRequest, main: str) -> None:
    file = request.out.parent / "drills" / "test_drills.py"
    file.write_text(DRILL.replace("MAIN", main).replace("COMPANY", COMPANY), encoding="utf-8")


def told(out: Path, shown: Verdict) -> set[str]:
    """The result of a stage, as each output file states it."""
    junit = ET.fromstring((out / "junit.xml").read_text())  # noqa: S314  -- our own file
    properties = {p.attrib["name"]: p.attrib["value"] for p in junit.iter("property")}
    page = (out / "report.html").read_text(encoding="utf-8")
    return {
        shown.title,
        record.recompute(out).title,
        properties["stage"],
        (out / "summary.md").read_text(encoding="utf-8").splitlines()[0].split(" ", 2)[2],
        page.partition("<h1>")[2].partition("</h1>")[0],
        verdict_text(shown, colour=False).strip().partition(":")[0].lower(),
    }
