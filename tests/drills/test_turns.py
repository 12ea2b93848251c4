"""The order of checks, and the processes that run them: by phase, in parallel, each once, even if one dies."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from drills.workbench import turns
from gates.evidence import CheckSpec, Severity, Where
from gates.evidence_file import read_lines
from tests.sources import ROOT
from tests.waiting import until

CONFTEST = """
import pytest
from drills.workbench.turns import Crew

def pytest_addoption(parser):
    parser.addoption("--companies")
    parser.addoption("--beside", type=int, default=0)
    parser.addoption("--beside-load", type=int, default=0)

def pytest_configure(config):
    config.pluginmanager.register(Crew(config, 3, config.getoption("--beside"), config.getoption("--beside-load")))

@pytest.fixture(autouse=True)
def noted(request):
    with open("ran", "a") as file:
        file.write(f"{request.node.name}\\n")
"""
AS_DRILLS = """
import pytest
from drills.conftest import pytest_addoption, pytest_cmdline_main, pytest_configure

def pytest_report_header(config):
    return f"side by side: {config.getoption('--at-once')}"

@pytest.fixture(autouse=True)
def noted(request):
    with open("ran", "a") as file:
        file.write(f"{request.node.name}\\n")
"""
SUITE = """
import os, pathlib, signal, time
import pytest
from gates.checks.recorder import check

def meet(own, other):
    pathlib.Path(own).touch()
    deadline = time.monotonic() + 20
    while not pathlib.Path(other).exists():
        assert time.monotonic() < deadline

@check("drill/x/last", phase="last")
def test_last(): pass

@check("drill/x/one")
def test_one(): meet("one", "two")

@check("drill/x/two")
def test_two(): meet("two", "one")

@check("drill/x/fails")
def test_fails(): assert "this" == "that"

@check("drill/x/dies")
def test_dies(): os.kill(os.getpid(), signal.SIGKILL)

@check("drill/x/behind", phase="first", after=("drill/x/first",))
def test_behind(): pass

@check("drill/x/first", phase="first")
def test_first(): pass
"""
APART = """
import os, pathlib, time
import pytest
from gates.checks.recorder import check

@pytest.fixture(scope="session")
def sql_door():
    with open("sessions", "a") as file:
        file.write(f"{os.getpid()} open\\n")
    yield
    with open("sessions", "a") as file:
        file.write(f"{os.getpid()} closed\\n")

def meet(name):
    pathlib.Path(f"met-{name}").touch()
    deadline = time.monotonic() + 20
    while len(list(pathlib.Path().glob("met-*"))) < 5:
        assert time.monotonic() < deadline

@pytest.mark.parametrize("number", range(3))
@check("drill/x/asks")
def test_asks(number, sql_door): meet(f"asks-{number}")

@pytest.mark.parametrize("number", range(2))
@check("drill/x/asks-nothing")
def test_asks_nothing(number): meet(f"nothing-{number}")

@check("drill/x/last", phase="last")
def test_last(sql_door):
    said = pathlib.Path("sessions").read_text().split("\\n")[:-1]
    assert f"{os.getpid()} open" in said
    assert sum(one.endswith("closed") for one in said) == 2
"""
WAITING = """
import pathlib, time
import pytest
from gates.checks.recorder import check

@pytest.fixture
def sql_door(): pass

@pytest.mark.waits(1)
@pytest.mark.parametrize("number", range(4))
@check("drill/x/waits")
def test_waits(number, sql_door):
    deadline = time.monotonic() + 20
    while not pathlib.Path("worked").exists():
        assert time.monotonic() < deadline

@check("drill/x/works")
def test_works(sql_door): pathlib.Path("worked").touch()
"""
LOADED = """
import pathlib, time
import pytest
from drills.workbench.scene import Scene
from gates.checks.recorder import check

@pytest.fixture
def sql_door(): pass

@pytest.fixture(autouse=True)
def looked(seen):
    seen.control("x")
    seen.count()

def at_work():
    return len(list(pathlib.Path().glob("works-*")))

@check("drill/x/main")
def test_main(sql_door): pathlib.Path("main-is-over").touch()

@pytest.mark.beside_load
@pytest.mark.parametrize("number", range(6))
@check("drill/x/marked")
def test_marked(sql_door, number):
    assert pathlib.Path("main-is-over").exists()
    place = pathlib.Path(f"works-{number}")
    place.touch()
    pathlib.Path(f"most-{at_work()}").touch()
    deadline = time.monotonic() + 20
    while number < 2 and not pathlib.Path("most-2").exists():
        assert time.monotonic() < deadline
    place.unlink()

