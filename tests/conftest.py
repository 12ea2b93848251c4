"""How the suite runs: properties with the same examples every time, and the tests shared out among the workers.

No limit on the time of one example: machines are shared and noisy. `HYPOTHESIS_PROFILE=explore pytest tests` draws new
and more examples.
"""

import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.remote import Producer

from gates.contract.names import Names
from gates.deployment.dialect.current import use
from gates.stack.plan import StackOptions
from gates.stack.stack import Stack, reference_stack
from tests.schedule import LoadsBesideFew, ordered

# hundreds of programs of ours are started: they are compiled once, also where the environment asks for no bytecode
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

MEMORY = Path("/dev/shm")  # noqa: S108  -- every folder in it is made with mkdtemp, mode 0700
ROOM_BYTES = 4 << 30
if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM_BYTES and not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC:
    tempfile.gettempdir()  # decided: what the tests themselves write stays on the disk
    os.environ.setdefault("TMPDIR", str(MEMORY))  # a new database is 400 files: seven times as dear on a disk

gc.disable()  # nothing that is collected is garbage

settings.register_profile("fixed", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadsBesideFew | None:
    """Neighbours stay on one worker, so that a stack or a database of a module is started once and not on every worker.

    Counts where `-n` alone was given; whoever names a --dist gets that one.
    """
    return LoadsBesideFew(config, log) if config.getoption("dist") == "load" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = ordered(items, lambda item: item.nodeid)


def pytest_collection_finish() -> None:
    """Exempt the collected items from garbage collection: they live to the end."""
    gc.freeze()
    gc.enable()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--every-fault", action="store_true", help="show every fault, not only the fewest that are enough")
    parser.addoption("--write-failed", metavar="FILE", help="write the tests that failed to FILE, one a line")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The file can be given to pytest again, as `@FILE`."""
    if file := config.getoption("--write-failed"):
        reports = [r for kind in ("failed", "error") for r in terminalreporter.stats.get(kind, ())]
        Path(file).write_text("".join(f"{name}\n" for name in sorted({r.nodeid for r in reports})), encoding="utf-8")


@pytest.fixture(autouse=True)
def own_names() -> Iterator[None]:
    """Reset the process's deployment names (`names:`) that a test set, by `use` or by a policy file."""
    use(Names())
    yield
    use(Names())


@pytest.fixture(scope="session")
def reference() -> Iterator[Stack]:
    """A running reference without history, one a session: for what drills see on it, healthy and faulty."""
    with reference_stack(StackOptions(history=False), os.environ) as stack:
        yield stack


@pytest.fixture(scope="session")
def variables(reference: Stack) -> dict[str, str]:
    """The variables of a gate that started the reference itself."""
    return {**reference.info.variables(), "GATE_TARGET": "reference", "GATE_STACK_CONTROL": reference.info.control}
