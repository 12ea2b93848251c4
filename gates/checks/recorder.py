"""pytest plugin: turns what a test observed into evidence, one flushed line each, right also in several processes.

A check is a test with `@check(id, ...)`. It passes only if it ended without error, saw a positive control and observed
at least one thing; an AssertionError is a failure by observation; every other error is unknown. In plain pytest an
unknown check is red, too: nothing unseen is ever green.
"""

import datetime as dt
import json
import os
import sys
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TypeVar

import psycopg
import pytest

from gates import config as gates_config
from gates.checks.by_hand import excused, found
from gates.checks.observation import Blocked, Breach, Busy, NotApplicable, Observer, Unmet
from gates.checks.progress import EvidenceFile
from gates.deployment.capabilities import claims, evidence_id
from gates.deployment.credentials import CheckedTarget, unfit
from gates.deployment.dialect.current import learn
from gates.deployment.http.client import HttpDoor, NoAnswer
from gates.deployment.redaction import hidden, hide_where_cut
from gates.deployment.sql.database import told
from gates.deployment.sql.failures import in_words
from gates.deployment.standstill import own_standstill
from gates.deployment.target import Target
from gates.errors import ConfigError
from gates.evidence import CAPABILITIES, VARIABLES, CheckSpec, Outcome, Severity, TargetKind, Where, stamp
from gates.evidence_file import write_lines
from gates.text.foreign import text
from gates.text.patterns import matches

MOST_REPORT = 20_000
"""How much pytest is given of a failure's text and of each captured output."""

__all__ = ["Blocked", "NotApplicable", "Observer", "Unmet", "check"]

F = TypeVar("F", bound=Callable[..., object])


def check(
    check_id: str,
    *,
    severity: Severity = Severity.PAGE,
    where: Where = Where.SELF_CLEANING,
    needs: tuple[str, ...] = (),
    after: tuple[str, ...] = (),
    covers: tuple[str, ...] = (),
    deep: bool = False,
    phase: str = "main",
) -> Callable[[F], F]:
    """Declare a test to be the check `check_id`. The test's docstring is its claim (first paragraph) and, after a blank
    line, what a violation costs. phase: `first` (sentinels), `main` (parallel) or `last` (global state, alone).
    """

    def mark(function: F) -> F:
        claim, _, cost = (function.__doc__ or "").strip().partition("\n\n")
        texts = (" ".join(claim.split()), " ".join(cost.split()))
        spec = CheckSpec(check_id, *texts, severity, where, needs, after, covers, deep, phase)
        marked: F = pytest.mark.check(spec)(function)
        return marked

    return mark


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("replaygate")
    group.addoption("--evidence", metavar="FILE", help="append one JSON line per check to FILE")
    group.addoption("--deep", action="store_true", help="also run the slow checks")
    group.addoption("--disruptive", action="store_true", help="on staging, also checks that disturb its other users")
    group.addoption(
        "--only", action="append", metavar="GLOB", help="run only the checks with such ids; may be repeated"
    )
    group.addoption("--left-out", metavar="FILE", help="run none of the checks in FILE, one id a line")
    group.addoption("--round", default="", choices=("", "before"), help="`before`: these checks are seen again later")
    group.addoption("--run-id", default="", help="name of this run, in its evidence and in the names of drill tenants")
    group.addoption("--when-told", metavar="FD", type=int, help="collect, and look once a byte comes from FD")
    group.addoption("--calls", metavar="FD", type=int, help="a byte to FD asks the gate to work; --when-told answers")
    group.addoption("--catalogue", metavar="FILE", help="write the specs of all collected checks to FILE, run nothing")


def pytest_configure(config: pytest.Config) -> None:
    """Raise UsageError if Python drops `assert`: pytest restores it in test modules only."""
    if sys.flags.optimize:
        raise pytest.UsageError(
            f"Python runs with optimize={sys.flags.optimize}, so that failures are lost; allowed: 0. Leave -O and"
            " PYTHONOPTIMIZE out"
        )
    config.addinivalue_line("markers", "check(spec): the test is a check of the catalogue")
    current_target.cache_clear()
    learn(gates_config.process_environment())  # before the checks are imported: they draw ids then
    told(gates_config.process_environment())


@cache
def current_target() -> Target:
    """The deployment under test. Each check asks several times, and the environment stays while checks run."""
    try:
        target = gates_config.load_target(gates_config.process_environment())
    except ConfigError as error:
        raise pytest.UsageError(str(error)) from None
    hide_where_cut(hidden(target))
    return target


