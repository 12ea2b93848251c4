"""Faults of the endpoints beside that of replays: what is checked there is forgotten at events and at reads, or asked
of them, too.
"""

import contextlib
import dataclasses
import json
import time
import uuid
from collections.abc import Callable

import jwt

from faults.altered import altered, around
from faults.catalogue import service
from faults.probe import Probe
from replay_service.authentication import authenticate
from replay_service.composition import build_parts
from replay_service.database import Connection
from replay_service.exchange import Call, Caller, RawHeaders, Reply
from replay_service.parts import Parts
from replay_service.problems import Refusal
from replay_service.settings import Settings, TokenRules
from replay_service.signatures import Signature, check_signature
from replay_service.tokens import Claims, check_token
from replay_service.validation import EventRequest, as_uuid

ONE_REFUSAL = "drill/authentication/one-refusal"
_RUN = "/dlq-replay/00000000-0000-4000-8000-0000000000ff"


def _elsewhere(settings: Settings, change: Callable[[Parts], Parts]) -> Parts:
    """The service in which the endpoints of events and of run reads use other parts."""
    release = build_parts(settings)

    async def accept(parts: Parts, call: Call) -> Reply:
        return await release.accept_event(change(parts), call)

    async def read(parts: Parts, call: Call, path: bytes, run_id: str) -> Reply:
        return await release.read_run(change(parts), call, path, run_id)

    return dataclasses.replace(release, accept_event=accept, read_run=read)


def _event(probe: Probe, company: str = str(uuid.UUID(int=255))) -> bytes:
    return json.dumps({"company_id": company, "event_type": "witness", "payload": {}}).encode()


@service(lambda p: _takes_events_signed(p, -9000), ("drill/safety-rails/events-need-credentials", ONE_REFUSAL), "401")
def events_never_go_stale(settings: Settings) -> Parts:
    """A v2 signature of an event never goes stale."""

    def check(header: bytes, message: bytes, secrets: tuple[bytes, ...], now_s: float) -> Signature | None:
        at = header.partition(b",")[0].removeprefix(b"t=")
        return check_signature(header, message, secrets, float(at) if at.isdigit() else now_s)

    return _elsewhere(settings, lambda parts: dataclasses.replace(parts, signature_check=check))


def _takes_events_signed(probe: Probe, ahead_s: int) -> bool:
    signed = {"X-Transbot-Signature": probe.sign_v2(_event(probe), int(time.time()) + ahead_s)}
    return probe.send(_event(probe), signed, "/events").status_code == 403


@service(lambda p: _takes_events_signed(p, 9000), "drill/safety-rails/events-need-credentials", "401")
def events_of_the_future(settings: Settings) -> Parts:
    """The time of an event's v2 signature may lie in the future: only its age is checked."""

    def check(header: bytes, message: bytes, secrets: tuple[bytes, ...], now_s: float) -> Signature | None:
        at = header.partition(b",")[0].removeprefix(b"t=")
        return check_signature(header, message, secrets, max(float(at), now_s) if at.isdigit() else now_s)

    return _elsewhere(settings, lambda parts: dataclasses.replace(parts, signature_check=check))


@service(lambda p: "is wrong" in p.get(_RUN, **{"X-Transbot-Signature": "00"}).text, ONE_REFUSAL, "different bodies")
def refusals_elsewhere_tell_what_was_wrong(settings: Settings) -> Parts:
    """A 401 of an event or a read says what was wrong with the credentials."""

    async def twin(parts: Parts, headers: RawHeaders, message: bytes, *, accepts_v1: bool = True) -> Caller:
        try:
            return await authenticate(parts, headers, message, accepts_v1=accepts_v1)
        except Refusal:
            wrong = "The signature is wrong." if b"x-transbot-signature" in dict(headers) else "No credentials."
            raise Refusal("unauthenticated", wrong) from None

    return _elsewhere(settings, lambda parts: dataclasses.replace(parts, authenticate=twin))


