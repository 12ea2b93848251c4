"""The memory of decisions: what was begun is a hold, what cannot be read is a hold, the file stays small."""

import json
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from gates import disk, past_decisions
from gates.past_decisions import UNREADABLE, PastDecision, last_of, read, remember
from gates.verdict import Action, Counts, Decision, Margin, Verdict

RUN: dict[str, object] = {"run_id": "a1", "started_at": "2026-01-02T12:00:00+00:00"}
VERDICT = Verdict(
    Decision.PROMOTE,
    "all passed",
    "r-1",
    finished_at="2026-01-02T12:05:00+00:00",
    counts=Counts(5),
    action=Action("promote", 10, 50, "done"),
    margin=Margin("load/x/p95", 1.0, 2.0, "ms", 0.5),
)


def begun(run_id: str, release: str) -> PastDecision:
    return PastDecision.begun({**RUN, "run_id": run_id}, release)  # type: ignore[dict-item]


def settled(run_id: str = "a1") -> PastDecision:
    return PastDecision.of({**RUN, "run_id": run_id}, VERDICT)  # type: ignore[dict-item]


def test_a_run_is_a_hold_until_it_has_decided(tmp_path: Path) -> None:
    """A run that is killed leaves a hold, never an older promote; one that ends takes the place of its beginning."""
    assert read(tmp_path) == []
    remember(tmp_path, settled())
    remember(tmp_path, begun("a2", "r-1"))
    last = last_of("r-1", read(tmp_path))
    assert last is not None
    assert (last.decision, last.finished) == (Decision.HOLD, None)
    remember(tmp_path, settled("a2"))
    runs = read(tmp_path)
    assert [one.run_id for one in runs] == ["a1", "a2"]
    assert runs[1] == settled("a2")
    assert last_of("r-1", runs) == settled("a2")
    assert last_of("r-2", runs) is None
    told = {"decision": "promote", "release": "r-1", "finished_at": VERDICT.finished_at, "dry_run": False}
    assert past_decisions.newest(tmp_path, 1) == [{**told, "before": 10, "after": 50}]


def test_no_line_is_lost_to_a_gate_that_cuts_the_history_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rollback that is written while another gate puts a shorter history in place is there afterwards."""
    remember(tmp_path, settled())
    monkeypatch.setattr(past_decisions, "MOST_BYTES", 1)
    rollback = replace(settled("a3"), decision=Decision.ROLLBACK)
    other = threading.Thread(target=remember, args=(tmp_path, rollback))
    asks, lock, write = threading.Event(), disk.lock, disk.write

    def asking(file: int, path: Path, *, within_s: float) -> None:
        if threading.current_thread() is other:
            asks.set()
        lock(file, path, within_s=within_s)

    def writing(path: Path, text: bytes) -> None:
        monkeypatch.setattr(past_decisions, "MOST_BYTES", 1 << 20)
        other.start()
        assert asks.wait(10)
        write(path, text)

    monkeypatch.setattr(disk, "lock", asking)
    monkeypatch.setattr(disk, "write", writing)
    remember(tmp_path, settled("a2"))
    other.join(10)
    assert [one.run_id for one in read(tmp_path)] == ["a1", "a2", "a3"]


def test_a_history_that_leads_nowhere_is_not_an_empty_one(tmp_path: Path) -> None:
    """A volume that is gone may hold a rollback: it cannot be read, and so nothing is promoted on it."""
    assert read(tmp_path) == []
    (tmp_path / past_decisions.FILE).symlink_to(tmp_path / "gone")
    with pytest.raises(FileNotFoundError):
        read(tmp_path)


def test_a_stopped_gate_keeps_no_decision_from_the_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever holds the folder's lock for long may be stopped: the line is added all the same."""
    monkeypatch.setattr(past_decisions, "ROOM_S", 0.0)
    holder = os.open(tmp_path, os.O_RDONLY)
    try:
        disk.lock(holder, tmp_path)
        remember(tmp_path, settled())
    finally:
        os.close(holder)
    assert [one.run_id for one in read(tmp_path)] == ["a1"]


def test_a_run_of_a_release_that_is_not_known_yet_counts_for_all(tmp_path: Path) -> None:
    """Before the target is asked, the run may be of any release."""
    remember(tmp_path, settled())
    remember(tmp_path, begun("a2", ""))
    last = last_of("r-1", read(tmp_path))
    assert last is not None
    assert last.decision is Decision.HOLD


@pytest.mark.parametrize(
    ("decision", "counts"), [(Decision.ROLLBACK, True), (Decision.HOLD, True), (Decision.PROMOTE, False)]
)
def test_a_finished_run_without_a_release_counts_for_all_unless_it_promotes(
    decision: Decision, counts: bool, tmp_path: Path
) -> None:
    """Instances that name no one release, or a person's rollback: whatever was promoted there is not to go on."""
    remember(tmp_path, settled())
    later = PastDecision.of({**RUN, "run_id": "a2"}, replace(VERDICT, decision=decision, release=""))  # type: ignore[dict-item]
    remember(tmp_path, later)
    assert last_of("r-1", read(tmp_path)) == (later if counts else settled())
    remember(tmp_path, settled("a3"))
    assert last_of("r-1", read(tmp_path)) == settled("a3")


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"decision": "promote"}',
        json.dumps({**settled().to_json(), "decision": "yes"}).encode(),
        json.dumps({**settled().to_json(), "release": 5}).encode(),
        json.dumps({**settled().to_json(), "passed": "5"}).encode(),
        json.dumps({**settled().to_json(), "passed": True}).encode(),
        json.dumps({**settled().to_json(), "dry_run": ""}).encode(),
        json.dumps({**settled().to_json(), "room": "much"}).encode(),
        json.dumps({**settled().to_json(), "after": "all"}).encode(),
        json.dumps({**settled().to_json(), "action": 1}).encode(),
        json.dumps({**settled().to_json(), "more": 1}).encode(),
    ],
)
def test_a_line_that_cannot_be_read_holds(line: bytes, tmp_path: Path) -> None:
    """It may have been the newest decision; nothing before it counts."""
    remember(tmp_path, settled())
    with (tmp_path / past_decisions.FILE).open("ab") as out:
        out.write(line)
    assert last_of("r-1", read(tmp_path)) == UNREADABLE
    remember(tmp_path, settled("a3"))  # what was torn stays on a line of its own
    assert last_of("r-1", read(tmp_path)) == settled("a3")


def test_the_older_half_goes_when_the_file_is_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The history neither grows without limit nor loses its newest runs."""
    monkeypatch.setattr(past_decisions, "MOST_BYTES", 2_000)
    for number in range(40):
        remember(tmp_path, settled(f"a{number}"))
    assert (tmp_path / past_decisions.FILE).stat().st_size < 3_000
    assert read(tmp_path)[-1].run_id == "a39"
