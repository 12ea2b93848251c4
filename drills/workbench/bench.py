"""Requests for a company that does not exist, and doors from other source addresses.

They tell authentication from everything after it without a tenant and without a limited call: a replay request for a
company that does not exist is refused by authentication (401) where its credentials are not accepted, and by
authorisation where they are: with 403 `forbidden`, or in words of the deployment's own. Neither counts against anyone's
rate limit; neither can have an effect (gates.deployment.http.probes).
"""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from drills.workbench.credentials import REPLAY, Signer, admin_token
from gates.checks.recorder import Observer, Unmet
from gates.deployment.dialect.current import current
from gates.deployment.dialect.exchange import real_body, real_member
from gates.deployment.http import probes
from gates.deployment.http.client import Heard, HttpDoor, NoAnswer
from gates.deployment.http.clock import Clock
from gates.deployment.ids import ids_have_spellings, new_id
from gates.deployment.requests import (
    BUSY,
    SIGNATURE,
    Answer,
    Request,
    encode_body,
    post,
    replay_fields,
    sign_v1,
    sign_v2,
    signed_get,
    signed_post_v2,
    token_get,
    token_post,
)
from gates.deployment.target import Target
from gates.text.foreign import json_object

LATEST_S, POLL_S = 4, 0.1
"""How long credentials that are just too old may still be accepted: clocks differ by a second, or two."""
SPREAD = 8
"""Calls over several connections, of which each process of a small service takes one: each may have a cache."""


@dataclass
class Sources:
    """HTTP doors by local address, opened on demand."""

    base_url: str
    heard: Heard | None = None
    doors: dict[str, HttpDoor] = field(default_factory=dict)

    def door(self, address: str) -> HttpDoor:
        """The door from a loopback address. Raise Unmet where requests from there do not reach the target."""
        if address not in self.doors:
            door = HttpDoor(self.base_url, source=address, heard=self.heard)
            try:
                door.send(Request("GET", "/healthz"))
            except NoAnswer as none:
                door.close()
                raise Unmet(f"requests from {address} do not reach the target: {none}") from none
            self.doors[address] = door
        return self.doors[address]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        for door in self.doors.values():
            door.close()


def read_paths() -> list[str]:
    """Paths of a run, and of an event, that nobody has: those that the deployment shows."""
    has_events = current().claims("outbox") and "/events/{event_id}" not in current().lacking
    return [f"{REPLAY}/{new_id('run')}"] * current().shows_runs + [f"/events/{new_id('event')}"] * has_events


def said_beside(request: Request, **fields: str) -> list[Request]:
    """The request, whose bytes stay, with these members beside its body, where no signature covers them: in its query,
    and in headers. None where the deployment's own requests have members there.
    """
    if len(json_object(real_body(request.body))) < len(json_object(request.body)):
        return []
    query = "&".join(f"{real_member(name)}={value}" for name, value in fields.items())
    asked = replace(request, path=f"{request.path}?{query}", label=f"{request.label}, with ?{query}")
    headed = request.labelled(f"{request.label}, with headers of {sorted(fields)}")
    for name, value in fields.items():
        word = name.replace("_", "-").title()
        headed = headed.adding_header(word, value).adding_header(f"X-{word}", value)
    return [asked, headed]


def let_in(answer: Answer) -> bool:
    """Whether an answer shows that the credentials were accepted, whether or not the request succeeded. What is refused
    for its method, size or type was refused before they were looked at.
    """
    return answer.status < 500 and answer.status not in {401, 405, 413, 415, *BUSY} and not answer.is_elsewhere


@dataclass
class Guard:
    """Whether the target refuses requests without credentials; asked once a session and path."""

    answers: dict[str, bool] = field(default_factory=dict)

    def closed(self, http: HttpDoor, path: str) -> bool:
        """Whether an unsigned POST for a company that does not exist is refused there."""
        if path not in self.answers:
            status = http.send(post(path, probes.for_nobody(new_id("company")))).status
            if status in BUSY:
                return False
            self.answers[path] = status == 401
        return self.answers[path]


