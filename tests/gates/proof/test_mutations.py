"""No byte of any answer or cell crashes the gate or improves its decision."""

import datetime as dt

import pytest

from gates.proof.hostile.mutations import decided, mutations
from gates.proof.hostile.recording import answer, broken, healthy, is_good
from gates.verdict import Decision

NOW = dt.datetime.now(dt.UTC)
GOOD = healthy(NOW)
NESTED = b"[" * 100_000 + b"]" * 100_000
VALUES = (
    *(b"NaN", b"1e400", b"9" * 5000, b"-0", b"12.5", b'"r1\\ud800"', b'"r1\\u0000"', b"null", b"true", b"[]", b'"r2"'),
    *(NESTED, b'"' + b"x" * 2_000_000 + b'"', b'"r1","release":"r2"'),
)


def test_the_property_over_many_mutations() -> None:
    """Mutated answers and cells never crash the gate, and promote only if they still say what is good."""
    report = mutations(seed=20_261_125, count=400)
    assert report.holds, "\n".join((*report.crashes, *report.better))
    assert report.decisions[Decision.PROMOTE] > 40
    assert report.decisions[Decision.ROLLBACK] > 40


def test_what_is_mutated_can_promote_and_can_fail() -> None:
    """The control: the healthy recording promotes, and a recording with a broken promise does not."""
    assert decided(GOOD) is Decision.PROMOTE
    assert is_good(GOOD, GOOD)
    for name, bad in broken(GOOD).items():
        assert decided(bad) is not Decision.PROMOTE, name
        assert not is_good(bad, GOOD), name


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_no_hostile_value_promotes(value: bytes) -> None:
    """A nonsensical release, code, flag or status in an answer never promotes and never crashes the gate."""
    for name, member in (("version", b"release"), ("fourth", b"code"), ("token", b"duplicate"), ("signed", b"status")):
        head, _, _ = GOOD.answers[name].partition(b"\r\nContent-Length")
        body = b'{"%s":%s}' % (member, value)
        raw = head + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        if not (name == "token" and value == b"true"):
            assert decided(GOOD.with_answer(name, raw)) is not Decision.PROMOTE, name


def test_a_failure_beside_a_hostile_answer_stays_a_rollback() -> None:
    """A failure rolls back even if the same answer holds text that cannot be encoded."""
    body = {"code": "bad\ud800", "detail": "x\x00" * 10_000}
    assert decided(GOOD.with_answer("fourth", answer(200, body))) is Decision.ROLLBACK
    assert decided(GOOD.with_answer("forged", answer(200, body))) is Decision.ROLLBACK


@pytest.mark.parametrize(
    "cell",
    [b"NaN", b"Infinity", b"-1", b"1e400", b"", None, b"x", b"infinity", b"0044-03-15 BC", b"\xff", b"9" * 200_000],
)
def test_no_hostile_cell_promotes(cell: bytes | None) -> None:
    """A nonsensical value, count or time in a cell never passes a rule or a spot check."""
    for column in (0, 1, 2):
        assert decided(GOOD.with_cell("lag", 0, column, cell)) is not Decision.PROMOTE
    assert decided(GOOD.with_cell("seen", 0, 0, cell)) is not Decision.PROMOTE
    if cell is not None:  # NULL: nothing is in the window
        assert decided(GOOD.with_cell("lag", 0, 3, cell)) is not Decision.PROMOTE