@pytest.fixture(scope="session")
def target(request: pytest.FixtureRequest) -> Target:
    """The deployment under test, from the environment. A check that needs a refused credential is blocked."""
    found = current_target()
    why = unfit(found, time.time()) if found.admin_jwt else ""
    refused: dict[str, Exception] = (
        {"admin_jwt": Unmet(f"ADMIN_JWT {why}. Set it to a valid admin token")} if why else {}
    )
    progress = _progress(request.config)
    if progress is not None:
        refused |= {n: Blocked(c) for n, c in CREDENTIALS.items() if getattr(found, n) and progress.failed(c)}
    return CheckedTarget.of(found, refused)


@pytest.fixture(scope="session")
def run_id(request: pytest.FixtureRequest) -> str:
    return str(request.config.getoption("--run-id")) or dt.datetime.now(dt.UTC).strftime("%H%M%S%f")


@pytest.fixture
def seen(request: pytest.FixtureRequest) -> Observer:
    """What this check sees."""
    own_standstill()  # watches from here on
    observer = Observer(current_target())
    request.node.stash[OBSERVER] = observer
    return observer


@pytest.fixture
def http(target: Target) -> Iterator[HttpDoor]:
    if not target.base_url:
        raise Unmet("BASE_URL is not set: nothing can be asked over HTTP. Set it to where the functions live")
    with HttpDoor(target.base_url) as door:
        yield door


OBSERVER = pytest.StashKey[Observer]()
RESULT = pytest.StashKey["Result"]()
ASKED_AGAIN = pytest.StashKey[bool]()
"""Session key: whether a check that found the workers busy is repeated. Report key: that it is to be."""
PROGRESS = pytest.StashKey[EvidenceFile]()
CLAIMS = pytest.StashKey[dict[str, bool | None]]()
CREDENTIALS = {
    "hmac_secrets": "preflight/credentials/signing-secret",
    "admin_jwt": "preflight/credentials/admin-token",
    "jwt_secret": "preflight/credentials/token-secret",
}
"""Field of the target -> the check of the preflight that tries the credential."""


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of a check, before its clean-up."""

    outcome: Outcome
    message: str
    started_at: str
    duration_ms: float
    blocked_by: str = ""
    is_busy: bool = False


def spec_of(item: pytest.Item) -> CheckSpec | None:
    marker = item.get_closest_marker("check")
    return marker.args[0] if marker else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the checks of this target and depth; deselect the rest, which become unknown or not applicable later."""
    listing = config.getoption("--catalogue")
    if listing:
        _write_catalogue(Path(listing), [s for s in map(spec_of, items) if s is not None])
    kind = current_target().kind
    file = config.getoption("--left-out")
    left_out = set(Path(file).read_text(encoding="utf-8").split()) if file else set()
    kept: list[pytest.Item] = []
    dropped: list[pytest.Item] = []
    for item in items:
        spec = spec_of(item)
        runs = not listing and (spec is None or (spec.id not in left_out and _runs(spec, config, kind)))
        (kept if runs else dropped).append(item)
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = kept


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Wait for the signal to start: the target was asked nothing so far. Exit if whoever started us is gone."""
    waits = session.config.getoption("--when-told")
    if waits is not None and not os.read(waits, 1):
        pytest.exit("nobody asked for a look", returncode=int(pytest.ExitCode.INTERRUPTED))


def _write_catalogue(path: Path, specs: list[CheckSpec]) -> None:
    known: dict[str, CheckSpec] = {}
    for spec in specs:
        if known.setdefault(spec.id, spec) != spec:
            raise pytest.UsageError(
                f"check id {spec.id} is declared twice, differently; give each check an id of its own"
            )
    lines = ",\n".join(json.dumps(known[i].to_json(), ensure_ascii=False) for i in sorted(known))
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def _runs(spec: CheckSpec, config: pytest.Config, kind: TargetKind) -> bool:
    only = config.getoption("--only")
    wanted = not only or matches(spec.id, only)
    deep = not spec.deep or bool(config.getoption("--deep"))
    allowed = kind.allows(spec.where, disruptive=bool(config.getoption("--disruptive")))
    return allowed and deep and wanted


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Block a check whose prerequisite failed or whose inputs are missing; skip what the target does not have."""
    spec = spec_of(item)
    if spec is None:
        return
    progress = _progress(item.config) if spec.after or spec.needs else None
    if progress is not None:
        for prerequisite in spec.after:
            if progress.failed(prerequisite):
                raise Blocked(prerequisite)
    found(current_target().database_url)
    if missing := _missing(spec, current_target()):
        raise missing
    for capability in CAPABILITIES:
        claimed = capability not in spec.needs or _claimed(item.config, progress, capability)
        if claimed is None and capability == "two-sources":  # whoever hides the sources would fail
            raise Unmet("calls from two addresses were not answered well: whether they are told apart is not seen")
        if claimed is False:
            pytest.skip(f"not applicable: the target does not claim {capability}")


def _progress(config: pytest.Config) -> EvidenceFile | None:
    path = config.getoption("--evidence")
    if not path:
        return None
    progress = config.stash.setdefault(PROGRESS, EvidenceFile(Path(path), str(config.getoption("--run-id"))))
    progress.refresh()
    return progress


