"""What goes on in a healthy deployment during a gate: neighbours, users, vacuum, readers, restarts."""

import itertools
import shutil
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial

from gates.deployment.http.client import HttpDoor, NoAnswer
from gates.deployment.requests import Request, bucket, signed_post
from gates.deployment.tenants.tenants import OWNED_TABLES
from gates.proof.workbench import programs
from gates.stack.plan import CANARY_FLAG, CANARY_PERCENT, StackInfo
from gates.stack.postgres import connect
from gates.stack.service import Supervised
from gates.stack.stack import Stack

TABLES = (*OWNED_TABLES, "companies", "edge_rate_limits", "audit_logs", "audit_heads")
ROUND_S = 0.5
RESTART_S = 12.0
JOIN_S = 30.0
NEIGHBOUR_PAUSE_S = 0.05
USERS, USER_PAUSE_S, REPLAY_EVERY = 4, 0.2, 120
"""How many tenants, each with a request every so many seconds; one in so many is a replay, within the hourly limit."""
OTHER_FLAG = """
insert into public.feature_flags (key, enabled, rollout_percentage) values ('billing.new_page', true, 1)
on conflict (key, company_id) do update set rollout_percentage = (feature_flags.rollout_percentage + 1) % 100
"""
ASKED_PAUSE = """
insert into public.agent_controls (company_id, agents_paused, pause_reason) values (%s, true, 'the tenant asked')
on conflict (company_id) do update set agents_paused = not agent_controls.agents_paused
"""
OLD = (
    "delete from public.event_outbox where processed_at < now() - interval '11 minutes'",
    "delete from public.agent_tasks where updated_at < now() - interval '1 hour'",
    "delete from public.dead_letter_queue where status = 'resolved' and created_at < now() - interval '2 hours'",
    "delete from public.events where created_at < now() - interval '6 hours'",
    "delete from public.replay_runs where completed_at < now() - interval '12 hours'",
)
"""What a job deletes, each kind after a time of its own."""
SPIN = "while True: pass"


@contextmanager
def again_and_again(step: Callable[[], object], every_s: float) -> Iterator[None]:
    """Repeat the step with this pause, in a thread, during the block; then raise its error, if any."""
    done, raised = threading.Event(), list[BaseException]()

    def work() -> None:
        try:
            while not done.wait(every_s):
                step()
        except BaseException as error:  # noqa: BLE001  -- raised by the block
            raised.append(error)

    thread = threading.Thread(target=work, name="beside", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(JOIN_S)
    if raised:
        raise raised[0]


def tenant(info: StackInfo) -> str:
    """A new tenant inside the canary."""
    company = next(c for c in (str(uuid.uuid4()) for _ in range(10_000)) if bucket(CANARY_FLAG, c) < CANARY_PERCENT)
    with connect(info.database_url) as connection:
        connection.execute("insert into public.companies (id, name) values (%s, 'A neighbour')", (company,))
    return company


@contextmanager
def neighbour(
    stack: Stack, event_type: str = "order.paid", pause_s: float = NEIGHBOUR_PAUSE_S, replay_every: int = 0
) -> Iterator[None]:
    """A tenant that emits events all the time, and asks for a replay now and then."""
    company, numbers, secret = tenant(stack.info), itertools.count(1), stack.info.hmac_secret
    with HttpDoor(stack.info.base_url) as door:

        def step() -> None:
            number = next(numbers)
            fields = {"company_id": company, "event_type": event_type, "payload": {"n": number}}
            keyed = {**fields, "aggregate_key": f"order-{number % 7}"}
            with suppress(NoAnswer):  # a neighbour's failure is not under test
                door.send(signed_post("/events", keyed, secret))
                if replay_every and number % replay_every == 1:
                    door.send(signed_post("/dlq-replay", {"company_id": company, "max_items": 5}, secret))
                    door.send(Request("GET", "/healthz"))

        with again_and_again(step, pause_s):
            yield


@contextmanager
def users(stack: Stack) -> Iterator[None]:
    """Several tenants at work."""
    with ExitStack() as all_of_them:
        for _ in range(USERS):
            all_of_them.enter_context(neighbour(stack, "order.paid", USER_PAUSE_S, REPLAY_EVERY))
        yield


@contextmanager
def vacuum(stack: Stack) -> Iterator[None]:
    """Every table is vacuumed and analyzed, twice a second."""
    with connect(stack.info.database_url) as connection:

        def step() -> None:
            for table in TABLES:
                connection.execute(f"vacuum (analyze) public.{table}".encode())

        with again_and_again(step, ROUND_S):
            yield


@contextmanager
def housekeeping(stack: Stack) -> Iterator[None]:
    """Old rows are deleted, the outbox is reindexed; people step another flag, and pause and resume a tenant."""
    company = tenant(stack.info)
    with connect(stack.info.database_url) as connection:
        connection.execute("set statement_timeout = 0")  # an interrupted rebuild leaves an invalid index
        connection.execute("set lock_timeout = 0")

        def step() -> None:
            for statement in (*OLD, "reindex table concurrently public.event_outbox"):
                connection.execute(statement.encode())
            connection.execute(OTHER_FLAG)
            connection.execute(ASKED_PAUSE, (company,))

        with again_and_again(step, ROUND_S):
            yield


@contextmanager
def figures(stack: Stack) -> Iterator[None]:
    """A table of the deployment's own with a row per tenant, rewritten twice a second."""
    anew = (
        "insert into public.figures select id, pg_catalog.clock_timestamp() from public.companies"
        " on conflict (company_id) do update set counted_at = excluded.counted_at"
    )
    with connect(stack.info.database_url) as connection, again_and_again(partial(connection.execute, anew), ROUND_S):
        yield


@contextmanager
def reader(stack: Stack) -> Iterator[None]:
    """A report holds one snapshot throughout the run, and reads every table twice a second."""
    with connect(stack.info.database_url) as connection:
        connection.execute("begin isolation level repeatable read, read only")

        def step() -> None:
            for table in TABLES:
                connection.execute(f"select count(*), min(t::text) from public.{table} t".encode())

        step()
        with again_and_again(step, ROUND_S):
            yield
        connection.execute("rollback")


@contextmanager
def restart(stack: Stack) -> Iterator[None]:
    """A rolling restart: each instance and worker in turn is stopped and started again."""
    turns = iter([process for process in stack.processes if isinstance(process, Supervised)])

    def step() -> None:
        for process in itertools.islice(turns, 1):
            process.terminate()
            process.stop()
            process.start()
            stack.note_processes()

    with again_and_again(step, RESTART_S):
        yield


@contextmanager
def spinning(_stack: Stack, *words: str, count: int = 1) -> Iterator[None]:
    """Programs that use a CPU all the time, started through the command `words`."""
    command = (*(shutil.which(word) or word for word in words[:1]), *words[1:], sys.executable, "-S", "-c", SPIN)
    found = [programs.start(command, {"PATH": "/usr/bin:/bin"}) for _ in range(count)]
    try:
        yield
    finally:
        for process in found:
            programs.end(process)
            process.communicate(timeout=programs.GRACE_S)
