"""Faults of v2 signatures and of the signatures of reads: what they bind, and for how long they are good."""

import dataclasses
import json
import time

from faults.altered import around, instead_of
from faults.authentication import answers, dry_body, is_let_in
from faults.catalogue import service
from faults.probe import Probe
from faults.requests import calling
from replay_service.authentication import SIGNATURE_HEADER, authenticate
from replay_service.composition import build_parts
from replay_service.database import Connection
from replay_service.events import accept_event
from replay_service.exchange import Call, Caller, RawHeaders, Reply
from replay_service.parts import Parts
from replay_service.problems import Refusal
from replay_service.reads import read_event
from replay_service.settings import Settings
from replay_service.signatures import Signature, check_signature
from replay_service.validation import ReplayRequest

SIGNING_V2_REQUIRED = "drill/flags/signing-v2-required"
SCOPE = "drill/authentication"
HEADER = SIGNATURE_HEADER.decode()
_EVENT = "/events/00000000-0000-4000-8000-0000000000ff"
_PATH = b"/dlq-replay/00000000-0000-4000-8000-0000000000ff"
_WHERE = "WHERE key = %s AND company_id IS NULL"
_GLOBAL = f"feature_flags {_WHERE}"


def _v1_while_v2_required(probe: Probe, path: str = "/dlq-replay") -> bool:
    key = "security.signing_v2_required"
    before = probe.rows(f"SELECT enabled, rollout_percentage FROM {_GLOBAL}", key)
    try:
        if before:
            turn = f"UPDATE feature_flags SET enabled = true, rollout_percentage = 100 {_WHERE}"
        else:
            turn = "INSERT INTO feature_flags (key, enabled, rollout_percentage) VALUES (%s, true, 100)"
        probe.rows(turn, key)
        return is_let_in(probe.send(dry_body(probe), path=path).status_code)
    finally:
        back = f"UPDATE feature_flags SET enabled = %s, rollout_percentage = %s {_WHERE}"
        for enabled, percentage in before:
            probe.rows(back, enabled, percentage, key)
        if not before:
            probe.rows(f"DELETE FROM {_GLOBAL}", key)


def _v2_sent_twice(probe: Probe) -> bool:
    with probe.tenant() as company:
        probe.letters(company, 2)
        body = json.dumps({"company_id": company, "max": 1}).encode()
        headers = {"X-Transbot-Signature": probe.sign_v2(body, int(time.time()))}
        runs = [probe.send(body, headers).json().get("replay_run_id") for _ in range(2)]
        return bool(runs[0] != runs[1])


def _v2_key(probe: Probe) -> str:
    with probe.tenant() as company:
        body = json.dumps({"company_id": company, "dry_run": True}).encode()
        return str(
            probe.send(body, {"X-Transbot-Signature": probe.sign_v2(body, int(time.time()))}).json()["idempotency_key"]
        )


def _read_with_signature_of(probe: Probe, text: bytes) -> int:
    return probe.get(_PATH.decode(), **{"X-Transbot-Signature": probe.sign_v2(text, int(time.time()))}).status_code


def _tolerating(settings: Settings, past_s: int, future_s: int) -> Parts:
    def check(header: bytes, message: bytes, secrets: tuple[bytes, ...], now_s: float) -> Signature | None:
        sent = header.partition(b",")[0].removeprefix(b"t=")
        sent_at = int(sent) if sent.isdigit() and len(sent) < 13 and header.startswith(b"t=") else None
        if sent_at is None:
            return check_signature(header, message, secrets, now_s)
        is_in_time = -past_s <= sent_at - now_s <= future_s
        return check_signature(header, message, secrets, sent_at) if is_in_time else None

    return dataclasses.replace(build_parts(settings), signature_check=check)


@service(lambda p: is_let_in(answers(p, p.sign_v2(dry_body(p), int(time.time()) - 3600))), f"{SCOPE}/v2-stale", "401")
def v2_good_for_a_day(settings: Settings) -> Parts:
    """v2 signatures are good for a day instead of 300 s."""
    return _tolerating(settings, past_s=86_400, future_s=300)


