"""The last proof, as a run's report cites it: of which code, and, if of another policy, of which one."""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gates import disk
from gates.decision.rules import Policy
from gates.evidence import JsonValue
from gates.stages.suite import ROOT
from gates.text.quantity import with_unit

FORMAT = 1
SHIPPED = ROOT / "gates" / "proof" / "last.json"
NEVER = "never proved"
EARLIER = "by an earlier state of its code"
HEALTHY, BEFORE = "healthy", "before"
SUITES = {
    "pairs": "{} pairs of faults seen",
    "degenerate": "{} degenerate targets not promoted",
    "self": "{} attempts to mislead it failed",
    "hostile": "{} attacks on it failed",
    "mutants": "{} mutants killed or equivalent",
}
"""The sentence about a suite other than the faults and the healthy runs."""
SOURCES = ("gates", "drills", "sql_checks", "loadtests", "replay_service", "faults")
ENDINGS = (".py", ".sql", ".yaml", ".json")
NOT_CODE = ("gates/proof/last.json",)


def cited(path: Path | None, policy: Policy, source: str) -> dict[str, JsonValue]:
    """What run.json says of the proof in this file (the shipped one by default): `proved` and a `sentence`.

    policy: of this run. source: digest of the running code. A proof of other code counts, and says so; one of another
    policy does not.
    """
    try:
        proof = json.loads(disk.read(path or SHIPPED))
        return _cite(proof, policy, source)
    except FileNotFoundError:
        return {"proved": False, "sentence": f"{NEVER}: no proof is known; `gate prove` makes one"}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        said = f"{NEVER}: the proof cannot be read ({type(error).__name__}); `gate prove` makes one"
        return {"proved": False, "sentence": said}


def _cite(proof: Mapping[str, Any], policy: Policy, source: str) -> dict[str, JsonValue]:
    if proof["format"] != FORMAT:
        raise ValueError(f"format {proof['format']} where {FORMAT} is read")
    day = str(proof["proved_at"])[:10]
    if proof["invalid"]:
        return {"proved": False, "sentence": f"{NEVER}: the proof of {day} is invalid: {proof['invalid']}"}
    told = [(f"{int(proof['killed'])} of {int(proof['faults'])} known faults killed", proof)]
    told += [(suite_sentence(name, one), one) for name, one in proof["trials"].items() if one["run"]]
    earlier = [one["source"] != source for _, one in told]
    parts = [
        said
        + f" ({EARLIER})" * (is_earlier and not all(earlier))
        + " (under another policy)" * (one["proof_digest"] != proof["proof_digest"])
        for (said, one), is_earlier in zip(told, earlier, strict=True)
    ]
    how = " (a part of the proof)" if not proof["whole"] else " (quickly)" if proof["quick"] else ""
    how += f", {EARLIER}" * all(earlier)
    if proof["proof_digest"] != policy.proof_digest:
        other = _difference(proof["policy"], policy.proof_parts)
        said = f"{NEVER} with this policy; proved on {day}{how} was another, {other}: {', '.join(parts)}"
        return {"proved": False, "sentence": said}
    return {"proved": True, "sentence": f"proved on {day}{how}: {', '.join(parts)}"}


def suite_sentence(name: str, one: Mapping[str, Any]) -> str:
    """The result of one suite other than the faults, in a few words."""
    if name != HEALTHY:
        return SUITES[name].format(f"{int(one['right'])} of {int(one['run'])}")
    every = runs_of(one)
    run = sum(int(part["run"]) for part in every)
    back, held = (sum(int(part["decisions"].get(made, 0)) for part in every) for made in ("rollback", "hold"))
    rolled = f"{back} rolled back" if back else f"none rolled back ({rule_of_three(run)})"
    said = f"{with_unit(run, 'healthy runs')}: {rolled}" + f", {held} held" * bool(held)
    return said + f"; {run - int(one['run'])} of them in earlier proofs" * (len(every) > 1)


def runs_of(one: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """The runs of a suite, and those of earlier code that still count, the newest first."""
    return (one, *one.get(BEFORE, ()))


def rule_of_three(runs: int) -> str:
    """The highest rate, in percent, of an event that did not occur in so many runs (95 % confidence)."""
    percent = min(math.ceil(3000 / runs) / 10, 100)
    return f"under {percent:g} %"


def _difference(proved: Mapping[str, str], now: Mapping[str, str]) -> str:
    """How the proved policy differs from the present one."""
    ways = {
        "without": sorted(now.keys() - proved.keys()),
        "with": sorted(proved.keys() - now.keys()),
        "with another": sorted(k for k in now.keys() & proved.keys() if now[k] != proved[k]),
    }
    said = [
        f"{way} {checks[0]}" + f" and {len(checks) - 1} more" * (len(checks) > 1)
        for way, checks in ways.items()
        if checks
    ]
    return ", ".join(said)


def source_digest(root: Path = ROOT) -> str:
    """sha256 over names and contents of the sources of gate, checks, reference and faults."""
    total = hashlib.sha256()
    files = (p for folder in SOURCES for p in (root / folder).rglob("*") if p.suffix in ENDINGS)
    for name, path in sorted((p.relative_to(root).as_posix(), p) for p in files):
        if name in NOT_CODE or "__pycache__" in name:
            continue
        total.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return "sha256:" + total.hexdigest()
