"""The checks of budgets, flags, pause, trail, outbox, letters and runs turn red on defects planted by SQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from drills.workbench.scene import Scene
from gates.evidence import Outcome
from gates.stack.postgres import connect
from tests.drills.examination import drill_files, examine
from tests.drills.sql_plants import Plant, planted
from tests.drills.sql_plants_outbox import LETTERS, OUTBOX, RUNS
from tests.drills.sql_plants_recovery import RECOVERY, RESIDUE
from tests.drills.sql_plants_switches import BUDGETS, FLAGS, LOGINS, PAUSES
from tests.drills.sql_plants_trail import AUDIT

TABLE = [*BUDGETS, *FLAGS, *PAUSES, *AUDIT, *OUTBOX, *LETTERS, *RUNS, *RECOVERY, *RESIDUE, *LOGINS]
HASTE = 0.3
"""Nobody else works on this target: what does not come within 2 s never comes."""


@pytest.fixture
def in_haste() -> Iterator[None]:
    """Let the drills wait less for what will not come."""
    Scene.wait_scale = HASTE
    yield
    Scene.wait_scale = 1.0


@pytest.mark.parametrize("plant", TABLE, ids=lambda p: p.name.replace(" ", "-"))
@pytest.mark.usefixtures("in_haste")
def test_defect_turns_its_checks_red(plant: Plant, variables: dict[str, str], tmp_path: Path) -> None:
    """The defect turns its checks to fail, by an observation."""
    files = drill_files(plant.red)
    with planted(variables["DATABASE_URL"], plant):
        found = examine(variables, plant.red, tmp_path, files, "--deep")
    missing = set(plant.red) - set(found)
    assert not missing, f"no such checks: {sorted(missing)}"
    wrong = {i: f"{e.outcome}: {e.message}" for i, e in found.items() if e.outcome is not Outcome.FAIL}
    assert not wrong, f"with {plant.name!r} planted: {wrong}"


NULLS_DISTINCT = Plant(
    "nulls are distinct",
    "alter table public.feature_flags drop constraint feature_flags_key_company_key;"
    " alter table public.feature_flags add constraint feature_flags_key_company_key unique (key, company_id)",
    "alter table public.feature_flags drop constraint feature_flags_key_company_key;"
    " alter table public.feature_flags add constraint feature_flags_key_company_key"
    " unique nulls not distinct (key, company_id)",
    ("drill/flags/global-switch-is-wired", "drill/flags/signing-v2-required"),
)


@pytest.mark.usefixtures("in_haste")
def test_no_second_global_row_is_left(variables: dict[str, str], tmp_path: Path) -> None:
    """A drill that changes a global flag leaves one row of it, even where the table would take two."""
    files = drill_files(NULLS_DISTINCT.red)
    with planted(variables["DATABASE_URL"], NULLS_DISTINCT):
        found = examine(variables, NULLS_DISTINCT.red, tmp_path, files)
        with connect(variables["DATABASE_URL"]) as connection:
            doubled = connection.execute(
                "select key from public.feature_flags where company_id is null group by key having count(*) > 1"
            ).fetchall()
            connection.execute(
                "delete from public.feature_flags a using public.feature_flags b"
                " where a.key = b.key and a.company_id is null and b.company_id is null and a.ctid > b.ctid"
            )
    assert {e.outcome for e in found.values()} == {Outcome.PASS}
    assert doubled == []
