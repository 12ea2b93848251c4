"""Whether the target accepts the gate's own credentials: a wrong one is no harm by the release.

Nothing asked here has an effect or counts against a limit (gates.deployment.http.probes). With accepted credentials an
invalid request is refused by validation (400), and a run that does not exist is 404; otherwise both are 401. A refusal
is harm if the gate itself gave the target the credential, or if an earlier release accepted it and the target has
accepted no other since. If this very release accepted it before, its secret was rotated and the gate was not told.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from gates import disk
from gates.deployment.credentials import NOWHERE, REFUSED, good_claims, of_another_secret, unfit
from gates.deployment.dialect.current import current
from gates.deployment.http import probes
from gates.deployment.http.client import HttpDoor
from gates.deployment.http.clock import date_of
from gates.deployment.http.probes import REPLAY
from gates.deployment.identity import identity
from gates.deployment.requests import BUSY, SIGNATURE, Answer, Request, mint_token
from gates.deployment.target import Target
from gates.evidence import VARIABLES, CheckSpec, Evidence, JsonValue, Outcome, Severity
from gates.stages.preflight.endpoints import ABSENT, TIMEOUT_S, VERSION_REQUESTS
from gates.stages.preflight.looks import LookResult, spec, timed

FILE = "credentials.json"
OF_ANSWERS = ("http", "ids", "members", "tenant_claim", "token")
"""The parts of `names:` that affect how credentials are made and answers are read."""
KEPT = 8
"""Fingerprints per kind: secrets are rotated back and forth, and each secret of the list may be the first."""


@dataclass(frozen=True, slots=True)
class Memory:
    """The file of one target. If it cannot be read or written, nothing is remembered: a refusal is then unknown."""

    path: Path
    key: str

    @classmethod
    def of(cls, target: Target, folder: Path) -> Memory:
        """folder: that of the target (`Settings.state_of`)."""
        return cls(folder / FILE, identity(target))

    def note(self, kind: str, secret: str, release: str) -> None:
        """The target has just accepted this credential."""
        told = f"on {dt.datetime.now(dt.UTC):%Y-%m-%d}{_by(release)}"
        known = self._read()
        kept = {k: v for k, v in known.get(kind, {}).items() if k != self._print(kind, secret)}
        kept = dict([*kept.items(), (self._print(kind, secret), told)][-KEPT:])
        text = json.dumps({**known, kind: kept}, indent=1)
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            disk.write(self.path, text, mode=0o600)

    def is_known(self) -> bool:
        """Whether this target ever accepted a credential: then it is the service, whatever it answers now."""
        return any(self._read().values())

    def accepted(self, kind: str, secret: str) -> str:
        """When the target last accepted this credential, and of which release; empty if unknown."""
        return self._read().get(kind, {}).get(self._print(kind, secret), "")

    def rotated(self, kind: str, secret: str, release: str) -> str:
        """Why an accepted credential may have been replaced since; empty if nothing suggests it."""
        if next(reversed(self._read().get(kind, {})), "") != self._print(kind, secret):
            return "it accepted another one since"
        same = release and self.accepted(kind, secret).endswith(_by(release))
        return "that was the same release" if same else ""

    def _print(self, kind: str, secret: str) -> str:
        given = current().given
        # the answer was read with another mapping, and may mean something else with this one
        words = json.dumps({part: given[part] for part in OF_ANSWERS if part in given}, sort_keys=True)
        key = self.key if words == "{}" else f"{self.key} {words}"
        return hmac.new(secret.encode(), f"replaygate {kind} {key}".encode(), hashlib.sha256).hexdigest()

    def _read(self) -> dict[str, dict[str, str]]:
        try:
            told = json.loads(disk.read(self.path))
            return {str(k): {str(f): str(t) for f, t in v.items()} for k, v in told.items()}
        except (OSError, ValueError, AttributeError, RecursionError):
            return {}


def _by(release: str) -> str:
    """The suffix of a note that names the release."""
    return f" (release {release[:100]})" if release else ""


ASKED_AT_MOST, AGAIN_S = 3, 1.0
"""How often a busy target is asked, and the pause before it is asked again."""
MOST_S = 30.0

SIGNING = spec(
    "credentials/signing-secret",
    "The target does not refuse what TRANSBOT_HMAC_SECRET signs.",
    "With a wrong secret every signed request is refused, which looks like a release that locks everybody out.",
    Severity.PAGE,
)
ADMIN = spec(
    "credentials/admin-token",
    "The target does not refuse ADMIN_JWT.",
    "With a spent or foreign token every administrator is refused, which looks like a release that locks them out.",
    Severity.PAGE,
)
MINTED = spec(
    "credentials/token-secret",
    "The target does not refuse a token that REPLAY_JWT_SECRET signed.",
    "With a wrong secret every minted token is refused, and the refusals that the drills look for prove nothing.",
    Severity.PAGE,
)
SPECS = (SIGNING, ADMIN, MINTED)
UNLIKE = (
    "over new connections were refused with 401, and the others accepted: {} is right for some instances and wrong for"
    " others. See that every instance has the same secrets, and the right time"
)
NAMES = {SIGNING.id: "TRANSBOT_HMAC_SECRET", ADMIN.id: "ADMIN_JWT", MINTED.id: "REPLAY_JWT_SECRET"}


class StillBusyError(Exception):
    """The target answered only that it is busy."""


Forms = Callable[[int], Iterable[Request]]
"""Unix seconds -> the requests in every form that shows a credential."""


@dataclass(frozen=True, slots=True)
class CredentialDoor:
    """Tries credentials on the target, by the target's clock. guarded: the methods that are refused without
    credentials, so that acceptance means something.
    """

    target: Target
    door: HttpDoor
    guarded: frozenset[str]
    now: int

    def takes(self, requests: Iterable[Request]) -> bool:
        """Whether one of these requests is accepted. If methods are guarded, only requests with these count."""
        counting = (r for r in requests if r.method in self.guarded or not self.guarded)
        return any(self._accepts(r, _received(_asked(self.door, r))) for r in counting)

    def refusals(self, forms: Forms) -> int:
        """How many of several new connections refuse what others accept, at two looks in a row; else 0.

        Each request is new, for a service that takes none twice.
        """
        counting = [n for n, r in enumerate(forms(self.now)) if r.method in self.guarded]
        for number in counting:
            accepted, refused = self._counted(forms, number)
            if accepted and refused:
                time.sleep(AGAIN_S)
                accepted, refused = self._counted(forms, number)
            if accepted:
                return refused
        return 0

    def _counted(self, forms: Forms, number: int) -> tuple[int, int]:
        """How many accept and how many refuse the request of this number among the forms."""
        made = [list(forms(self.now - n))[number] for n in range(VERSION_REQUESTS)]
        asked = [replace(r, headers=(*r.headers, ("Connection", "close"))) for r in made]
        answers = [a for a in self.door.burst(asked, spread=True) if isinstance(a, Answer) and a.status not in BUSY]
        accepted = sum(self._accepts(made[0], _received(a)) for a in answers)
        return accepted, sum(_received(a) == 401 for a in answers)

    def _accepts(self, request: Request, status: int) -> bool:
        """Whether the request was accepted, by the status received, whatever the deployment means by it. A missing path
        accepts nothing; but 404 for a missing run shows acceptance if others get a refusal.
        """
        return status != 401 and (status not in ABSENT or (request.method == "GET" and "GET" in self.guarded))


@dataclass(frozen=True, slots=True)
class CredentialAnswer:
    """Whether the target accepted a credential. forms: how it was shown, if so. `doubt`: what may be wrong on our side
    if it did not.
    """

    taken: bool
    doubt: str = ""
    forms: Forms = lambda _now: ()
    ours: bool = False
    """Whether the credential itself is wrong (expired, not yet valid), so that its refusal is never harm."""


def credential_lines(target: Target, memory: Memory) -> list[Evidence]:
    """One line for each given credential; `preflight/variables` names the others."""
    given = {
        SIGNING: (target.hmac_secret, signing),
        ADMIN: (target.admin_jwt, admin),
        MINTED: (target.jwt_secret, minted),
    }
    with HttpDoor(target.base_url, timeout_s=TIMEOUT_S) as door:
        return [
            timed(check, target, lambda c=check, s=secret, f=show: _look(target, door, memory, c, s, f), MOST_S)  # type: ignore[misc]
            if secret
            else _not_given(check, target)
            for check, (secret, show) in given.items()
        ]


def _not_given(check: CheckSpec, target: Target) -> Evidence:
    seen = LookResult(Outcome.UNKNOWN, f"{NAMES[check.id]} is not set")
    return replace(timed(check, target, lambda: seen), blocked_by=VARIABLES)


def _look(
    target: Target,
    door: HttpDoor,
    memory: Memory,
    check: CheckSpec,
    secret: str,
    show: Callable[[CredentialDoor], CredentialAnswer],
) -> LookResult:
    """Try the credential. A refusal is harm if this target accepted it before, or if we gave it to the target."""
    try:
        desk = _credential_door(target, door)
        if isinstance(desk, LookResult):
            return desk
        shown, name = show(desk), NAMES[check.id]
        refusals = desk.refusals(shown.forms) if shown.taken else 0
    except StillBusyError as error:
        return LookResult(Outcome.UNKNOWN, str(error), None, "not refused")
    # a minted token names its audience and issuer: with others it is another credential
    minted = "\n".join(filter(None, (secret, target.jwt_audience, target.jwt_issuer)))
    credential = minted if check is MINTED else secret
    if refusals:
        message = f"{refusals} of {VERSION_REQUESTS} calls {UNLIKE.format(name)}"
        return LookResult(Outcome.FAIL, message, refusals, 0, "refusals", VERSION_REQUESTS)
    if shown.taken:
        if desk.guarded:
            memory.note(check.id, credential, target.release)
        details: dict[str, JsonValue] = {"guarded": bool(desk.guarded)}
        return LookResult(Outcome.PASS, "", "not refused", "not refused", samples=1, details=details)
    known = memory.accepted(check.id, credential)
    rotated = memory.rotated(check.id, credential, target.release) if known else ""
    if target.is_ours:
        known, rotated = "when the gate started the service with it", ""
    if rotated and not shown.ours:
        before = f"{name} is refused; this target accepted it {known}, and {rotated}. Was the secret rotated?"
        return LookResult(Outcome.UNKNOWN, f"{before} {shown.doubt}", REFUSED, "not refused", samples=1)
    if known and not shown.ours:
        message = f"{name} is refused; this target accepted it {known}. The release locks its callers out"
        return LookResult(Outcome.FAIL, message, REFUSED, "not refused", samples=1)
    return LookResult(Outcome.UNKNOWN, shown.doubt, REFUSED, "not refused", samples=1)


def _credential_door(target: Target, door: HttpDoor) -> CredentialDoor | LookResult:
    """Find out what is refused without credentials; if no endpoint exists to try them on, that is the result."""
    bare = _asked(door, probes.bare())
    if _received(bare) in ABSENT:
        message = f"POST {REPLAY} answers {_received(bare)}, so that no credential can be shown"
        return LookResult(Outcome.UNKNOWN, message, NOWHERE, "not refused")
    shut = {"POST": bare.status, "GET": _asked(door, probes.bare_get()).status}
    return CredentialDoor(target, door, frozenset(m for m, status in shut.items() if status == 401), _clock(bare))


def _received(answer: Answer) -> int:
    """The status on the wire."""
    return (answer.received or answer).status


def _asked(door: HttpDoor, request: Request) -> Answer:
    """The answer; a busy target is asked again later. Raise StillBusyError if it stays busy."""
    began = time.monotonic()
    for again in range(ASKED_AT_MOST):
        time.sleep(AGAIN_S if again else 0.0)
        answer = door.send(request)
        if answer.status not in BUSY:
            return answer
    raise StillBusyError(
        f"{request.method} {request.path} answers {answer.status} to {ASKED_AT_MOST} of {ASKED_AT_MOST} calls over"
        f" {time.monotonic() - began:.1f} s: it is down, or too busy. See who answers that, the service or what stands"
        " before it, and read its log"
    )


def _clock(answer: Answer) -> int:
    """Unix seconds by the target's clock: a current signature is stale to a target whose clock is wrong."""
    shown = date_of(answer)
    return int(time.time() if shown is None else shown)


