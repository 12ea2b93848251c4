"""What a target was once seen to keep stays claimed: an area that is dropped silently would hide that it broke."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg

from gates import disk
from gates.contract.contract import contract
from gates.contract.scope import Scope
from gates.deployment.database import sql
from gates.deployment.failures import in_words
from gates.deployment.kept import borrowed
from gates.deployment.redaction import hidden, redact_evidence
from gates.evidence import CheckSpec, Evidence, JsonValue, Outcome, Severity, Where, stamp
from gates.stages.context import Context
from gates.text import foreign

SPEC = CheckSpec(
    "preflight/claims",
    "Every area of the contract that this target was seen to keep is claimed still, or its owner let it go.",
    "An area that broke is left out of the contract, and the release is promoted without it.",
    Severity.WARN,
    Where.READ_ONLY,
    phase="first",
)
FILE = "claims.json"
LAST_ORDER = Path(__file__).with_name("queries") / "last_claims.sql"
LET_GO = "contract: {{dropped: [{{area: {area}, reason: WHY, owner: WHO, expires: YYYY-MM-DD}}]}}"
MOST_READ = 64 * 1024


class Unreadable(Exception):  # noqa: N818  -- an outcome of reading, not an error of the gate
    """The memory is there, and does not say what was claimed."""


@dataclass(frozen=True, slots=True)
class PastClaims:
    """Area -> when it was last claimed and seen, in words. is_new: nothing was ever kept of this target."""

    seen: Mapping[str, str]
    is_new: bool = False


def read(folder: Path) -> PastClaims:
    """The memory in the state folder of a target. Raise Unreadable."""
    path = folder / FILE
    try:
        data = json.loads(disk.read(path, MOST_READ))
        known = _known({foreign.text(area): foreign.text(when, 200) for area, when in data.items()})
        return PastClaims(known, is_new=not known)
    except FileNotFoundError:
        return PastClaims({}, is_new=True)
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        said = foreign.text(error, 200)
        raise Unreadable(f"{path} cannot be read ({said}). See what was claimed before, then remove it") from error


def _known(areas: Mapping[str, str]) -> dict[str, str]:
    """Those that a policy can claim: of what another version, or somebody else, wrote there no person can let go."""
    return {area: when for area, when in areas.items() if area in contract().claimable}


def of_the_trail(url: str, flag: str) -> PastClaims:
    """What the last change of the flag by a gate says in its audit row: the memory of a target that the state folder
    does not know, as in CI. A deployment without an audit trail has none. Raise Unreadable where it cannot be asked.
    """
    try:
        with borrowed(url, read_only=True) as connection:
            row = connection.execute(sql(LAST_ORDER).encode(), {"flag": flag}).fetchone()
    except (psycopg.Error, ValueError) as error:
        no_right = isinstance(error, psycopg.errors.InsufficientPrivilege)
        if isinstance(error, psycopg.ProgrammingError) and not no_right:  # what it asks for is not there
            return PastClaims({}, is_new=True)
        said = f"what was claimed before cannot be read from the audit trail: {in_words(error)}"
        raise Unreadable(f"{said}. Let the gate's login read it, or give the --state of an earlier run") from error
    claims = row["claims"] if row else None
    if not row or not isinstance(claims, list):
        return PastClaims({}, is_new=True)
    when = f"on {foreign.text(row['day'], 10)} (release {foreign.text(row['release'], 100)}, audit trail)"
    return PastClaims(_known({foreign.text(area, 50): when for area in claims[:100]}))


def claims(context: Context) -> None:
    """Write down whether the policy claims less than this target was seen to keep."""
    if SPEC.id not in {s.id for s in context.catalogue}:
        return
    try:
        memory = read(context.state)
        if memory.is_new and context.target.database_url:
            memory = of_the_trail(context.target.database_url, context.settings.rollout.flag)
        line = judge(memory.seen, context.scope)
    except Unreadable as error:
        line = Evidence(SPEC.id, Outcome.UNKNOWN, str(error))
    at = stamp(dt.datetime.now(dt.UTC))
    line = redact_evidence(line, hidden(context.target))
    context.write([dataclasses.replace(line, started_at=at, release=context.target.release)])


def judge(seen: Mapping[str, str], scope: Scope) -> Evidence:
    """Whether all that was seen is claimed, or was let go by a person. Pure."""
    accepted = {d.area for d in scope.dropped}
    lost = [area for area in seen if scope.claims and area not in {*scope.claims, *accepted}]
    numbers = (len(seen) - len(lost), len(seen), "areas", max(len(seen), 1))
    details: dict[str, JsonValue] = {"seen": dict(seen)}
    if not lost:
        return Evidence(SPEC.id, Outcome.PASS, "", *numbers, details=details)
    when = {seen[area]: [a for a in lost if seen[a] == seen[area]] for area in lost}
    told = "; ".join(f"claimed and seen {at}, and not claimed now: {', '.join(areas)}" for at, areas in when.items())
    do = f"Claim {'it' if len(lost) == 1 else 'them'} again, or let each go in gate.yaml: {LET_GO.format(area=lost[0])}"
    return Evidence(SPEC.id, Outcome.FAIL, f"{told}. {do}", *numbers, details=details)


def kept(
    evidence: Sequence[Evidence], scope: Scope, seen: Sequence[str], *, promoted: bool, when: str
) -> dict[str, str]:
    """What is remembered after a run: what was before, and the claimed areas of which a check passed or failed now.

    A promotion forgets what a person let go. Nothing where the memory of before was not read: it stands as it is.
    """
    told = next((e.details.get("seen") for e in evidence if e.check == SPEC.id), None)
    if not isinstance(told, dict):
        return {}
    let_go = {d.area for d in scope.dropped} if promoted else set()
    return {area: str(said) for area, said in told.items() if area not in let_go} | dict.fromkeys(seen, when)


def dump(areas: Mapping[str, str]) -> str:
    """The text of the memory's file."""
    return json.dumps(areas, ensure_ascii=False, indent=1) + "\n"
