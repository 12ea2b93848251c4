"""Checks that have passed on this deployment: one that never did may show a difference, not harm of a release."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from gates import disk
from gates.decision.difference import PASSED_HERE
from gates.decision.rules import Policy
from gates.evidence import Evidence, Outcome
from gates.stages.context import Context
from gates.text import foreign

FILE = "passed.json"
MOST_READ = 1024 * 1024


def passed(context: Context, policy: Policy) -> None:
    """Write evidence of the checks that passed here in earlier runs; nothing for the contract's own dialect."""
    if policy.is_of_another_dialect:
        context.note(Evidence(PASSED_HERE, Outcome.PASS, details={"checks": [*read(context.state, policy)]}))


def read(folder: Path, policy: Policy) -> list[str]:
    """What passed under exactly these names and claims; empty if the memory is unreadable, or of others."""
    try:
        data = json.loads(disk.read(folder / FILE, MOST_READ))
        checks = data["checks"] if data["dialect"] == dialect(policy) else []
        return sorted({foreign.text(check, 200) for check in checks})
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return []


def remember(folder: Path, policy: Policy, others: Iterable[str]) -> None:
    """Add what passed in this run: all checks except `others`. Raise OSError, CannotWork."""
    if policy.is_of_another_dialect:
        known = {s.id for s in policy.catalogue} - set(others) | set(read(folder, policy))
        disk.folder(folder)
        disk.write(folder / FILE, json.dumps({"dialect": dialect(policy), "checks": sorted(known)}, indent=1) + "\n")


def dialect(policy: Policy) -> str:
    """A digest of the names and claims: if they change, a failure may come from the change of the policy."""
    said = json.dumps([policy.names, policy.scope.to_json()], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()[:16]
