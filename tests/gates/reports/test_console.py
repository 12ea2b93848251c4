"""Printed text never controls a terminal or a pipeline, and a reader who stops does not block the gate."""

import contextlib
import fcntl
import io
import json
import os
import re
import select
import struct
import subprocess
import sys
import termios
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gates.evidence import Outcome
from gates.record import write
from gates.reports.console import Console
from gates.reports.terminal import progress_line, table, verdict_text
from gates.stages.context import Progress
from gates.text import stream
from gates.text.inert import Terminal
from gates.verdict import Action, Counts, Decision, Effect, Finding, Margin, Verdict
from tests.gates.hostile_text import ALL
from tests.gates.test_cli import saved

ROOT = Path(__file__).resolve().parents[3]


def printed(text: Terminal | str) -> str:
    out, err = io.StringIO(), io.StringIO()
    console = Console(out, err, {})
    console.result(text)
    console.say(text)
    assert out.getvalue() == err.getvalue()
    return out.getvalue()


def is_inert(text: str) -> bool:
    """Whether a terminal shows every character, and no line is a command to a pipeline."""
    seen = all(c == "\n" or unicodedata.category(c) not in {"Cc", "Cf", "Cs", "Zl", "Zp"} for c in text)
    commands = [line for line in re.split(r"[\n\r\v\f]", text) if line.lstrip().startswith("::")]
    return seen and not commands and not re.search(r"##[A-Za-z]*\[", text)


def hostile_verdict(text: str, decision: Decision = Decision.ROLLBACK) -> Verdict:
    """A verdict that has the text in every field that a text can be in."""
    effect = {Decision.ROLLBACK: Effect.ROLLBACK, Decision.HOLD: Effect.HOLD}.get(decision, Effect.NOTE)
    finding = Finding(text, "fail", "page", effect, text, text, text, text, 1, {text: [text]}, text, ends_when=text)
    return Verdict(
        decision,
        text,
        release=text,
        target=text,
        started_at=text,
        finished_at=text,
        policy_digest=text,
        counts=Counts(0, 1, 0, 0),
        findings=(finding,),
        action=Action("rollback", 10, 0, text, text, recovery={text: text}),
        margin=Margin(text, 1.0, 2.0, text, 0.5),
        ends_when=(text,),
    )


@pytest.mark.parametrize("text", [*ALL, "password=a\nb", "postgres://u:p@h/x", "::error::x", "##vso[x]"])
def test_a_verdict_is_printed_as_its_file_has_it(text: str, tmp_path: Path) -> None:
    """Screen and file have the same bytes, which are inert, and whose JSON means the same."""
    verdict, out = hostile_verdict(text), io.StringIO()
    write(tmp_path / "verdict.json", verdict.dump())
    Console(out, io.StringIO(), {}).verdict(verdict)
    assert out.getvalue().encode() == (tmp_path / "verdict.json").read_bytes()
    assert is_inert(out.getvalue())
    assert json.loads(out.getvalue()) == json.loads(json.dumps(verdict.to_json()))


@pytest.mark.parametrize("text", ALL, ids=range(len(ALL)))
def test_nothing_printed_commands_a_terminal_or_a_pipeline(text: str) -> None:
    """As a text of its own it is one line; in tables, verdicts and progress it adds no line; in JSON it survives."""
    assert is_inert(printed(text))
    assert printed(text).count("\n") == 1
    assert is_inert(printed(f"gate run: {text}"))
    harmless = table([["x", "x"]], ["x", "x"])
    assert table([[text, text]], [text, text]).count("\n") == harmless.count("\n")
    assert is_inert(printed(table([[text, text]], [text, text])))
    assert printed(Terminal.escape(Terminal("{}:{}").format("", text))).count("\n") == 1
    for decision in Decision:
        shown = printed(verdict_text(hostile_verdict(text, decision), colour=False, folder=text))
        assert is_inert(shown)
        assert not [line for line in shown.split("\n") if line.startswith("PROMOTE") and decision != "promote"]
    line = progress_line(Progress(text, 1, 1, 1, 3, 1.0, done=True, error=text), colour=False)
    assert "\n" not in line
    assert is_inert(printed(line))
    document = printed(Terminal.document(json.dumps({text: text}, ensure_ascii=False)))
    assert is_inert(document)
    assert json.loads(document) == {text: text}
    assert is_inert(printed(Terminal.document(f"{text}\n{text}")))


