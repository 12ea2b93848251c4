"""The history file of the watch: what was written is read again, whatever happened to the file."""

import datetime as dt
import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gates import disk
from gates.errors import CannotWork, ConfigError
from gates.evidence import Outcome
from gates.watch import history
from gates.watch.history import EVER, Notified
from gates.watch.rounds import Change, Incident, Reading, Round

ROOT = Path(__file__).resolve().parents[3]
START = dt.datetime(2026, 1, 2, 12, tzinfo=dt.UTC)
TARGET = "0123456789ab"


def made(number: int, minutes: float = 0.0, *, target: str = TARGET, told: bool = False, saw: bool = True) -> Round:
    at = (START + dt.timedelta(minutes=minutes)).isoformat(timespec="milliseconds")
    reading = Reading("a/b/c", Outcome.PASS if saw else Outcome.UNKNOWN, "" if saw else "hold")
    changes = (Change("failing", f"a/b/{number}", "page", "m", at),) if told else ()
    return Round(number, at, at, target, "good", interval_s=300.0, readings={reading.check: reading}, changes=changes)


def written(path: Path, *rounds: Round) -> Path:
    for one in rounds:
        history.append(path, one.line())
    return path


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
NUMBER = st.none() | st.floats(allow_nan=False, allow_infinity=False, width=32)


@given(st.sampled_from(Outcome), NUMBER, TEXT, st.sampled_from(["", "rollback", "hold", "note"]), st.booleans())
def test_a_round_is_read_as_it_was_written(
    outcome: Outcome, value: float | None, message: str, effect: str, lacking: bool
) -> None:
    """Zero, nothing and odd text survive; one round is one line."""
    limits = (("page", 0.0), ("warn", 2.0)) if value is not None else ()
    reading = Reading("a/b/c", outcome, effect, value, limits, "s", message, 60.0, lacking, "x")
    incident = Incident("a/b/c", "failing", "page", START.isoformat(), START.isoformat(), 3, 2, True, message=message)
    one = Round(
        7, START.isoformat(), START.isoformat(), TARGET, "failing", message, "r1", 300.0, 12.5, "odd", "short",
        {"a/b/c": reading, "d/e/f": Reading("d/e/f", Outcome.PASS)}, ("g/h/i",), (incident,),
        (Change("failing", "a/b/c", "page", message, START.isoformat()),), {"kind": "rollback"},
    )  # fmt: skip
    line = one.line()
    assert line.count("\n") == 1
    assert Round.from_json(json.loads(line)) == one


def test_a_file_that_is_not_there_is_an_empty_history(tmp_path: Path) -> None:
    """The first round of a target has no file, which is no error."""
    assert history.read(tmp_path / "none", TARGET) == history.History()


def test_a_line_that_was_cut_is_survived_and_said(tmp_path: Path) -> None:
    """After a writer was killed, earlier rounds count, and the next one starts a new line."""
    path = written(tmp_path / "h", made(1), made(2))
    path.write_bytes(path.read_bytes()[:-40])
    found = history.read(path, TARGET)
    assert ([r.number for r in found.rounds], found.broken) == ([1], (2,))
    assert "1 line of the history cannot be read (line 2)" in found.said
    written(path, made(3, 5))
    found = history.read(path, TARGET)
    assert ([r.number for r in found.rounds], found.broken, found.last_number) == ([1, 3], (2,), 3)


@given(st.integers(0, 2000), st.binary(max_size=8))
def test_no_damage_makes_the_history_unreadable(where: int, damage: bytes) -> None:
    """Overwritten bytes cost only the lines they touch, and raise nothing."""
    lines = [made(n, n).line().encode() for n in range(1, 6)]
    whole = b"".join(lines)
    at = where % len(whole)
    broken = whole[:at] + damage + whole[at + len(damage) :]
    reader = history._HistoryReader(TARGET, EVER)
    for number, line in enumerate(broken.split(b"\n"), 1):
        if line.strip():
            reader.take(Path("h"), number, line.decode("utf-8", "replace"))
    assert reader.history().total >= 3  # eight bytes touch two lines at most


