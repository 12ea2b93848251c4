"""pytest plugin: turns what a test observed into evidence, one flushed line each, right under xdist.

A check is a test with `@check(id, ...)`. It passes only if it ended without error, saw a positive control and observed
at least one thing; an AssertionError is a failure by observation; every other error is unknown. In plain pytest an
unknown check is red, too: nothing unseen is ever green.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import pytest

from gates import config
from gates.evidence import CheckSpec, Evidence, JsonValue, Outcome, Severity, Where, read_lines, write_lines
from gates.target.client import HttpDoor
from gates.target.deployment import Target
from gates.target.requests import Answer, Exchange, Request, curl

F = TypeVar("F", bound=Callable[..., object])

BUSY_STATUSES = (429, 502, 503, 504)
"""Answers that, where another one was due, say that the target was busy or limited us: they prove nothing."""


class Unmet(Exception):  # noqa: N818  -- a precondition was not met: an outcome, not an error
    """The check could not be carried out: its outcome is unknown, for the reason given."""


class NotApplicable(Exception):  # noqa: N818  -- likewise
    """The target does not claim what the check needs."""


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
    """Declare a test to be the check `check_id`.

    The test's docstring is its claim (first paragraph) and, after a blank line, what a violation costs.
    phase: `first` (sentinels), `main` (parallel) or `last` (global state, alone).
    """

    def mark(function: F) -> F:
        claim, _, cost = (function.__doc__ or "").strip().partition("\n\n")
        spec = CheckSpec(
            check_id, " ".join(claim.split()), " ".join(cost.split()), severity, where, needs, after, covers, deep, phase
        )
        return pytest.mark.check(spec)(function)  # type: ignore[return-value]

    return mark


@dataclass
class Observer:
    """What one check saw; the fixture `seen`."""

    target: Target
    samples: int = 0
    controls: list[str] = field(default_factory=list)
    observed: JsonValue = None
    limit: JsonValue = None
    unit: str = ""
    failing: Exchange | None = None
    twin: Exchange | None = None
    witness: JsonValue = None
    reproduce: str = ""
    details: dict[str, JsonValue] = field(default_factory=dict)

    def control(self, description: str) -> None:
        """A positive control was seen: the same bucket, one field apart, gave the good outcome."""
        self.controls.append(description)

    def count(self, number: int = 1) -> None:
        """So many more things were observed."""
        self.samples += number

    def value(self, observed: JsonValue, limit: JsonValue = None, unit: str = "") -> None:
        """The number (or short text) that the check compares with its limit."""
        self.observed, self.limit, self.unit = observed, limit, unit

    def unmet(self, reason: str) -> NoReturn:
        """End the check as unknown."""
        raise Unmet(reason)

    def require(self, condition: object, reason: str) -> None:
        """End the check as unknown unless the precondition holds."""
        if not condition:
            raise Unmet(reason)

    def expect(
        self,
        request: Request,
        answer: Answer,
        status: int | tuple[int, ...],
        code: str | None = None,
        *,
        control: bool = False,
        busy: bool = False,
    ) -> Answer:
        """Assert the status (and problem `code`) of an answer. As a control, it records the nearest passing twin.

        An answer in BUSY_STATUSES where another was due ends the check as unknown, unless `busy` says that it counts.
        """
        wanted = (status,) if isinstance(status, int) else status
        exchange = Exchange(request, answer)
        right = answer.status in wanted and (code is None or answer.code == code)
        if control and not right:
            raise Unmet(f"the control did not hold: {_short(exchange)} where {_wanted(wanted, code)} was due")
        if not right:
            if answer.status in BUSY_STATUSES and answer.status not in wanted and not busy:
                raise Unmet(f"{_short(exchange)} where {_wanted(wanted, code)} was due: the target was busy or limited us")
            self.failing = exchange
            raise AssertionError(f"{_short(exchange)}; allowed: {_wanted(wanted, code)}")
        self.count()
        if control:
            self.control(request.label or f"{request.method} {request.path} -> {answer.status}")
            self.twin = exchange
        return answer

    def evidence_of(self, spec: CheckSpec, outcome: Outcome, message: str, started_at: str, ms: float) -> Evidence:
        """The evidence line, without secrets."""
        hide = _hidden(self.target)
        witness: JsonValue = self.witness
        reproduce = self.reproduce
        if outcome is Outcome.FAIL and self.failing is not None:
            witness = {"request": _shown(self.failing), "twin": _shown(self.twin) if self.twin else None, "row": witness}
            reproduce = reproduce or curl(self.failing.request, self.target.base_url, hide)
        return Evidence(
            check=spec.id,
            outcome=outcome,
            message=str(_redact(message, hide)),
            observed=_redact(self.observed, hide),
            limit=_redact(self.limit, hide),
            unit=self.unit,
            samples=self.samples,
            started_at=started_at,
            duration_ms=round(ms, 1),
            witness=_redact(witness, hide),
            reproduce=str(_redact(reproduce, hide)),
            release=self.target.release,
            details={k: _redact(v, hide) for k, v in {"controls": list(self.controls), **self.details}.items()},
        )


def _wanted(statuses: tuple[int, ...], code: str | None) -> str:
    return " or ".join(map(str, statuses)) + (f" {code}" if code else "")


def _short(exchange: Exchange) -> str:
    what = exchange.request.label or f"{exchange.request.method} {exchange.request.path}"
    return f"{what}: observed {exchange.answer.status} {exchange.answer.code}".rstrip()


def _shown(exchange: Exchange) -> dict[str, JsonValue]:
    request, answer = exchange.request, exchange.answer
    return {
        "request": f"{request.method} {request.path}",
        "label": request.label,
        "headers": [f"{k}: {v}" for k, v in request.headers],
        "body": request.body[:2000].decode("utf-8", "backslashreplace"),
        "status": answer.status,
        "answer": answer.body[:2000].decode("utf-8", "backslashreplace"),
    }


def _hidden(target: Target) -> dict[str, str]:
    names = {
        **{s: "TRANSBOT_HMAC_SECRET" for s in target.hmac_secrets},
        target.admin_jwt: "ADMIN_JWT",
        target.jwt_secret: "REPLAY_JWT_SECRET",
    }
    return {s: names.get(s, "SECRET") for s in target.secrets()}


def _redact(value: JsonValue, hide: dict[str, str]) -> JsonValue:
    if isinstance(value, str):
        for secret, name in hide.items():
            value = value.replace(secret, f"${name}")
        return value
    if isinstance(value, list):
        return [_redact(v, hide) for v in value]
    if isinstance(value, dict):
        return {k: _redact(v, hide) for k, v in value.items()}
    return value


# --- pytest wiring -----------------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("replaygate")
    group.addoption("--evidence", metavar="FILE", help="append one JSON line per check to FILE")
    group.addoption("--deep", action="store_true", help="also run the slow checks")
    group.addoption("--phase", choices=("first", "main", "last"), help="run only the checks of one phase")
    group.addoption("--run-id", default="", help="name of this run; part of the names of drill tenants")
    group.addoption("--catalogue", metavar="FILE", help="write the specs of all collected checks to FILE and run nothing")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "check(spec): the test is a check of the catalogue")


@pytest.fixture(scope="session")
def target() -> Target:
    """The deployment under test, from the environment."""
    return config.load_target(os.environ)


@pytest.fixture(scope="session")
def run_id(request: pytest.FixtureRequest) -> str:
    """The name of this run."""
    return str(request.config.getoption("--run-id")) or dt.datetime.now(dt.UTC).strftime("%H%M%S%f")


@pytest.fixture
def seen(request: pytest.FixtureRequest, target: Target) -> Observer:
    """What this check sees."""
    observer = Observer(target)
    request.node.stash[OBSERVER] = observer
    return observer


@pytest.fixture
def http(target: Target) -> Iterator[HttpDoor]:
    """The HTTP door to the target."""
    if not target.base_url:
        raise Unmet("BASE_URL is not set: nothing can be asked over HTTP. Set it to where the functions live")
    with HttpDoor(target.base_url) as door:
        yield door


OBSERVER = pytest.StashKey[Observer]()
RESULT = pytest.StashKey[tuple[Outcome, str, str, float]]()


def spec_of(item: pytest.Item) -> CheckSpec | None:
    """The check that a test item is, if it is one."""
    marker = item.get_closest_marker("check")
    return marker.args[0] if marker else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the checks of this phase, target and depth; the rest is deselected (and unknown or not applicable later)."""
    kind = load_kind(config)
    kept, dropped = [], []
    for item in items:
        spec = spec_of(item)
        (kept if spec is None or _runs(spec, config, kind) else dropped).append(item)
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = kept


