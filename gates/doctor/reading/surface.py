"""Looks at a deployment over HTTP without changing it.

Sends GET and OPTIONS of open routes, a GET of a run that does not exist, and to each existing endpoint one POST without
credentials that nobody can act on (gates.deployment.http.probes).
"""

import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from concurrent.futures import TimeoutError as Late
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from gates.contract.contract import Contract
from gates.deployment.http import probes
from gates.deployment.http.client import HttpDoor, NoAnswer
from gates.deployment.requests import Answer, Request
from gates.deployment.target import Target
from gates.doctor.reading.openapi import ApiDocument, read_document
from gates.doctor.words import spelled_paths
from gates.errors import first_line

REQUEST_S, MOST_S = 2.5, 6.0
AT_ONCE = 6
NOWHERE = "/replaygate-doctor-asks-for-nothing"
DOCUMENTS = (*(f"/{p}" for p in spelled_paths("GET /openapi.json")), "/")


@dataclass(frozen=True, slots=True)
class Surface:
    """What answered: (method, path) -> answer. unreached: why nothing did. document: the deployment's own."""

    answers: Mapping[tuple[str, str], Answer] = field(default_factory=dict)
    document: ApiDocument | None = None
    unreached: str = ""
    late: bool = False
    """Whether some requests had no answer within the time."""
    functions: str = ""
    """Where a gateway has its functions, if it may be one: `/functions/v1`."""

    def status(self, method: str, path: str) -> int:
        """The status of an answer; 0 without an answer."""
        found = self.answers.get((method, path))
        return found.status if found else 0

    def is_there(self, method: str, path: str) -> bool:
        """Whether something answers at the path that does not answer at every path."""
        status, control = self.status(method, path), self.status(method, self.nowhere(path))
        return bool(status) and status not in {404, 501} and status < 500 and status != control

    def nowhere(self, path: str) -> str:
        """A path beside another one at which nothing exists."""
        return f"{self.functions}{NOWHERE}" if self.functions and path.startswith(f"{self.functions}/") else NOWHERE

    def spelled(self, endpoint: str) -> list[str]:
        """Possible paths of an endpoint under another name, those next to the contract's first."""
        places = ("", *([self.functions] if self.functions else ()))
        return [f"{place}/{p}" for place in places for p in spelled_paths(endpoint)]


def look_at(target: Target, contract: Contract, functions: str = "") -> Surface:
    """Send the requests. Never raises for what the target does. functions: Surface's, unless BASE_URL ends with it."""
    started = time.monotonic()
    base_path = urlsplit(target.base_url).path.rstrip("/")
    functions = "" if base_path.endswith(functions) else functions
    with HttpDoor(target.base_url, timeout_s=REQUEST_S) as door:
        try:
            first = door.send(Request("GET", "/healthz"))
        except NoAnswer as error:
            return Surface(unreached=first_line(error))
        found = {("GET", "/healthz"): first}
        late = _ask(door, found, _opening(contract), started)
        seen = Surface(found, _document(found, base_path), functions=functions)
        late |= _ask(door, found, _further(seen, contract), started)
        late |= _ask(door, found, _unsigned(seen, contract), started)
    return replace(seen, late=late)


def _ask(door: HttpDoor, found: dict[tuple[str, str], Answer], requests: Iterable[Request], started: float) -> bool:
    """Send what was not sent yet, a few at a time; returns whether some got no answer."""
    wanted = {(r.method, r.path): r for r in requests if (r.method, r.path) not in found}
    left_s = MOST_S - (time.monotonic() - started)
    if not wanted or left_s <= 0:
        return bool(wanted)
    late = False
    with ThreadPoolExecutor(AT_ONCE) as pool:
        asked = {pool.submit(door.send, r, timeout_s=min(REQUEST_S, left_s)): key for key, r in wanted.items()}
        try:
            for done in as_completed(asked, timeout=left_s):
                if done.exception() is None:
                    found[asked[done]] = done.result()
                else:
                    late = True
        except Late:
            late = True
            for one in asked:
                one.cancel()
    return late


def _opening(contract: Contract) -> list[Request]:
    """The open routes of the contract, usual places of a document, and a path that does not exist."""
    gets = [e.path for e in contract.endpoints.values() if e.method == "GET" and "{" not in e.path]
    asked = [Request("GET", p) for p in (*gets, *DOCUMENTS[:4], NOWHERE)]
    runs = [f"{e.path.partition('{')[0]}{uuid.UUID(int=0)}" for e in contract.endpoints.values() if "{" in e.path]
    posts = [e.path for e in contract.endpoints.values() if e.method == "POST"]
    return [*asked, *(Request("GET", p) for p in runs), *(Request("OPTIONS", p) for p in (*posts, NOWHERE))]


def _document(found: Mapping[tuple[str, str], Answer], base_path: str) -> ApiDocument | None:
    for path in DOCUMENTS:
        answer = found.get(("GET", path))
        if answer is not None and answer.status == 200:
            made = read_document(path, answer.json(), base_path)
            if made is not None:
                return made
    return None


def _further(seen: Surface, contract: Contract) -> list[Request]:
    """Other names for missing endpoints, unless the deployment documents its paths."""
    if seen.document is not None:
        gets = [o for o in seen.document.operations if o.method == "GET" and not o.is_guarded]
        return [Request("GET", o.path) for o in gets if o.path in _open_spellings(contract)]
    asked = [Request(m, f"{seen.functions}{NOWHERE}") for m in ("GET", "OPTIONS")] if seen.functions else []
    for endpoint in contract.endpoints.values():
        method = "OPTIONS" if endpoint.method == "POST" else "GET"
        if "{" in endpoint.path or seen.is_there(method, endpoint.path):
            continue
        asked += [Request(method, p) for p in seen.spelled(endpoint.name)]
    return asked


def _open_spellings(contract: Contract) -> set[str]:
    return {
        f"/{p}"
        for e in contract.endpoints.values()
        if e.method == "GET" and "{" not in e.path
        for p in spelled_paths(e.name)
    }


def _unsigned(surface: Surface, contract: Contract) -> list[Request]:
    """One meaningless POST to each endpoint that exists under the contract's own name."""
    listed: Sequence[str] = [
        e.path for e in contract.endpoints.values() if e.method == "POST" and _answers(surface, e.path)
    ]
    return [probes.bare(path) for path in listed]


def _answers(surface: Surface, path: str) -> bool:
    if surface.document is not None:
        return surface.document.operation("POST", path) is not None
    return surface.is_there("OPTIONS", path)