def filled_pipe() -> tuple[int, int]:
    """A pipe whose buffer is full."""
    unread, full = os.pipe()
    os.set_blocking(full, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(full, b"x" * 4096)
    os.set_blocking(full, True)
    return unread, full


def test_whoever_stops_reading_chatter_keeps_nothing_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """If progress output blocks, a rollback goes on and reports its result."""
    monkeypatch.setattr(stream, "CHATTER_S", 0.01)
    unread, full = filled_pipe()
    out = io.StringIO()
    with os.fdopen(unread, "rb"), os.fdopen(full, "w", encoding="utf-8") as err:
        console = Console(out, err)
        console.warn("not yet possible")
        console.say("x" * 100_000)
        console.result("THE FLAG IS STILL ON")
    assert out.getvalue() == "THE FLAG IS STILL ON\n"


def test_whoever_never_reads_a_result_does_not_keep_the_gate_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """If nobody reads the result, the gate still ends with its exit code."""
    monkeypatch.setattr(stream, "RESULT_S", 0.01)
    unread, full = filled_pipe()
    err = io.StringIO()
    with os.fdopen(unread, "rb"), os.fdopen(full, "w", encoding="ascii", errors="backslashreplace") as out:
        console = Console(out, err)
        console.result("\U0001f600" * 100_000)
        console.warn("see the files")
    assert err.getvalue() == "see the files\n"


def test_a_part_is_never_more_than_a_pipe_with_room_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each write is at most 4096 bytes, even if every character is escaped."""
    escape = b"\\U0001f600"
    assert stream.PART * len(escape) <= select.PIPE_BUF  # else the write below would wait for ever
    monkeypatch.setattr(stream, "CHATTER_S", 0.01)
    unread, full = filled_pipe()
    os.read(unread, 4096)
    with os.fdopen(unread, "rb") as reader:
        with os.fdopen(full, "w", encoding="ascii", errors="backslashreplace") as err:
            stream.chat(err, "\U0001f600" * 2_000)
        assert reader.read().count(escape) == stream.PART


def test_all_chatter_reaches_a_reader_who_is_slow() -> None:
    """A slow reader gets everything, though it is more than a pipe holds."""
    unread, written = os.pipe()
    with os.fdopen(unread, encoding="utf-8") as reader, ThreadPoolExecutor(1) as beside:
        found = beside.submit(reader.read)
        with os.fdopen(written, "w", encoding="utf-8") as err:
            Console(io.StringIO(), err).warn(Terminal.document("é" * 200_000))
        assert found.result(10).count("é") == 200_000


def test_colour_is_ours_alone() -> None:
    """Escape sequences in foreign text are shown as text, also in a coloured line."""
    shown = verdict_text(hostile_verdict("\x1b[31m"), colour=True)
    assert set(re.findall(r"\x1b\[[0-9]*m", shown)) == {f"\x1b[{n}m" for n in (0, 1, 2, 31)}
    assert r"\u001b[31m" in shown
    assert re.sub(r"\x1b\[[0-9]+m", "", shown).isprintable() is False  # its own ends of lines
    assert is_inert(re.sub(r"\x1b\[[0-9]+m", "", shown))


def test_a_narrow_terminal_shows_one_live_line_and_no_wider_results() -> None:
    """Progress is cut at the edge, so that it can be overwritten; verdicts are wrapped."""
    leader, follower = os.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    with os.fdopen(leader, "rb", 0) as read, os.fdopen(follower, "w", encoding="utf-8") as screen:
        console = Console(screen, screen)
        console.progress(Progress("drill", passed=3, expected=600))
        assert re.fullmatch(rb"\x1b\[\?7l[^\r\n]*\x1b\[\?7h", read.read(4096))
        plain = hostile_verdict("word " * 60, Decision.HOLD)
        told = verdict_text(plain, colour=False, width=console.width).splitlines()
    start = next(n for n, line in enumerate(told) if line.startswith("  happened: "))
    assert {len(line) > 60 for line in told[start : start + 5]} == {False}
    assert Console(io.StringIO(), io.StringIO()).width == 110


def test_an_annotation_is_one_command_whatever_is_in_it() -> None:
    """Annotations are for GitHub Actions alone, and no text in one can end it or start another."""
    for text in ALL:
        err = io.StringIO()
        Console(io.StringIO(), err, {"GITHUB_ACTIONS": "true"}).annotate(text, text)
        assert err.getvalue().count("\n") == 1
        assert re.fullmatch(r"::error title=[^:,\n]*::[^\n]*\n", err.getvalue())
        silent = io.StringIO()
        Console(io.StringIO(), silent, {}).annotate(text, text)
        assert not silent.getvalue()


@pytest.mark.parametrize(
    ("words", "outcome", "code", "away"),
    [
        (words, outcome, code, away)
        for words, outcome, code, aways in (
            (("decide", "DIR"), Outcome.FAIL, 20, ("stdout", "stderr", "both", "closed", "full")),
            (("decide", "DIR"), Outcome.UNKNOWN, 10, ("both",)),
            (("report", "DIR"), Outcome.FAIL, 0, ("both", "full")),
            (("decide", "NOWHERE"), Outcome.FAIL, 2, ("stderr", "closed")),
            (("--help",), Outcome.FAIL, 0, ("stdout", "closed", "full")),
            (("fly",), Outcome.FAIL, 2, ("stderr", "closed")),
        )
        for away in aways
    ],
)
def test_whoever_stops_reading_changes_nothing(
    tmp_path: Path, away: str, words: tuple[str, ...], outcome: Outcome, code: int
) -> None:
    """A closed stdout changes neither the exit code nor the files, and prints no traceback."""
    folder = saved(tmp_path / "run", outcome)
    (folder / "verdict.json").unlink()
    reader, gone = os.pipe()
    os.close(reader)
    full = os.open("/dev/full", os.O_WRONLY)
    nobody = {"full": full}.get(away, gone)
    try:
        done = subprocess.run(
            [sys.executable, "-c", CLOSED if away == "closed" else OPEN, *_words(words, folder, tmp_path)],
            cwd=ROOT,
            env={"PATH": os.defpath, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""},
            stdout=nobody if away in {"stdout", "both", "full"} else subprocess.PIPE,
            stderr=nobody if away in {"stderr", "both"} else subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(gone)
        os.close(full)
    assert done.returncode == code
    assert "Traceback" not in (done.stderr or "")
    assert "Exception ignored" not in (done.stderr or "")
    written = {"decide": "verdict.json", "report": "report.html"}.get(words[0], "run.json")
    assert (folder / written).exists() or code == 2


@pytest.mark.parametrize(
    "words", [("completion", "bash"), ("explain", "drill/*"), ("history",), ("sql", "--export", "psql"), ("up",)]
)
def test_a_result_that_a_full_disk_lost_is_said(tmp_path: Path, words: tuple[str, ...]) -> None:
    """A command that only prints fails if its disk is full, and stderr says it; a stack for nobody ends."""
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(
            [sys.executable, "-c", OPEN, *words],
            cwd=tmp_path,
            env={"PATH": os.defpath, "PYTHONPATH": str(ROOT)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, "lost or cut. Make room" in done.stderr) == (4, True), done.stderr


OPEN = "import sys; from gates.cli import main; sys.exit(main())"
CLOSED = f"import os; os.close(1); os.close(2); {OPEN}"


def _words(words: tuple[str, ...], folder: Path, tmp_path: Path) -> list[str]:
    return [{"DIR": str(folder), "NOWHERE": str(tmp_path / "nowhere")}.get(w, w) for w in words]