# --- the three credentials ---------------------------------------------------------------------------------------


def signing(desk: CredentialDoor) -> CredentialAnswer:
    """Every form in which the secret signs: a release may have broken one form, but a wrong secret breaks all."""
    first, *others = desk.target.hmac_secrets
    forms = partial(probes.signed, first)
    if desk.takes(forms(desk.now)):
        return CredentialAnswer(taken=True, forms=forms)
    for number, secret in enumerate(others, 2):
        if desk.takes(probes.signed(secret, desk.now)):
            doubt = (
                f"the first secret of TRANSBOT_HMAC_SECRET is refused, and number {number} is accepted."
                " Put the accepted one first, or give the service the same list"
            )
            return CredentialAnswer(taken=False, doubt=doubt)
    doubt = (
        "nothing that TRANSBOT_HMAC_SECRET signs is accepted (v1, v2; a replay, an event, the status of a run)."
        f" Does TRANSBOT_HMAC_SECRET match the service's? Does a proxy drop {SIGNATURE}, or rewrite the body?"
    )
    return CredentialAnswer(taken=False, doubt=doubt)


def admin(desk: CredentialDoor) -> CredentialAnswer:
    """A token that is expired or for another service is not tried: a target that refuses it is right."""
    if why := unfit(desk.target, desk.now):
        return CredentialAnswer(False, f"ADMIN_JWT {why}. Set it to a valid admin token", ours=True)
    if desk.takes(probes.with_token(desk.target.admin_jwt)):
        return CredentialAnswer(taken=True, forms=lambda _now: probes.with_token(desk.target.admin_jwt))
    asked = "was it signed with the service's REPLAY_JWT_SECRET? Does a proxy drop its header?"
    hint = of_another_secret(desk.target) or asked
    return CredentialAnswer(False, f"ADMIN_JWT is refused: {hint} Set it to a valid admin token")


def minted(desk: CredentialDoor) -> CredentialAnswer:
    """A token that the gate makes itself."""
    token = mint_token(desk.target.jwt_secret, good_claims(desk.target, desk.now))
    doubt = (
        "a token signed with REPLAY_JWT_SECRET is refused. Does REPLAY_JWT_SECRET match the service's,"
        " and REPLAY_JWT_AUDIENCE and REPLAY_JWT_ISSUER?"
    )
    return CredentialAnswer(desk.takes(probes.with_token(token)), doubt, forms=lambda _now: probes.with_token(token))
