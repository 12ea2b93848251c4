"""Deployments that differ from the usual one and are right. The gate may hold, but must never roll back one of them."""

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial, reduce
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gates.evidence import TargetKind
from gates.proof.healthy import before, beside, servers
from gates.proof.healthy.before import Prepare, prepares
from gates.proof.healthy.servers import Around, Stand
from gates.proof.healthy.statements import MORE_COLUMNS, OF_SQL, PARTED, database
from gates.proof.workbench import pooler, programs
from gates.proof.workbench.bench import READY_TIMEOUT_S, ProofBench
from gates.proof.workbench.relay import RelayOptions
from gates.proof.workbench.servers import Asked, Reply, serve
from gates.stack.postgres import connect
from gates.stack.service import SOURCE_ROOT, Supervised
from gates.stack.stack import Stack

SLOW_S, FAR_S = 0.06, 0.02
"""The delay of every answer. The tightest limit of the load is a p95 of some hundred milliseconds."""
BACKLOG_ROWS = 30_000
SKEW_S = 1.0
RETRIED = "order.retried"


@contextmanager
def _as_it_is(_bench: ProofBench) -> Iterator[Mapping[str, str]]:
    yield {}


@contextmanager
def _nowhere() -> Iterator[Around]:
    yield Around()


def _nothing() -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Variant:
    """A healthy deployment.

    options: of its stack. stand: its surroundings. prepare: changes it and returns more variables for the gate. under:
    words before the gate's command. policy: more lines of gate.yaml. own_manifest: the policy has a manifest of this
    deployment's schema. lacking: why this machine cannot have it. fills_the_machine: nothing else is measured at the
    same time.
    """

    name: str
    said: str
    options: Mapping[str, Any] = field(default_factory=dict)
    prepare: Prepare = _as_it_is
    kind: TargetKind = TargetKind.STAGING
    stand: Stand = _nowhere
    under: tuple[str, ...] = ()
    policy: str = ""
    own_manifest: bool = False
    lacking: Callable[[], str] = _nothing
    fills_the_machine: bool = False


@prepares
def _by_sql(bench: ProofBench, *statements: str) -> Iterator[Mapping[str, str]]:
    for statement in statements:
        bench.execute(statement)
    yield {}


@contextmanager
def _with_more(bench: ProofBench) -> Iterator[Mapping[str, str]]:
    bench.execute(MORE_COLUMNS)
    with beside.figures(bench.stack):
        yield {}


@prepares
def _beside(
    bench: ProofBench, situation: Callable[[Stack], AbstractContextManager[None]]
) -> Iterator[Mapping[str, str]]:
    with situation(bench.stack):
        yield {}


@prepares
def _stepped(bench: ProofBench, start: int) -> Iterator[Mapping[str, str]]:
    """The gate itself made the flag's last step, from the given percentage."""
    bench.execute(f"update public.feature_flags set rollout_percentage = {start} where key = 'outbox.enabled'")
    step = programs.gate(("flags", "step", "outbox.enabled", "--reason", "a healthy variant"), bench.variables())
    programs.must_succeed(step, bench.variables())
    yield {}


@contextmanager
def _cold(bench: ProofBench) -> Iterator[Mapping[str, str]]:
    for process in bench.stack.processes:
        process.restart()
    bench.stack.recompose((), (), {})
    yield {}


@prepares
def _skewed(bench: ProofBench, seconds: float) -> Iterator[Mapping[str, str]]:
    for process in bench.stack.processes:
        if isinstance(process, Supervised):
            process.restart(seconds)
    bench.stack.note_processes()
    bench.stack.wait_ready(READY_TIMEOUT_S)
    yield {}


@prepares
def _anew(
    bench: ProofBench, statement: str, told: Mapping[str, str], gate: Mapping[str, str]
) -> Iterator[Mapping[str, str]]:
    """The statement, then a restart of service and workers with more variables, and more variables for the gate."""
    bench.execute(statement)
    bench.stack.recompose((), (), told)
    yield gate


