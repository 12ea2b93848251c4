"""The property of the eyes: no byte of any answer or cell crashes the gate, or makes its decision better."""

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
    """A mutated answer or cell is read, judged and written down, and promotes only where it still says what is good."""
    report = mutations(seed=20_261_125, count=400)
    assert report.holds, "\n".join((*report.crashes, *report.better))
    assert report.decisions[Decision.PROMOTE] > 40
    assert report.decisions[Decision.ROLLBACK] > 40


def test_what_is_mutated_can_promote_and_can_fail() -> None:
    """The healthy recording promotes, and none with a broken promise does: the property is about something."""
    assert decided(GOOD) is Decision.PROMOTE
    assert is_good(GOOD, GOOD)
    for name, bad in broken(GOOD).items():
        assert decided(bad) is not Decision.PROMOTE, name
        assert not is_good(bad, GOOD), name


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_no_hostile_value_promotes(value: bytes) -> None:
    """A release, a code or a flag of an answer that is no such thing never promotes, and never crashes."""
    for name, member in (("version", b"release"), ("fourth", b"code"), ("token", b"duplicate"), ("signed", b"status")):
        head, _, _ = GOOD.answers[name].partition(b"\r\nContent-Length")
        body = b'{"%s":%s}' % (member, value)
        raw = head + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        if not (name == "token" and value == b"true"):
            assert decided(GOOD.with_answer(name, raw)) is not Decision.PROMOTE, name


def test_a_failure_beside_a_hostile_answer_stays_a_rollback() -> None:
    """A rollback is not lost because another member of the same answer cannot be written down."""
    body = {"code": "bad\ud800", "detail": "x\x00" * 10_000}
    assert decided(GOOD.with_answer("fourth", answer(200, body))) is Decision.ROLLBACK
    assert decided(GOOD.with_answer("forged", answer(200, body))) is Decision.ROLLBACK


@pytest.mark.parametrize(
    "cell",
    [b"NaN", b"Infinity", b"-1", b"1e400", b"", None, b"x", b"infinity", b"0044-03-15 BC", b"\xff", b"9" * 200_000],
)
def test_no_hostile_cell_promotes(cell: bytes | None) -> None:
    """A value, a count or a time that is none never passes a rule or a spot check."""
    for column in (0, 1, 2):
        assert decided(GOOD.with_cell("lag", 0, column, cell)) is not Decision.PROMOTE
    assert decided(GOOD.with_cell("seen", 0, 0, cell)) is not Decision.PROMOTE
    if cell is not None:  # NULL: nothing is in the window
        assert decided(GOOD.with_cell("lag", 0, 3, cell)) is not Decision.PROMOTE
