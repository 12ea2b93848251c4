"""Starts, watches and stops a stack: a database, N service instances on one socket, N workers, seeded history."""

import http.client
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from gates.deployment.requests import mint_token
from gates.stack import extra, roles, rundir, seed, service
from gates.stack.account import postgres_account
from gates.stack.control import Door
from gates.stack.errors import StackError
from gates.stack.janitor import Janitor
from gates.stack.plan import TRUSTED_PROXY, StackInfo, StackOptions
from gates.stack.postgres import Postgres, connect
from gates.stack.service import Supervised, Wanted
from gates.stack.spawner import OwnProcess, Spawner, tail

DATABASE = "replaygate"
TOKEN_LIFE_S = 30 * 86_400
READY_TIMEOUT_S = 30.0
READY_REQUEST_TIMEOUT_S = 2.0


class Stack:
    """Starts and stops a stack. `cancelled` is asked between the steps of the start."""

    def __init__(
        self, options: StackOptions, environ: Mapping[str, str], *, cancelled: Callable[[], bool] = lambda: False
    ) -> None:
        options.check()
        extra.insist()
        self._options, self._environ, self._cancelled = options, environ, cancelled
        self._source = options.source or service.SOURCE_ROOT
        self._exit = ExitStack()
        self._postgres: Postgres | None = None
        self._services: list[Supervised] = []
        self._workers: list[Supervised] = []
        self._run: rundir.RunFolder | None = None
        self._spawner: Spawner | None = None
        self._info: StackInfo | None = None
        self._stopping: Future[None] | None = None

    @property
    def info(self) -> StackInfo:
        """Raise StackError before `start`."""
        if self._info is None:
            raise StackError("The stack is not up; allowed: asking after its start; in Stack.info. Call start() first")
        return self._info

    @property
    def processes(self) -> tuple[OwnProcess, ...]:
        """PostgreSQL (not as a guest), service instances, workers."""
        own = (self._postgres,) if self._postgres else ()
        return (*own, *self._services, *self._workers)

    def start(self) -> StackInfo:
        """Start everything and wait until it is ready. Raise StackError; then nothing is left running."""
        try:
            self._start()
            self.wait_ready(READY_TIMEOUT_S)
        except BaseException:
            self.stop()
            raise
        return self.info

    def begin_stop(self) -> None:
        """Begin `stop` in the background; `stop` then waits for its end and raises its errors."""
        beside = ThreadPoolExecutor(1, "stack-stop")
        self._stopping = beside.submit(self._exit.close)
        beside.shutdown(wait=False)

    def stop(self) -> None:
        """Stop everything, in the reverse order of the start, and delete the run folder. Stopping twice is no error."""
        if self._stopping is not None:
            self._stopping.result()
        self._exit.close()

    def recompose(
        self, serve: Sequence[str], work: Sequence[str], variables: Mapping[str, str], ready_s: float = READY_TIMEOUT_S
    ) -> None:
        """Restart all service instances and workers with these additional arguments and variables, and wait until they
        are ready. Without any, restore the originals. Raise StackError if they do not start.
        """
        for process in self._services:
            process.restart_as(serve, variables)
        for process in self._workers:
            process.restart_as(work, variables)
        self.note_processes()
        self.wait_ready(ready_s)

    def rebuild(self, source: Path) -> None:
        """Recreate roles and database, by the migrations of these sources; logins keep their passwords. For a stack
        with a server of its own. Raise StackError if a migration fails: what was made before it stays.
        """
        if self._run is None or self._spawner is None or self._postgres is None:
            raise StackError("A guest was asked to make roles anew; allowed: on a server of its own. Use another stack")
        url = self.info.database_url
        with connect(self._postgres.server.url("postgres")) as server:
            roles.drop_database(server, DATABASE)
            with roles.anew(server):
                roles.create_database(server, DATABASE)
                service.migrate(self._run, self._spawner, self._environ, url, source)
        seed.write(url, self.info.company_id, history=self._options.history)

    def note_processes(self) -> None:
        """Record what runs now, for whoever must clean up after a crash."""
        if self._run:
            self._run.record((p.name, p.pid) for p in self.processes if p.pid)

    def wait_ready(self, timeout_s: float) -> None:
        """Wait until every process runs and /readyz says 200. Raise StackError with the end of the failing log."""
        deadline = time.monotonic() + timeout_s
        while not self._ready():
            self._check_alive()
            if time.monotonic() >= deadline:
                raise StackError(
                    f"The service was not ready: /readyz answered {self._ask_ready() or 'nothing'}; allowed: 200 "
                    f"within {timeout_s:.0f} s; at {self.info.base_url}. The logs end:\n{self._tails()}"
                )
            time.sleep(0.02)
        self._check_alive()

    def _start(self) -> None:
        account = postgres_account()
        places = rundir.places(self._environ, account)
        rundir.sweep(places)
        run = self._run = rundir.create(places, account)
        janitor = Janitor(run)
        self._exit.callback(janitor.dismiss)
        self._exit.callback(run.remove)
        spawner = self._spawner = Spawner()
        self._exit.callback(spawner.close)
        service.fork(run, spawner, self._environ, self._source)
        if self._options.server:
            url, logins = self._be_guest(run, spawner, janitor)
        else:
            self._postgres = Postgres(run, account, spawner, secrets.token_hex(32))
            self._exit.callback(self._postgres.stop)
            url, logins = self._own_database(run, spawner, self._postgres)
        self._step()
        sock = service.listen()
        self._exit.callback(sock.close)
        info = self._info = self._describe(
            run, f"http://127.0.0.1:{sock.getsockname()[1]}{service.BASE_PATH}", url, logins
        )
        door = self._exit.enter_context(self._options.pooler(url))
        wanted = Wanted(
            self._told(info),
            logins["replay_service"].url(door),
            logins["replay_worker"].url(door),
            self._options.serve_arguments,
            self._options.work_arguments,
            self._source,
        )
        count = self._options
        self._services += [
            service.service_process(i, run, spawner, self._environ, wanted, sock) for i in range(count.instances)
        ]
        self._workers += [service.worker_process(i, run, spawner, self._environ, wanted) for i in range(count.workers)]
        self._exit.callback(self._stop_processes)
        for process in (*self._services, *self._workers):
            process.start()
        self.note_processes()
        seed.write(url, info.company_id, history=self._options.history)
        self._exit.callback(Door(run.path, self).close)

    def _own_database(
        self, run: rundir.RunFolder, spawner: Spawner, postgres: Postgres
    ) -> tuple[str, dict[str, roles.Login]]:
        postgres.create()
        self._step()
        server = postgres.start()
        self.note_processes()
        with connect(server.url("postgres")) as connection:
            roles.create_database(connection, DATABASE)
            url = server.url(DATABASE)
            service.migrate(run, spawner, self._environ, url, self._source)
            missing = roles.existing(connection)
            return url, roles.logins(connection, url, missing, secrets.token_hex(32).encode(), "")

    def _be_guest(
        self, run: rundir.RunFolder, spawner: Spawner, janitor: Janitor
    ) -> tuple[str, dict[str, roles.Login]]:
        server_url = self._options.server
        with roles.examine(server_url) as connection, roles.exclusively(connection):
            name = secrets.token_hex(6)
            missing = tuple(sorted(set(roles.ROLES) - roles.existing(connection)))
            guest = roles.Guest(server_url, f"{DATABASE}_{name}", name, missing)
            janitor.watch(guest)
            self._exit.callback(guest.drop)
            roles.create_database(connection, guest.database)
            url = roles.database_url(server_url, guest.database)
            service.migrate(run, spawner, self._environ, url, self._source)
            created = roles.existing(connection, missing)
            roles.mark(connection, created)
            key = roles.password_key(connection, server_url)
            return url, roles.logins(connection, url, created, key, name)

    def _describe(self, run: rundir.RunFolder, base_url: str, url: str, logins: Mapping[str, roles.Login]) -> StackInfo:
        now = int(time.time())
        jwt_secret = secrets.token_hex(32)
        claims = {"sub": "gate-up", "role": "super_admin", "iat": now, "exp": now + TOKEN_LIFE_S}
        return StackInfo(
            base_url=base_url,
            company_id=self._options.company_id,
            release=self._options.release,
            folder=run.path,
            control=str(run.path / "control.sock"),
            hmac_secret=secrets.token_hex(32),
            jwt_secret=jwt_secret,
            admin_jwt=mint_token(jwt_secret, claims),
            database_url=url,
            gate_url=logins["replay_gate"].url(url),
        )

    def _told(self, info: StackInfo) -> dict[str, str]:
        return {
            "TRANSBOT_HMAC_SECRET": info.hmac_secret,
            "REPLAY_JWT_SECRET": info.jwt_secret,
            "RELEASE": info.release,
            "COMMIT": info.release,
            "TRUSTED_PROXIES": TRUSTED_PROXY,
            **self._options.variables,
        }

    def _step(self) -> None:
        if self._cancelled():
            raise Cancelled

    def _ready(self) -> bool:
        self._step()
        return self._ask_ready() == 200

    def _ask_ready(self) -> int:
        """Status of /readyz; 0 without an answer."""
        parts = urlsplit(self.info.base_url)
        connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=READY_REQUEST_TIMEOUT_S)
        with suppress(OSError, http.client.HTTPException), closing(connection):
            connection.request("GET", f"{parts.path}/readyz")
            with connection.getresponse() as response:
                return response.status
        return 0

    def _check_alive(self) -> None:
        for process in self.processes:
            if process.pid is None:
                raise StackError(
                    f"{process.name} ended with exit code {process.exit_code}; allowed: running; in the stack. "
                    f"Its log ends:\n{tail(process.log)}"
                )

    def _tails(self) -> str:
        return "\n".join(f"--- {p.name}\n{tail(p.log, 8)}" for p in self.processes)

    def _stop_processes(self) -> None:
        """Stop all at once, as each may take its 5 seconds."""
        processes = [*self._workers, *self._services]
        for process in processes:
            process.terminate()
        for process in processes:
            process.stop()


class Cancelled(Exception):  # noqa: N818  -- the user's wish, no error
    """The start was called off."""


@contextmanager
def reference_stack(options: StackOptions, environ: Mapping[str, str]) -> Iterator[Stack]:
    """A stack for a `with` block: what `gate run` uses without a target. Its target is `stack.info.target()`; its
    processes can be killed through the control socket.
    """
    stack = Stack(options, environ)
    stack.start()
    try:
        yield stack
    finally:
        stack.stop()