@contextmanager
def _backlog(bench: ProofBench) -> Iterator[Mapping[str, str]]:
    with connect(bench.stack.info.database_url) as connection:
        connection.execute(
            "insert into public.event_outbox (company_id, event_type, inserted_at) "
            "select %s, 'order.paid', now() - interval '20 seconds' from generate_series(1, %s)",
            (bench.stack.info.company_id, BACKLOG_ROWS),
        )
    yield {}


@contextmanager
def _retrying(bench: ProofBench) -> Iterator[Mapping[str, str]]:
    """An HTTP agent that refuses the first attempt of a neighbour's events and accepts the second."""

    def agent(asked: Asked) -> Reply:
        event = json.loads(asked.body or b"{}")
        first = event.get("event_type") == RETRIED and event.get("attempt") == 1
        return Reply(503) if first else Reply(200)

    with serve(agent) as base:
        told = {"AGENT": "http", "AGENT_URL": f"{base}/events", "AGENT_SECRET": "proof-" * 6}
        bench.stack.recompose((), (), told)
        with beside.neighbour(bench.stack, RETRIED, 0.5):
            yield {}


NAMES = {"dead_letter_queue": "failed_jobs", "edge_rate_limits": "call_windows", "aggregate_key": "ordering_key"}
"""Other names of a deployment, in its database and in bodies alike."""
MAPPING = """
names:
  tables:
    dead_letter_queue: {is: failed_jobs, columns: {aggregate_key: ordering_key}}
    event_outbox: {columns: {aggregate_key: ordering_key}}
    events: {columns: {aggregate_key: ordering_key}}
    edge_rate_limits: {is: call_windows}
  roles: {authenticated: app_user}
  http:
    headers: {X-Transbot-Signature: X-Hub-Signature-256}
    fields: {aggregate_key: ordering_key}
    codes: {budget_exhausted: NO_BUDGET_LEFT, rate_limited: SLOW_DOWN}
"""


@contextmanager
def _sources(change: Callable[[str], str], *, history: bool) -> Iterator[Around]:
    """The sources of the reference with one text replaced."""
    with TemporaryDirectory(prefix="proof-sources-") as folder:
        made = Path(folder) / "replay_service"
        shutil.copytree(SOURCE_ROOT / "replay_service", made, ignore=shutil.ignore_patterns("__pycache__"))
        for path in made.rglob("*.*"):
            path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
        yield Around({"source": Path(folder), "history": history})


def _with_parts(text: str) -> str:
    return reduce(lambda so_far, edit: re.sub(edit[0], edit[1], so_far), PARTED, text)


_renamed = partial(_sources, partial(re.compile("|".join(NAMES)).sub, lambda found: NAMES[found[0]]), history=False)
_partitioned = partial(_sources, _with_parts, history=True)


def _sign_as_named(asked: Asked) -> Asked:
    headers = tuple(("X-Transbot-Signature" if k.lower() == "x-hub-signature-256" else k, v) for k, v in asked.headers)
    return Asked(asked.method, asked.path, headers, asked.body)


def _code_as_named(reply: Reply) -> Reply:
    body = reply.body.replace(b'"budget_exhausted"', b'"NO_BUDGET_LEFT"').replace(b'"rate_limited"', b'"SLOW_DOWN"')
    return Reply(reply.status, reply.headers, body)


@contextmanager
def _other_names(bench: ProofBench) -> Iterator[Mapping[str, str]]:
    bench.execute("alter role authenticated rename to app_user")
    with before.through_a_proxy(_code_as_named, _sign_as_named)(bench) as told:
        yield told


