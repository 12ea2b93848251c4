"""Files that others may have put there: nothing waits for a pipe, reads without an end, or writes through a link."""

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from gates import disk, past_decisions, record
from gates.decision.policy_file import Settings
from gates.deployment.redaction import scrub
from gates.deployment.target import Target
from gates.errors import GateError
from gates.evidence import Outcome, TargetKind
from gates.rehearsal.reading.sources import read_text as source
from gates.reports import attestation
from gates.stages import claims, suite
from gates.stages.context import Context
from gates.stages.suite import SuiteRun
from loadtests.report import read_samples
from sql_checks.fingerprint import ManifestError, load_manifest
from sql_checks.rules.file import read_rules
from sql_checks.spotfile import read_spot
from sql_checks.sqlsession import read_companies
from tests.gates.gate_process import gate
from tests.gates.test_cli import saved
from tests.gates.test_past_decisions import settled


@pytest.mark.parametrize("words", [("decide",), ("report",), ("verify",), ("checklist",), ("status", "--output")])
@pytest.mark.parametrize("name", ["run.json", "evidence.ndjson", "verdict.json"])
@pytest.mark.parametrize("put", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_no_command_waits_for_what_is_no_file(
    words: tuple[str, ...], name: str, put: Callable[[Path], object], tmp_path: Path
) -> None:
    """A pipe, a folder, or a device without an end, in the place of a file of a run."""
    folder = saved(tmp_path, Outcome.PASS)
    (folder / attestation.FILE).write_text("{}")
    (folder / name).unlink()
    put(folder / name)
    environ = {"GATE_TARGET": "staging", "BASE_URL": "http://127.0.0.1:9"}
    assert gate(*words, str(folder), environ=environ).returncode in {0, 2, 3, 4, 10}


@pytest.mark.parametrize("to", ["nothing", "itself"])
@pytest.mark.parametrize("name", ["folder", "folder/file"])
def test_what_is_out_of_sight_is_not_missing(name: str, to: str, tmp_path: Path) -> None:
    """A link that leads nowhere, in the place of a file or of its folder, is neither an empty memory nor no run."""
    file, link = tmp_path / "folder" / "file", tmp_path / name
    assert disk.missing(file)
    assert past_decisions.read(file.parent) == []
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(link if to == "itself" else tmp_path / "gone")
    with pytest.raises(OSError, match="folder"):
        disk.missing(file)
    if name == "folder":
        with pytest.raises(OSError, match="folder"):
            past_decisions.read(link)
        with pytest.raises(OSError, match="folder"):
            past_decisions.histories(link)
        with pytest.raises(claims.Unreadable):
            claims.read(link)


@pytest.mark.parametrize("name", ["run.json", "evidence.ndjson"])
def test_a_file_that_leads_to_itself_is_no_verdict(name: str, tmp_path: Path) -> None:
    """Something is there, and nobody can tell what: exit 4, and no word that there is no run."""
    folder = saved(tmp_path, Outcome.PASS)
    (folder / name).unlink()
    (folder / name).symlink_to(folder / name)
    done = gate("decide", str(folder))
    assert (done.returncode, name in done.stderr, "there is no" in done.stderr) == (4, True, False), done.stderr


def _evidence(path: Path) -> None:
    """A stage follows what its process writes."""
    context = Context(Target(TargetKind.STAGING), Settings(), path.parent, "run")
    path.rename(context.evidence)
    with suite.begun(SuiteRun("drill", "drills", (), 60.0), context) as one:
        suite.looked(one, context)


@pytest.mark.parametrize(
    "read",
    [read_spot, read_rules, read_companies, load_manifest, read_samples, lambda path: source(path, ""), _evidence],
)
def test_no_reader_of_what_a_policy_or_a_folder_names_waits(read: Callable[[Path], object], tmp_path: Path) -> None:
    """A pipe in the place of a check, a manifest, samples, a dump or the evidence of a run that goes on."""
    os.mkfifo(tmp_path / "1000_pipe")
    with pytest.raises((OSError, GateError, ManifestError)):
        read(tmp_path / "1000_pipe")


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


def test_a_small_file_takes_little_memory(tmp_path: Path) -> None:
    """A gate whose memory is limited reads its small files, too, whatever the largest may be."""
    place = tmp_path / "file"
    place.write_bytes(b"x" * 1000)
    tracemalloc.start()
    try:
        assert len(disk.read(place)) == 1000
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


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
    *("allure-results", "load", "logs", "pipeline", ".gate-tmp", "state"),
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
    (tmp_path / "file").write_bytes(b"a\r\nb\rc\n")
    assert disk.read_text(tmp_path / "file") == "a\nb\rc\n"
    assert disk.read(tmp_path / "file", 1, end=3) == b"\rc\n"
    (tmp_path / "file").write_bytes(b"a\xff")
    with pytest.raises(OSError, match="no UTF-8 from byte 1 on"):
        disk.read_text(tmp_path / "file")
    killed, theirs = tmp_path / f".file.{'01' * 8}.new", tmp_path / ".file.new"
    killed.touch()
    theirs.touch()
    disk.clear(tmp_path, ())
    assert (killed.exists(), theirs.exists()) == (False, True)


NOBODY = {"BASE_URL": "http://127.0.0.1:9", "TRANSBOT_HMAC_SECRET": "planted-hmac-secret-0123456789"}


def test_what_lies_beside_a_run_is_not_its_own(tmp_path: Path) -> None:
    """The folder of a project as --output: its file of variables, its hidden files and its folders stay as they are."""
    (tmp_path / "tmp").mkdir()
    theirs = ("gate.env", "tmp/secret", ".mine.new", "other.json")
    for name in theirs:
        (tmp_path / name).write_text(f"TRANSBOT_HMAC_SECRET={NOBODY['TRANSBOT_HMAC_SECRET']}\n", encoding="utf-8")
    os.link(tmp_path / "gate.env", tmp_path / "companies.txt")
    done = gate("run", "--output", str(tmp_path), cwd=tmp_path, environ=NOBODY)
    assert done.returncode == 10, done.stderr
    for name in theirs:
        assert NOBODY["TRANSBOT_HMAC_SECRET"] in (tmp_path / name).read_text(), name


def test_a_secret_is_not_removed_through_another_name_of_a_file(tmp_path: Path) -> None:
    """A hard link in the folder of a run leads out of it as a symbolic one does."""
    (tmp_path / "out").mkdir()
    (tmp_path / "theirs").write_text("planted-secret")
    os.link(tmp_path / "theirs", tmp_path / "out" / "log")
    assert scrub(tmp_path / "out", {"planted-secret": "S"}) == [tmp_path / "out" / "log"]
    assert ((tmp_path / "theirs").read_text(), (tmp_path / "out" / "log").read_text()) == ("planted-secret", "$S")


@pytest.mark.parametrize("name", [n for n in record.FOLDERS if not n.startswith(".")])
def test_a_folder_that_no_run_made_is_not_taken_for_one(name: str, tmp_path: Path) -> None:
    """A project has logs, or a state, of its own; beside the files of a run it is the run's."""
    (tmp_path / name).mkdir()
    (tmp_path / name / "theirs").write_text("x")
    done = gate("run", "--output", str(tmp_path), cwd=tmp_path, environ=NOBODY)
    assert (done.returncode, f"{tmp_path} has {name}, and no file of a gate" in done.stderr) == (4, True), done
    assert [p.name for p in tmp_path.iterdir()] == [name]
    (tmp_path / record.RUN).touch()
    with record.locked(tmp_path):
        pass
