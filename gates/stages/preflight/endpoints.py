"""What the target says of itself over HTTP: whether it answers, which release it runs, whether it is ready."""

import re
import time
from collections.abc import Mapping, Sequence

from gates.decision.clock import SERVICE_ALONE, STEPPED_S
from gates.deployment.http import probes
from gates.deployment.http.client import HttpDoor, NoAnswer
from gates.deployment.http.clock import date_of
from gates.deployment.http.limits import within
from gates.deployment.identity import http_place
from gates.deployment.redaction import hidden, redact_text
from gates.deployment.requests import BUSY, BY_A_PROXY, Answer, Request
from gates.deployment.target import Target
from gates.errors import first_line
from gates.evidence import JsonValue, Outcome, Severity
from gates.inputs import values
from gates.stages.preflight.looks import LOOK_S, TRIP_MS, LookResult, spec
from gates.text.foreign import text

VERSION_REQUESTS = 12
"""New connections that ask for /version: enough to meet each of three instances with 97 % at random balancing."""
READY_PATIENCE_S = 5.0
READY_POLL_S = 0.25
TIMEOUT_S = 5.0
MOST_APART_S = 30.0
"""The leeway that the contract gives tokens."""
ABSENT = (404, 405, 501)
"""Statuses of a missing endpoint."""
INVALID = (400, 415, 422)
"""Statuses for a body that is no JSON."""

REACHABLE = spec(
    "target-reachable",
    "The target answers at BASE_URL.",
    "Without an answer nothing can be said about the release.",
    Severity.WARN,
)
RELEASE = spec(
    "release",
    "Every instance says that it runs the release that is meant.",
    "Another release is examined than the one that would be promoted.",
    Severity.PAGE,
    "O01",
    after=(REACHABLE.id,),
)
READY = spec(
    "ready",
    "The target says that it is ready: database reachable, schema as expected, worker alive.",
    "A target that is not ready fails for reasons that have nothing to do with the release.",
    Severity.WARN,
    after=(REACHABLE.id,),
)


def reachable(target: Target, door: HttpDoor) -> LookResult:
    """A 200 of the service at /healthz.

    No answer, a redirect there or at /dlq-replay (a client does not follow it with a POST), a proxy's error or a web
    page: the target is not there. Any other status is the service's own, which other checks judge.
    """
    if not target.base_url:
        return LookResult(Outcome.UNKNOWN, "BASE_URL is not set. Set it to where the functions live")
    try:
        # the first one opens the connection, which takes trips of its own
        first, answer = within(lambda: [door.send(Request("GET", "/healthz")) for _ in range(2)], LOOK_S)
        # a deployment may lack this page
        posted = within(lambda: door.send(probes.bare()), LOOK_S) if answer.status != 200 else _posted(door)
    except (NoAnswer, OSError) as error:
        return _not_there(target, first_line(error))
    shut = _in_the_way(answer)
    if posted and not shut:
        shut = _redirect(f"a POST to {probes.REPLAY} is answered", posted)
        is_absent = answer.status != 200 and posted.status in ABSENT
        shut = UNNAMED.format(answer.status, posted.status) if is_absent else shut
    if shut:
        return _not_there(target, shut, answer.status)
    if answer.status != 200:
        return LookResult(Outcome.UNKNOWN, f"/healthz answers {answer.status}; allowed: 200", answer.status, 200)
    trip_ms = round(min(first.elapsed_ms, answer.elapsed_ms), 1)
    return LookResult(Outcome.PASS, "", answer.status, 200, samples=1, details={TRIP_MS: trip_ms})


UNNAMED = (
    "/healthz answers {}, and a POST to /dlq-replay {}; where they have other paths, gate.yaml says so"
    " (`gate doctor --write` drafts names: http: paths)"
)


def recognised(target: Target, door: HttpDoor, versions: Sequence[dict[str, JsonValue]]) -> LookResult:
    """Whether the service answers. The service names a release, or refuses an unsigned POST to /dlq-replay with 401 or
    a JSON error, or is too busy. A web site or another API does none of these.
    """
    known = any(release_of(v) for v in versions or versions_of(door))
    answer = None if known else door.send(probes.bare())
    if answer is None or answer.status in {401, *BUSY} or (answer.code and answer.status not in ABSENT):
        return LookResult(Outcome.PASS, samples=1)
    if answer.status in INVALID and answer.json():
        return LookResult(Outcome.PASS, samples=1)
    said = f"/version names no release, and a POST to /dlq-replay without credentials is answered {answer.status}"
    return _not_there(target, f"{said}, so nothing shows that the service is what answers", answer.status)


def _in_the_way(answer: Answer) -> str:
    """What answers instead of the target; empty if the target itself does."""
    if redirect := _redirect("/healthz answers", answer):
        return redirect
    if answer.status in BY_A_PROXY:
        return f"/healthz answers {answer.status}"
    page = answer.body.lstrip()[:15].lower().startswith((b"<!doctype", b"<html"))
    if answer.status == 200 and (page or "text/html" in (answer.header("content-type") or "").lower()):
        return "/healthz answers with a web page, as a login or a proxy does"
    return ""


def _posted(door: HttpDoor) -> Answer | None:
    """The answer to a POST without credentials. None without an answer: the drills judge that."""
    try:
        return within(lambda: door.send(probes.bare()), LOOK_S)
    except (NoAnswer, OSError):
        return None


