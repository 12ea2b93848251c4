"""What a target was once seen to keep stays claimed: silently dropping an area would hide that it broke."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg

from gates import disk
from gates.contract.contract import contract
from gates.contract.scope import Scope
from gates.deployment.sql.database import sql
from gates.deployment.sql.failures import in_words
from gates.deployment.sql.kept import borrowed
from gates.evidence import CheckSpec, Evidence, JsonValue, Outcome, Severity, Where
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
FILE, FORGOTTEN = "claims.json", "let_go"
LAST_ORDER = Path(__file__).with_name("queries") / "last_claims.sql"
LET_GO = "contract: {{dropped: [{{area: {area}, reason: WHY, owner: WHO, expires: YYYY-MM-DD}}]}}"
MOST_READ = 64 * 1024


class Unreadable(Exception):  # noqa: N818  -- an outcome of reading, not an error of the gate
    """The memory exists, but does not say what was claimed."""


@dataclass(frozen=True, slots=True)
class PastClaims:
    """Area -> when it was last claimed and seen, in words. is_new: nothing was ever remembered of this target. let_go:
    areas dropped by a promotion, even if an older audit row has them.
    """

    seen: Mapping[str, str]
    is_new: bool = False
    let_go: tuple[str, ...] = ()

    def with_trail(self, trail: PastClaims) -> PastClaims:
        """Both memories combined: a state folder may be incomplete, as one from an older cache is."""
        older = {area: when for area, when in trail.seen.items() if area not in self.let_go}
        return replace(self, seen={**older, **self.seen})


def read(folder: Path) -> PastClaims:
    """The memory in the state folder of a target. Raise Unreadable."""
    path = folder / FILE
    try:
        if disk.missing(path):
            return PastClaims({}, is_new=True)
        data = json.loads(disk.read(path, MOST_READ))
        known = _known({foreign.text(area): foreign.text(when, 200) for area, when in data.items()})
        let_go = tuple(_known(dict.fromkeys(map(str, data.get(FORGOTTEN, ())), "")))
        return PastClaims(known, is_new=not known, let_go=let_go)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        said = foreign.text(error, 200)
        raise Unreadable(f"{path} cannot be read ({said}). See what was claimed before, then remove it") from error


def _known(areas: Mapping[str, str]) -> dict[str, str]:
    """Areas that a policy can claim: nobody could drop an area that another version, or somebody else, wrote there."""
    return {area: when for area, when in areas.items() if area in contract().claimable}


def of_the_trail(url: str, flag: str) -> PastClaims:
    """The claims in the audit row of a gate's last flag change: the only memory that CI has. None without an audit
    trail. Raise Unreadable if it cannot be read.
    """
    try:
        with borrowed(url, read_only=True) as connection:
            row = connection.execute(sql(LAST_ORDER).encode(), {"flag": flag}).fetchone()
    except (psycopg.Error, ValueError) as error:
        no_right = isinstance(error, psycopg.errors.InsufficientPrivilege)
        if isinstance(error, psycopg.ProgrammingError) and not no_right:  # the table or column does not exist
            return PastClaims({}, is_new=True)
        said = f"what was claimed before cannot be read from the audit trail: {in_words(error)}"
        raise Unreadable(f"{said}. Let the gate's login read it, or give the --state of an earlier run") from error
    claims = row["claims"] if row else None
    if not row or not isinstance(claims, list):
        return PastClaims({}, is_new=True)
    when = f"on {foreign.text(row['day'], 10)} (release {foreign.text(row['release'], 100)}, audit trail)"
    return PastClaims(_known({foreign.text(area, 50): when for area in claims[:100]}))


def claims(context: Context) -> None:
    """Write evidence of whether the policy claims less than this target was seen to keep."""
    if not context.has(SPEC):
        return
    try:
        line = judge(_remembered(context).seen, context.scope)
    except Unreadable as error:
        line = Evidence(SPEC.id, Outcome.UNKNOWN, str(error))
    context.note(line)


def _remembered(context: Context) -> PastClaims:
    """What the state folder and the audit trail say. Raise Unreadable if neither can be read."""
    memory = read(context.state)
    try:
        url = context.target.database_url
        return memory.with_trail(of_the_trail(url, context.settings.rollout.flag)) if url else memory
    except Unreadable:
        if memory.is_new:
            raise
        return memory


def judge(seen: Mapping[str, str], scope: Scope) -> Evidence:
    """Whether all that was seen is claimed, or was dropped by a person. Pure."""
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
    """What to remember after a run: the earlier areas, and claimed areas of which a check passed or failed now. A
    promotion forgets what a person dropped. Empty if the earlier memory was not read: it then stays as it is.
    """
    told = next((e.details.get("seen") for e in evidence if e.check == SPEC.id), None)
    if not isinstance(told, dict):
        return {}
    let_go = {d.area for d in scope.dropped} if promoted else set()
    return {area: str(said) for area, said in told.items() if area not in let_go} | dict.fromkeys(seen, when)


def write(folder: Path, areas: Mapping[str, str], scope: Scope, *, promoted: bool) -> None:
    """Write the result of `kept`, and what a promotion dropped. Raise OSError."""
    before: tuple[str, ...] = ()
    with suppress(Unreadable):
        before = read(folder).let_go
    let_go = {*before, *(d.area for d in scope.dropped if promoted)} - areas.keys()
    folder.mkdir(parents=True, exist_ok=True)
    disk.write(folder / FILE, dump(areas, sorted(let_go)), durable=True)


def dump(areas: Mapping[str, str], let_go: Sequence[str] = ()) -> str:
    """The contents of the memory's file."""
    members = {**areas, **({FORGOTTEN: list(let_go)} if let_go else {})}
    return json.dumps(members, ensure_ascii=False, indent=1) + "\n"