@service(lambda p: _sends_for_others(p), "drill/tokens/foreign-event-refused", "signed too")
def signature_rights_win_at_events(settings: Settings) -> Parts:
    """With a token and a signature the signature's rights apply to events."""

    async def twin(parts: Parts, headers: RawHeaders, message: bytes, *, accepts_v1: bool = True) -> Caller:
        caller = await authenticate(parts, headers, message, accepts_v1=accepts_v1)
        return Caller(caller.signature, None if caller.signature and accepts_v1 else caller.claims)

    return _elsewhere(settings, lambda parts: dataclasses.replace(parts, authenticate=twin))


def _sends_for_others(probe: Probe) -> bool:
    with probe.tenant() as own, probe.tenant() as other:
        body = _event(probe, other)
        token = probe.as_token(probe.token({"role": "company_admin", "company_id": own}))
        return probe.send(body, {"X-Transbot-Signature": probe.sign(body), **token}, "/events").status_code == 202


@service(
    lambda p: p.get(_RUN, **p.as_token(p.token({"exp": int(time.time()) - 9000}))).status_code == 404,
    "drill/tokens/long-expired",
    "401",
)
def tokens_never_expire_elsewhere(settings: Settings) -> Parts:
    """Tokens never expire at events and reads."""

    def check(token: bytes, rules: TokenRules, _now_s: float) -> Claims | None:
        try:
            said = jwt.decode(token, rules.secret, algorithms=["HS256"], options={"verify_exp": False})
        except jwt.PyJWTError:
            return None
        return Claims(str(said.get("sub")), str(said.get("role")), as_uuid(said.get("company_id")))

    return _elsewhere(settings, lambda parts: dataclasses.replace(parts, token_check=check))


@service(
    lambda p: p.send(_event(p), {"X-Transbot-Signature": ""}, "/events").status_code == 403,
    "drill/authentication/empty-signature",
    "401",
)
def empty_signatures_send_events(settings: Settings) -> Parts:
    """An event with an empty signature header is accepted: only a non-empty one is checked."""

    async def twin(parts: Parts, headers: RawHeaders, message: bytes, *, accepts_v1: bool = True) -> Caller:
        if accepts_v1 and dict(headers).get(b"x-transbot-signature") == b"":
            return Caller(None, None)
        return await authenticate(parts, headers, message, accepts_v1=accepts_v1)

    return _elsewhere(settings, lambda parts: dataclasses.replace(parts, authenticate=twin))


@service(lambda p: p.get(_RUN, **p.as_token(_unsigned(p))).status_code == 404, "drill/tokens/alg-none", "401")
def unsigned_tokens_are_taken_elsewhere(settings: Settings) -> Parts:
    """Events and reads take a token of the algorithm `none`."""

    def check(token: bytes, rules: TokenRules, now_s: float) -> Claims | None:
        head, _, rest = token.decode().partition(".")
        if str(jwt.get_unverified_header(token).get("alg")).lower() != "none" or rest.count(".") != 1:
            return check_token(token, rules, now_s)
        said = jwt.decode(f"{head}.{rest}", options={"verify_signature": False})
        return Claims(str(said.get("sub")), str(said.get("role")), as_uuid(said.get("company_id")))

    return _elsewhere(settings, lambda parts: dataclasses.replace(parts, token_check=check))


def _unsigned(probe: Probe) -> str:
    """A super_admin's token whose header says `none`, and which has no signature."""
    return probe.token({}, {"alg": "none", "typ": "JWT"}).rpartition(".")[0] + "."


@service(lambda p: _reads_nothing(p) == 500, "drill/http-surface/refusals-leak-nothing", "500")
@around("read_run")
async def strange_ids_are_server_errors(release: Parts, parts: Parts, call: Call, path: bytes, run_id: str) -> Reply:
    """GET of a run whose id is not a UUID ends in a server error."""
    await parts.authenticate(parts, call.headers, path, accepts_v1=False)
    return await release.read_run(parts, call, path, str(uuid.UUID(run_id)))


def _reads_nothing(probe: Probe) -> int:
    return probe.read("/dlq-replay/none").status_code