def _redirect(asked: str, answer: Answer) -> str:
    """Where an answer redirects to, without a query, which may hold a token; empty if it does not redirect."""
    place = text(re.split("[?#]", answer.header("location") or "nowhere")[0], 200)
    return f"{asked} {answer.status}, a redirect to {place}, not followed" if answer.is_elsewhere else ""


def _not_there(target: Target, why: str, status: int | None = None) -> LookResult:
    message = f"the target at {http_place(target)} cannot be reached: {why}. Check that it runs and BASE_URL is right"
    return LookResult(Outcome.UNKNOWN, message, status, 200, unreachable=True)


def versions_of(door: HttpDoor) -> list[dict[str, JsonValue]]:
    """Release and instance that /version told, over new connections to each address of the name; or `instead`, what
    came in their place. `date`: the answer's time in Unix seconds, unless it comes from a cache.
    """
    asked = [Request("GET", "/version", (("Connection", "close"),))] * VERSION_REQUESTS
    answers = door.burst(asked, spread=True)
    return [_version(answer) for answer in answers]


def _version(answer: Answer | NoAnswer) -> dict[str, JsonValue]:
    if isinstance(answer, NoAnswer):
        return {"instead": str(answer)}
    if answer.status != 200:
        return {"instead": _redirect("/version answers", answer) or f"/version answers {answer.status}"}
    told = {name: value for name, value in answer.json().items() if name in {"release", "instance"}}
    shown = None if answer.header("age") else date_of(answer)
    return {**told, "date": shown} if shown is not None else told


def clocks(versions: Sequence[dict[str, JsonValue]]) -> LookResult | None:
    """That the clocks of the instances are apart by more than the contract's leeway of tokens; None if none is seen."""
    shown = [date for v in versions if isinstance(date := v.get("date"), float)]
    apart_s = max(shown, default=0.0) - min(shown, default=0.0)
    if apart_s <= MOST_APART_S:
        return None
    message = (
        f"the clocks of the service's instances are {apart_s:.0f} s apart, by the Date of their answers; allowed:"
        f" {MOST_APART_S:.0f} s. Some of them refuse signatures and tokens that are good: what is judged by times"
        " proves nothing"
    )
    ends = "the clocks of all instances stand right, and the gate is run again"
    details: dict[str, JsonValue] = {STEPPED_S: apart_s, SERVICE_ALONE: True, "ends_when": ends}
    return LookResult(Outcome.UNKNOWN, message, apart_s, MOST_APART_S, "s", len(shown), details)


def release(target: Target, versions: Sequence[dict[str, JsonValue]]) -> LookResult:
    """The releases of all instances met; a wrong one fails, a missing one is unknown."""
    said = [release_of(v) for v in versions]
    named = sorted({r for r in said if r})
    instances = len({str(v.get("instance", "")) for v in versions if v and "instead" not in v})
    instead = next((f" ({v['instead']})" for v in versions if "instead" in v), "")
    details: dict[str, JsonValue] = {"releases": list[JsonValue](named), "instances": instances}
    if target.release and any(r != target.release for r in named):
        message = (
            f"/version says {', '.join(named)}; allowed: {target.release} (RELEASE). Finish or repair the deployment"
        )
        return LookResult(Outcome.FAIL, message, ", ".join(named), target.release, samples=len(said), details=details)
    if not target.release and any(redact_text(r, hidden(target)) != r for r in named):
        message = "/version names a release that holds a secret of this gate; allowed: one without. Set RELEASE"
        return LookResult(Outcome.UNKNOWN, message, samples=len(said), details=details)
    if len(named) != 1:
        found = ", ".join(named) or f"no release{instead}"
        message = f"the instances say {found}; allowed: one release. Wait, or set RELEASE"
        return LookResult(Outcome.UNKNOWN, message, ", ".join(named), samples=len(said), details=details)
    silent = said.count("")
    if silent:
        message = f"{silent} of {len(said)} answers of /version name no release{instead}; allowed: none such"
        return LookResult(Outcome.UNKNOWN, message, named[0], target.release, samples=len(said), details=details)
    return LookResult(Outcome.PASS, "", named[0], target.release or named[0], samples=len(said), details=details)


def release_of(version: Mapping[str, JsonValue]) -> str:
    """The release in an answer of /version; empty if it is no valid RELEASE, since every suite gets it so."""
    said = version.get("release")
    if not isinstance(said, str) or said != said.strip():
        return ""
    try:
        return values.release(said)
    except values.Unfit:
        return ""


def ready(door: HttpDoor) -> LookResult:
    """/readyz within a few seconds; only the target's own answer that it is not ready is a failure."""
    deadline = time.monotonic() + READY_PATIENCE_S
    while True:
        answer = door.send(Request("GET", "/readyz"))
        if answer.status == 200:
            return LookResult(Outcome.PASS, "", 200, 200, samples=1)
        if time.monotonic() > deadline:
            break
        time.sleep(READY_POLL_S)
    said = text(answer.body, 200)
    message = f"/readyz answers {answer.status} for {READY_PATIENCE_S:g} s; allowed: 200. It says: {said}"
    outcome = Outcome.FAIL if answer.status == 503 else Outcome.UNKNOWN
    return LookResult(outcome, message, answer.status, 200, samples=1)