@dataclass
class Bench:
    """Requests for a company that does not exist, and what their answers say."""

    http: HttpDoor
    target: Target
    seen: Observer
    clock: Clock
    signer: Signer
    guard: Guard
    company: str = field(default_factory=lambda: new_id("company"))

    def body(self, **fields: Any) -> bytes:
        """A replay body for a company that does not exist, and a dry run: a service that takes the tenant from
        elsewhere must not be made to act. Where there are no dry runs, it asks for items that nobody has; what cannot
        ask for those is not sent.
        """
        fields = {"max": 10, **fields}
        if probes.has_dry_runs():
            return probes.for_nobody(self.company, **fields)
        of_nobody = {"error_type": "none-such", "dlq_ids": [new_id("item")]}
        free = [name for name in of_nobody if name not in fields and name not in current().lacking]
        why = "dry-run is not claimed, so a request that a service could carry out for somebody else is not sent"
        self.seen.require(free, why)
        return encode_body(replay_fields(self.company, **{free[0]: of_nobody[free[0]]}, **fields))

    def signed(self, body: bytes | None = None, label: str = "correctly signed") -> Request:
        """A correct signature over these bytes (v1, unless the target takes v2 only)."""
        return self.signer.post(REPLAY, self.body() if body is None else body, label)

    def event(self, body: bytes | None = None) -> Request:
        """An event of a company that does not exist, correctly signed."""
        fields = {"company_id": self.company, "event_type": "drill.plain", "aggregate_key": "k", "payload": {"n": 1}}
        return self.signer.post("/events", encode_body(fields) if body is None else body, "an event of nobody")

    def signed_v2(self, body: bytes | None = None, *, age_s: int = 0, label: str = "correctly signed (v2)") -> Request:
        """A correct v2 signature over these bytes, of that age."""
        chosen = self.body() if body is None else body
        return signed_post_v2(REPLAY, chosen, self.signer.secret, self.clock.now() - age_s, label)

    def signed_read(self) -> Request:
        """A read of a run that nobody has, correctly signed."""
        return signed_get(f"{REPLAY}/{new_id('run')}", self.signer.secret, self.clock.now(), "a read")

    def with_signature(self, signature: str, body: bytes | None = None, label: str = "") -> Request:
        """A valid body with this signature header."""
        return post(REPLAY, self.body() if body is None else body, (SIGNATURE, signature), label=label)

    def with_token(self, token: str, body: bytes | None = None, label: str = "") -> Request:
        """A valid body with this bearer token."""
        return token_post(REPLAY, self.body() if body is None else body, token, label)

    def everywhere(self, token: str, label: str) -> list[Request]:
        """What a token opens: a replay and an event of nobody, and reads of what nobody has."""
        event = token_post("/events", self.event().body, token, f"an event: {label}")
        reads = [token_get(path, token, f"a read: {label}") for path in read_paths()]
        return [self.with_token(token, label=label), *[event] * current().takes_events, *reads]

    def mac(self, body: bytes) -> str:
        """The right v1 signature of these bytes."""
        return sign_v1(self.signer.secret, body)

    def signature(self, secret: str, body: bytes) -> str:
        """The signature of these bytes by this secret, in the form that the target takes."""
        return sign_v2(secret, body, self.clock.now()) if self.signer.v2_only else sign_v1(secret, body)

    def admin(self, company: str = "") -> str:
        """The admin token of the target, good for the company; without one the check is unknown."""
        return admin_token(self.target, self.clock.now, company)

    def opens(self, request: Request) -> Answer:
        """The control: these credentials are accepted. How the unknown company is then refused is not judged here."""
        return self._let_in(request, self.http.send(request), control=True)

    def _let_in(self, request: Request, answer: Answer, *, control: bool = False) -> Answer:
        """Expect that the credentials are neither refused nor a server error. An answer other than that to an unknown
        company shows it only where requests without credentials are refused: a path that is not there refuses none.
        """
        found = self.seen.expect(request, answer, answer.status if let_in(answer) else 403, control=control)
        if found.status != 403:
            self.guarded("/events" if found.status == 404 and request.bare == "/events" else REPLAY)
        return found

    def guarded(self, path: str = REPLAY) -> None:
        """End the check as unknown where requests without credentials are not refused."""
        why = f"an unsigned POST {path} is not refused: acceptance proves nothing"
        self.seen.require(self.guard.closed(self.http, path), why)

    def accepted(self, request: Request, answer: Answer | None = None) -> Answer:
        """The claim: these credentials are accepted, so that the request can only be refused for its company.

        It proves something only where other credentials are not; elsewhere the check is unknown.
        """
        found = self._let_in(request, answer or self.http.send(request))
        self.guarded()
        return found

    def taken(self, request: Request) -> Answer:
        """The claim: this unusual request is allowed, and is answered as the plain one is.

        It proves something only where requests without credentials are refused; elsewhere the check is unknown.
        """
        plain = self.opens(self.signed())
        found = self.seen.expect(request, self.http.send(request), plain.status, plain.code or None)
        self.guarded()
        return found

    def shut(self, request: Request, answer: Answer | None = None) -> Answer:
        """The claim: these credentials are refused."""
        return self.seen.expect(request, answer or self.http.send(request), 401)

    def shut_all(self, requests: Sequence[Request]) -> None:
        """The claim: these credentials are refused, whatever else comes meanwhile."""
        for request, answer in zip(requests, self.http.several(requests), strict=True):
            self.shut(request, answer)

    def tells_apart(self, good: str, bad: Sequence[str], label: str) -> None:
        """The claim: where the good token is accepted, each of the bad ones is refused: at replays, then elsewhere."""
        made = [self.everywhere(one, label) for one in bad]
        for place, request in enumerate(self.everywhere(good, "a good token")):
            self.opens(request)
            self.shut_all([requests[place] for requests in made])

    def outlived(self, limit_s: int, made: Callable[[int, int], Sequence[Request]]) -> None:
        """The claim: credentials that were accepted are refused once they are older than the limit. `made(time,
        number)` gives requests with credentials of that time (Unix seconds), different for each number. The target
        itself shows when the limit is over: it refuses unused credentials of the same time.
        """
        for age_s in range(limit_s + 2, limit_s - LATEST_S, -1):
            at = self.clock.now() - age_s
            used = [(request, self.http.send(request)) for request in made(at, 0)]
            if all(let_in(answer) for _, answer in used):
                break
        for request, answer in used:
            self._let_in(request, answer, control=True)
        unused = (made(at, number)[:1] for number in itertools.count(1))
        self.soon_shut(unused, "credentials of the same time that nobody has used are still accepted")
        for request, _ in used:
            by_many = [request] * SPREAD
            self.soon_shut(itertools.repeat(by_many))
            self.shut_all(by_many)

    def soon_shut(self, requests: Iterator[Sequence[Request]], otherwise: str = "") -> None:
        """Wait until all of the next ones are refused: clocks of instances differ. `otherwise`: why the check is
        unknown where they are not in time; where it is empty, the caller judges.
        """
        deadline = time.monotonic() + LATEST_S
        while any(map(let_in, self.http.several(next(requests)))) and time.monotonic() < deadline:
            time.sleep(POLL_S)
        self.seen.require(not otherwise or time.monotonic() < deadline, otherwise)

    def one_body(self, answers: Mapping[str, Answer]) -> None:
        """The claim: these refusals have the same body."""
        different = {repr(answer.said()) for answer in answers.values()}
        self.seen.value(len(different), 1, "different bodies")
        if len(different) > 1:
            self.seen.witness = {k: v.body.decode("utf-8", "replace") for k, v in answers.items()}
        assert len(different) == 1, f"{len(different)} different bodies of 401; allowed: 1"

    def unnamed(self, request: Request) -> Answer:
        """The claim: an id that is none is refused with 400. Where ids are text any word is one, that nobody has; in a
        path, what is no id may be no path.
        """
        if "json of company_id" in current().lacking:
            return self.refused(request, (400, 403, 404))
        if ids_have_spellings():
            return self.refused(request, 400, "invalid_request")
        return self.refused(request, (400, 403))

    def refused(self, request: Request, status: int | tuple[int, ...], code: str | None = None) -> Answer:
        """The claim: this request is refused with this status."""
        answer = self.seen.expect(request, self.http.send(request), status, code)
        if answer.status == 403:
            self.guarded()
        return answer
