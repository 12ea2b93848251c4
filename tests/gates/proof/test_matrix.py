"""The cells on disk: a proof goes on where it was ended, and the whole gate has the last word."""

import dataclasses
from pathlib import Path

import pytest

from gates.evidence import CheckSpec, Severity, Where
from gates.proof.fault import Kind, ListedFault
from gates.proof.judgement import Cell, Status
from gates.proof.matrix.cells import CELLS, Matrix, draw
from gates.proof.measures import Cost, cheaper
from gates.proof.proof import spent_before
from gates.verdict import Decision

CATALOGUE = (CheckSpec("drill/a", "", "", Severity.PAGE, Where.READ_ONLY),)
FAULTS = tuple(
    ListedFault(f"x/{n}", "x", Kind.SQL, Decision.ROLLBACK, sql="select 1", checks=("drill/a",), names=("x",))
    for n in range(20)
)
KEY = {"source": "1", "policy": "2"}
EARLIER = '{"source": "1", "seconds": 90.5, "costs": {"drill/a": [2.5, 3]}}'


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
    [(EARLIER, 90.5), (EARLIER.replace("1", "2", 1), 0), (EARLIER.replace("[2.5, 3]", "7"), 0), ("[", 0), ("", 0)],
)
def test_what_a_proof_cost_that_goes_on_is_that_of_all_its_parts(text: str, seconds: float, tmp_path: Path) -> None:
    """Seconds and costs of an earlier part count if its code was the same; an unreadable file counts as none."""
    path = tmp_path / "proof.json"
    assert spent_before(path, "1") == (0.0, {})
    path.write_text(text, encoding="utf-8")
    assert spent_before(path, "1") == (seconds, {"drill/a": Cost(2.5, 3)} if seconds else {})


def test_the_cost_of_a_check_is_that_of_its_least_disturbed_run() -> None:
    """Of two costs of a check the lower one counts, whichever came first; what is in one alone stays."""
    slow, fast, other = Cost(2.0, 3), Cost(0.5, 3), Cost(1.0, 1)
    assert cheaper({"a": slow, "b": other}, {"a": fast}) == {"a": fast, "b": other}
    assert cheaper({"a": fast}, {"a": slow, "b": other}) == {"a": fast, "b": other}
