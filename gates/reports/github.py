"""The outputs of a GitHub Actions step. Pure."""

from __future__ import annotations

from gates.verdict import Verdict


def outputs(verdict: Verdict) -> str:
    """Lines for $GITHUB_OUTPUT; every value is on one line, so none can add an output of its own."""
    values = {
        "decision": verdict.decision.value,
        "reason": " ".join(verdict.reason.split()),
        "release": " ".join(verdict.release.split()),
        "action": verdict.action.kind,
    }
    return "".join(f"{name}={value}\n" for name, value in values.items())
