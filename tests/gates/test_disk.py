"""Files that others may have put there: nothing waits for a pipe, reads without an end, or writes through a link."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gates import disk, past_decisions, record
from gates.evidence import Outcome
from gates.reports import attestation
from tests.gates.gate_process import gate
from tests.gates.test_cli import saved
from tests.gates.test_past_decisions import settled


@pytest.mark.parametrize("words", [("decide",), ("report",), ("verify",), ("checklist",), ("status", "--output")])
@pytest.mark.parametrize("name", ["run.json", "evidence.ndjson", "verdict.json"])
@pytest.mark.parametrize("put", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_no_command_waits_for_what_is_no_file(
    words: tuple[str, ...], name: str, put: Callable[[Path], object], tmp_path: Path
) -> None:
    """A pipe, or a device without an end, in the place of a file of a run."""
    folder = saved(tmp_path, Outcome.PASS)
    (folder / attestation.FILE).write_text("{}")
    (folder / name).unlink()
    put(folder / name)
    environ = {"GATE_TARGET": "staging", "BASE_URL": "http://127.0.0.1:9"}
    assert gate(*words, str(folder), environ=environ).returncode in {0, 2, 3, 4, 10}


def test_only_a_regular_file_within_its_limit_is_read(tmp_path: Path) -> None:
    """Anything else is an error, at once."""
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert disk.read(path, 5) == b"12345"
    with pytest.raises(OSError, match="more than 4 bytes"):
        disk.read(path, 4)
    os.mkfifo(tmp_path / "pipe")
    for other in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(OSError, match=r"regular file|directory"):
            disk.read(other)
    with pytest.raises(OSError, match=r"regular file|No such device"):
        disk.opened(tmp_path / "pipe", "ab")


def test_what_is_added_to_waits_for_no_reader(tmp_path: Path) -> None:
    """A file is added to; a pipe that nobody reads is an error, at once."""
    for text in ("a\n", "b\n"):
        disk.append(tmp_path / "output", text)
    assert (tmp_path / "output").read_text() == "a\nb\n"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="No such device"):
        disk.append(tmp_path / "pipe", "a\n")


LINKED = (
    *("verdict.json", "verdict.json.new", "run.json.new", "summary.md", "report.html", "junit.xml"),
    *("allure-results", "load", "logs", "pipeline", "tmp", "state"),
)


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A folder, and a file in it, that no command may touch."""
    folder = tmp_path / "victim"
    folder.mkdir()
    for name in ("precious", "x-result.json", "companies.txt", "result.json"):
        (folder / name).write_text("precious")
    return folder


def untouched(victim: Path) -> bool:
    """Whether the victim is as it was."""
    found = {p.name: p.read_text() for p in victim.iterdir()}
    return found == dict.fromkeys(("precious", "x-result.json", "companies.txt", "result.json"), "precious")


@pytest.mark.parametrize("name", LINKED)
def test_nothing_is_written_through_a_link(name: str, victim: Path, tmp_path: Path) -> None:
    """By `gate decide`, `gate report`, the start of a run, and by who adds a line."""
    folder = saved(tmp_path, Outcome.PASS)
    to = victim / "precious" if "." in name else victim
    for words in (("decide",), ("report",)):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(to)
        gate(*words, str(folder))
        assert untouched(victim), words
    for name_again in LINKED:
        path = folder / name_again
        if path.is_symlink() or not path.exists():
            path.unlink(missing_ok=True)
            path.symlink_to(victim / "precious" if "." in name_again else victim)
    record.begin(folder, {})
    assert untouched(victim)
    (folder / past_decisions.FILE).symlink_to(victim / "precious")
    with pytest.raises(OSError, match="symbolic links"):
        past_decisions.remember(folder, settled())
    assert untouched(victim)


def test_what_is_written_is_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    """Also where the place is a folder; what a killed writer left goes at the next start."""
    disk.write(tmp_path / "file", "é", durable=True)
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="directory"):
        disk.write(tmp_path / "folder", "x")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]
    assert disk.read_text(tmp_path / "file") == "é"
    (tmp_path / ".file.0011.new").touch()
    disk.clear(tmp_path, ())
    assert not (tmp_path / ".file.0011.new").exists()
