"""Authentication by signature, v2: a time is signed with the bytes, and counts for 300 s both ways."""

import hashlib
import hmac
import time
from collections.abc import Callable
from contextlib import nullcontext

import pytest

from drills.workbench.bench import Bench, let_in, read_paths
from drills.workbench.checks import SIGNED, Case, cases
from drills.workbench.credentials import REPLAY
from drills.workbench.scene import Scene
from gates.checks.recorder import Observer, check
from gates.deployment.dialect.current import current
from gates.deployment.http.client import HttpDoor
from gates.deployment.http.clock import Clock
from gates.deployment.ids import new_id
from gates.deployment.requests import (
    SIGNATURE,
    Request,
    forged_signature,
    post,
    sign_v1,
    sign_v2,
    signed_get,
    signed_post_v2,
)
from gates.deployment.target import Target
from gates.deployment.tenants.loans import LiveRow
from gates.evidence import Severity, Where

TOLERANCE_S = current().limit("signature_age_s")
MARGIN_S = 6
"""Distance from the tolerance at which both sides are clear: a clock may differ by a second, a request may wait."""
IN_TIME_S = MARGIN_S - 2
"""An answer that comes later may be of a time at which the signature was on the other side of the tolerance."""

Forge = Callable[[Bench, bytes, int], str]


def _mac(bench: Bench, message: bytes) -> str:
    return hmac.new(bench.target.hmac_secret.encode(), message, hashlib.sha256).hexdigest()


def _timed(stamp: str, mac: str) -> str:
    return f"t={stamp},v2={mac}"


def _other_time(bench: Bench, body: bytes, now: int) -> str:
    return _timed(str(now), _mac(bench, f"{now - 7}.".encode() + body))


def _used_for_another(bench: Bench, body: bytes, now: int) -> str:
    """The signature of another body, which was accepted for that one."""
    other = body.replace(b"10", b"11")
    signature = sign_v2(bench.target.hmac_secret, other, now)
    bench.opens(bench.with_signature(signature, other, "the other body with its signature"))
    return signature


def _two_times(bench: Bench, body: bytes, now: int, *, fresh_first: bool) -> str:
    """A stale signature with a fresh time beside it: one of the two is checked for age, the other is signed."""
    stale = now - 4000
    mac = _mac(bench, f"{stale}.".encode() + body)
    first, second = (now, stale) if fresh_first else (stale, now)
    return f"t={first},t={second},v2={mac}"


FORGERIES: list[Case] = [
    Case(
        "v2-in-milliseconds",
        "A v2 signature whose time is in milliseconds is refused.",
        lambda b, raw, now: sign_v2(b.target.hmac_secret, raw, now * 1000),
        ("A15",),
    ),
    Case(
        "v2-stale",
        "A v2 signature older than 300 s is refused.",
        lambda b, raw, now: sign_v2(b.target.hmac_secret, raw, now - TOLERANCE_S - MARGIN_S),
        ("A15",),
    ),
    Case(
        "v2-very-stale",
        "A v2 signature of a day ago is refused.",
        lambda b, raw, now: sign_v2(b.target.hmac_secret, raw, now - 86_400),
        ("A15",),
    ),
    Case(
        "v2-future",
        "A v2 signature more than 300 s in the future is refused.",
        lambda b, raw, now: sign_v2(b.target.hmac_secret, raw, now + TOLERANCE_S + MARGIN_S),
        ("A16",),
    ),
    Case("v2-changed-time", "A v2 signature with its time changed is refused.", _other_time, ("A17",)),
    Case(
        "v2-wrong-secret",
        "A v2 signature made with another secret is refused.",
        lambda _b, raw, now: sign_v2("another-secret-of-32-characters!", raw, now),
        ("A04",),
    ),
    Case("v2-other-body", "A v2 signature of a body that differs in one byte is refused.", _used_for_another, ("A10",)),
    Case(
        "v2-without-time-in-mac",
        "A v2 signature whose MAC covers the body without the time is refused.",
        lambda b, raw, now: _timed(str(now), b.mac(raw)),
        ("A17",),
    ),
    Case(
        "v2-upper-case-hex",
        "A v2 signature in upper case is refused: it would be another key for the same request.",
        lambda b, raw, now: _timed(str(now), _mac(b, f"{now}.".encode() + raw).upper()),
        ("A06",),
    ),
    Case(
        "v2-truncated",
        "A v2 signature without its last digit is refused.",
        lambda b, raw, now: sign_v2(b.target.hmac_secret, raw, now)[:-1],
        ("A05",),
    ),
    Case(
        "v2-extended",
        "A v2 signature with more digits is refused.",
        lambda b, raw, now: sign_v2(b.target.hmac_secret, raw, now) + "00",
        ("A06",),
    ),
    Case(
        "v2-empty-mac",
        "A v2 signature with an empty MAC is refused.",
        lambda _b, _r, now: _timed(str(now), ""),
        ("A03",),
    ),
    Case("v2-no-mac", "A time without a MAC is refused.", lambda _b, _r, now: f"t={now}", ("A03",)),
    Case(
        "v2-no-time", "A v2 MAC without a time is refused.", lambda b, raw, _now: f"v2={_mac(b, b'.' + raw)}", ("A15",)
    ),
    Case(
        "v2-two-times-fresh-first",
        "A stale signature with a fresh time before its own is refused.",
        lambda b, raw, now: _two_times(b, raw, now, fresh_first=True),
        ("A14",),
    ),
    Case(
        "v2-two-times-fresh-last",
        "A stale signature with a fresh time after its own is refused.",
        lambda b, raw, now: _two_times(b, raw, now, fresh_first=False),
        ("A14",),
    ),
    Case(
        "v1-mac-under-v2-name",
        "The right v1 signature under the name v1 beside a time is refused: that is no form of ours.",
        lambda b, raw, now: f"t={now},v1={b.mac(raw)}",
        ("A06",),
        Severity.WARN,
    ),
]