ODD = [
    pytest.param('"number":1', '"number":1e400', id="number beyond all"),
    pytest.param('"number":1', '"number":"1"', id="number as text"),
    pytest.param('"number":1', '"number":true', id="number as a truth"),
    pytest.param('"finished_at":"2026', '"finished_at":"then', id="no time"),
    pytest.param('"at":"2026-01-02T12:00:00.000+00:00"', '"at":"9999-12-31T23:59:59-14:00"', id="no time in UTC"),
    pytest.param('"interval_s":300.0', '"interval_s":1e400', id="endless interval"),
    pytest.param('"interval_s":300.0', '"interval_s":"soon"', id="interval as text"),
    pytest.param('"action":{}', '"action":"none"', id="action as text"),
    pytest.param('"reason":""', '"reason":{}', id="reason of parts"),
    pytest.param(
        '"incidents":[]', '"incidents":[{"check":1,"kind":"","level":"","since":"","seen_at":""}]', id="incident"
    ),
    pytest.param(
        '"incidents":[]',
        '"incidents":[{"check":"a/b/c","kind":"failing","level":"grave","since":"2026-01-02T12:00:00.000+00:00",'
        '"seen_at":"2026-01-02T12:00:00.000+00:00"}]',
        id="incident of no level",
    ),
    pytest.param('"changes":[]', '"changes":[{"kind":"","check":null,"level":"","message":"","at":""}]', id="change"),
    pytest.param('"a/b/c":"pass"', '"a/b/c":{"outcome":"fail","for_s":1e400}', id="reading for ever"),
    pytest.param('"a/b/c":"pass"', '"a/b/c":{"outcome":"fail","unit":5}', id="reading in a number of units"),
    pytest.param('"a/b/c":"pass"', '"a/b/c":{"outcome":"fail","value":NaN}', id="reading of no number"),
    pytest.param('"kind":"round"', '"kind":"told","to":"x"', id="told"),
    pytest.param('"kind":"round"', '"kind":"dropped","rounds":1e400', id="dropped beyond all"),
    pytest.param('"kind":"round"', '"kind":"dropped"', id="dropped nothing"),
]


@pytest.mark.parametrize(("was", "put"), ODD)
def test_a_line_that_no_gate_wrote_is_left_out(was: str, put: str, tmp_path: Path) -> None:
    """Wrong types and infinite numbers or times do not break reading, trimming or the next round."""
    line = made(1).line()
    assert was in line
    odd = line.replace(was, put)
    if "told" in put:
        odd = odd.replace('"number":1', '"number":1e400')
    path = tmp_path / "h"
    path.write_text(made(1).line() + odd + made(2, 5).line(), encoding="utf-8")
    found = history.read(path, TARGET)
    assert ([r.number for r in found.rounds], found.broken, found.last_number) == ([1, 2], (2,), 2)
    assert history.tidy(path, START + dt.timedelta(days=90), least=1) >= 1
    assert history.read(path, TARGET).last_number == 2


def test_what_is_no_history_is_not_read_to_its_end(tmp_path: Path) -> None:
    """An endless or huge file is an error of the gate, and does not fill memory."""
    path = tmp_path / "h"
    with path.open("wb") as huge:
        huge.truncate(disk.MOST_BYTES + 1)
    with pytest.raises(CannotWork, match=r"more than [0-9]+ bytes"):
        history.read(path, TARGET)


def test_a_watcher_that_is_stopped_keeps_no_other_one_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait for a stopped writer's lock has a limit: the round is reported as not kept, and the watch goes on."""
    monkeypatch.setattr(disk, "LOCK_S", 0.1)
    path = tmp_path / "h"
    with (tmp_path / ".h.write").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(CannotWork, match=r"locked by another process for 0 s"):
            history.append(path, made(1).line())
    history.append(path, made(1).line())


def test_two_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    """Each round of several processes is in the file, or counted as removed."""
    path = tmp_path / "h"
    program = (
        "import sys, datetime as dt; from pathlib import Path; from gates.watch import history\n"
        "from tests.gates.watch.test_history import made\n"
        "for n in range(60):\n"
        "    history.append(Path(sys.argv[1]), made(int(sys.argv[2]) * 1000 + n).line())\n"
        "    history.tidy(Path(sys.argv[1]), made(1).started, most_bytes=6000)\n"
    )
    words = [sys.executable, "-c", program, str(path)]
    writers = [subprocess.Popen([*words, str(i)], cwd=ROOT) for i in (1, 2, 3)]
    assert [w.wait(60) for w in writers] == [0, 0, 0]
    found = history.read(path, TARGET)
    assert found.broken == ()
    assert found.dropped > 100
    assert found.total + found.dropped == 180


