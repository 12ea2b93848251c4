"""Connections to the database: few of them are taken, and no request leaves one behind."""

from collections.abc import Iterator
from functools import partial

from drills.workbench.checks import SIGNED, SQL
from drills.workbench.credentials import REPLAY
from drills.workbench.scene import Scene, new_key
from drills.workbench.waiting import PATIENCE_S
from gates.checks.recorder import Observer, check
from gates.deployment.dialect.exchange import path_of
from gates.deployment.ids import new_id
from gates.deployment.requests import Request, encode_body, post, signed_get
from gates.deployment.sql.database import Connection, value
from gates.deployment.tenants.tenants import REPLAY_FLAG
from gates.evidence import Severity, Where

drill = partial(check, severity=Severity.WARN)

AGAIN, MOST_KEPT = 16, 9
"""Requests of a kind, one after another, and connections that they may leave: a pool grows by a few."""
SESSIONS = "select numbackends from pg_stat_database where datname = current_database()"
"""Any login may read it; what others' sessions are, most may not."""


@drill("drill/observability/connections-are-bounded", needs=SQL, where=Where.READ_ONLY, covers=("O14",), phase="last")
def test_connections_are_bounded(db: Connection, seen: Observer) -> None:
    """Fewer than 80 % of the database's connections are in use.

    A pool that leaks connections takes the database down for everybody.
    """
    taken = _number(db, "select sum(numbackends) from pg_stat_database")
    most = _number(db, "select current_setting('max_connections')::int")
    seen.require(taken >= 1 and most >= 1, "pg_stat_database shows no connection, not even ours")
    seen.control("our own connection is counted")
    seen.value(taken, most * 8 // 10, "connections")
    assert taken < most * 0.8, f"{taken} of {most} connections are taken; allowed: 80 %"
    seen.count(taken)


def _number(db: Connection, statement: str) -> int:
    return int(str(value(db, statement) or 0))


def _kept(scene: Scene, request: Request, *resets: str) -> int:
    """How many more sessions there are after several such requests, each with the rate limit of these tenants anew."""
    before = scene.number(SESSIONS)
    for _ in range(AGAIN):
        scene.reset_limit(*resets)
        scene.http.send(request)
    return scene.number(SESSIONS) - before


def _is_served(scene: Scene, company: str) -> bool:
    """Whether GET of a run is answered, for which the service needs a connection of its own."""
    path = path_of(f"{REPLAY}/{new_id('run')}", company)
    return scene.http.send(signed_get(path, scene.target.hmac_secret, scene.signer.clock.now(), "a run")).status < 500


def _refused_late(scene: Scene) -> Iterator[tuple[str, Request]]:
    """Tenants, and replays of theirs that the steps after the rate limit refuse."""
    company, key = scene.company("reused"), new_key()
    scene.run(company, idempotency_key=key)
    yield company, scene.replay_request(company, "a replay under a used key", idempotency_key=key, max=7)
    if scene.claims("pause"):
        company = scene.company("paused")
        scene.pause(company)
        yield company, scene.replay_request(company, "a replay of a paused tenant")
    if scene.claims("budgets"):
        company = scene.company("spent")
        scene.budget(company, daily_limit=1, daily_used=1, monthly_used=1)
        yield company, scene.replay_request(company, "a replay without budget")
    if scene.claims("flags"):
        company = scene.company("off")
        scene.set_flag(company, REPLAY_FLAG, enabled=False)
        yield company, scene.replay_request(company, "a replay that is switched off")


# alone: whatever else is asked of a service opens connections, too
@drill("drill/observability/requests-keep-no-connection", needs=SQL, after=SIGNED, covers=("O14",), phase="last")
def test_requests_keep_no_connection(scene: Scene) -> None:
    """Requests, admitted or refused at any step, and reads leak no database connections when they are repeated, and do
    not use up the service's own.

    Anyone who sends them uses up the connections: then the database refuses everybody, though a load of usual requests
    shows nothing.
    """
    company = scene.company()
    run, event = scene.run(company)["replay_run_id"], new_id("event")
    scene.seen.require(scene.number(SESSIONS) > 0, "pg_stat_database shows no connection, not even ours")
    scene.seen.control("our own connection is counted")
    paths = (
        *(f"{REPLAY}/{one}" for one in (run, new_id("run"))),
        *(f"/events/{one}" for one in (event, new_id("event"))),
    )
    kinds = [
        scene.event_request(company, event_id=event).labelled("an event that is sent again"),
        scene.signer.post(REPLAY, b" " * 70_000, "a replay that is too large"),
        scene.signer.post(REPLAY, encode_body({"company_id": 7}), "an invalid replay"),
        scene.replay_request(new_id("company"), "a replay of nobody"),
        scene.signer.post("/events", encode_body({"company_id": company}), "an invalid event"),
        post(REPLAY, encode_body({"company_id": company})).labelled("a replay without credentials"),
        *(
            signed_get(path_of(path, company), scene.target.hmac_secret, scene.signer.clock.now(), f"GET {path}")
            for path in paths
        ),
        *(Request("GET", path, label=f"GET {path}") for path in ("/healthz", "/readyz", "/version", "/metrics")),
    ]
    admitted = (
        (company, scene.replay_request(company, "a dry run", dry_run=True)),
        (company, scene.replay_request(company, "a replay")),
        ("", scene.replay_request(company, "a replay until it is limited")),
    )
    for tenant, request in (*(("", kind) for kind in kinds), *admitted, *_refused_late(scene)):
        resets = (tenant,) if tenant else ()
        kept = _kept(scene, request, *resets)
        if kept > MOST_KEPT:  # others may use the service, too
            kept = _kept(scene, request, *resets)
        assert kept <= MOST_KEPT, (
            f"{AGAIN} times {request.label}, one after another, left {kept} more connections to the database, again and"
            f" again; at most {MOST_KEPT} are due"
        )
        assert scene.until_true(partial(_is_served, scene, company), within_s=PATIENCE_S), (
            f"after {AGAIN} times {request.label}, one after another, GET of a run is answered with 5xx, for"
            f" {PATIENCE_S:g} s"
        )
        scene.seen.count()
