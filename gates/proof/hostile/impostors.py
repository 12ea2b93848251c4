"""The table of hostile servers: the lie, its place, and the allowed decisions."""

import enum
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from gates.proof.degenerate import always
from gates.proof.hostile.contents import (
    DESCRIPTIONS,
    ENCODINGS,
    INJECTIONS,
    LITERALS,
    METRICS,
    Spoil,
    at,
    every_member,
    header,
    member,
)
from gates.proof.hostile.liars import LIARS, MISSING, Make, echo, rewritten
from gates.proof.hostile.transport import BROKEN
from gates.proof.trial import NOT_PROMOTED
from gates.proof.workbench.servers import Asked, Reply
from gates.verdict import Decision

ANY = tuple(Decision)
"""The contract does not cover it: any decision is allowed, but no crash, leak, hang or residue."""


class Gate(enum.Enum):
    """How the gate is run on it: `gate run`, or the short one, which has the same code path and fewer checks."""

    WHOLE = "whole"
    SHORT = "short"


LIMITS_S: Mapping[Gate, float] = {Gate.WHOLE: 420.0, Gate.SHORT: 180.0}
"""Time limits: the whole gate has those of the shipped policy; the short one 40 s for the drills, 60 for the load."""


@dataclass(frozen=True, slots=True)
class Impostor:
    """One hostile server before a healthy database. `unset`: variables that the gate does not get."""

    name: str
    said: str
    make: Make
    allowed: tuple[Decision, ...] = NOT_PROMOTED
    gate: Gate = Gate.SHORT
    unset: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)


REPLAY = "/dlq-replay"
VERSION = "/version"
AT_REPLAY = (
    *("hang", "drip-headers", "drip-body", "flood-1xx", "endless-body", "endless-headers", "endless-trailers"),
    *("gzip-bomb", "brotli-bomb", "length-long-silent", "length-of-5000-digits", "reset-in-body", "noise"),
    "redirect-file",
)
"""Broken answers that are also tried behind healthy pages: the preflight lets the gate reach them."""
AT_METRICS = ("drip-body", "endless-body", "gzip-bomb", "endless-chunks")
TOLERABLE_ENCODINGS = {
    *("bom", "charset-unknown", "charset-codec", "spaces", "html-of-json", "trailing", "comments", "latin-1"),
    *("utf-16", "utf-16-as-utf-8", "utf-32", "keys", "key-collisions", "duplicate-keys", "deep-body"),
}
"""Readers differ on these, or the members that matter may still be there."""
TOLERABLE_LIARS = {
    *("late-3-s", "late-pages", "no-request-ids", "good-to-clients-of-python", "version-one-of-five", "makes-twice"),
    *("cache", "bit-flips", "two-for-one"),
}
"""Short runs may miss these by their nature; the whole gate runs on a sample of them."""
WHOLE = {"healthy-300", "swallows", "refusals-are-done", "good-to-test-company", "version-one-of-two", "makes-twice"}


def _broken() -> Iterator[Impostor]:
    for name, said, reply in BROKEN:
        yield Impostor(f"everywhere-{name}", f"to everything: {said}", always(reply), gate=Gate.WHOLE)
        if name in AT_REPLAY:
            yield Impostor(f"replay-{name}", f"to replays: {said}", at(REPLAY, _answers(reply), method="POST"))
        if name in AT_METRICS:
            yield Impostor(f"metrics-{name}", f"at /metrics: {said}", at("/metrics", _answers(reply)))


def _answers(reply: Reply) -> Spoil:
    return lambda _real: reply


def _contents() -> Iterator[Impostor]:
    for name, (said, literal) in LITERALS.items():
        yield Impostor(f"release-{name}", f"its release is {said}", at(VERSION, member("release", literal)))
        yield Impostor(
            f"replay-of-{name}", f"each member of a replay's answer is {said}", at(REPLAY, every_member(literal))
        )
    for name, (said, spoil) in ENCODINGS.items():
        allowed = ANY if name in TOLERABLE_ENCODINGS else NOT_PROMOTED
        yield Impostor(f"replay-{name}", f"replays are answered with {said}", at(REPLAY, spoil), allowed)
    for name in ("bom", "utf-16", "duplicate-keys", "deep-body", "keys", "wrapped"):
        said, spoil = ENCODINGS[name]
        yield Impostor(f"version-{name}", f"/version: {said}", at(VERSION, spoil), ANY)
    for name, (said, spoil) in METRICS.items():
        yield Impostor(f"metrics-{name}", f"metrics: {said}", at("/metrics", spoil), ANY)
    for name, (said, spoil) in DESCRIPTIONS.items():
        yield Impostor(f"{name}", said, at("/openapi.json", spoil), ANY)


def _injections() -> Iterator[Impostor]:
    for name, (said, text) in INJECTIONS.items():
        literal = json.dumps(text)
        yield Impostor(
            f"inject-release-{name}",
            f"its release has {said}",
            at(VERSION, member("release", literal)),
            ANY,
            unset=("RELEASE",),
        )
        yield Impostor(
            f"inject-everywhere-{name}", f"codes, details and headers have {said}", _said_everywhere(text, literal)
        )


def _said_everywhere(text: str, literal: str) -> Make:
    """The text in each place that the gate quotes: the problem's members, a header, a metric's label."""
    members, labels = every_member(literal), text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    in_header = header("X-Request-Id", text)

    def change(asked: Asked, reply: Reply) -> Reply:
        if asked.path.endswith("/metrics"):
            return replace(reply, body=reply.body + f'replay_requests_total{{status="{labels}"}} -1\n'.encode())
        return in_header(members(reply)) if REPLAY in asked.path else reply

    return rewritten(change)


def _liars() -> Iterator[Impostor]:
    for name, (said, make) in {**LIARS, **MISSING}.items():
        allowed = (
            ANY if name in TOLERABLE_LIARS | set(MISSING) - {"without-replay", "without-version"} else NOT_PROMOTED
        )
        if name in WHOLE or name in MISSING:
            yield Impostor(name, said, make, NOT_PROMOTED if name != "makes-twice" else ANY, Gate.WHOLE)
        else:
            yield Impostor(name, said, make, allowed)


def _echoes() -> Iterator[Impostor]:
    credentials = echo(
        lambda asked: [asked.header("Authorization").removeprefix("Bearer "), asked.header("X-Transbot-Signature")]
    )
    yield Impostor("echo-credentials", "repeats each token and signature, in every spelling", credentials, ANY)


def _controls() -> Iterator[Impostor]:
    """The deployment itself: a gate that never promotes anything would prove nothing here."""
    for gate in Gate:
        said = f"the deployment itself, by the {gate.value} gate: the control"
        yield Impostor(f"control-{gate.value}", said, rewritten(lambda _asked, reply: reply), (Decision.PROMOTE,), gate)


def impostors() -> tuple[Impostor, ...]:
    """All of them, in the order in which they run."""
    return (*_controls(), *_broken(), *_contents(), *_injections(), *_liars(), *_echoes())