@service(
    lambda p: is_let_in(answers(p, _in_upper_case(p.sign_v2(dry_body(p), int(time.time()))))),
    f"{SCOPE}/v2-upper-case-hex",
    ("401", "upper"),
)
@instead_of("signature_check")
def v2_in_upper_case(header: bytes, message: bytes, secrets: tuple[bytes, ...], now_s: float) -> Signature | None:
    """v2 signatures in upper case are accepted: the same request has two keys."""
    return check_signature(header.lower(), message, secrets, now_s)


def _in_upper_case(signature: str) -> str:
    sent_at, _, mac = signature.partition("v2=")
    return f"{sent_at}v2={mac.upper()}"


@service(
    lambda p: is_let_in(answers(p, p.sign_v2(dry_body(p), int(time.time()) + 3600))),
    f"{SCOPE}/v2-future",
    ("future", "401"),
)
def v2_from_the_future(settings: Settings) -> Parts:
    """v2 signatures from the future are accepted (only the age is checked)."""
    return _tolerating(settings, past_s=300, future_s=10**9)


@service(
    lambda p: answers(p, p.sign_v2(dry_body(p), int(time.time()) - 200)) == 401,
    (f"{SCOPE}/v2-past-tolerated", f"{SCOPE}/v2-future-tolerated"),
    ("v2", "300"),
)
def v2_tolerance_too_small(settings: Settings) -> Parts:
    """v2 tolerance is 30 s instead of 300 s: honest callers with a slow clock are refused."""
    return _tolerating(settings, past_s=30, future_s=30)


@service(
    _v1_while_v2_required, (f"{SCOPE}/v1-refused-when-v2-is-required", SIGNING_V2_REQUIRED), "v1", production=False
)
def v2_never_required(settings: Settings) -> Parts:
    """v1 signatures are accepted although security.signing_v2_required is on."""
    return dataclasses.replace(build_parts(settings), signing_v2_required=_never)


@service(lambda p: _v1_while_v2_required(p, "/events"), SIGNING_V2_REQUIRED, "event by v1", production=False)
@instead_of("accept_event")
async def v2_never_required_of_events(parts: Parts, call: Call) -> Reply:
    """Events with v1 signatures are accepted although security.signing_v2_required is on."""
    return await accept_event(dataclasses.replace(parts, signing_v2_required=_never), call)


async def _never(_conn: Connection) -> bool:
    return False


@service(lambda p: _v2_and_token_sent_twice(p), "drill/idempotency/v2-resend-beside-a-token", "re-send")
def v2_beside_a_token_replays(settings: Settings) -> Parts:
    """A v2 request that also has a token gets no key from its MAC: a re-sent one runs again."""
    return calling(settings, lambda caller: Caller(None, caller.claims) if caller.claims else caller)


def _v2_and_token_sent_twice(probe: Probe) -> bool:
    with probe.tenant() as company:
        body = json.dumps({"company_id": company, "max": 1}).encode()
        headers = {"X-Transbot-Signature": probe.sign_v2(body, int(time.time())), **probe.as_token(probe.token({}))}
        runs = [probe.send(body, headers).json().get("replay_run_id") for _ in range(2)]
        return bool(runs[0] != runs[1])


@service(_v2_sent_twice, "drill/idempotency/v2-resend-is-duplicate", ("re-send", "duplicate"))
def v2_resend_replays(settings: Settings) -> Parts:
    """A re-sent v2 request without a key replays again: no key is made of its MAC."""
    return calling(settings, lambda caller: Caller(None, caller.claims))


@service(lambda p: len(_v2_key(p)) < 36, "drill/idempotency/v2-resend-is-duplicate", "sig-")
def v2_key_too_short(settings: Settings) -> Parts:
    """The key of a v2 request without one is made of 8 digits of the MAC instead of 32."""

    def short(caller: Caller) -> Caller:
        found = caller.signature
        return caller if found is None else Caller(Signature(found.version, found.mac[:8]), caller.claims)

    return calling(settings, short)


