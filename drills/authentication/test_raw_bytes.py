"""Authentication by signature: what is signed are the raw bytes of the body, before anything reads them."""

import json
from functools import partial
from typing import Any

from drills.workbench.bench import Bench, let_in
from drills.workbench.checks import SIGNED, Case, cases
from drills.workbench.credentials import REPLAY
from gates.checks.recorder import check
from gates.deployment.dialect.current import current
from gates.deployment.dialect.exchange import real_body
from gates.deployment.http.wire import WireDoor
from gates.deployment.requests import SIGNATURE, encode_body, is_a_firewalls
from gates.evidence import Severity, Where

drill = partial(check, after=SIGNED, where=Where.READ_ONLY)

PADDING = b" " * 60_000
CHUNKED = "Content-Type: application/json\nConnection: close\nTransfer-Encoding: chunked"


def _spelt(bench: Bench, **fields: Any) -> dict[str, Any]:
    more = {} if "error_type" in current().lacking else {"error_type": "é/x"}
    return {**json.loads(bench.body(max=10, **more)), **fields}


RESPELT: list[Case] = [
    Case(
        "reordered-keys",
        "The signature of the same JSON with its keys in another order is refused.",
        lambda b: json.dumps(dict(reversed(_spelt(b).items())), separators=(",", ":"), ensure_ascii=False).encode(),
        ("A11",),
    ),
    Case(
        "added-spaces",
        "The signature of the same JSON without its spaces is refused.",
        lambda b: json.dumps(_spelt(b), ensure_ascii=False).encode(),
        ("A11",),
    ),
    Case(
        "escaped-characters",
        "The signature of the same JSON without its escapes is refused.",
        lambda b: json.dumps(_spelt(b), separators=(",", ":")).encode(),
        ("A11",),
    ),
    Case(
        "trailing-line-end",
        "The signature of the same JSON without its last line end is refused.",
        lambda b: encode_body(_spelt(b)) + b"\n",
        ("A11",),
    ),
    Case(
        "flipped-byte",
        "The signature of a body that differs in one byte is refused, be it a large one, or sent in chunks.",
        lambda b: encode_body(_spelt(b, max=11)),
        ("A10",),
    ),
    Case(
        "swapped-company",
        "The signature of a body for another company is refused.",
        lambda b: encode_body(_spelt(b, company_id="00000000-0000-4000-8000-00000000abcd")),
        ("A10", "A20"),
    ),
]


@cases("drill/authentication", RESPELT, where=Where.READ_ONLY, after=SIGNED)
def test_signature_of_other_bytes(case: Case, bench: Bench) -> None:
    """The signature of other bytes is refused, and each spelling is accepted with its own signature.

    A signature that was captured opens requests that nobody signed, or conformant senders are locked out.
    """
    body: bytes = case.value(bench)
    old = encode_body(_spelt(bench))
    bench.seen.require(body != old, "the two spellings are the same bytes")
    signature = bench.signature(bench.signer.secret, old)
    bench.opens(bench.signed(body, "with its own signature"))
    bench.opens(bench.with_signature(signature, old, "the other bytes with theirs"))
    bench.shut(bench.with_signature(signature, body, "with the signature of the other bytes"))
    if case.name == "flipped-byte":
        _in_other_sizes(bench, body, old)


def _in_other_sizes(bench: Bench, body: bytes, old: bytes) -> None:
    """A large body, and one in chunks, which a service may read in another way. It may refuse both as such."""
    large, other = body + PADDING, old + PADDING
    if let_in(bench.http.send(bench.signed(large))):
        bench.shut(bench.with_signature(bench.mac(other), large, "60 KB with the signature of the other bytes"))
    real = real_body(body)
    head = f"POST {{path}}{REPLAY} HTTP/1.1\n{CHUNKED}"
    chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(real), real)
    wire = WireDoor(bench.target.base_url)
    right, wrong = (wire.raw(f"{head}\n{SIGNATURE}: {bench.mac(one)}", chunks) for one in (body, old))
    is_filtered = is_a_firewalls(403, wrong.text.partition(b"\r\n\r\n")[2])
    if right.statuses == (403,) and not is_filtered:  # as an unknown company is
        told = f"chunks with the signature of the other bytes: observed {wrong.statuses}; allowed: 401"
        assert wrong.statuses != (403,), told


@drill("drill/authentication/canonical-forms", covers=("A11",))
def test_canonical_forms(bench: Bench) -> None:
    """A signature over the body as a common library would re-serialise it is refused.

    The service verifies the parsed body, not the raw bytes: two parsers may read what was signed differently.
    """
    fields = json.loads(bench.body(max=10))
    body = json.dumps(fields, indent=1).encode()
    bench.opens(bench.signed(body, "with its own signature"))
    for separators in ((",", ":"), (", ", ": ")):
        for ordered in (False, True):
            form = json.dumps(fields, separators=separators, sort_keys=ordered).encode()
            bench.shut(bench.with_signature(bench.mac(form), body, f"with the signature of {form.decode()}"))


@drill("drill/authentication/odd-spelling-accepted", covers=("A11",))
def test_odd_spelling_accepted(bench: Bench) -> None:
    """A body in an unusual but valid spelling is accepted with the signature of its own bytes.

    The service verifies the parsed body, not the raw bytes: correct senders in other languages are locked out.
    """
    bench.opens(bench.signed(label="compact spelling"))
    fields = _spelt(bench)
    odd = b" \t" + json.dumps(dict(reversed(fields.items()))).encode() + b"\r\n"
    for body in (json.dumps(fields, indent=1).encode(), odd):
        bench.taken(bench.signed(body, "unusual spelling"))


HOSTILE_BODIES = [
    Case("nul-in-body", "A signed body with a NUL byte gets 400.", lambda b: b[:-1] + b"\x00}", ("A12",)),
    Case(
        "invalid-utf8-body",
        "A signed body that is not UTF-8 gets 400.",
        lambda b: b.replace(b'"max":10', b'"max":10,"error_type":"\xff"'),
        ("A12",),
    ),
    Case("utf16-body", "A signed body in UTF-16 gets 400.", lambda b: b.decode().encode("utf-16"), ("A12",)),
]


@cases("drill/authentication", HOSTILE_BODIES, severity=Severity.WARN, where=Where.READ_ONLY, after=SIGNED)
def test_hostile_signed_body(case: Case, bench: Bench) -> None:
    """A correctly signed body that is not JSON is refused as invalid, not with a server error.

    Bytes are decoded before they are authenticated, and anyone can make the service fail.
    """
    body = bench.body()
    bench.opens(bench.signed(body))
    bench.refused(bench.signed(case.value(body), case.name), 400, "invalid_request")


@drill("drill/authentication/byte-order-mark", severity=Severity.WARN, covers=("A12",))
def test_byte_order_mark(bench: Bench) -> None:
    """A correctly signed body that begins with a byte order mark causes no server error.

    It may be refused as invalid or read without the mark (RFC 8259 allows both), but must not break the service.
    """
    bench.opens(bench.signed())
    bench.refused(bench.signed(b"\xef\xbb\xbf" + bench.body(), "after a byte order mark"), (400, 403))
