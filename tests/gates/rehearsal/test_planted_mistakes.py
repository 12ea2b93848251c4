"""One rehearsal finds every planted mistake, at its place and for its reason."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from gates.rehearsal.command import rehearsal
from gates.rehearsal.obstacles import Obstacle
from gates.rehearsal.reading.sources import read_migrations
from gates.rehearsal.report import RehearsalResult
from tests.cases import cases
from tests.gates.rehearsal.rehearsed import APP, MARK


@dataclass(frozen=True)
class Planted:
    """A migration with a mistake behind the mark, and what its finding must say."""

    sql: str
    name: str
    code: str
    says: str
    do: str
    kind: str = "cause"


PLANTED = [Planted(sql, *said) for said, sql in cases(Path(__file__).with_name("planted_mistakes.sql"))]


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[RehearsalResult, Path]:
    """One rehearsal of the healthy app with each mistake in its own file."""
    root = tmp_path_factory.mktemp("planted")
    shutil.copytree(APP, root, dirs_exist_ok=True)
    folder = root / "supabase" / "migrations"
    for number, one in enumerate(PLANTED):
        (folder / f"2024030100{number:04d}_{one.name}.sql").write_text(one.sql.replace(MARK, ""), encoding="utf-8")
    (folder / "20250101000000_last.sql").write_text(
        "alter table public.companies add column made_later text;\ncreate table public.late_table (id int);\n"
        "create view public.first_broken as select nothing_such from public.companies;\n"
        "create view public.second as select * from public.first_broken;\n"
        "grant select on public.second to anon;\n",
        encoding="utf-8",
    )
    return rehearsal(read_migrations(root), os.environ), folder


def obstacles_of(found: tuple[RehearsalResult, Path], name: str) -> list[Obstacle]:
    return [o for o in found[0].obstacles if name in o.place.file]


@pytest.mark.parametrize("one", PLANTED, ids=lambda p: p.name)
def test_a_mistake_is_found_at_its_place_for_its_reason(one: Planted, planted: tuple[RehearsalResult, Path]) -> None:
    """Exactly one obstacle: code, file, line and column, the meaning in words, what to do."""
    (found,) = obstacles_of(planted, f"_{one.name}.sql")
    before = one.sql.partition(MARK)[0]
    wanted = (before.count("\n") + 1, len(before) - before.rfind("\n"))
    assert (found.code, found.place.line, found.place.column) == (one.code, *wanted), found
    assert one.says in found.meaning
    assert one.do in found.remedy
    assert found.kind == one.kind


def test_what_follows_from_a_mistake_names_its_cause(planted: tuple[RehearsalResult, Path]) -> None:
    """A view on a failed view, and a grant on that, name the first failure."""
    first, second, third = obstacles_of(planted, "_last.sql")
    assert first.kind == "cause"
    assert [second.kind, third.kind] == ["follows", "follows"]
    assert second.caused_by == third.caused_by == first.place


def test_the_healthy_parts_stay_healthy_beside_the_mistakes(planted: tuple[RehearsalResult, Path]) -> None:
    """No statement of the app is blamed, and each mistake affects one file."""
    files = {Path(o.place.file).name for o in planted[0].obstacles}
    assert len(files) == len(PLANTED) + 1
    assert planted[0].exit_code == 10
