"""The cells on disk: a proof goes on where it was ended, and the whole gate has the last word."""

import dataclasses
from pathlib import Path

import pytest

from gates.evidence import CheckSpec, Severity, Where
from gates.proof.fault import Kind, ListedFault
from gates.proof.judgement import Cell, Status
from gates.proof.kept import seconds_of
from gates.proof.matrix.cells import CELLS, Matrix, draw
from gates.verdict import Decision

CATALOGUE = (CheckSpec("drill/a", "", "", Severity.PAGE, Where.READ_ONLY),)
FAULTS = tuple(
    ListedFault(f"x/{n}", "x", Kind.SQL, Decision.ROLLBACK, sql="select 1", checks=("drill/a",), names=("x",))
    for n in range(20)
)
KEY = {"source": "1", "policy": "2"}


def cell(fault: ListedFault, status: Status = Status.KILLED, *, short: bool = True) -> Cell:
    return Cell(fault, status, "why", ("drill/a",), ("drill/a",), "rollback", 1.5, short=short)


@pytest.mark.parametrize(
    ("key", "resume", "left"), [(KEY, True, 19), (KEY, False, 20), ({**KEY, "source": "other"}, True, 20)]
)
def test_a_proof_goes_on_where_it_was_ended(key: dict[str, str], resume: bool, left: int, tmp_path: Path) -> None:
    """Cells are taken over only with `resume`, and only if code and policy are the same."""
    Matrix(tmp_path, FAULTS, KEY, resume=False).add(cell(FAULTS[0]))
    again = Matrix(tmp_path, FAULTS, key, resume=resume)
    assert len(again.pending) == len(again.unseen(CATALOGUE)) == left
    assert again.cells == ((cell(FAULTS[0]),) if left == 19 else ())


def test_a_cell_that_a_kill_cut_is_proved_again(tmp_path: Path) -> None:
    """The cells before a line that was cut count; the one that was cut is proved again and kept."""
    matrix = Matrix(tmp_path, FAULTS, KEY, resume=False)
    for one in FAULTS[:3]:
        matrix.add(cell(one))
    path = tmp_path / CELLS
    path.write_bytes(path.read_bytes()[:-20])
    again = Matrix(tmp_path, FAULTS, KEY, resume=True)
    assert again.cells == (cell(FAULTS[0]), cell(FAULTS[1]))
    again.add(cell(FAULTS[2]))
    assert len(Matrix(tmp_path, FAULTS, KEY, resume=True).cells) == 3


def test_the_whole_gate_has_the_last_word(tmp_path: Path) -> None:
    """Where the short way and the whole gate both looked, the whole gate's cell counts; the pair is reported."""
    short, whole = cell(FAULTS[0]), cell(FAULTS[0], Status.MASKED, short=False)
    matrix = Matrix(tmp_path, FAULTS, KEY, resume=False)
    for one in (whole, short, cell(FAULTS[1])):
        matrix.add(one)
    assert matrix.cells == (whole, cell(FAULTS[1]))
    assert matrix.compared == ((short, whole),)


def test_the_gate_is_shown_a_drawn_share_and_all_that_was_not_killed(tmp_path: Path) -> None:
    """The whole gate gets a share drawn by the seed, every survivor, and every fault without a cell."""
    matrix = Matrix(tmp_path, FAULTS, KEY, resume=False)
    drawn = {f.id for f in draw(FAULTS, 2, "s")}
    survivor, unseen = [f for f in FAULTS if f.id not in drawn][:2]
    for one in FAULTS:
        if one is not unseen:
            matrix.add(cell(one, Status.SURVIVED if one is survivor else Status.KILLED))
    assert {f.id for f in matrix.for_the_gate("s", 10)} == drawn | {survivor.id, unseen.id}
    matrix.add(dataclasses.replace(cell(survivor), short=False))
    assert survivor not in matrix.for_the_gate("s", 10)
    assert draw(FAULTS, 9, "s") == draw(tuple(reversed(FAULTS)), 9, "s") != draw(FAULTS, 9, "t")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [('{"source": "1", "seconds": 90.5}', 90.5), ('{"source": "2", "seconds": 90.5}', 0), ("{}", 0), ("[", 0), ("", 0)],
)
def test_the_time_of_a_proof_that_goes_on_is_that_of_all_its_parts(text: str, seconds: float, tmp_path: Path) -> None:
    """The seconds of an earlier part count if its code was the same; an unreadable file counts as zero."""
    path = tmp_path / "proof.json"
    assert seconds_of(path, "1") == 0.0
    path.write_text(text, encoding="utf-8")
    assert seconds_of(path, "1") == seconds