@service(
    lambda p: p.get(_PATH.decode(), **_signed(p), Authorization="Bearer nonsense").status_code == 404,
    (f"{SCOPE}/two-signatures-good-bad", f"{SCOPE}/bad-token-beside-good-signature"),
    ("read", "401"),
)
@instead_of("authenticate")
async def reads_look_at_one_header(
    parts: Parts, headers: RawHeaders, message: bytes, *, accepts_v1: bool = True
) -> Caller:
    """A read checks only the first signature, and no token beside it."""
    ours = [pair for pair in headers if pair[0] == SIGNATURE_HEADER]
    kept = headers if accepts_v1 or not ours else ours[:1]
    return await authenticate(parts, kept, message, accepts_v1=accepts_v1)


@service(
    lambda p: p.get(_PATH.decode(), **_signed(p, b"/"), **p.as_token(p.token({}))).status_code == 404,
    f"{SCOPE}/bad-signature-beside-good-token",
    "a read by a token",
)
@instead_of("authenticate")
async def reads_look_at_tokens_first(
    parts: Parts, headers: RawHeaders, message: bytes, *, accepts_v1: bool = True
) -> Caller:
    """A read is let in by its token, whatever signature is beside it."""
    return await authenticate(parts, headers if accepts_v1 else _by_token(headers), message, accepts_v1=accepts_v1)


@service(lambda p: is_let_in(_event_by_both(p)), "drill/safety-rails/events-need-credentials", "401")
@instead_of("accept_event")
async def events_look_at_tokens_first(parts: Parts, call: Call) -> Reply:
    """An event is let in by its token, whatever signature is beside it."""
    return await accept_event(parts, dataclasses.replace(call, headers=_by_token(call.headers)))


def _by_token(headers: RawHeaders) -> RawHeaders:
    has_token = any(name == b"authorization" for name, _ in headers)
    return [pair for pair in headers if not has_token or pair[0] != SIGNATURE_HEADER]


def _admin(probe: Probe) -> str:
    return f"Bearer {probe.environ['ADMIN_JWT']}"


def _event_by_both(probe: Probe) -> int:
    return probe.send(dry_body(probe), {HEADER: "0" * 64, "Authorization": _admin(probe)}, "/events").status_code


def _signed(probe: Probe, path: bytes = _PATH) -> dict[str, str]:
    return {"X-Transbot-Signature": probe.sign_v2(path, int(time.time()))}


@service(
    lambda p: is_let_in(answers(p, p.sign(dry_body(p), p.environ["REPLAY_JWT_SECRET"]))),
    f"{SCOPE}/known-secrets",
    "tokens",
)
def secret_of_tokens_signs(settings: Settings) -> Parts:
    """The secret of tokens signs requests, too."""

    def check(header: bytes, message: bytes, secrets: tuple[bytes, ...], now_s: float) -> Signature | None:
        return check_signature(header, message, (*secrets, settings.tokens.secret), now_s)

    return dataclasses.replace(build_parts(settings), signature_check=check)


@service(
    lambda p: p.get(_EVENT, **_signed(p, _EVENT.replace("ff", "fe").encode())).status_code == 404,
    f"{SCOPE}/read-other-path",
    "401",
)
@instead_of("signature_check")
def states_of_events_bind_no_event(
    header: bytes, message: bytes, secrets: tuple[bytes, ...], now_s: float
) -> Signature | None:
    """The signature of one event's path shows the state of every event."""
    found = check_signature(header, message, secrets, now_s)
    return found or (Signature(2, header[-64:].decode()) if message.startswith(b"/events/") else None)


@service(lambda p: p.get(_EVENT).status_code == 404, f"{SCOPE}/read-*", "401")
def states_of_events_are_open(settings: Settings) -> Parts:
    """The state of an event is shown to whoever asks."""
    return _reading_events(settings, Caller(None, None))


@service(
    lambda p: p.get(_EVENT, **{"X-Transbot-Signature": p.sign(_EVENT.encode())}).status_code == 404,
    f"{SCOPE}/read-v1",
    "401",
)
def states_of_events_take_v1(settings: Settings) -> Parts:
    """The state of an event is shown for a v1 signature, which never goes stale."""
    return _reading_events(settings, None)