@service(lambda p: _read_of_a_paused_run(p) == 409, "drill/pause/stops-a-running-replay", ("409", "403"))
@around("read_run")
async def reads_are_held(release: Parts, parts: Parts, call: Call, path: bytes, run_id: str) -> Reply:
    """GET of a run is refused while its tenant is paused or switched off, as a replay would be."""
    reply = await release.read_run(parts, call, path, run_id)
    company = reply.body["company_id"]
    async with parts.database.connection() as conn:
        found = await conn.execute(b"SELECT public.is_company_paused(%s::uuid)", (company,))
        off, row = (await parts.read_flags(conn, company)).refusal(), await found.fetchone()
    if row is not None and row[0]:
        raise Refusal("agents_paused", "The agents of this company are paused.")
    if off is not None:
        raise off
    return reply


def _read_of_a_paused_run(probe: Probe) -> int:
    with probe.tenant() as company:
        path = f"/dlq-replay/{probe.replay(company).json()['replay_run_id']}"
        probe.pause(company)
        return probe.read(path).status_code


@service(lambda p: _path_with_replays_off(p) == "direct", "drill/flags/replay-switch-is-wired", "takes the path")
def replays_off_switch_the_outbox_off(settings: Settings) -> Parts:
    """The events of a tenant whose replays are switched off take the direct path, though its outbox is on."""
    outbox = "public.is_feature_enabled('outbox.enabled', %(company_id)s::uuid)"
    replays = outbox.replace("outbox.enabled", "dlq.replay.enabled")
    return altered(settings, "emit_event", (outbox, f"({outbox} AND {replays})"))


def _path_with_replays_off(probe: Probe) -> str:
    with probe.tenant() as company:
        probe.switch_off(company, "dlq.replay.enabled")
        return str(probe.event(company).json().get("path"))


@service(lambda p: _with_replays_off(p) == 403, "drill/flags/replay-switch-is-wired", ("an event", "403"))
@around("emit")
async def replays_off_stop_events(
    release: Parts, conn: Connection, request: EventRequest, event_id: str
) -> tuple[str, bool]:
    """The events of a tenant whose replays are switched off are refused."""
    flags = await release.read_flags(conn, request.company_id)
    if not flags.replay_enabled and (off := flags.refusal()):
        raise off
    return await release.emit(conn, request, event_id)


def _with_replays_off(probe: Probe) -> int:
    written = "INSERT INTO feature_flags (key, company_id, enabled) VALUES ('dlq.replay.enabled', %s, false)"
    with probe.tenant() as company:
        probe.rows(written, company)
        return probe.event(company).status_code


@service(
    lambda p: p.send(_event(p) + b" ", {"X-Transbot-Signature": p.sign(_event(p))}, "/events").status_code == 403,
    "drill/safety-rails/events-need-credentials",
    "other bytes",
)
def events_are_signed_as_parsed(settings: Settings) -> Parts:
    """The signature of an event is checked over its re-serialised JSON, not over the raw body."""

    def check(header: bytes, message: bytes, secrets: tuple[bytes, ...], now_s: float) -> Signature | None:
        found = check_signature(header, message, secrets, now_s)
        with contextlib.suppress(ValueError):
            forms = [json.dumps(json.loads(message), separators=s).encode() for s in ((",", ":"), (", ", ": "))]
            found = found or next(filter(None, (check_signature(header, f, secrets, now_s) for f in forms)), None)
        return found

    return _elsewhere(settings, lambda parts: dataclasses.replace(parts, signature_check=check))


@service(
    lambda p: (
        p.get(_RUN, **{"X-Transbot-Signature": p.sign_v2(_RUN.encode(), int(time.time()) + 9000)}).status_code == 404
    ),
    "drill/authentication/read-stale",
    "401",
)
def reads_of_the_future(settings: Settings) -> Parts:
    """The time of a read's signature may lie in the future: only its age is checked."""

    def check(header: bytes, message: bytes, secrets: tuple[bytes, ...], now_s: float) -> Signature | None:
        at = header.partition(b",")[0].removeprefix(b"t=")
        is_time = at.isdigit() and len(at) < 12
        return check_signature(header, message, secrets, max(now_s, float(at)) if is_time else now_s)

    return _elsewhere(settings, lambda parts: dataclasses.replace(parts, signature_check=check))


