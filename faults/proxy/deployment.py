"""Faults of what a deployment tells of itself, and of what it does beside its database's rules, made by a proxy."""

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg

from faults.catalogue import proxy
from faults.proxy.rewriting import World, acts, after, before, fields_of, json_of, problem, with_json
from faults.proxy.server import Defect, Forward, Reply, Sent, no_defect
from faults.trigger.planting import meddling

SEEN = "drill/observability"
LIMITED = "rate_limited"


def undocumented(_world: World, sent: Sent, reply: Reply) -> Reply | None:
    """Documents everything but the replay endpoint."""
    paths = {p: v for p, v in json_of(reply).get("paths", {}).items() if "dlq-replay" not in p}
    return with_json(reply, paths=paths) if sent.path == "/openapi.json" else None


def finds_every_run(_world: World, sent: Sent, reply: Reply) -> Reply | None:
    """Answers for a run that does not exist."""
    found = sent.path.startswith("/dlq-replay/") and reply.status == 404
    return replace(reply, status=200, body=b'{"status": "completed"}') if found else None


def always_done(_world: World, sent: Sent, reply: Reply) -> Reply | None:
    """Says of every event that it had its effect."""
    done = sent.path.startswith("/events/") and reply.status == 200
    return with_json(reply, effect_at=json_of(reply).get("committed_at")) if done else None


def gives_back(world: World, sent: Sent) -> None:
    """A negative request gives budget back."""
    fields = fields_of(sent)
    if sent.is_replay and isinstance(fields.get("max"), int) and fields["max"] < 0:
        give = "update replay_budgets set daily_used = daily_used - 1 where company_id = %s"
        world.rows(give, fields.get("company_id"))


def moves_first(world: World, sent: Sent) -> None:
    """Moves an item, and writes the outbox row of an event, before anything is asked of the database's rules."""
    fields = fields_of(sent)
    if (sent.is_replay and not fields.get("dry_run")) or (sent.path == "/events" and fields.get("event_id")):
        row = (
            "insert into event_outbox (company_id, event_id, event_type, payload)"
            " select id, coalesce(%s::uuid, gen_random_uuid()), 'drill.first', '{}' from companies where id::text = %s"
        )
        world.rows(row, fields.get("event_id"), fields.get("company_id"))


def writes_the_event_first(world: World, sent: Sent) -> None:
    """Writes the business row in a transaction of its own, before the effect."""
    fields = fields_of(sent)
    if sent.path == "/events" and sent.method == "POST" and fields.get("event_id"):
        row = "insert into events (id, company_id, event_type, payload, path) values"
        world.rows(f"{row} (%s, %s, 'drill.first', '{{}}', 'direct')", fields["event_id"], fields.get("company_id"))


def half_an_event(world: World, sent: Sent, reply: Reply) -> None:
    """Leaves the outbox row of an event whose request failed. The drill ends sessions: this one is of its own."""
    fields = fields_of(sent)
    if sent.path == "/events" and reply.status >= 500:
        with psycopg.connect(world.environ["DATABASE_URL"]) as conn:
            row = b"insert into event_outbox (company_id, event_id, event_type, payload) values (%s, %s, 'half', '{}')"
            conn.execute(row, (fields.get("company_id"), fields.get("event_id")))


def takes_connections(world: World) -> Defect:
    """Holds four of five connections that the server has."""
    for _ in range(int(int(world.value("show max_connections")) * 0.8)):
        world.hold(psycopg.connect(world.environ["DATABASE_URL"]))
    return no_defect


def reads_uncommitted(world: World) -> Defect:
    """A relay that delivers what is written to the outbox before it is committed: a trigger tells it by a file."""
    world.hold(_dirty_reader(world))
    return no_defect


