"""The chain of evidence.ndjson: what several writers, a kill or a full disk leave, and every change that is seen."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gates import evidence_file, record
from gates.decision.decide import decide, weigh
from gates.decision.rules import Policy
from gates.deployment.redaction import scrub
from gates.errors import CannotWork
from gates.evidence import UNREADABLE, CheckSpec, Evidence, JsonValue, Outcome, Severity, TargetKind, Where
from gates.evidence_file import ChainEnd, chained, read_bytes, read_lines, read_log, write_lines
from gates.verdict import Decision
from tests.gates.decision.small_policy import NOW, saw

ROOT = Path(__file__).resolve().parents[2]
CHECKS = ("drill/a/fails", "drill/b/passes", "drill/c/passes", "drill/d/passes")
POLICY = Policy(tuple(CheckSpec(c, "", "", Severity.PAGE, Where.READ_ONLY) for c in CHECKS), TargetKind.STAGING)
HARMED = [saw(CHECKS[0], Outcome.FAIL, message="seen"), *(saw(c) for c in CHECKS[1:])]
TEXT = chained(e.to_json() for e in HARMED)
END = read_bytes(TEXT).end


def troubles(evidence: tuple[Evidence, ...]) -> list[str]:
    return [e.message for e in evidence if e.check.startswith(UNREADABLE)]


def test_what_is_written_is_read_again_without_trouble(tmp_path: Path) -> None:
    """The same evidence, and an end that the next reader finds too."""
    path = tmp_path / "evidence.ndjson"
    for one in HARMED:
        write_lines(path, [one])
    log = read_log(path)
    assert (list(log.evidence), log.whole) == (HARMED, True)
    assert read_log(path, log.end) == log
    assert path.read_bytes() == TEXT


def test_a_terminal_obeys_nothing_in_the_file(tmp_path: Path) -> None:
    """Escape sequences, also those of one character, and what turns the text round are spelt; they mean the same."""
    path = tmp_path / "evidence.ndjson"
    hostile = saw(CHECKS[0], Outcome.FAIL, message="a\x9b31m\u202eb\u2028c")
    write_lines(path, [hostile])
    assert list(read_log(path).evidence) == [hostile]
    assert path.read_text("ascii").count("\\u") == 3


def test_what_no_run_could_write_is_not_read_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines without end are one line that cannot be read: the harm before them counts, and they hold."""
    monkeypatch.setattr(evidence_file, "MOST_LINES", len(HARMED))
    log = read_bytes(TEXT + b"{}\n" * 1_000)
    assert list(log.evidence[: len(HARMED)]) == HARMED
    assert len(troubles(log.evidence)) == 1
    assert not log.whole
    assert read_bytes(TEXT).whole