def load_kind(_config: pytest.Config) -> Any:
    """The kind of target, from the environment."""
    return config.load_target(os.environ).kind


def _runs(spec: CheckSpec, config: pytest.Config, kind: Any) -> bool:
    phase = config.getoption("--phase")
    return kind.allows(spec.where) and (not spec.deep or config.getoption("--deep")) and phase in {None, spec.phase}


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Block a check whose prerequisite failed, or whose inputs are missing."""
    spec = spec_of(item)
    if spec is None:
        return
    path = item.config.getoption("--evidence")
    failed = {e.check for e in read_lines(Path(path)) if e.outcome is not Outcome.PASS} if path else set()
    for prerequisite in spec.after:
        if prerequisite in failed:
            raise Unmet(f"blocked by {prerequisite}")
    missing = _missing(spec, config.load_target(os.environ))
    if missing:
        raise Unmet(missing)


def _missing(spec: CheckSpec, target: Target) -> str:
    if ("database" in spec.needs or "tenants" in spec.needs) and not target.database_url:
        return "DATABASE_URL is not set: this check needs SQL. Set it to a login that sees all rows (replay_gate)"
    if "mint" in spec.needs and not target.jwt_secret:
        return "REPLAY_JWT_SECRET is not set: this check mints tokens. Set it to the secret of the service"
    return ""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Classify each check; write its evidence after teardown."""
    report: pytest.TestReport = yield  # type: ignore[assignment]
    spec = spec_of(item)
    if spec is None:
        return report  # type: ignore[return-value]
    error = call.excinfo.value if call.excinfo else None
    observer = item.stash.get(OBSERVER, None)
    if call.when == "setup" and error is not None:
        item.stash[RESULT] = (Outcome.UNKNOWN, _reason(error), *_when(call))
    elif call.when == "call":
        item.stash[RESULT] = (*_judge(error, observer), *_when(call))
        if item.stash[RESULT][0] is Outcome.UNKNOWN and report.passed:
            report.outcome = "failed"
            report.longrepr = f"unknown: {item.stash[RESULT][1]}"
    elif call.when == "teardown":
        if error is not None and item.stash[RESULT][0] is Outcome.PASS:
            item.stash[RESULT] = (Outcome.UNKNOWN, f"clean-up failed: {_reason(error)}", *_when(call))
        _write(item, spec, observer)
    return report  # type: ignore[return-value]


def _when(call: pytest.CallInfo[None]) -> tuple[str, float]:
    return dt.datetime.fromtimestamp(call.start, dt.UTC).isoformat(timespec="milliseconds"), call.duration * 1000


def _judge(error: BaseException | None, observer: Observer | None) -> tuple[Outcome, str]:
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
    text = str(error).strip() or type(error).__name__
    if isinstance(error, AssertionError | pytest.fail.Exception | Unmet):
        return text.partition("\nassert ")[0]
    return f"{type(error).__name__}: {text}"


def _write(item: pytest.Item, spec: CheckSpec, observer: Observer | None) -> None:
    path = item.config.getoption("--evidence")
    if not path:
        return
    outcome, message, started_at, ms = item.stash[RESULT]
    if observer is None:
        observer = Observer(config.load_target(os.environ))
    write_lines(Path(path), [observer.evidence_of(spec, outcome, message, started_at, ms)])