@cases("drill/authentication", FORGERIES, where=Where.READ_ONLY, after=SIGNED)
def test_forged_v2(case: Case, bench: Bench) -> None:
    """A v2 signature that is stale, altered or incomplete is refused with 401.

    A captured request can be sent again for ever, or anyone can sign.
    """
    body = bench.body()
    bench.opens(bench.signed_v2(body))
    forge: Forge = case.value
    # the time is taken last: where the control took seconds, a signature of the future would have come of age
    since = time.monotonic()
    request = bench.with_signature(forge(bench, body, bench.clock.now()), body, case.name)
    answer = bench.http.send(request)
    _in_time(bench, since, as_due=answer.status == 401)
    bench.shut(request, answer)


def _in_time(bench: Bench, since: float, *, as_due: bool) -> None:
    """End the check as unknown where an answer is not as it is due, and came too late after its signature was made."""
    took_s = time.monotonic() - since
    said = f"too slow to tell: the answer came {took_s:.1f} s after the signature was made"
    bench.seen.require(as_due or took_s < IN_TIME_S, said)


@pytest.mark.waits(1.0)
@check("drill/authentication/v2-accepted-until-it-is-stale", where=Where.READ_ONLY, after=SIGNED, covers=("A15",))
def test_v2_accepted_until_stale(bench: Bench) -> None:
    """A v2 signature that was accepted is refused as soon as it is older than 300 s, of a read and beside a key, too.

    A service that remembers the signatures it has verified takes a captured request for ever.
    """
    secret = bench.signer.secret

    def made(at: int, number: int) -> list[Request]:
        body = bench.body() + b" " * number
        return [signed_post_v2(REPLAY, body, secret, at, "just stale"), signed_get(_run_path(), secret, at, "a read")]

    keyed = bench.body(idempotency_key="drill-stale")
    bench.shut(bench.signed_v2(keyed, age_s=2 * TOLERANCE_S, label="stale, with a key"))
    bench.outlived(TOLERANCE_S, made)


ODD_TIMES = ("", "abc", "1e9", "-1", "9" * 40, "12.5", " 12", "0x5f5e100", "NaN", "\u0661\u0662")


@check("drill/authentication/v2-odd-times", where=Where.READ_ONLY, after=SIGNED, covers=("A09", "A15"))
def test_v2_odd_times(bench: Bench) -> None:
    """A v2 time that is no plausible Unix time is refused with 401, even if it is signed, and causes no server error.

    One malformed number passes the time window, or makes the service fail.
    """
    body = bench.body()
    bench.opens(bench.signed_v2(body))
    for stamp in (*ODD_TIMES, f"{int(bench.clock.now())}000"):
        signature = _timed(stamp, _mac(bench, f"{stamp}.".encode() + body))
        bench.refused(bench.with_signature(signature, body, f"t={stamp[:12]!r}"), (400, 401))


TOLERATED = [
    Case("v2-past-tolerated", "A v2 signature a little under 300 s old is accepted.", TOLERANCE_S - MARGIN_S, ("A15",)),
    Case(
        "v2-future-tolerated",
        "A v2 signature a little under 300 s in the future is accepted.",
        MARGIN_S - TOLERANCE_S,
        ("A16",),
    ),
]


@cases("drill/authentication", TOLERATED, severity=Severity.WARN, where=Where.READ_ONLY, after=SIGNED)
def test_v2_tolerance(case: Case, bench: Bench) -> None:
    """A v2 signature within its 300 s is accepted, of an event and a read, too; so is that of a body beyond ASCII.

    Senders whose clocks differ by minutes are locked out.
    """
    bench.opens(bench.signed_v2(label="signed now"))
    bench.accepted(bench.signed_v2(bench.body(error_type="\u20ac"), label="beyond ASCII"))
    secret, said = bench.signer.secret, f"signed {case.value} s ago"
    for path in (REPLAY, *["/events"] * current().takes_events, *read_paths()):
        since, at = time.monotonic(), bench.clock.now() - case.value
        request = signed_get(path, secret, at, f"a read, {said}")
        if path in {REPLAY, "/events"}:
            body = bench.body() if path == REPLAY else bench.event().body
            request = signed_post_v2(path, body, secret, at, f"{path}, {said}")
        answer = bench.http.send(request)
        _in_time(bench, since, as_due=let_in(answer))
        bench.accepted(request, answer)