def test_a_line_that_was_read_is_not_parsed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage that asks again parses what came since, also after half a line; what was changed in place is seen."""
    path, parsed, from_json = tmp_path / "evidence.ndjson", list[str](), Evidence.from_json

    def noted(data: Mapping[str, JsonValue]) -> Evidence:
        parsed.append(str(data["check"]))
        return from_json(data)

    monkeypatch.setattr(Evidence, "from_json", noted)
    write_lines(path, HARMED[:2])
    assert read_lines(path) == HARMED[:2] == read_lines(path)
    write_lines(path, HARMED[2:])
    assert read_lines(path) == HARMED
    assert parsed == list(CHECKS)
    with path.open("ab") as torn:
        torn.write(b"{")
    assert [e.check for e in read_lines(path)] == [*CHECKS, f"{UNREADABLE}line-5"]
    path.write_bytes(TEXT.replace(b"drill/b/passes", b"drill/b/passed"))
    assert [e.check for e in read_lines(path)] == [CHECKS[0], "drill/b/passed", *CHECKS[2:]]
    path.unlink()
    assert read_lines(path) == []


def test_writers_at_once_make_one_chain(tmp_path: Path) -> None:
    """Eight processes append forty lines each, some longer than a block: none is lost, torn or out of the chain."""
    path = tmp_path / "evidence.ndjson"
    program = (
        "import sys; from pathlib import Path; from gates.evidence import Evidence, Outcome\n"
        "from gates.evidence_file import write_lines\n"
        "for i in range(40): write_lines(Path(sys.argv[1]),"
        " [Evidence(f'drill/{sys.argv[2]}/{i}', Outcome.PASS, samples=1, witness='w' * 3000 * i)])\n"
    )
    words = [sys.executable, "-c", program, str(path)]
    writers = [subprocess.Popen([*words, str(n)], cwd=ROOT) for n in range(8)]
    assert [w.wait(60) for w in writers] == [0] * 8
    log = read_log(path)
    assert (log.whole, log.end.lines, len({e.check for e in log.evidence})) == (True, 320, 320)


def test_a_writer_killed_in_the_middle_of_a_line_leaves_a_finding_and_no_broken_chain(tmp_path: Path) -> None:
    """Its torn line cannot be read and holds; the writers after it go on, and nothing else is doubted."""
    path = tmp_path / "evidence.ndjson"
    program = (
        "import os, signal, sys; from pathlib import Path; from gates.evidence import Evidence, Outcome\n"
        "from gates import evidence_file\n"
        "whole = os.write\n"
        "def half(file, data): whole(file, data[:len(data) // 2]); os.kill(os.getpid(), signal.SIGKILL)\n"
        "os.write = half\n"
        "evidence_file.write_lines(Path(sys.argv[1]), [Evidence('drill/a/fails', Outcome.FAIL, samples=1)])\n"
    )
    write_lines(path, HARMED[1:3])
    killed = subprocess.run([sys.executable, "-c", program, str(path)], cwd=ROOT, timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert troubles(read_log(path).evidence)
    write_lines(path, HARMED[3:])
    log = read_log(path)
    assert len(log.evidence) == log.end.lines == 4
    (said,) = troubles(log.evidence)
    assert said.startswith("evidence line 3 cannot be read: ")
    assert read_lines(path)[3] == HARMED[3]


@pytest.mark.parametrize("then", [OSError(28, "No space left on device"), None])
def test_a_line_that_does_not_fit_is_not_left_in_part(
    tmp_path: Path, then: OSError | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short write is gone on with; where the disk is full, the part is taken back and the gate says so."""
    path = tmp_path / "evidence.ndjson"
    write_lines(path, HARMED[:1])
    before, write, calls = path.read_bytes(), os.write, list[int]()

    def short(file: int, data: bytes) -> int:
        calls.append(len(data))
        if then is not None and len(calls) > 2:
            raise then
        return write(file, data[:10])

    monkeypatch.setattr(os, "write", short)
    if then is None:
        write_lines(path, HARMED[1:2])
        assert read_log(path).whole
        assert list(read_log(path).evidence) == HARMED[:2]
        return
    with pytest.raises(CannotWork, match=r"No space left on device.*See to its disk"):
        write_lines(path, HARMED[1:2])
    assert path.read_bytes() == before


def test_a_line_of_another_run_is_no_evidence(tmp_path: Path) -> None:
    """Two gates in one folder: what the other one saw fills no gap, and is a finding that holds."""
    path = tmp_path / "evidence.ndjson"
    write_lines(path, [saw(CHECKS[0])], "production")
    write_lines(path, [saw(c) for c in CHECKS[1:]], "staging")
    write_lines(path, [saw(CHECKS[1])])
    log = read_log(path, run="production")
    assert [e for e in log.evidence if not e.check.startswith(UNREADABLE)] == [saw(CHECKS[0])]
    assert troubles(log.evidence)[0].startswith("evidence line 2 is of another run (staging)")
    assert troubles(log.evidence)[-1].startswith("evidence line 5 is of another run (it names none)")
    assert not log.whole
    assert read_log(path, log.end) == log
    assert decide(log.evidence, POLICY, NOW).decision is Decision.HOLD
    assert read_log(path).whole, "the control"