def _reading_events(settings: Settings, unknown: Caller | None) -> Parts:
    """The service whose reads of events take v1; `unknown`: who comes without good credentials."""

    async def twin(parts: Parts, headers: RawHeaders, message: bytes, *, accepts_v1: bool = True) -> Caller:
        try:
            return await authenticate(parts, headers, message)
        except Refusal:
            if unknown is None:
                raise
            return unknown

    async def read(parts: Parts, call: Call, signed_path: bytes, event_id: str) -> Reply:
        return await read_event(dataclasses.replace(parts, authenticate=twin), call, signed_path, event_id)

    return dataclasses.replace(build_parts(settings), read_event_state=read)


@service(
    lambda p: _read_with_signature_of(p, b"/dlq-replay/x") == 404, f"{SCOPE}/read-empty-body-signature", ("path", "401")
)
@instead_of("signature_check")
def read_binds_no_path(header: bytes, message: bytes, secrets: tuple[bytes, ...], now_s: float) -> Signature | None:
    """The signature of a read does not bind the path: it opens every run."""
    found = check_signature(header, message, secrets, now_s)
    for text in (b"", b"/dlq-replay/x", b"/dlq-replay/00000000-0000-4000-8000-000000000000"):
        found = found or (check_signature(header, text, secrets, now_s) if message.startswith(b"/") else None)
    return found


@service(lambda p: _read_with_signature_of(p, _PATH[:20]) == 404, f"{SCOPE}/read-empty-body-signature", ("path", "401"))
@instead_of("signature_check")
def read_binds_the_beginning(
    header: bytes, message: bytes, secrets: tuple[bytes, ...], now_s: float
) -> Signature | None:
    """The signature of a read binds the route and the first digits of the id alone."""
    found = check_signature(header, message, secrets, now_s)
    return found or (check_signature(header, message[:20], secrets, now_s) if message[:1] == b"/" else None)


@service(lambda p: _overlooks_the_key(p), "drill/idempotency/other-credentials-same-key", "signed by v2")
@around("replay")
async def v2_overlooks_the_key(release: Parts, parts: Parts, call: Call) -> Reply:
    """The key of a v2 request is ignored in favour of its MAC: signed anew, the request runs again."""

    def read(raw: bytes) -> ReplayRequest:
        request = release.read_replay(raw)
        is_v2 = dict(call.headers).get(SIGNATURE_HEADER, b"").startswith(b"t=")
        return dataclasses.replace(request, idempotency_key=None) if is_v2 else request

    return await release.replay(dataclasses.replace(parts, read_replay=read), call)


def _overlooks_the_key(probe: Probe) -> bool:
    with probe.tenant() as company:
        body = json.dumps({"company_id": company, "idempotency_key": "witness"}).encode()
        answer = probe.send(body, {HEADER: probe.sign_v2(body, int(time.time()))})
        return bool(answer.json()["idempotency_key"] != "witness")


@service(
    lambda p: p.get(_PATH.decode(), **{"X-Transbot-Signature": p.sign(_PATH)}).status_code == 404,
    f"{SCOPE}/read-v1",
    ("v1", "401"),
)
@instead_of("authenticate")
async def read_accepts_v1(parts: Parts, headers: RawHeaders, message: bytes, *, accepts_v1: bool = True) -> Caller:
    """A read accepts a v1 signature, which can be sent again for ever."""
    return await authenticate(parts, headers, message)


def _in_milliseconds(probe: Probe) -> bool:
    body = dry_body(probe)
    return is_let_in(probe.send(body, {HEADER: probe.sign_v2(body, int(time.time()) * 1000)}).status_code)


@service(_in_milliseconds, f"{SCOPE}/v2-odd-times", "t=")
@instead_of("signature_check")
def milliseconds_are_a_time(
    header: bytes, message: bytes, secrets: tuple[bytes, ...], now_s: float
) -> Signature | None:
    """A v2 time in milliseconds is taken for one, too, though the signature's time is in seconds."""
    stamp, _, mac = header.removeprefix(b"t=").partition(b",v2=")
    if len(stamp) == 13 and stamp.isdigit() and abs(int(stamp) / 1000 - now_s) <= 300:
        return check_signature(mac, stamp + b"." + message, secrets, now_s)
    return check_signature(header, message, secrets, now_s)