FULL = "busy-machine"
BESIDE: Mapping[str, tuple[str, Callable[[Stack], AbstractContextManager[None]]]] = {
    "busy-neighbour": ("another tenant emits twenty events a second", beside.neighbour),
    "users": (f"{beside.USERS} tenants emit events and ask for replays", beside.users),
    "vacuum": ("every table is vacuumed, twice a second", beside.vacuum),
    "housekeeping": (
        "old rows are cleared away, the outbox is indexed anew, a flag is stepped, a tenant paused",
        beside.housekeeping,
    ),
    "long-reader": ("a report holds one snapshot all the time", beside.reader),
    FULL: ("two programs compute all the time", lambda stack: beside.spinning(stack, count=2)),
}
"""Name -> what it is, and what goes on meanwhile."""
BEFORE: Mapping[str, tuple[str, Prepare]] = {
    "port-forward": ("behind a relay, which hides where calls come from", before.through_a_relay(RelayOptions())),
    "short-keep-alive": (
        f"connections end after {before.IDLE_S} idle seconds",
        before.through_a_relay(RelayOptions(tap=before.Impatient)),
    ),
    "slow": (f"every answer {SLOW_S * 1000:.0f} ms later", before.through_a_relay(RelayOptions(delay_s=SLOW_S))),
    "far-database": (
        f"every answer of the database {FAR_S * 1000:.0f} ms later",
        before.sql_through_a_relay(RelayOptions(delay_s=FAR_S)),
    ),
    "ipv6": ("at an IPv6 address", before.through_a_relay(RelayOptions("::1"))),
    "header-case": ("headers in other cases, unknown ones, two request ids", before.through_a_proxy(before.other_case)),
    "packed": ("answers in gzip", before.through_a_proxy(before.packed)),
    "read-late": (f"reads by a replica that is {before.READ_LATE_S:g} s behind", before.read_late),
    "unknown-members": ("unknown members in every answer", before.through_a_proxy(before.with_a_member)),
    "json-spelling": (
        "members in reverse order, indented, UUIDs in capitals",
        before.through_a_proxy(before.spelled_otherwise),
    ),
    "chunks": ("answers in chunks after a 100, a connection each", before.through_a_proxy(before.in_chunks)),
    "openmetrics": ("metrics in OpenMetrics, with the series of a library", before.through_a_proxy(before.openmetrics)),
    "rare-gauges": (
        f"tables are counted for the metrics every {before.RARELY_S:.0f} s",
        before.through_a_proxy(before.RareGauges()),
    ),
    "longer-path": ("under a longer path", before.through_a_proxy(lambda reply: reply, prefix="/tenants/eu-1/api")),
}
"""Name -> what it is, and what is in front of it."""