def _claimed(config: pytest.Config, progress: EvidenceFile | None, capability: str) -> bool | None:
    """What the preflight saw; without a preflight (plain pytest), what the target says now. None if unknown."""
    seen = progress.capability(evidence_id(capability)) if progress is not None else None
    if seen is not None:
        return seen
    if CLAIMS not in config.stash:
        config.stash[CLAIMS] = claims(current_target())
    return config.stash[CLAIMS].get(capability, True)


def _missing(spec: CheckSpec, target: Target) -> Unmet | None:
    """Block on one cause for all unset variables, which the preflight names."""
    said = ""
    if ("database" in spec.needs or "tenants" in spec.needs) and not target.database_url:
        said = "DATABASE_URL is not set: this check needs SQL. Set it to a login that sees all rows (replay_gate)"
    elif "mint" in spec.needs and not target.jwt_secret:
        said = "REPLAY_JWT_SECRET is not set: this check mints tokens. Set it to the secret of the service"
    return Unmet(said, VARIABLES) if said else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Classify each check; write its evidence after teardown."""
    report = yield
    spec = spec_of(item)
    if spec is None:
        return report
    error = call.excinfo.value if call.excinfo else None
    _make_inert(report)
    observer = item.stash.get(OBSERVER, None)
    by = error.by if isinstance(error, Unmet) else ""
    if call.when == "setup" and error is not None:
        item.stash[RESULT] = Result(Outcome.UNKNOWN, _reason(error), *_when(call), by)
    elif call.when == "call":
        if isinstance(error, Breach) and observer is not None:
            observer.details["symptom"] = error.symptom
        judged = excused(*judge(error, observer), spec, current_target().database_url)
        item.stash[RESULT] = Result(*judged, *_when(call), by, isinstance(error, Busy))
        if item.stash[RESULT].outcome is Outcome.UNKNOWN and report.passed:
            report.outcome = "failed"
            report.longrepr = f"unknown: {item.stash[RESULT].message}"
        # other data of a report is passed on with it
        report.__dict__["is_asked_again"] = _is_asked_again(item)
    elif call.when == "teardown":
        if error is not None and item.stash[RESULT].outcome is Outcome.PASS:
            item.stash[RESULT] = Result(Outcome.UNKNOWN, f"clean-up failed: {_reason(error)}", *_when(call))
        _write(item, spec, observer)
    return report


def _make_inert(report: pytest.TestReport) -> None:
    """Bound the text and remove lone surrogates: one from a target would end the process that sends the report."""
    if report.longrepr and not isinstance(report.longrepr, tuple):
        report.longrepr = text(report.longrepr, MOST_REPORT)
    report.sections = [(text(name), text(said, MOST_REPORT)) for name, said in report.sections]


def _when(call: pytest.CallInfo[None]) -> tuple[str, float]:
    return stamp(dt.datetime.fromtimestamp(call.start, dt.UTC)), call.duration * 1000


def judge(error: BaseException | None, observer: Observer | None) -> tuple[Outcome, str]:
    if isinstance(error, AssertionError | pytest.fail.Exception):
        return Outcome.FAIL, _reason(error)
    if error is not None:
        return Outcome.UNKNOWN, _reason(error)
    if observer is None or observer.samples < 1:
        return Outcome.UNKNOWN, "nothing was observed"
    if not observer.controls:
        return Outcome.UNKNOWN, "no positive control was seen"
    return Outcome.PASS, ""


def _reason(error: BaseException) -> str:
    if isinstance(error, pytest.skip.Exception):
        return f"skipped: {text(error)}"
    if isinstance(error, psycopg.Error):
        return text(in_words(error), MOST_REPORT)
    said = text(error, MOST_REPORT).strip() or type(error).__name__
    if isinstance(error, AssertionError | pytest.fail.Exception | Unmet | NoAnswer):
        return said.partition("\nassert ")[0]
    return f"{type(error).__name__}: {said}"


def _write(item: pytest.Item, spec: CheckSpec, observer: Observer | None) -> None:
    path = item.config.getoption("--evidence")
    result = item.stash[RESULT]
    if not path or result.message.startswith("skipped: not applicable"):
        return
    if observer is None:
        observer = Observer(current_target())
    one = observer.evidence_of(
        spec, result.outcome, result.message, result.started_at, result.duration_ms, blocked_by=result.blocked_by
    )
    run = str(item.config.getoption("--run-id"))
    seen_in = "before" if _is_asked_again(item) else item.config.getoption("--round")
    write_lines(Path(path), [replace(one, round=seen_in)], run)


def _is_asked_again(item: pytest.Item) -> bool:
    return item.stash[RESULT].is_busy and item.config.stash.get(ASKED_AGAIN, False)
