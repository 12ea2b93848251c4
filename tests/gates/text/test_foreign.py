"""The door for foreign values: whatever a target says, it can be read, judged and written down."""

import json
import time
import tracemalloc
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gates.deployment.requests import Answer
from gates.evidence import Evidence, Outcome, dump_line
from gates.evidence_file import parse, read_lines
from gates.text.foreign import MOST_MARKS_OWN, MOST_TEXT, json_object, json_value, number, plain, text, whole
from tests.gates.checks.test_recorder import run

ROOT = Path(__file__).resolve().parents[3]


class Mute:
    """A value whose text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


def _endless() -> list[Any]:
    found: list[Any] = []
    found.extend([found] * 50)
    return found


def _nested(depth: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


HOSTILE: tuple[Any, ...] = (
    *("\ud800", "a\x00b", "x" * 2_000_000, b"\xff" * 100_000, 10**400, -(10**5000), float("nan"), float("-inf"), -0.0),
    *(Decimal("NaN"), Decimal("1e999999"), Mute(), {Mute(): Mute()}, {1: 2, "1": 3}, {"\ud800": "\x00"}),
    *(_endless(), _nested(100_000), list(range(100_000)), ["x" * 5_000] * 10_000, {"a" * 1_000_000: 1}, object, ...),
)
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()))
    | st.binary()
    | st.sampled_from(range(13)).map(HOSTILE.__getitem__),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=())) | st.integers(), inner)
    ),
    max_leaves=20,
)


def _evidence(value: Any) -> Evidence:
    """Evidence of a failure with the value in every member that takes any."""
    said = text(value)
    return Evidence(
        "t/x",
        Outcome.FAIL,
        said,
        value,
        value,
        said,
        1,
        witness=value,
        reproduce=said,
        release=said,
        details={"v": value},
    )


@pytest.mark.parametrize("value", HOSTILE, ids=range(len(HOSTILE)))
def test_every_value_can_be_written_down(value: Any) -> None:
    """A failure stays a failure of a bounded size, whatever was observed, and reads back as it was written."""
    began = time.thread_time()
    one = _evidence(value)
    line = dump_line(one)
    assert len(line.encode()) < 10_000_000
    assert [dump_line(read) for read in parse(line.encode())] == [line]
    assert one.outcome is Outcome.FAIL
    assert time.thread_time() - began < 30  # far more than it takes; what grows with the square takes minutes


@settings(max_examples=150, deadline=None)
@given(ANYTHING)
def test_what_is_in_memory_is_what_is_on_disk(value: Any) -> None:
    """Any value of any shape makes one line that encodes, reads back alike and is stable when made again."""
    one = _evidence(value)
    line = dump_line(one)
    assert [dump_line(read) for read in parse(line.encode())] == [line]
    assert plain(plain(value)) == plain(value)


@pytest.mark.parametrize("huge", [10**400, float("inf"), float("nan"), -(10**400)])
def test_a_pass_without_a_real_number_is_none(huge: float) -> None:
    """A pass needs numbers that can be compared, and a count that something can have."""
    assert Evidence("t/x", Outcome.PASS, observed=huge, limit=1, samples=1).outcome is Outcome.UNKNOWN
    assert Evidence("t/x", Outcome.PASS, observed=1, limit=huge, samples=1).outcome is Outcome.UNKNOWN
    assert Evidence("t/x", Outcome.PASS, observed=1, limit=1, samples=10**400).outcome is Outcome.UNKNOWN


@pytest.mark.parametrize(
    "value",
    [["x" * 1000] * 10_000, {str(n): "x" * 1023 for n in range(9_000)}, {"n" * 3990 + str(n): 1 for n in range(9_000)}],
)
def test_many_texts_are_no_way_around_the_limit_of_one(value: Any) -> None:
    """A value of many texts, or of many long names, makes no line that fills a report or a file of evidence."""
    assert len(dump_line(Evidence("t/x", Outcome.FAIL, witness=value))) < 2_000_000


def test_a_cut_text_says_how_long_it_was() -> None:
    """A release of 2 MB does not make a verdict of 2 MB."""
    one = Evidence("t/x", Outcome.FAIL, "m" * 2_000_000, release="r" * 2_000_000)
    assert len(one.release) == len(one.message) == MOST_TEXT
    assert one.release.endswith("[2000000 characters in all]")


@pytest.mark.parametrize(
    "body",
    [
        *(b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 100_000, b'{"a":NaN}', b'{"a":1,"a":2}', b'{"a":-Infinity}'),
        *('{"a":1}'.encode("utf-16"), b'{"a":"' + b"\\" * 2_000_000, b"[" * 900 + b"]" * 900, b'{"a":"\x00"}'),
        *(b"\xff", b"", b"null"),
    ],
    ids=range(12),
)
def test_what_is_no_document_is_none(body: bytes) -> None:
    """Ambiguous, endless and broken documents are no documents, and saying so takes no time."""
    began = time.monotonic()
    assert json_value(body) is None
    assert json_object(body) == {}
    assert Answer(200, (), body, 1.0).code == ""
    assert time.monotonic() - began < 2


def test_a_document_is_made_safe() -> None:
    """Numbers beyond a double or 64 bits are no numbers; NUL and lone surrogates are escapes; pairs stay characters."""
    found = json_object(
        b'{"a":1e400,"b":1' + b"0" * 5000 + b',"c":"x\\ud800\\u0000","d":"\\ud83d\\ude00","e":12.5,"\\udc00":1}'
    )
    assert found["a"] == "1e400"
    assert isinstance(found["b"], str)
    assert found["c"] == "x\\ud800\\u0000"
    assert found["d"] == "\U0001f600"
    assert found["e"] == 12.5
    json.dumps(found, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    "value", [None, True, "", "x", "nan", "inf", "1e400", 10**400, float("nan"), Mute(), [], {}, b"\xff"]
)
def test_what_is_no_finite_number_is_none(value: Any) -> None:
    """Neither `number` nor `whole` takes anything for a number that is none."""
    assert number(value) is None
    assert whole(value) is None


@pytest.mark.parametrize("value", [12.5, "5", 2**70, True, Decimal(5)])
def test_what_is_no_whole_number_is_none(value: Any) -> None:
    """A version of 12.5, or one that is text, is no version."""
    assert whole(value) is None


SUITE = '''
from gates.checks.recorder import check
from gates.deployment.requests import Answer, Request

@check("t/{name}")
def test_it(seen):
    """It keeps its promise."""
    asked = Request("GET", "/x")
    seen.expect(asked, Answer(200, (), b"{{}}", 1.0), 200, control=True)
    seen.details["said"] = {value}
    print({value})
    assert False, "the target says " + str({value})
'''


def test_a_failure_of_unencodable_text_is_a_failure(tmp_path: Path) -> None:
    """A lone surrogate, NUL or 2 MB in a failing check end neither the worker nor the evidence: each is a FAIL line."""
    values = {"surrogate": '"bad\\ud800"', "nul": '"a\\x00b"', "long": '"x" * 2_000_000', "deep": "[" * 20 + "]" * 20}
    for name, value in values.items():
        (tmp_path / f"test_{name}.py").write_text(SUITE.format(name=name, value=value), encoding="utf-8")
    lines = tmp_path / "evidence.ndjson"
    done = run(tmp_path, "-n2", f"--evidence={lines}")
    assert {e.check: e.outcome for e in read_lines(lines)} == {f"t/{name}": Outcome.FAIL for name in values}, (
        done.stdout[-3000:]
    )
    assert lines.stat().st_size < 100_000


@pytest.mark.parametrize("part", ['{"":0}', "[]", "{}", "0", '""', "[[],{}]"])
def test_a_document_of_too_many_parts_is_none(part: str) -> None:
    """Four megabytes of small parts would take hundreds in memory; what is our own may have more of them."""
    body = f"[{','.join([part] * (4_000_000 // (len(part) + 1)))}]".encode()
    tracemalloc.start()
    try:
        assert json_value(body) is None
        assert tracemalloc.get_traced_memory()[1] < 3 * len(body)
    finally:
        tracemalloc.stop()
    assert json_value(b"[" + b"0," * 1_000 + b"0]") is not None
    assert json_value(f"[{'0,' * 300_001}0]", MOST_MARKS_OWN) is not None