@contextmanager
def _dirty_reader(world: World) -> Iterator[None]:
    stop = threading.Event()
    effect = (
        "insert into agent_tasks (event_id, company_id, status) values (%s, %s, 'completed') on conflict do nothing"
    )

    def deliver(path: Path) -> None:
        done = 0
        while not stop.wait(0.01):
            lines = path.read_text(encoding="utf-8").splitlines()
            for line in lines[done:]:
                world.rows(effect, *line.split())
            done = len(lines)

    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        path = Path(folder) / "rows"
        path.touch()
        path.chmod(0o666)
        told = f"format('copy (select %L) to program %L', new.event_id || ' ' || new.company_id, 'cat >> {path}')"
        plant, remove = meddling("dirty_reader", "insert on event_outbox", f"execute {told};")
        thread = threading.Thread(target=deliver, args=(path,), daemon=True)
        world.rows(plant)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(5)
            world.rows(remove)


@acts
def sends_again(_world: World, sent: Sent, forward: Forward) -> Reply:
    """Sends a POST again that has no answer in two seconds, as nginx does by `proxy_next_upstream non_idempotent`."""
    if sent.method != "POST":
        return forward(sent)
    with ThreadPoolExecutor(max_workers=1) as pool:
        first = pool.submit(forward, sent)
        return first.result() if wait([first], 2.0).done else forward(sent)


@acts
def sends_twice(_world: World, sent: Sent, forward: Forward) -> Reply:
    """Sends each POST twice, as nginx does by `mirror`; the second answer counts."""
    if sent.method == "POST":
        forward(sent)
    return forward(sent)


def with_another_secret(_world: World) -> Defect:
    """Every other connection leads to an instance that refuses what is signed."""
    calls = itertools.count()

    def defect(sent: Sent, forward: Forward) -> Reply:
        return problem(401, "unauthenticated") if sent.signature and next(calls) % 2 else forward(sent)

    return defect


proxy("budgets/negative-requests-give-back", before(gives_back), ("drill/budgets/negative-spend-refused",))
proxy(
    "deployment/moved-before-it-is-allowed",
    before(moves_first),
    (
        "drill/budgets/unreadable-starts-nothing",
        "drill/flags/unreadable-starts-nothing",
        "drill/outbox/refused-leaves-nothing",
        "drill/recovery/replay-session-ended",
        "drill/recovery/service-killed-in-a-replay",
    ),
    "A replay moves its items, and an event gets its outbox row, before anything allows it.",
)
proxy(
    "deployment/the-event-is-written-before-its-effect",
    before(writes_the_event_first),
    ("drill/flags/direct-effect-with-its-event",),
)
proxy(
    "deployment/a-slow-post-is-sent-again", sends_again, ("drill/flags/direct-path-fails-as-a-whole",), names=("again",)
)
proxy(
    "deployment/every-post-comes-twice",
    sends_twice,
    ("drill/proof/fourth-call-refused", "drill/outbox/one-row-each"),
    names=("more than once", "outbox rows"),
)
proxy(
    "deployment/one-instance-has-another-secret",
    with_another_secret,
    ("preflight/credentials/signing-secret",),
    names=("some instances",),
)
proxy("deployment/half-an-event-is-left", after(half_an_event), ("drill/recovery/event-session-ended",))
proxy("outbox/delivered-before-it-is-committed", reads_uncommitted, ("drill/outbox/uncommitted-is-not-delivered",))
proxy(
    "deployment/nearly-all-connections-are-taken",
    takes_connections,
    (f"{SEEN}/connections-are-bounded", "alert/connections"),
    decision="hold",
)
proxy(
    "deployment/every-replay-is-a-server-error",
    after(lambda _world, sent, reply: problem(500, "internal") if sent.is_replay and reply.status == 200 else None),
    ("drill/proof/valid-signature-accepted",),
    "Every replay is carried out, and answered with a server error.",
    green=("drill/authentication/signed-accepted",),
)
proxy(
    "deployment/calls-over-the-limit-are-server-errors",
    after(lambda _world, _sent, reply: problem(503, LIMITED) if json_of(reply).get("code") == LIMITED else None),
    ("drill/rate-limit/fourth-refused", "drill/proof/fourth-call-refused"),
    "Every call over the limit is answered with a server error.",
)
proxy("deployment/every-run-is-found", after(finds_every_run), ("drill/lifecycle/unknown-run-is-not-found",))
proxy("deployment/every-event-is-done", after(always_done), ("drill/outbox/status-of-an-event",))
proxy("deployment/a-route-is-undocumented", after(undocumented), ("drill/identity/documented-is-served",))