@pytest.mark.beside_load
@pytest.mark.waits(1)
@check("drill/x/waits")
def test_waits(sql_door):
    deadline = time.monotonic() + 20
    while not pathlib.Path("most-2").exists():
        assert time.monotonic() < deadline

@check("drill/x/asks-nothing")
def test_asks_nothing():
    assert pathlib.Path("main-is-over").exists()
    deadline = time.monotonic() + 20
    while at_work():
        assert time.monotonic() < deadline
    assert Scene.crowd.others_drill()

@check("drill/x/last", phase="last")
def test_last():
    assert pathlib.Path("is-over").exists()
    assert not Scene.crowd.others_drill()
"""
SHARING = """
import pytest
from gates.checks.recorder import check

pytestmark = pytest.mark.together
made = []

@pytest.fixture(scope="module")
def shared():
    made.append(1)
    yield made
    with open("ran", "a") as file:
        file.write("given back\\n")

@pytest.mark.parametrize("number", range(4))
@check("drill/x/shared")
def test_shared(shared, number): assert shared == [1]
"""
BUSY = """
import pathlib
from drills.workbench.scene import Scene
from gates.checks.observation import Busy
from gates.checks.recorder import check
from gates.evidence import Severity

def seen_alone(seen, name, enough=False):
    seen.control("x")
    seen.count()
    ran = pathlib.Path(f"first-{name}")
    if enough or not ran.exists():
        ran.touch()
        raise Busy("the workers had served others")

@check("drill/x/late")
def test_late(seen): seen_alone(seen, "late")

@check("drill/x/later")
def test_later(seen): seen_alone(seen, "later", LATER)

@check("drill/x/red", severity=Severity.RED)
def test_red(): assert False

@check("drill/x/last", phase="last")
def test_last(seen):
    seen.control("x")
    seen.count()
    assert not Scene.crowd.others_drill()
"""
ENDLESS = """
import os, pathlib, threading
from gates.checks.recorder import check

@check("drill/x/endless")
def test_endless():
    pathlib.Path("pid.new").write_text(str(os.getpid()))
    pathlib.Path("pid.new").rename("pid")
    threading.Event().wait(60)