VARIANTS: tuple[Variant, ...] = (
    Variant("plain", "the reference as it is"),
    Variant("production", "a production target, by the gate's own login", kind=TargetKind.PRODUCTION),
    Variant(
        "few-connections",
        "the gate's login may have twenty connections",
        prepare=_by_sql("alter role replay_gate connection limit 20"),
        kind=TargetKind.PRODUCTION,
    ),
    Variant("cold", "PostgreSQL and the service have just started", prepare=_cold),
    Variant("empty", "a database without history", {"history": False}),
    Variant("backlog", f"{BACKLOG_ROWS} events wait, and drain", prepare=_backlog),
    Variant("three-instances", "three instances and two workers", {"instances": 3, "workers": 2}),
    Variant("clock-skew", "the service's clocks are one second ahead", prepare=_skewed(SKEW_S)),
    Variant("clock-behind", "the service's clocks are one second behind", prepare=_skewed(-SKEW_S)),
    Variant(
        "time-zones",
        "database, service and gate each in a time zone of its own",
        prepare=_anew(
            database("timezone = ''Asia/Kathmandu''"), {"TZ": "Pacific/Kiritimati"}, {"TZ": "America/St_Johns"}
        ),
    ),
    Variant(
        "ascii-locale",
        "service and gate in a locale without UTF-8",
        prepare=_anew(
            database("lc_messages = ''C''"),
            {"LC_ALL": "POSIX", "LANG": "C"},
            {"LC_ALL": "POSIX", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        ),
    ),
    Variant(
        "four-at-once",
        "workers that deliver at most four scripted events or replayed items at once",
        prepare=_anew("select 1", {"WORKER_SLOTS": "4"}, {}),
    ),
    Variant("retrying-agent", "an agent that fails a neighbour's events once", prepare=_retrying),
    Variant(
        "rolling-restart",
        "one of two instances after the other is restarted in the middle",
        {"instances": 2, "workers": 2},
        _beside(beside.restart),
    ),
    Variant(
        "nice",
        "a gate that runs when nobody else wants to, on a busy machine",
        prepare=_beside(lambda stack: beside.spinning(stack, count=2)),
        under=("nice", "-n", "19"),
        fills_the_machine=True,
    ),
    Variant(
        "half-a-processor",
        "a gate that shares one processor with a program that computes all the time",
        prepare=_beside(lambda stack: beside.spinning(stack, "taskset", "-c", "0")),
        under=("taskset", "-c", "0"),
        fills_the_machine=True,
        lacking=lambda: "" if shutil.which("taskset") else "taskset is not installed",
    ),
    *(
        Variant(
            f"pooled-by-{mode}",
            f"the gate's login goes through pgbouncer, which lends by {mode}",
            prepare=before.through_a_pooler(mode),
            kind=TargetKind.PRODUCTION,
            lacking=pooler.lacking,
        )
        for mode in ("transaction", "session")
    ),
    *(
        Variant(
            f"service-pooled-by-{mode}",
            f"service and worker go through pgbouncer, which lends by {mode}",
            options={"pooler": partial(pooler.temporary_pgbouncer, mode=mode, everybody=True)},
            lacking=pooler.lacking,
        )
        for mode in ("transaction", "session")
    ),
    *(
        Variant(
            f"postgresql-{number}",
            f"a guest on a server of PostgreSQL {number}",
            stand=partial(servers.version, number),
            lacking=partial(servers.lacking, number),
        )
        for number in (15, 16, 17)
    ),
    *(
        Variant(
            f"clock-set-{name}",
            f"the database's clock is set {said}",
            stand=partial(servers.stepping, seconds, after_s),
            lacking=servers.no_faketime,
        )
        for name, said, seconds, after_s in (
            ("back", "ten minutes back in the middle", -600.0, servers.AT_WORK_S),
            ("on", "two minutes on in the middle", 120.0, servers.AT_WORK_S),
            ("back-before", "ten minutes back when the run begins", -600.0, 0.0),
        )
    ),
    Variant("replica-behind", f"a replica is {servers.BEHIND_S} s behind", stand=partial(servers.replica, asked=False)),
    Variant(
        "replica-asked",
        f"the gate asks a replica that is {servers.BEHIND_S} s behind",
        stand=partial(servers.replica, asked=True),
    ),
    Variant(
        "other-names",
        "tables, columns, a role, a header and codes have other names, which gate.yaml maps",
        prepare=_other_names,
        stand=_renamed,
        policy=MAPPING,
        own_manifest=True,
    ),
    Variant(
        "more-columns",
        "tables have columns, indexes, keys and triggers of the deployment's own, which its manifest has, and beside"
        " them stand a schema that the gate's login may not use, a publication of all tables, and a row for each tenant"
        " that a job makes anew; each new tenant is recorded, and is an event",
        prepare=_with_more,
        kind=TargetKind.PRODUCTION,
        own_manifest=True,
    ),
    Variant(
        "partitioned",
        "dead letters and trail in partitions, runs with texts for ids",
        stand=_partitioned,
        own_manifest=True,
    ),
    Variant(
        "round-robin",
        "three instances in turns, behind a proxy that takes a body only where it has a meaning",
        {"instances": 3, "workers": 2},
        before.in_turns,
    ),
    Variant("at-50", "the flag is at its second step", prepare=_stepped(10)),
    Variant("at-100", "the flag is at its last step", prepare=_stepped(50)),
    *(Variant(name, said, prepare=_by_sql(*statements)) for name, (said, statements) in OF_SQL.items()),
    *(
        Variant(name, said, prepare=_beside(situation), fills_the_machine=name == FULL)
        for name, (said, situation) in BESIDE.items()
    ),
    *(Variant(name, said, prepare=prepare) for name, (said, prepare) in BEFORE.items()),
)