# --- GET /dlq-replay/{id} and /events/{id} -----------------------------------------------------------------------


def _run_path() -> str:
    return f"{REPLAY}/{new_id('run')}"


def _parts(path: str) -> tuple[str, ...]:
    route = path.rpartition("/")[0]
    return "", route, f"{route}/", path[: len(route) + 9], path[:-1], path.removeprefix(f"{route}/")


READS: list[Case] = [
    Case("read-without-credentials", "Reading a run without credentials is refused.", None, ("A02",)),
    Case(
        "read-other-path",
        "The v2 signature of another run's path, or another event's, is refused.",
        lambda t, _path, other, now: sign_v2(t.hmac_secret, other.encode(), now),
        ("A18",),
    ),
    Case(
        "read-empty-body-signature",
        "The v2 signature of an empty body, or of a part of the path, in place of the path is refused.",
        lambda t, path, _other, now: [sign_v2(t.hmac_secret, part.encode(), now) for part in _parts(path)],
        ("A18",),
    ),
    Case(
        "read-v1",
        "The v1 signature of the path is refused: a read takes v2, which binds a time.",
        lambda t, path, _other, _now: sign_v1(t.hmac_secret, path.encode()),
        ("A18",),
    ),
    Case(
        "read-v1-of-nothing",
        "The v1 signature of the empty body is refused: it would open every read for ever.",
        lambda t, _path, _other, _now: sign_v1(t.hmac_secret, b""),
        ("A18",),
    ),
    Case(
        "read-stale",
        "A stale v2 signature of the path is refused, and one of the future.",
        lambda t, path, _other, now: [
            sign_v2(t.hmac_secret, path.encode(), now + away) for away in (-TOLERANCE_S - MARGIN_S, 2 * TOLERANCE_S)
        ],
        ("A15", "A16"),
    ),
    Case(
        "read-wrong-secret",
        "A v2 signature of the path made with another secret is refused, and a part of the right one.",
        lambda t, path, _other, now: [
            sign_v2("another-secret-of-32-characters!", path.encode(), now),
            sign_v2(t.hmac_secret, path.encode(), now)[:-1],
        ],
        ("A04", "A05"),
    ),
]


@cases("drill/authentication", READS, where=Where.READ_ONLY, after=SIGNED)
def test_forged_read(case: Case, http: HttpDoor, target: Target, clock: Clock, seen: Observer) -> None:
    """Reading a run or an event needs a token, or a v2 signature over that very path.

    Anyone who captured one request, or none, reads what every tenant replays.
    """
    now = clock.now()
    forge: Callable[[Target, str, str, int], str | list[str]] | None = case.value
    for path, other in zip(read_paths(), read_paths(), strict=True):
        good = signed_get(other, target.hmac_secret, now, "what nobody has, correctly signed")
        seen.expect(good, http.send(good), 404, control=True)
        bare = Request("GET", path, (), b"", case.name)
        made = [] if forge is None else forge(target, path, other, now)
        signatures = [made] if isinstance(made, str) else made
        for forged in [bare.with_header(SIGNATURE, one) for one in signatures] or [bare]:
            seen.expect(forged, http.send(forged), 401)


# --- the switch that ends v1 -------------------------------------------------------------------------------------

V2_FLAG = "security.signing_v2_required"


@check(
    "drill/authentication/v1-refused-when-v2-is-required",
    where=Where.DISRUPTIVE,
    needs=("database",),
    after=SIGNED,
    covers=("A19",),
    phase="last",
)
def test_v2_required(bench: Bench, scene: Scene) -> None:
    """With the global flag `security.signing_v2_required` on, v1 is refused and v2 is accepted; off, both are.

    The switch that should end requests without a time does nothing, or locks everyone out. A v1 signature is then
    refused like a forged one: the caller is not told that it was right.
    """
    body = bench.body()
    v1 = post(REPLAY, body, (SIGNATURE, bench.mac(body)), label="v1, flag off")
    found_on = scene.is_on_for_everybody(V2_FLAG)  # then it stays on: a drill weakens no target
    if not found_on:
        bench.opens(v1)
    with nullcontext() if found_on else scene.lent(LiveRow(V2_FLAG), enabled=True, rollout_percentage=100):
        bench.accepted(bench.signed_v2(body, label="v2, flag on"))
        bench.seen.control("with the flag on, v2 is accepted")
        ended = bench.shut(v1.labelled("v1, flag on"))
        if token := bench.target.admin_jwt:
            bench.shut(v1.adding_header("Authorization", f"Bearer {token}").labelled("v1 beside a token, flag on"))
        wrong = bench.shut(bench.with_signature(forged_signature(), body, "wrong digits, flag on"))
    if not found_on:
        bench.accepted(v1.labelled("v1, flag off again"))
        with scene.lent(LiveRow(V2_FLAG), enabled=True, rollout_percentage=0):
            bench.accepted(v1.labelled("v1, flag on for 0 %"))
    bench.one_body({"v1, flag on": ended, "wrong digits, flag on": wrong})