"""


def start(folder: Path, *options: str, ends: Sequence[int] = (), **modules: str) -> subprocess.Popen[str]:
    """Start pytest over these modules, with these ends of pipes."""
    for name, text in {"conftest": CONFTEST, **modules}.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    ini = "[pytest]\nmarkers = check\n    together\n    waits\n    beside_load\n"
    (folder / "pytest.ini").write_text(ini, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, str(folder)]
    environ = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT), "TMPDIR": str(folder)}
    return subprocess.Popen(command, cwd=folder, env=environ, stdout=subprocess.PIPE, text=True, pass_fds=ends)


def test_a_crew_runs_every_check_once_by_phase(tmp_path: Path) -> None:
    """The main part runs in parallel, shared state in one process; failures are reported, and a death ends no other."""
    said, _ = (process := start(tmp_path, test_suite=SUITE, test_sharing=SHARING)).communicate(timeout=60)
    ran = (tmp_path / "ran").read_text(encoding="utf-8").split("\n")[:-1]
    assert process.returncode == 1
    assert "assert 'this' == 'that'" in said
    assert "1 failed, 9 passed" in said, said
    shared = [f"test_shared[{n}]" for n in range(4)]
    alone = [f"test_{name}" for name in ("first", "behind", "one", "two", "fails", "dies", "last")]
    assert sorted(ran) == sorted([*alone, *shared, "given back"])
    assert (*ran[:2], ran[-1]) == ("test_first", "test_behind", "test_last")


def test_hands_beside_hold_no_session_and_one_of_the_others_stays(tmp_path: Path) -> None:
    """Three checks with SQL and two without run at once, in three sessions. The last check keeps the session of its
    process, and the others have ended.
    """
    said, _ = start(tmp_path, "--beside=2", test_apart=APART).communicate(timeout=60)
    assert "6 passed" in said, said
    assert (tmp_path / "sessions").read_text(encoding="utf-8").count("open") == 3


def test_waits_leave_a_process_to_the_others(tmp_path: Path) -> None:
    """However many checks wait, one that does not is run meanwhile."""
    said, _ = start(tmp_path, test_waiting=WAITING).communicate(timeout=60)
    assert "5 passed" in said, said


def test_the_load_runs_beside_what_disturbs_none(tmp_path: Path) -> None:
    """Two of three processes work beside the load, after what could disturb it, and a check that waits is none of them.
    For all of them the target is busy with others. The last phase waits for the end of the load.
    """
    (waits, tell), (called, calls) = os.pipe(), os.pipe()
    options = ("-p", "gates.checks.recorder", "--beside-load=2", f"--when-told={waits}", f"--calls={calls}")
    process = start(tmp_path, *options, ends=(waits, calls), test_loaded=LOADED)
    os.write(tell, b"1")
    assert os.read(called, 1)
    until(lambda: len((tmp_path / "ran").read_text(encoding="utf-8").split()) == 9)
    most = {path.name for path in tmp_path.glob("most-*")}
    (tmp_path / "is-over").touch()
    os.write(tell, b"1")
    said, _ = process.communicate(timeout=60)
    for end in (waits, tell, called, calls):
        os.close(end)
    assert "10 passed" in said, said
    assert "most-2" in most
    assert "most-3" not in most


def test_the_option_of_xdist_asks_for_a_crew(tmp_path: Path) -> None:
    """`-n 2` forks two processes and keeps the phases, which xdist itself would not."""
    process = start(tmp_path, "-v", "-p", "xdist", "-n", "2", conftest=AS_DRILLS, test_suite=SUITE.replace("20", "0"))
    said, _ = process.communicate(timeout=60)
    ran = (tmp_path / "ran").read_text(encoding="utf-8").split()
    assert "side by side: 2" in said, said
    assert (*ran[:2], ran[-1], len(ran)) == ("test_first", "test_behind", "test_last", 7)


def test_a_crew_ends_with_the_process_that_forked_it(tmp_path: Path) -> None:
    """Its children end if it is killed."""
    process = start(tmp_path, test_endless=ENDLESS)
    until((tmp_path / "pid").exists)
    pid = int((tmp_path / "pid").read_text())
    process.kill()
    process.communicate(timeout=10)
    until(lambda: not Path(f"/proc/{pid}").exists())


@pytest.mark.parametrize(
    ("red", "is_late_alone", "said"),
    [
        ("WARN", False, {"late": ["unknown before", "pass "], "later": ["unknown before", "pass "]}),
        ("PAGE", False, {"late": ["unknown before"], "later": ["unknown before"]}),
        ("WARN", True, {"late": ["unknown before", "pass "], "later": ["unknown before", "unknown "]}),
    ],
)
def test_what_found_the_workers_busy_is_asked_again_alone(
    tmp_path: Path, red: str, *, is_late_alone: bool, said: dict[str, list[str]]
) -> None:
    """Once, and not where another check is red that pages: the verdict is known then."""
    suite = BUSY.replace("RED", red).replace("LATER", str(is_late_alone))
    options = ("-p", "gates.checks.recorder", "--evidence=evidence.ndjson")
    printed, _ = start(tmp_path, *options, test_busy=suite).communicate(timeout=60)
    found: dict[str, list[str]] = {}
    for one in read_lines(tmp_path / "evidence.ndjson"):
        found.setdefault(one.check.removeprefix("drill/x/"), []).append(f"{one.outcome.value} {one.round}")
    assert found == {**said, "red": ["fail "], "last": ["pass "]}, printed
    reds = 1 + sum(outcomes[-1].startswith("unknown") for outcomes in said.values())
    assert f"{reds} failed, {4 - reds} passed" in printed, printed


class Item:
    """The part of a pytest item that the order uses."""

    def __init__(self, name: str, phase: str = "main", wait_s: float = 0.0) -> None:
        self.name = name
        spec = CheckSpec(f"drill/{name}", "c", "c", Severity.PAGE, Where.SELF_CLEANING, phase=phase)
        self._marks = {"check": SimpleNamespace(args=(spec,))}
        if wait_s:
            self._marks["waits"] = SimpleNamespace(args=(wait_s,))

    def get_closest_marker(self, name: str) -> SimpleNamespace | None:
        return self._marks.get(name)


def test_the_longest_waits_come_first() -> None:
    """In each phase the checks that wait come first, the longest before all; the others keep their order."""
    work = [Item(f"work-{n}") for n in range(3)]
    waits = [Item("short", wait_s=0.5), Item("long", wait_s=4)]
    items = [Item("last", "last"), *work, *waits, Item("first", "first")]
    names = [item.name for item in cast("list[Item]", turns.in_order(cast("list[pytest.Item]", items)))]
    assert names == ["first", "long", "short", *(item.name for item in work), "last"]
