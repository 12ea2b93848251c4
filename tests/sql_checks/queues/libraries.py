"""Real queue libraries for tests: how each is installed, started, and broken by SQL."""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parent / "programs"
INSTALLED = Path(sys.prefix) / "queues-of-tests"
INSTALL_S = 180
DO_S = 60


@dataclass(frozen=True)
class Library:
    """One library. The SQL is run in its database: `aged` makes all waiting jobs due 400 s ago, and has who schedules
    idle since then, `lost` drops the index that claims need, `invalid` leaves it half-built, `skewed` puts a job's time
    an hour ahead.

    poison: the name and attempts under which a job fails for good at once; failing: the check that names a handler that
    always fails; not_seen: checks that say nothing of a healthy queue, because the library keeps nothing of it.
    """

    preset: str
    packages: tuple[str, ...]
    program: str
    aged: str
    lost: str
    invalid: str
    skewed: str
    failing: str = "failure-rate"
    poison: str = "bad"

    @property
    def is_node(self) -> bool:
        return self.program.endswith(".mjs")


LIBRARIES = (
    Library(
        "pg-boss",
        ("pg-boss@10.4.2",),
        "pg_boss.mjs",
        aged="update pgboss.job set created_on = created_on - interval '400 s',"
        " start_after = start_after - interval '400 s' where state = 'created';"
        " update pgboss.version set cron_on = cron_on - interval '400 s';"
        " update pgboss.schedule set created_on = created_on - interval '400 s'",
        lost="do $$ declare i record; begin for i in select indexname from pg_indexes where schemaname = 'pgboss'"
        " and indexname like '%\\_i5' loop execute format('drop index pgboss.%I', i.indexname); end loop; end $$",
        invalid="update pg_index set indisvalid = false where indexrelid in (select c.oid from pg_class c"
        " where c.relname like '%\\_i5')",
        skewed="update pgboss.job set created_on = now() + interval '1 hour' where state = 'completed'",
    ),
    Library(
        "graphile-worker",
        ("graphile-worker@0.16.6",),
        "graphile_worker.mjs",
        aged="update graphile_worker._private_jobs set run_at = run_at - interval '400 s'",
        lost="drop index graphile_worker.jobs_main_index",
        invalid="update pg_index set indisvalid = false where indexrelid = 'graphile_worker.jobs_main_index'::regclass",
        skewed="select graphile_worker.add_job('mail'); update graphile_worker._private_jobs"
        " set created_at = now() + interval '1 hour', run_at = now() + interval '1 hour'",
        failing="retries",
        poison="bad/1",
    ),
    Library(
        "procrastinate",
        ("procrastinate==3.10.0", "psycopg[binary,pool]"),
        "procrastinate_app.py",
        aged="update procrastinate_events set at = at - interval '400 s'",
        lost="drop index procrastinate_jobs_priority_idx_v1",
        invalid="update pg_index set indisvalid = false"
        " where indexrelid = 'procrastinate_jobs_priority_idx_v1'::regclass",
        skewed="update procrastinate_events set at = now() + interval '1 hour' where type = 'succeeded'",
    ),
    Library(
        "pgqueuer",
        ("pgqueuer==1.6.0", "asyncpg"),
        "pgqueuer_app.py",
        aged="update pgqueuer set created = created - interval '400 s',"
        " execute_after = execute_after - interval '400 s'; insert into pgqueuer_schedules (expression, entrypoint,"
        " next_run, heartbeat) values ('* * * * *', 'minutely', now() - interval '400 s', now() - interval '400 s')",
        lost="drop index pgqueuer_ep_prio_id_idx",
        invalid="update pg_index set indisvalid = false where indexrelid = 'pgqueuer_ep_prio_id_idx'::regclass",
        skewed="update pgqueuer_log set created = now() + interval '1 hour' where status = 'successful'",
    ),
)


def installed(library: Library, shared: Path) -> Path:
    """The library's folder, installed once for each of its versions: in this environment, where that can be written,
    else in `shared`. Skip where the registry is out of reach.
    """
    home = INSTALLED if os.access(sys.prefix, os.W_OK) and sys.prefix != sys.base_prefix else shared
    home.mkdir(exist_ok=True)
    folder = home / "-".join((library.preset, sha256(repr(library.packages).encode()).hexdigest()[:8]))
    with (home / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            _install(library, folder)
            (folder / "done").touch()
    return folder


def _install(library: Library, folder: Path) -> None:
    npm = shutil.which("npm")
    if library.is_node and npm is None:
        pytest.skip("npm is not installed (apt-get install npm)")
    if library.is_node:
        words = [str(npm), "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--ignore-scripts"]
    else:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=INSTALL_S)
        words = [sys.executable, "-m", "pip", "--python", str(folder), "install", "-q", "--disable-pip-version-check"]
    done = subprocess.run(
        [*words, *library.packages], capture_output=True, text=True, timeout=INSTALL_S, check=False, cwd=folder
    )
    if done.returncode:
        pytest.skip(f"{library.preset} cannot be installed from its registry: {done.stderr.strip()[-300:]}")


@dataclass(frozen=True)
class Program:
    """A library's program at one database."""

    library: Library
    folder: Path
    url: str

    def _words(self, *words: str) -> list[str]:
        runs = "node" if self.library.is_node else str(self.folder / "bin" / "python")
        return [runs, str(PROGRAMS / self.library.program), self.url, *words]

    @property
    def _environ(self) -> dict[str, str]:
        return {**os.environ, "QUEUE_MODULES": str(self.folder / "node_modules")}

    def do(self, *words: str) -> None:
        """Set up the library, or send jobs."""
        done = subprocess.run(
            self._words(*words), env=self._environ, capture_output=True, text=True, timeout=DO_S, check=False
        )
        assert done.returncode == 0, done.stderr

    @contextmanager
    def working(self) -> Iterator[subprocess.Popen[str]]:
        """A ready worker, which is killed at the end."""
        with subprocess.Popen(
            self._words("work"), env=self._environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            try:
                assert process.stdout is not None
                assert any("ready" in line for line in process.stdout)
                yield process
            finally:
                process.kill()