CHANGES: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "cut tail": lambda lines: lines[:-1],
    "removed": lambda lines: [*lines[:1], *lines[2:]],
    "first removed": lambda lines: lines[1:],
    "all removed": lambda _lines: [],
    "doubled": lambda lines: [*lines, lines[-1]],
    "moved": lambda lines: [lines[1], lines[0], *lines[2:]],
    "turned": lambda lines: [lines[0].replace(b'"fail"', b'"pass"'), *lines[1:]],
    "last turned": lambda lines: [*lines[:-1], lines[-1].replace(b'"samples":1', b'"samples":2')],
    "unknown member": lambda lines: [lines[0][:-2] + b',"waived":true}\n', *lines[1:]],
    "doubled member": lambda lines: [lines[0][:-2] + b',"outcome":"pass"}\n', *lines[1:]],
    "unknown outcome": lambda lines: [lines[0].replace(b'"fail"', b'"FAIL"'), *lines[1:]],
    "no number": lambda lines: [lines[0].replace(b'"samples":1', b'"samples":NaN'), *lines[1:]],
    "no line": lambda lines: [lines[0], b"\n", *lines[1:]],
    "lone surrogate": lambda lines: [lines[0].replace(b'"seen"', b'"\\ud800"'), *lines[1:]],
    "nested": lambda lines: [b"[" * 100_000 + b"\n", *lines],
    "huge number": lambda lines: [lines[0].replace(b'"samples":1', b'"samples":' + b"9" * 5000), *lines[1:]],
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_of_the_file_is_seen_and_holds(name: str) -> None:
    """Whatever was done to a file, something says so, in words that name a line; never a promote."""
    log = read_bytes(b"".join(CHANGES[name](TEXT.splitlines(keepends=True))), END)
    assert not log.whole
    assert all(said.startswith("evidence line ") for said in troubles(log.evidence))
    verdict = decide(log.evidence, POLICY, NOW)
    assert verdict.decision is not Decision.PROMOTE
    if verdict.decision is Decision.HOLD:
        assert verdict.reason.startswith("evidence line ")


def test_what_cannot_be_read_holds_where_everything_else_passed() -> None:
    """Neither a rule nor a waiver makes it count for less."""
    green = chained(saw(c).to_json() for c in CHECKS)
    log = read_bytes(green + b"{\n", read_bytes(green + b"{\n").end)
    assert weigh(log.evidence, POLICY, NOW).decision is Decision.HOLD
    assert weigh(log.evidence, POLICY, NOW).ends_when == ("the gate is run again",)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(TEXT) - 1), st.integers(0, 255), st.booleans())
def test_a_changed_byte_is_never_better_and_never_crashes(place: int, byte: int, insert: bool) -> None:
    """Any byte of a harmed run's evidence changed or added: hold or rollback, and the change is seen."""
    changed = TEXT[:place] + bytes([byte]) + TEXT[place + (not insert) :]
    log = read_bytes(changed, END)
    assert log.whole is (changed == TEXT)
    assert decide(log.evidence, POLICY, NOW).decision is not Decision.PROMOTE
    if place > len(TEXT.splitlines()[0]) + 1:
        assert decide(log.evidence, POLICY, NOW).decision is Decision.ROLLBACK, "what was seen stays seen"


def test_a_secret_is_taken_out_of_a_chain_that_stays_whole(tmp_path: Path) -> None:
    """The gate's own scrub chains anew; a chain that was broken before it stays broken."""
    hide, path = {"planted-secret": "TRANSBOT_HMAC_SECRET"}, tmp_path / "evidence.ndjson"
    path.write_bytes(chained(e.to_json() for e in [saw("drill/x/y", message="planted-secret"), *HARMED]))
    broken = tmp_path / "broken.ndjson"
    broken.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[::-1]))
    assert scrub(tmp_path, hide) == [broken, path]
    log = read_log(path)
    assert (log.whole, log.evidence[0].message) == (True, "$TRANSBOT_HMAC_SECRET")
    assert not read_log(broken).whole


def test_a_record_without_the_end_of_its_evidence_is_no_record(tmp_path: Path) -> None:
    """A folder of an older format is an error that says so; it is never judged without its chain."""
    for text, said in (
        ('{"format": 1, "finished_at": "x"}', "format 1 where 2 is read: another version of the gate wrote it"),
        (
            '{"format": 1, "gate": "0.1", "finished_at": "x"}',
            r"Gate 0\.1 wrote it, and this is .*: use that one, or run",
        ),
        (json.dumps({"format": 2, "finished_at": "x", "policy": POLICY.to_json()}), "no member 'decided_at'"),
    ):
        (tmp_path / "run.json").write_text(text, encoding="utf-8")
        with pytest.raises(CannotWork, match=said):
            record.read(tmp_path)
    assert read_log(tmp_path / "absent").end == ChainEnd()