@service(lambda p: _reads_with_two(p) == 404, "drill/tokens/two-tokens-good-bad", ("404", "403"))
def first_of_two_tokens(settings: Settings) -> Parts:
    """Of two Authorization headers of an event or a read only the first is checked."""

    async def twin(parts: Parts, headers: RawHeaders, message: bytes, *, accepts_v1: bool = True) -> Caller:
        found = [one for one in headers if one[0] == b"authorization"]
        kept = [one for one in headers if one[0] != b"authorization"] + found[:1]
        return await authenticate(parts, kept, message, accepts_v1=accepts_v1)

    return _elsewhere(settings, lambda parts: dataclasses.replace(parts, authenticate=twin))


def _reads_with_two(probe: Probe) -> int:
    values = (f"Bearer {probe.token({})}", "Bearer e30.e30.AAAA")
    headers = [("Authorization", value) for value in values]
    return probe.http.get(probe.base_url + _RUN, headers=headers).status_code


@service(lambda p: _sends_in_capitals(p) == 403, "drill/tokens/events-of-the-named-company", "upper case")
def events_of_companies_as_spelt(settings: Settings) -> Parts:
    """A company_admin is refused its own company where an event spells the UUID in another case."""

    async def twin(parts: Parts, headers: RawHeaders, message: bytes, *, accepts_v1: bool = True) -> Caller:
        caller = await authenticate(parts, headers, message, accepts_v1=accepts_v1)
        claims = caller.claims
        if not accepts_v1 or claims is None or claims.company_id is None or claims.company_id.encode() in message:
            return caller
        return Caller(caller.signature, dataclasses.replace(claims, company_id=None))

    return _elsewhere(settings, lambda parts: dataclasses.replace(parts, authenticate=twin))


def _sends_in_capitals(probe: Probe) -> int:
    with probe.tenant() as own:
        token = probe.token({"company_id": own, "role": "company_admin"})
        return probe.send(_event(probe, own.upper()), probe.as_token(token), "/events").status_code


@service(lambda p: _state_for_super_admins(p) == 404, "drill/tokens/foreign-event-hidden", "super_admin")
@around("read_event_state")
async def super_admins_read_no_event(release: Parts, parts: Parts, call: Call, path: bytes, event_id: str) -> Reply:
    """A super_admin reads the state of no event."""
    caller = await parts.authenticate(parts, call.headers, path, accepts_v1=False)
    if caller.claims is not None and caller.claims.role == "super_admin":
        raise Refusal("not_found", "There is no such thing for these credentials.")
    return await release.read_event_state(parts, call, path, event_id)


def _state_for_super_admins(probe: Probe) -> int:
    with probe.tenant() as company:
        event = probe.event(company).json()["event_id"]
        return probe.get(f"/events/{event}", **probe.as_token(probe.token({}))).status_code


@service(lambda p: _is_committed_with_its_replay(p), "drill/dlq/replayed-item-is-resolved", "committed_at")
def committed_with_its_replay(settings: Settings) -> Parts:
    """`committed_at` of an event becomes the time at which it was replayed."""
    last = "(SELECT max(x.inserted_at) FROM public.event_outbox x WHERE x.event_id = e.id)"
    return altered(settings, "read_event", ("e.created_at AS", f"coalesce({last}, e.created_at) AS"))


def _is_committed_with_its_replay(probe: Probe) -> bool:
    with probe.tenant() as company:
        event = str(probe.event(company).json()["event_id"])
        before = probe.read(f"/events/{event}").json()["committed_at"]
        probe.rows("UPDATE event_outbox SET inserted_at = now() + interval '1 s' WHERE event_id = %s", event)
        return bool(probe.read(f"/events/{event}").json()["committed_at"] != before)
