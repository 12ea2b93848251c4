"""The checks of answers, metrics and identity turn red on defects planted by a proxy, and on a few others."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest

from drills.workbench.scene import Scene
from gates.config import load_target
from gates.deployment.database import session
from gates.evidence import Outcome
from tests.drills.defects import World
from tests.drills.examination import drill_files, examine
from tests.drills.http_plants import TABLE, HttpPlant
from tests.drills.proxy import proxy
from tests.drills.sql_plants import meddler, planted

HASTE = 0.3


@pytest.fixture
def in_haste() -> Iterator[None]:
    """Let the drills wait less for what will not come."""
    Scene.wait_scale = HASTE
    yield
    Scene.wait_scale = 1.0


@pytest.mark.parametrize("plant", TABLE, ids=lambda p: p.name.replace(" ", "-"))
@pytest.mark.usefixtures("in_haste")
def test_defect_turns_its_checks_red(plant: HttpPlant, variables: dict[str, str], tmp_path: Path) -> None:
    """The defect turns its checks to fail, by an observation."""
    world = World(load_target(variables))
    files = drill_files(plant.red)
    with proxy(variables["BASE_URL"], plant.make(world)) as url:
        found = examine({**variables, "BASE_URL": url}, plant.red, tmp_path, files, "--deep")
    if world.connection is not None:
        world.connection.close()
    wrong = {i: f"{e.outcome}: {e.message}" for i, e in found.items() if e.outcome is not Outcome.FAIL}
    assert not wrong, f"with {plant.name!r} planted: {wrong}"
    assert set(found) == set(plant.red), f"not examined: {sorted(set(plant.red) - set(found))}"


def test_taken_connections_turn_the_check_red(variables: dict[str, str], tmp_path: Path) -> None:
    """When 80 % of the connections are taken, the check of connections fails."""
    check = "drill/observability/connections-are-bounded"
    with session(variables["DATABASE_URL"]) as connection:
        most = int(str(connection.execute("select current_setting('max_connections') as n").fetchone()["n"]))  # type: ignore[index]
    with ExitStack() as held:
        for _ in range(int(most * 0.8)):
            held.enter_context(psycopg.connect(variables["DATABASE_URL"]))
        found = examine(variables, [check], tmp_path, drill_files([check]))
    assert found[check].outcome is Outcome.FAIL, found[check].message


@contextmanager
def dirty_reader(url: str, path: Path) -> Iterator[None]:
    """A relay that delivers what is written to the outbox before it is committed: a trigger tells it by a file."""
    stop = threading.Event()

    def deliver() -> None:
        done = 0
        with session(url) as connection:
            while not stop.wait(0.01):
                lines = path.read_text(encoding="utf-8").splitlines()
                for line in lines[done:]:
                    event, company = line.split()
                    connection.execute(
                        "insert into public.agent_tasks (event_id, company_id, status) values (%s, %s, 'completed')"
                        " on conflict do nothing",
                        (event, company),
                    )
                done = len(lines)

    body = f"execute format('copy (select %L) to program %L', new.event_id || ' ' || new.company_id, 'cat >> {path}');"
    with planted(url, meddler("dirty", "event_outbox", "insert", body, ())):
        thread = threading.Thread(target=deliver, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(5)


def test_dirty_reads_turn_the_check_red(variables: dict[str, str], tmp_path: Path) -> None:
    """A relay that delivers before the commit fails the check of uncommitted rows."""
    check = "drill/outbox/uncommitted-is-not-delivered"
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)  # the database server, another user, appends to a file in it
        path = Path(folder) / "rows"
        path.touch()
        path.chmod(0o666)
        with dirty_reader(variables["DATABASE_URL"], path):
            found = examine(variables, [check], tmp_path, drill_files([check]))
    assert found[check].outcome is Outcome.FAIL, found[check].message
