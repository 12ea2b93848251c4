"""Residue: after the drill nothing of it is left but audit rows, and every switch is as it was found."""

import time
from functools import partial
from pathlib import Path

import pytest

from drills.residue.state import kept_by_contract, rows_left, state_of
from drills.workbench.checks import SQL
from drills.workbench.scene import Scene
from gates import disk
from gates.checks.recorder import Observer, check
from gates.deployment.dialect.current import current
from gates.deployment.sql.database import Connection
from gates.deployment.target import Target
from gates.deployment.tenants.tenants import Tenants
from gates.evidence import Severity

drill = partial(check, needs=SQL, severity=Severity.WARN, phase="last")

SETTLE_S = 3.0
"""How long a delivery that was under way when its tenant was removed may take to be swept."""


def _companies(request: pytest.FixtureRequest, born: list[str]) -> list[str]:
    listed = request.config.getoption("--companies")
    path = Path(listed) if listed else None
    kept = disk.read_text(path).split() if path and path.exists() else []
    return sorted({*kept, *born})


@drill("drill/residue/no-rows-left", covers=("H09", "Q11"))
def test_no_rows_left(request: pytest.FixtureRequest, scene: Scene, born: list[str], run_id: str) -> None:
    """No table of the contract has a row left of a company that this run created; audit rows stay.

    Rows in tables of the deployment's own are named, and are no fault: no gate can know what they are for.

    A gate that leaves rows behind is switched off, or its tenants are counted as customers.
    """
    company = scene.company(items=1)
    if current().real("agent_controls"):
        scene.pause(company)
    _, present = rows_left(scene.db, [company])
    scene.seen.require(
        {current().real(t) for t in ("companies", "dead_letter_queue", "agent_controls")} - {""} <= set(present),
        f"the rows of a company that is there were found in {sorted(present)} only",
    )
    scene.seen.control("the rows of a company that is there are found")
    scene.tenants.remove()
    companies = _companies(request, born)
    deadline = time.monotonic() + SETTLE_S
    while True:
        tables, found = rows_left(scene.db, companies)
        left = {name: number for name, number in found.items() if name in kept_by_contract()}
        if not left or time.monotonic() > deadline:
            break
        Tenants(scene.db, run_id, companies).sweep()
        time.sleep(0.05)
    scene.seen.value(sum(left.values()), 0, "rows")
    scene.seen.details["companies"] = len(companies)
    scene.seen.details["own_tables"] = {name: n for name, n in found.items() if name not in kept_by_contract()}
    assert not left, f"rows of {len(companies)} drill companies are left: {left}"
    scene.seen.count(tables)


@drill("drill/residue/flags-as-found", covers=("H09",))
def test_flags_as_found(db: Connection, seen: Observer, found: dict[str, list[str]], target: Target) -> None:
    """After the drill every flag of the contract is as it was found, for everybody and the test company.

    A drill that leaves a flag changed has released, or rolled back, a feature by itself.
    """
    _unchanged(state_of(db, target.test_company_id), seen, found, "flags")


@drill("drill/residue/pauses-as-found", covers=("H09",))
def test_pauses_as_found(db: Connection, seen: Observer, found: dict[str, list[str]], target: Target) -> None:
    """After the drill the pauses of everybody and of the test company are as they were found.

    A fleet that stays paused after a drill is an outage made by the gate.
    """
    _unchanged(state_of(db, target.test_company_id), seen, found, "pauses")


def _unchanged(state: dict[str, list[str]], seen: Observer, found: dict[str, list[str]], what: str) -> None:
    now = state[what]
    by = "sql/spot/pause-row-exists" if what == "pauses" else ""
    seen.require(found[what] or now, f"the deployment has no {what} at all", by=by)
    changed = sorted(set(found[what]) ^ set(now))
    if changed:
        seen.witness = list(changed[:6])
    seen.count(max(len(now), 1))
    seen.control(f"{len(found[what])} rows were read before the drill")
    assert not changed, (
        f"{len(changed)} rows of {what} differ from what was found, e.g. {changed[0] if changed else ''}: a drill left"
        " them, or somebody changed them meanwhile"
    )
