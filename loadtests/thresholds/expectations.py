"""What answers must say under load. A server that answers just anything must not pass.

The same as k6's `check()`: an answer that is not what was expected is counted in the metric `checks`, apart from
`http_req_failed`, which looks at the status alone. A redirect to a login page is an answer, and not the one expected.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gates.deployment.ids import answered
from gates.deployment.requests import is_a_firewalls

RUN_STATUSES = frozenset({"started", "completed"})
REFUSED = {"agents_paused": 409, "in_progress": 409, "rate_limited": 429, "feature_disabled": 403}
"""Status by code of the refusals that a call may have to expect."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """`says` in words what `holds` decides from status (0: no answer) and body.

    is_anothers: whether the answer is a success of another request than ours; None where it does not say.
    """

    says: str
    holds: Callable[[int, bytes], bool]
    is_anothers: Callable[[int, bytes], bool | None] = lambda _status, _body: None


SUCCEEDS = Expectation("status is 200..299", lambda status, _body: 200 <= status < 300)


def status_is(wanted: int) -> Expectation:
    """That status and no other."""
    return Expectation(f"status is {wanted}", lambda status, _body: status == wanted)


ALIVE = status_is(200)


def is_limited(status: int, body: bytes) -> bool:
    """Whether a limiter before the service answered: a firewall, or 429 without the code of the contract's refusals."""
    return is_a_firewalls(status, body) or (status == 429 and not answered(body).get("code"))


def version_of(release: str = "") -> Expectation:
    """/version names that release; any, where none is meant."""

    def holds(status: int, body: bytes) -> bool:
        said = answered(body).get("release")
        return status == 200 and (said == release if release else isinstance(said, str))

    return Expectation(f"200 with the release {release}" if release else "200 with a release", holds)


def accepted_event(event_id: str) -> Expectation:
    """An event was taken: 202, its own id (empty: whichever the service gives it), and the path that it takes."""

    def holds(status: int, body: bytes) -> bool:
        answer = answered(body)
        is_it = _same(answer, "event_id", event_id) if event_id else bool(answer.get("event_id"))
        return status == 202 and is_it and answer.get("path") in {"outbox", "direct"}

    def is_anothers(status: int, body: bytes) -> bool | None:
        return _contradicts(answered(body), {"event_id": event_id}) if status == 202 else None

    return Expectation("202 with the event's id and path", holds, is_anothers)


def _says_what_became(status: int, body: bytes) -> bool:
    answer = answered(body)
    return status == 200 and isinstance(answer.get("status"), str) and bool(answer.get("committed_at"))


EVENT_STATUS = Expectation("200 with status and commit", _says_what_became)


def replayed(company: str, key: str = "", *, refusals: frozenset[str], waiting: tuple[str, ...] = ()) -> Expectation:
    """A replay call of a company was answered; without a key it is a dry run. `refusals` are codes it may meet.

    waiting: dead letters of the company of which each call takes one, as many as it has real runs: a run that takes
    none has not done what it says. A dry run may come after those, and find none.

    Whether it was a duplicate is left to the drills: a request sent again over a new connection is one.
    """

    def is_right(answer: dict[str, Any]) -> bool:
        items = answer.get("items")
        if not _same(answer, "company_id", company) or not isinstance(items, list):
            return False
        taken = set(map(str, items))
        if waiting and not (len(items) <= 1 and taken <= set(waiting) and (taken or not key)):
            return False
        # members that contradict the status or the list
        if answer.get("dry_run", not key) is not (not key) or answer.get("target_count", len(items)) != len(items):
            return False
        if not key:
            return answer.get("status") == "dry_run"
        return answer.get("status") in RUN_STATUSES and answer.get("idempotency_key") == key

    def holds(status: int, body: bytes) -> bool:
        if status == 200:
            return is_right(answered(body))
        code = answered(body).get("code")
        return isinstance(code, str) and code in refusals and REFUSED[code] == status

    def is_anothers(status: int, body: bytes) -> bool | None:
        return _contradicts(answered(body), {"company_id": company, "idempotency_key": key}) if status == 200 else None

    words = f"200 with {'its run' if key else 'a dry run'}"
    return Expectation(f"{words}, or a refusal to expect ({', '.join(sorted(refusals))})", holds, is_anothers)


def _contradicts(answer: dict[str, Any], asked: dict[str, str]) -> bool | None:
    """Whether the answer names another thing than was asked for; None where it names none of them."""
    named = {name: wanted for name, wanted in asked.items() if wanted and isinstance(answer.get(name), str)}
    return not all(_same(answer, name, wanted) for name, wanted in named.items()) if named else None


def _same(answer: dict[str, Any], member: str, wanted: str) -> bool:
    return str(answer.get(member, "")).lower() == wanted.lower()
