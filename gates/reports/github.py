"""The outputs and the annotation of a GitHub Actions step. Pure."""

from __future__ import annotations

from gates.verdict import Verdict


def outputs(verdict: Verdict) -> str:
    """Lines for $GITHUB_OUTPUT; every value is on one line, so none can add an output of its own."""
    values = {
        "decision": verdict.decision.value,
        "reason": " ".join(verdict.reason.split()),
        "release": " ".join(verdict.release.split()),
        "action": verdict.action.kind,
        **({"headline": verdict.headline} if verdict.headline else {}),
    }
    return "".join(f"{name}={value}\n" for name, value in values.items())


def annotation(title: str, message: str) -> str:
    """A workflow command that shows an error at the top of the run; foreign text ends neither it nor its title."""

    def inert(text: str, also: str = "") -> str:
        return "".join(f"%{ord(c):02X}" if c in "%\r\n" + also else c for c in text)

    return f"::error title={inert(title, ':,')}::{inert(message)}"
