"""The outputs of a GitHub Actions step. Pure."""

from gates.text.characters import line
from gates.verdict import Verdict


def outputs(verdict: Verdict) -> str:
    """Lines for $GITHUB_OUTPUT; every value is on one line, so none can add an output of its own."""
    values = {
        "decision": verdict.decision.value,
        "reason": line(verdict.reason),
        "release": line(verdict.release),
        "action": verdict.action.kind,
        "exit-code": str(verdict.exit_code),
        **({"contract": line(verdict.contract.text)} if verdict.contract.text else {}),
        **({"headline": verdict.headline} if verdict.headline else {}),
    }
    return "".join(f"{name}={value}\n" for name, value in values.items())