def test_one_watcher_at_a_time_makes_a_round_and_a_killed_one_blocks_nobody(tmp_path: Path) -> None:
    """One process has the turn, until it ends in any way."""
    path = tmp_path / "h"
    program = (
        "import sys; from pathlib import Path; from gates.watch import history\n"
        "with history.turn(Path(sys.argv[1])) as mine:\n"
        "    print(mine, flush=True); sys.stdin.read()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    assert other.stdout.readline().strip() == "True"
    with history.turn(path) as mine:
        assert not mine
    os.kill(other.pid, signal.SIGKILL)
    other.wait(10)
    other.communicate(timeout=10)
    with history.turn(path) as mine:
        assert mine


def test_an_error_within_a_turn_is_not_taken_for_one_of_the_lock(tmp_path: Path) -> None:
    """An error of the round is raised unchanged."""
    with pytest.raises(BlockingIOError), history.turn(tmp_path / "h") as mine:
        assert mine
        raise BlockingIOError


def test_a_history_of_a_newer_gate_is_refused_and_left_alone(tmp_path: Path) -> None:
    """A newer format is neither read nor continued."""
    path = tmp_path / "h"
    path.write_text('{"v":2,"kind":"round"}\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"h:1:1: format 2; allowed: up to 1\. Use the gate that wrote it"):
        history.read(path, TARGET)


def test_rounds_of_another_target_are_left_out_and_counted(tmp_path: Path) -> None:
    """What one deployment did says nothing about another."""
    found = history.read(written(tmp_path / "h", made(1), made(2, target="other"), made(3)), TARGET)
    assert ([r.number for r in found.rounds], found.others, found.last_number) == ([1, 3], 1, 3)


def test_what_is_older_than_asked_for_is_summed_up(tmp_path: Path) -> None:
    """A check's last change, last pass and last rounds are kept beyond the window."""
    path = written(tmp_path / "h", made(1, 0), made(2, 5, saw=False), made(3, 10, saw=False))
    found = history.read(path, TARGET, START + dt.timedelta(hours=1))
    assert found.rounds == ()
    assert found.last == made(3, 10, saw=False)
    assert found.good == made(1, 0)
    before = found.before["a/b/c"]
    assert (before.outcome, before.since, before.last_good) == ("unknown", made(2, 5).at, made(1, 0).at)


def test_what_nobody_was_told_is_told_later(tmp_path: Path) -> None:
    """A change stays due until a line records that people were told."""
    path = written(tmp_path / "h", made(1, told=True), made(2, told=True))
    assert [c.check for c in history.read(path, TARGET, START + dt.timedelta(days=9)).untold] == ["a/b/1", "a/b/2"]
    history.append(path, Notified("other", 2, START.isoformat(), "slack").line())
    assert len(history.read(path, TARGET).untold) == 2
    history.append(path, Notified(TARGET, 1, START.isoformat(), "slack").line())
    assert [c.check for c in history.read(path, TARGET).untold] == ["a/b/2"]


def test_old_rounds_are_removed_and_counted(tmp_path: Path) -> None:
    """The last round stays however old it is, and numbers go on."""
    path = written(tmp_path / "h", made(1, 0), made(2, 60), made(3, 120))
    keep = dt.timedelta(minutes=90)
    assert history.tidy(path, START + dt.timedelta(minutes=125), keep, least=1) == 1
    assert history.tidy(path, START + dt.timedelta(minutes=125), keep, least=1) == 0
    assert history.tidy(path, START + dt.timedelta(days=9), keep, least=1) == 1
    found = history.read(path, TARGET)
    assert ([r.number for r in found.rounds], found.dropped, found.last_number) == ([3], 2, 3)


def test_a_clock_that_jumps_by_years_does_not_wipe_the_history_out(tmp_path: Path) -> None:
    """The newest rounds stay, whatever their age seems to be."""
    path = written(tmp_path / "h", *(made(n, n) for n in range(1, 6)))
    later = START + dt.timedelta(days=3650)
    assert history.tidy(path, later) == 0
    assert history.tidy(path, later, least=3) == 2
    assert [r.number for r in history.read(path, TARGET).rounds] == [3, 4, 5]


def test_a_file_that_grew_too_large_is_halved(tmp_path: Path) -> None:
    """The newest half stays; a damaged line is removed with its neighbours in time."""
    path = written(tmp_path / "h", *(made(n, n) for n in range(1, 41)))
    path.write_bytes(b'{"v":1,"kind":"rou\n' + path.read_bytes())
    size = path.stat().st_size
    assert history.tidy(path, START, most_bytes=size) == 0
    gone = history.tidy(path, START, most_bytes=size - 1)
    assert 20 <= gone <= 22
    found = history.read(path, TARGET)
    assert [r.number for r in found.rounds] == list(range(gone + 1, 41))
    assert (found.broken, found.dropped) == ((), gone)


def test_a_full_disk_is_an_error_of_the_gate(tmp_path: Path) -> None:
    """If a round cannot be kept, the message says what to do."""
    (tmp_path / "full").symlink_to("/dev/full")
    with pytest.raises(CannotWork, match=r"Make room, or correct --history"):
        history.append(tmp_path / "full", made(1).line())
    with pytest.raises(CannotWork, match=r"a folder that can be written"), history.turn(Path("/proc/none/h")):
        pass
