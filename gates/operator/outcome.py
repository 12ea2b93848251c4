"""The exit code of a command that shows a verdict."""

import argparse

from gates.verdict import Decision, Verdict


def exit_code(verdict: Verdict, options: argparse.Namespace) -> int:
    """The exit code of the verdict; 0 for a hold if --exit-zero-on says so."""
    spared = getattr(options, "exit_zero_on", None) == "hold" and verdict.exit_code == Decision.HOLD.exit_code
    return 0 if spared else verdict.exit_code
