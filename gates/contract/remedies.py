"""What to do about a check that did not pass, as data (remedies.yaml)."""

import functools
import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from gates.contract.contract import contract
from gates.contract.scope import WHOLE, Scope
from gates.text.own_data import data_of

FILE = Path(__file__).with_name("remedies.yaml")
SEEN = {
    r"\bcannot be read as JSON\b": "See what cuts or rewrites answers between the service and the gate.",
    r"\bobserved 5\d\d\b": "Read the service's log at the X-Request-Id of its 5xx first.",
    r"\bobserved 413\b(?! body_too_large)": "See which proxy limits bodies to less than 64 KiB (client_max_body_size).",
    r"\bobserved 409 in_progress\b": "Lock a key for its transaction: a session's lock stays held behind a pooler.",
}
"""What any check may meet instead of an answer -> what to do first."""
ALTERED = "The answer is the promised one, its status is not: see what changes it on the way, or maps it wrongly."
"""What to do first about an answer of which nothing but the status is wrong."""
OBSERVED = re.compile(
    r"\bobserved (?P<status>\d{3})(?: (?P<code>[a-z_]+))?\b.*(?:; allowed: |where )(?P<allowed>[^;]*)", re.DOTALL
)
"""What a check says about an answer with another status than the due one."""
CREDENTIALS = "preflight/credentials/"
TURNED_AWAY = re.compile(r"[A-Z]+ \S+ answers \d{3}\b")
"""How the message begins of a check of credentials that were not looked at: they may be right."""


def remedy_of(check: str, outcome: str = "fail", scope: Scope = WHOLE, *, seen: str = "") -> str:
    """A line or two, in the words and limits of the scope; empty for a user's own check.

    seen: what the check says. After a server error, the service's log knows more than any remedy. Unknown checks get
    the remedies of the preflight, which make them visible; all other remedies mend a failure.
    """
    if outcome == "unknown" and not check.startswith("preflight/"):
        return ""
    if check.startswith(CREDENTIALS) and TURNED_AWAY.match(seen):
        check = "preflight/target-reachable"
    data = _data()
    fits = (text for pattern, text in data["checks"].items() if fnmatchcase(check, pattern))
    text = str(next(fits, data["areas"].get(contract().area_of(check), "")))
    own = {one.name: one.policy for one in scope.limits}
    for name, (due, _, _) in contract().limits.items():
        text = text.replace(f"{{{name}}}", str(own.get(name, due)))
    first = ALTERED if altered(seen) else next((do for met, do in SEEN.items() if re.search(met, seen)), "")
    first = first if outcome == "fail" else ""
    text = f"{first} {text}" if first and text else text
    return scope.in_its_words(text)


def because(check: str, seen: str = "") -> str:
    """Why a release could not be judged while this check is unknown, as a clause; empty for most checks."""
    if check.startswith(CREDENTIALS) and (turned_away := TURNED_AWAY.match(seen)):
        return turned_away[0]
    return str(_data()["because"].get(check, ""))


def altered(seen: str) -> str:
    """What is wrong if only the status of an answer is: `invalid_request comes with 422 in place of 400`, or
    `200 comes in place of 202`. Checks that met the same say the same. Empty if something else is wrong.

    seen: what the check says.
    """
    met = OBSERVED.search(seen)
    if not met:
        return ""
    status, code = met["status"], met["code"]
    allowed = re.findall(r"\b\d{3}\b", met["allowed"])
    if not code and status[0] == "2" and status not in allowed and len(allowed) == 1 and allowed[0][0] == "2":
        return f"{status} comes in place of {allowed[0]}"
    due = str(_due().get(code, status))
    return f"{code} comes with {status} in place of {due}" if status != due and due in allowed else ""


@functools.cache
def _due() -> dict[str, int]:
    """The status of each code of a refusal."""
    return {code: status for one in contract().endpoints.values() for code, status in one.refusals.items()}


@functools.cache
def _data() -> dict[str, Any]:
    data: dict[str, Any] = data_of(FILE)
    return data
