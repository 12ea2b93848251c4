"""A planted defect, the checks that it turns red, and the examination that shows it."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

from gates.config import load_target
from gates.evidence import CheckSpec, Outcome
from tests.drills.defects import World
from tests.drills.examination import drill_files, examine, run_pytest
from tests.drills.proxy import Defect, proxy

PROMISES = (
    *("authentication", "tokens", "http-surface", "rate-limit", "idempotency", "safety-rails", "dry-run", "proof"),
)
"""The promises whose checks these tables turn red."""


@dataclass(frozen=True)
class Planted:
    """One defect, the checks (patterns of ids) that it turns red, and some that it leaves green."""

    name: str
    make: Callable[[World], Defect]
    red: tuple[str, ...]
    green: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@cache
def catalogue() -> dict[str, CheckSpec]:
    """The checks of PROMISES by id."""
    with TemporaryDirectory() as folder:
        listing = Path(folder) / "catalogue.json"
        run_pytest(
            [*drill_files([f"drill/{p}" for p in PROMISES]), f"--catalogue={listing}"], {"GATE_TARGET": "reference"}
        )
        specs = [CheckSpec.from_json(one) for one in json.loads(listing.read_text(encoding="utf-8"))]
    return {spec.id: spec for spec in specs}


def matching(patterns: Sequence[str]) -> list[str]:
    """The ids that any of the patterns matches; a pattern that matches nothing is a mistake in the table."""
    found: list[str] = []
    for pattern in patterns:
        hits = [i for i in catalogue() if fnmatch.fnmatchcase(i, pattern)]
        assert hits, f"no check is called {pattern}"
        found += hits
    return sorted(set(found))


def seen_red(planted: Planted, variables: Mapping[str, str], folder: Path) -> None:
    """Examine the target through the defect: every check of `red` fails, every one of `green` passes."""
    red, green = matching(planted.red), matching(planted.green)
    world = World(load_target(variables))
    with proxy(variables["BASE_URL"], planted.make(world)) as url:
        seen = examine(
            {**variables, "BASE_URL": url, **planted.environ}, [*red, *green], folder, drill_files([*red, *green])
        )
    if world.connection is not None:
        world.connection.close()
    wrong = {
        i: f"{seen[i].outcome if i in seen else 'absent'}: {seen[i].message[:160] if i in seen else ''}"
        for wanted, ids in ((Outcome.FAIL, red), (Outcome.PASS, green))
        for i in ids
        if i not in seen or seen[i].outcome is not wanted
    }
    assert not wrong, f"{len(wrong)} of {len(red) + len(green)} checks are not as due:\n" + "\n".join(
        f"{i}: {was}" for i, was in wrong.items()
    )
