"""What one check sees while it runs: controls, counts, the request that failed and its nearest passing twin."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import NoReturn

from gates.contract.remedies import altered
from gates.deployment.dialect.exchange import on_the_wire
from gates.deployment.redaction import hidden, redact, redact_text
from gates.deployment.requests import BUSY, FIXED_PATHS, Answer, Exchange, Request, curl, is_a_firewalls
from gates.deployment.standstill import own_standstill
from gates.deployment.target import Target
from gates.evidence import CheckSpec, Evidence, JsonValue, Outcome, Severity
from gates.text import foreign

OPERATOR_CODES = ("agents_paused", "feature_disabled")
"""Refusals that a healthy target gives if an operator paused it or switched it off."""

MOST_OF_A_FIELD = 120
"""How much is shown of what an answer says of a refused field."""


class Unmet(Exception):  # noqa: N818  -- a precondition was not met: an outcome, not an error
    """The check could not be carried out: its outcome is unknown, for the reason given. by: the check that judges the
    broken promise; if that one passes, this check is the cause itself.
    """

    def __init__(self, reason: str, by: str = "") -> None:
        super().__init__(reason)
        self.by = by


class Blocked(Unmet):
    """A check that this one needs did not pass."""

    def __init__(self, by: str) -> None:
        super().__init__(f"blocked by {by}", by)


class Busy(Unmet):
    """The workers were busy with other work. The check may be repeated when they have nothing else to do."""


class Breach(AssertionError):  # noqa: N818  -- an outcome, too
    """A failure whose symptom the check knows; symptoms order findings (`gates.decision.causes`)."""

    def __init__(self, said: str, symptom: str) -> None:
        super().__init__(said)
        self.symptom = symptom


class NotApplicable(Exception):  # noqa: N818  -- likewise
    """The target does not have what the check needs."""


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
    severity: Severity | None = None
    """Set if the check has several limits and the broken one has another severity than the check."""
    details: dict[str, JsonValue] = field(default_factory=dict)

    def control(self, description: str) -> None:
        """A positive control was seen: a request that differs in one field had the good outcome."""
        self.controls.append(description)

    def count(self, number: int = 1) -> None:
        """Add to the number of observations."""
        self.samples += number

    def value(self, observed: JsonValue, limit: JsonValue = None, unit: str = "") -> None:
        """Record the number or short text that the check compares with its limit."""
        self.observed, self.limit, self.unit = observed, limit, unit

    def unmet(self, reason: str, by: str = "") -> NoReturn:
        """End the check as unknown; by: the check that judges what broke."""
        raise Unmet(reason, by)

    def require(self, condition: object, reason: str, by: str = "") -> None:
        """End the check as unknown unless the precondition holds; by: the check that judges it."""
        if not condition:
            raise Unmet(reason, by)

    def quick(self, what: str, taken_ms: Sequence[float], limit_ms: float, since: float) -> None:
        """Assert that the best of several times is within the limit. The check is unknown if this process may have
        caused the delay by a standstill since `since` (time.monotonic() before the first).
        """
        best_ms, lost_ms = min(taken_ms), 1000.0 * own_standstill().lost_s(since)
        self.value(round(best_ms, 1), round(limit_ms, 1), "ms")
        told = f"{what}: {best_ms:.0f} ms at best of {len(taken_ms)}; allowed: {limit_ms:.0f} ms"
        is_sure = best_ms <= limit_ms or best_ms - lost_ms > limit_ms
        self.require(is_sure, f"{told}; but this gate itself stood still for {lost_ms:.0f} ms meanwhile. Run it again")
        assert best_ms <= limit_ms, told

    def expect(
        self,
        request: Request,
        answer: Answer,
        status: int | tuple[int, ...],
        code: str | None = None,
        *,
        control: bool = False,
        busy: bool = False,
        by: str = "",
    ) -> Answer:
        """Assert the status (and problem `code`) of an answer, and that the JSON of a success ends.

        A control records the nearest passing twin, and `by` is the check that judges it. An unexpected answer in BUSY
        makes the check unknown, unless `busy` says that it counts, or it has the wanted code: a proxy knows none.
        """
        wanted = (status,) if isinstance(status, int) else status
        exchange = Exchange(request, answer)
        right = answer.status in wanted and (code is None or answer.code == code)
        right = right and not (answer.status < 300 and _is_torn(answer.body))  # a torn refusal refuses all the same
        is_filtered = is_a_firewalls(answer.status, answer.body)
        filtered = (
            ", and no JSON: a firewall in front may have answered. Let the gate through it" if is_filtered else ""
        )
        if control and not right:
            self.failing = exchange
            due = f"the control did not hold: {_short(exchange)} where {_wanted(wanted, code)} was due"
            raise Unmet(f"{due}{filtered}", by)
        if not right:
            if is_absent(request, answer) and not self._is_there(request, answer, wanted):
                raise Unmet(f"{request.place} answered 404{_of_body(answer)}: the path is not there")
            due = f"{_short(exchange)} where {_wanted(wanted, code)} was due"
            unsure = answer.status not in wanted or answer.is_in_front  # which may refuse by the status that is due
            if answer.status in BUSY and unsure and not busy and answer.code != code:
                raise Unmet(f"{due}: the target was busy or limited us")
            if is_filtered and (answer.status not in wanted or self._refused_its_twin(answer.status)):
                raise Unmet(f"{due}{filtered}")
            if answer.is_elsewhere and not any(300 <= one < 400 for one in wanted):
                raise Unmet(f"{due}: a redirect. Set BASE_URL to where the service itself answers")
            if answer.code in OPERATOR_CODES and not self.target.database_url:
                raise Unmet(f"{_short(exchange)}: an operator may have wanted that, and without SQL nobody can tell")
            self.failing = exchange
            raise AssertionError(f"{_short(exchange)}; allowed: {_wanted(wanted, code)}")
        self.count()
        if control:
            self.control(request.label or f"{request.method} {request.path} -> {answer.status}")
            self.twin = exchange
        return answer

    def _refused_its_twin(self, status: int) -> bool:
        """Whether the service itself, with a code, answered the last control so: it sends no page."""
        return self.twin is not None and self.twin.answer.status == status and bool(self.twin.answer.code)

    def _is_there(self, request: Request, answer: Answer, wanted: tuple[int, ...]) -> bool:
        """Whether the path exists: the last control was answered there, by another method only where that is asked."""
        twin = self.twin.request if self.twin else None
        if twin is None or twin.bare != request.bare:
            return False
        return wanted == (HTTPStatus.METHOD_NOT_ALLOWED,) or bool(answer.code and twin.method == request.method)

    def evidence_of(
        self, spec: CheckSpec, outcome: Outcome, message: str, started_at: str, ms: float, *, blocked_by: str = ""
    ) -> Evidence:
        """The evidence line, without secrets."""
        hide = hidden(self.target)
        witness: JsonValue = self.witness
        reproduce = self.reproduce
        if outcome is Outcome.FAIL and self.failing is not None:
            twin = _shown(self.twin) if self.twin else None
            witness = {"request": _shown(self.failing), "twin": twin, "row": witness}
            reproduce = reproduce or curl(on_the_wire(self.failing.request), self.target.base_url, hide)
        details: dict[str, JsonValue] = {"controls": list[JsonValue](self.controls), **self.details}
        if outcome is not Outcome.PASS and self.failing is not None and (symptom := _symptom(self.failing, message)):
            details.setdefault("symptom", symptom)
        if outcome is Outcome.UNKNOWN and self.failing is not None:  # a control that did not hold
            details["trace_id"] = self.failing.answer.trace
        return Evidence(
            check=spec.id,
            outcome=outcome,
            message=redact_text(message, hide),
            observed=redact(self.observed, hide),
            limit=redact(self.limit, hide),
            unit=self.unit,
            samples=self.samples,
            started_at=started_at,
            duration_ms=round(ms, 1),
            witness=redact(witness, hide),
            reproduce=redact_text(reproduce, hide),
            blocked_by=blocked_by,
            release=self.target.release,
            severity=self.severity or "",
            details={k: redact(v, hide) for k, v in details.items()},
        )


def _symptom(exchange: Exchange, message: str) -> str:
    """What a broken service does in all its answers: that nothing but their status is wrong, as the message says;
    `POST /dlq-replay answered 500`, or `answered 409 agents_paused`. Else empty.
    """
    answer, request = exchange.answer, exchange.request
    code = f" {answer.code}" if answer.status < 500 and answer.code else ""
    said = f"{request.method} {request.route} answered {answer.status}{code}" if code or answer.status >= 500 else ""
    return altered(message) or said


def is_absent(request: Request, answer: Answer) -> bool:
    """Whether nothing answers at the path: a 404 of a fixed path of the contract, or one that a proxy or framework
    gave. A 404 with a `code` at a path with an id is the service's own answer about that id.
    """
    return answer.status == 404 and (request.bare in FIXED_PATHS or not answer.code)


def _wanted(statuses: tuple[int, ...], code: str | None) -> str:
    return " or ".join(map(str, statuses)) + (f" {code}" if code else "")


def _short(exchange: Exchange) -> str:
    what = exchange.request.label or f"{exchange.request.method} {exchange.request.path}"
    answer, came = exchange.answer, exchange.answer.received
    said = f"{what}: observed {answer.status} {answer.code}".rstrip() + _of_body(answer) + _of_a_cache(answer)
    if came is None or came.status == answer.status:
        return said
    return f"{said} (it answered {came.status}; names: http in gate.yaml reads it so)"


def _of_body(answer: Answer) -> str:
    """That the body cannot be read, or is a page, or the refused field: ` (aggregate_key: is required)`. Else empty."""
    marks = b"".join(answer.body.split())
    if marks.startswith(b"<"):
        return " (its body is a page and not JSON: a proxy in front of the service gave it, or replaced the answer)"
    if _is_torn(answer.body) or (marks.startswith(b"{") and marks != b"{}" and not answer.json()):
        return " (its body cannot be read as JSON: it is cut off, or names a member twice)"
    errors = answer.json().get("errors")
    first = errors[0] if isinstance(errors, list) and errors else None
    if not isinstance(first, dict) or not first.get("field"):
        return ""
    return f" ({first['field']}: {first.get('message', '')})"[:MOST_OF_A_FIELD]


def _is_torn(body: bytes) -> bool:
    """Whether it begins as a JSON object and ends before that object does."""
    if not body.lstrip().startswith(b"{") or body.rstrip().endswith(b"}"):
        return False
    return not foreign.json_object(body)


def _of_a_cache(answer: Answer) -> str:
    """Whether a cache in front of the deployment gave the answer (RFC 9111, Age): it did not judge the request."""
    age = answer.header("Age") or ""
    return f" (from a cache, {age} s old)" if age.isdecimal() and age.strip("0") else ""


def _shown(exchange: Exchange) -> dict[str, JsonValue]:
    request, answer = on_the_wire(exchange.request), exchange.answer.received or exchange.answer
    return {
        "request": f"{request.method} {request.path}",
        "label": request.label,
        "headers": [f"{k}: {v}" for k, v in request.headers],
        "body": request.body.decode("utf-8", "backslashreplace"),
        "status": answer.status,
        "answer": answer.body.decode("utf-8", "backslashreplace"),
        "trace_id": exchange.answer.trace,
    }
