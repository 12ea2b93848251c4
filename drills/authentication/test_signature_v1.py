"""Authentication by signature, v1: only the right MAC over the raw bytes opens the door."""

import base64
import re
from collections.abc import Callable
from dataclasses import dataclass

from drills.workbench.bench import Bench
from drills.workbench.checks import SIGNED, Case, cases
from drills.workbench.credentials import REPLAY
from gates.checks.recorder import Unmet, check
from gates.deployment.dialect.current import current
from gates.deployment.http.wire import WireDoor
from gates.deployment.requests import SIGNATURE, forged_signature, post, sign_v1
from gates.evidence import Severity, Where

ACCEPTED = "drill/authentication/signed-accepted"


@check(ACCEPTED, where=Where.READ_ONLY, covers=("A01",), phase="first")
def test_signed_accepted(bench: Bench) -> None:
    """A correctly signed request is authenticated, and the same bytes without a signature are not.

    Nobody can replay anything, and no other check of the drill proves anything.
    """
    bench.seen.control("the unsigned twin is sent as well")
    bench.shut(post(REPLAY, bench.body(), label="no credentials"))
    bench.accepted(bench.signed())


@dataclass(frozen=True)
class Forgery:
    """How a signature header is made from the body and its right signature."""

    make: Callable[[Bench, bytes, str], str]
    answers: tuple[int, ...] = (401,)


def _otherwise_written(signature: str) -> str:
    """The MAC in base64 where the deployment has it in hex, and in hex where it has it in base64."""
    if found := re.search(r"[0-9a-f]{64}", signature):
        return signature.replace(found[0], base64.b64encode(bytes.fromhex(found[0])).decode())
    if found := re.search(r"[A-Za-z0-9+/]{43}=", signature):
        return signature.replace(found[0], base64.b64decode(found[0]).hex())
    raise Unmet("the deployment's signatures are neither in hex nor in base64")


SHAPES = [
    Case("empty-signature", "An empty signature is refused.", Forgery(lambda _b, _r, _s: ""), ("A03",)),
    Case("whitespace-signature", "A signature of spaces is refused.", Forgery(lambda _b, _r, _s: "   "), ("A03",)),
    Case(
        "wrong-secret",
        "A signature made with another secret is refused.",
        Forgery(lambda _b, raw, _s: sign_v1("another-secret-of-32-characters!", raw)),
        ("A04", "A23"),
    ),
    Case(
        "random-signature",
        "64 hex digits that are no signature of the body are refused.",
        Forgery(lambda _b, _r, _s: forged_signature()),
        ("A04",),
    ),
    Case(
        "signature-of-nothing",
        "The right signature of the empty body is refused for another body.",
        Forgery(lambda b, _r, _s: b.mac(b"")),
        ("A10",),
    ),
    Case(
        "truncated-by-one",
        "The right signature without its last digit is refused.",
        Forgery(lambda _b, _r, s: s[:-1]),
        ("A05",),
    ),
    Case(
        "truncated-half",
        "The first half of the right signature is refused.",
        Forgery(lambda _b, _r, s: s[:32]),
        ("A05",),
    ),
    Case("one-digit", "The first digit of the right signature is refused.", Forgery(lambda _b, _r, s: s[:1]), ("A05",)),
    Case(
        "last-digit-changed",
        "The right signature with another last digit is refused.",
        Forgery(lambda _b, _r, s: s[:-1] + ("0" if s[-1] != "0" else "1")),
        ("A05",),
    ),
    Case(
        "extra-digits",
        "The right signature with two more digits is refused.",
        Forgery(lambda _b, _r, s: s + "00"),
        ("A06",),
    ),
    Case(
        "leading-digits",
        "The right signature with two digits before it is refused.",
        Forgery(lambda _b, _r, s: "00" + s),
        ("A06",),
    ),
    Case(
        "list-of-signatures",
        "A list of a wrong and the right signature is refused.",
        Forgery(lambda _b, _r, s: f"{forged_signature()},{s}"),
        ("A06",),
    ),
    Case(
        "scheme-prefix",
        "The right signature after `sha256=` is refused.",
        Forgery(lambda _b, _r, s: f"sha256={s}"),
        ("A06",),
        Severity.WARN,
    ),
    Case(
        "upper-case-hex",
        "The right signature in upper case is refused: lower-case hex is the form.",
        Forgery(lambda _b, _r, s: s.upper()),
        ("A07",),
        Severity.WARN,
    ),
    Case(
        "base64-signature",
        "The right MAC in base64 is refused: hex is the form; and the other way round, where base64 is.",
        Forgery(lambda _b, _r, s: _otherwise_written(s)),
        ("A08",),
    ),
    Case(
        "fullwidth-digits",
        "The right signature in full-width characters is refused.",
        Forgery(lambda _b, _r, s: "".join(chr(ord(c) + 0xFEE0) for c in s), (400, 401)),
        ("A09",),
    ),
    Case("hex-prefix", "The right signature after `0x` is refused.", Forgery(lambda _b, _r, s: "0x" + s), ("A09",)),
    Case(
        "escaped-newline",
        "The right signature with an escaped line end is refused.",
        Forgery(lambda _b, _r, s: s + "%0a"),
        ("A09",),
    ),
    Case(
        "long-signature",
        "A signature of 6,000 characters is refused and is no server error.",
        Forgery(lambda _b, _r, s: s * 94, (400, 401, 413, 431)),
        ("A05",),
        Severity.WARN,
    ),
]


@cases("drill/authentication", SHAPES, where=Where.READ_ONLY, after=SIGNED)
def test_forged_signature(case: Case, bench: Bench, wire: WireDoor) -> None:
    """A signature in a wrong shape is refused with 401, that of a replay and that of an event.

    Anyone who can reach the endpoint can replay events of any tenant, or write some.
    """
    for good in [bench.signed(), *[bench.event()] * current().takes_events]:
        bench.opens(good)
        made = case.value.make(bench, good.body, bench.mac(good.body))
        forged = good.with_header(SIGNATURE, made).labelled(case.name)
        bench.seen.expect(forged, wire.send(forged), case.value.answers)


FLAVOURS = [
    Case("dry-run-needs-a-signature", "A dry run without credentials is refused.", {"dry_run": True}, ("F09",)),
    Case(
        "forced-replay-needs-a-signature", "A forced replay without credentials is refused.", {"force": True}, ("A02",)
    ),
]


@cases("drill/authentication", FLAVOURS, where=Where.READ_ONLY, after=SIGNED)
def test_flavours_need_credentials(case: Case, bench: Bench) -> None:
    """No field or option of a request frees it from authentication.

    Anyone may list, or force, the replay of any tenant's events.
    """
    body = bench.body(**case.value)
    bench.opens(bench.signed(body))
    bench.shut(post(REPLAY, body, label="no credentials"))
    bench.shut(bench.with_signature(sign_v1("another-secret-of-32-characters!", body), body, "wrong secret"))
