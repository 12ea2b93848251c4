"""Run folders: orphans are removed, those of living owners are left."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gates.stack import procfs, rundir
from gates.stack.account import Account
from gates.stack.errors import StackError

CHILD = """
import os, sys
from pathlib import Path
from gates.stack import account, rundir
run = rundir.create([Path(sys.argv[1])], account.postgres_account())
print(run.path, flush=True)
sys.stdin.read()
"""


def sleeper(folder: Path, recorded_in: Path | None = None) -> subprocess.Popen[bytes]:
    """A process that works in `folder`, and is recorded there or elsewhere."""
    process = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"], cwd=folder)
    rundir.RunFolder(recorded_in or folder, -1).record([("sleeper", process.pid)])
    return process


def owner(place: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process that owns a run folder in `place`."""
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(place)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    process.stdout.close()
    return process, Path(line.strip())


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait(timeout=10)
    if process.stdin:
        process.stdin.close()


def test_folder_of_a_living_owner_is_left(tmp_path: Path) -> None:
    """A sweep does not touch it."""
    process, folder = owner(tmp_path)
    assert rundir.sweep([tmp_path]) == []
    assert folder.is_dir()
    end(process)


def test_folder_of_a_killed_owner_is_cleared_with_its_processes(tmp_path: Path) -> None:
    """The next sweep ends what the owner had started, and deletes the folder."""
    process, folder = owner(tmp_path)
    left = sleeper(folder)
    end(process)
    assert rundir.sweep([tmp_path]) == [folder]
    assert not folder.exists()
    assert left.wait(timeout=5) == -9


def test_a_file_that_comes_while_it_is_removed_is_removed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dying process may still write a file."""
    removed, late = shutil.rmtree, iter(range(3))

    def removes(folder: Path, ignore_errors: bool) -> None:
        removed(folder, ignore_errors=ignore_errors)
        for _ in late:
            folder.mkdir()
            break

    monkeypatch.setattr(shutil, "rmtree", removes)
    rundir.clear(tmp_path / "run")
    assert [*tmp_path.iterdir()] == []


def test_a_process_number_used_again_is_not_killed(tmp_path: Path) -> None:
    """A pid with another start time belongs to somebody else."""
    process, folder = owner(tmp_path)
    innocent = sleeper(folder)
    end(process)
    record = folder / rundir.PROCESSES_NAME
    rows = json.loads(record.read_text())
    rows[0]["start_ticks"] -= 1
    record.write_text(json.dumps(rows))
    assert rundir.sweep([tmp_path]) == [folder]
    assert innocent.poll() is None
    innocent.kill()
    innocent.wait(timeout=5)


def test_a_process_elsewhere_is_not_killed(tmp_path: Path) -> None:
    """A recorded process that does not work in the folder is left alone."""
    process, folder = owner(tmp_path)
    innocent = sleeper(tmp_path, recorded_in=folder)
    end(process)
    assert rundir.sweep([tmp_path]) == [folder]
    assert innocent.poll() is None
    innocent.kill()
    innocent.wait(timeout=5)


def test_a_link_and_a_foreign_name_are_left(tmp_path: Path) -> None:
    """Only real directories with our own name are looked at."""
    precious = tmp_path / "precious"
    precious.mkdir()
    (tmp_path / f"{rundir.prefix()}link").symlink_to(precious)
    (tmp_path / "replaygate-someone-else").mkdir()
    assert rundir.sweep([tmp_path]) == []
    assert precious.is_dir()


@pytest.mark.parametrize(("age_s", "swept"), [(0.0, False), (rundir.UNFINISHED_AGE_S + 60, True)])
def test_a_folder_without_its_lock_is_left_while_it_is_young(tmp_path: Path, age_s: float, swept: bool) -> None:
    """It may be in the making; an old one is an orphan."""
    fresh = tmp_path / f"{rundir.UNFINISHED_PREFIX}abc"
    fresh.mkdir()
    then = time.time() - age_s
    os.utime(fresh, (then, then))
    assert bool(rundir.sweep([tmp_path])) is swept


def test_no_place_is_an_error_that_says_what_to_do(account: Account) -> None:
    """Without a temporary directory the message names TMPDIR."""
    with pytest.raises(StackError, match="Set TMPDIR"):
        rundir.create([], account)


def test_a_zombie_does_not_count_as_running() -> None:
    """A process that ended and was not waited for is not running."""
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    assert procfs.wait_until(lambda: not procfs.is_running(process.pid, None), 10)
    process.wait(timeout=5)
