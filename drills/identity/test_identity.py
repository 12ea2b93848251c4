"""Identity: what runs is what is meant to run, on every instance, and it says honestly whether it works."""

import itertools
from collections.abc import Iterator
from functools import partial

from drills.recovery.breakage import terminate_backends
from drills.workbench.scene import Scene
from drills.workbench.traces import traces_in
from gates.checks.recorder import Observer, check
from gates.deployment.control import Control
from gates.deployment.dialect.current import current
from gates.deployment.dialect.exchange import contract_path
from gates.deployment.http.client import HttpDoor, NoAnswer
from gates.deployment.http.metrics import parse_metrics
from gates.deployment.ids import new_id
from gates.deployment.requests import FIXED_PATHS, Answer, Request
from gates.deployment.target import Target
from gates.evidence import Severity, Where

drill = partial(check, where=Where.READ_ONLY)

CONNECTIONS = 16
"""New connections, one request each: with three instances behind one address all but one run in 650 sees each."""

METRICS = Request("GET", "/metrics", label="GET /metrics")
WORKER_GONE_S = 20.0
"""A sign of life is fresh for less than that."""

DEBUG_PATHS = (
    "/debug",
    "/debug/",
    "/debug/pprof/",
    "/__debug__/",
    "/console",
    "/admin",
    "/admin/",
    "/.env",
    "/.git/HEAD",
    "/actuator",
    "/actuator/env",
    "/server-status",
    "/phpinfo.php",
    "/trace",
)


def _over_new_connections(http: HttpDoor, path: str) -> Iterator[tuple[Request, Answer]]:
    request = Request("GET", path, (("Connection", "close"),), label=f"GET {path}")
    for answer in http.several([request] * CONNECTIONS):
        yield request, answer


@drill("drill/identity/one-release-on-every-instance", covers=("O01",))
def test_one_release_on_every_instance(target: Target, http: HttpDoor, seen: Observer) -> None:
    """Every instance that answers names the same release: the one that is meant to run, if RELEASE is set.

    The gate examines the old build and promotes the new one.
    """
    releases: dict[str, int] = {}
    for request, answer in _over_new_connections(http, "/version"):
        seen.expect(request, answer, 200, control=not releases)
        release = str(answer.json().get("release"))
        releases[release] = releases.get(release, 0) + 1
    seen.value(", ".join(sorted(releases)), target.release or "one release")
    if not target.release:
        seen.severity = Severity.WARN  # RELEASE is not set: a deployment under way does no harm yet
    assert len(releases) == 1, f"the instances say different releases: {', '.join(sorted(releases))}"
    seen.severity = None
    release = next(iter(releases))
    assert release not in {"", "None"}, "/version names no release"
    assert not target.release or release == target.release, f"release {release} runs; {target.release} is meant to"


@drill("drill/identity/version-says-what-it-is", covers=("O01",), severity=Severity.WARN)
def test_version_says_what_it_is(http: HttpDoor, seen: Observer) -> None:
    """/version names release, commit and schema version, the same on every instance.

    During a half-finished deployment two releases answer under one name.
    """
    versions: set[str] = set()
    members = sorted({"release", "commit", "schema_version"} - set(current().lacking))
    for request, answer in _over_new_connections(http, "/version"):
        body = seen.expect(request, answer, 200, control=not versions).json()
        missing = [m for m in members if m not in body]
        assert not missing, f"/version does not say {missing}"
        versions.add(", ".join(f"{m} {body[m]}" for m in members))
    assert len(versions) == 1, f"the instances say {len(versions)} different versions: {'; '.join(sorted(versions))}"


@drill("drill/identity/alive-and-ready", covers=("O02",))
def test_alive_and_ready(http: HttpDoor, seen: Observer) -> None:
    """Every instance is alive and ready, without credentials.

    An instance that is not ready takes requests that it cannot answer.
    """
    for path in ("/healthz", "/readyz"):
        for request, answer in _over_new_connections(http, path):
            seen.expect(request, answer, 200, control=path == "/healthz")


@drill("drill/identity/documented-is-served", covers=("O13",), severity=Severity.WARN)
def test_documented_is_served(http: HttpDoor, seen: Observer) -> None:
    """Every route of /openapi.json is served, the contract's routes that want credentials are among them, and no other
    path answers.

    Nobody examined an undocumented route.
    """
    request = Request("GET", "/openapi.json", label="GET /openapi.json")
    paths = seen.expect(request, http.send(request), 200, control=True).json().get("paths")
    seen.require(isinstance(paths, dict) and paths, "/openapi.json has no paths")
    routes = {(m.upper(), _served(p)) for p, methods in (paths or {}).items() for m in methods if m.lower() in METHODS}
    missing = sorted(f"{m} {p}" for m, p in CONTRACT_ROUTES - routes)
    assert not missing, f"/openapi.json does not document {missing}"
    for method, path in sorted(routes):
        filled = Request(method, path.replace("{}", "00000000-0000-4000-8000-00000000dead"), label=f"{method} {path}")
        answer = http.send(filled)
        absent = answer.status == 405 or (answer.status == 404 and "{}" not in path)
        assert not absent, f"the documented {method} {path} is answered {answer.status}"
        seen.count()
    unknown = Request("GET", "/drill-no-such-route", label="GET of no route")
    seen.expect(unknown, http.send(unknown), (401, 403, 404))


METHODS = ("get", "post", "put", "patch", "delete")
CONTRACT_ROUTES = {("POST", "/dlq-replay"), ("GET", "/dlq-replay/{}"), ("POST", "/events"), ("GET", "/events/{}")}


def _served(path: str) -> str:
    """A documented path from the contract's part on, by the contract's name, with `{}` for its parameters."""
    words = ["{}" if w.startswith("{") else w for w in contract_path(path).split("/")]
    known = {path.split("/")[1] for path in FIXED_PATHS}
    start = next((i for i, w in enumerate(words) if w in known), 1)
    return "/" + "/".join(words[start:])


@drill("drill/identity/no-debug-routes", covers=("O12",), severity=Severity.WARN)
def test_no_debug_routes(http: HttpDoor, seen: Observer) -> None:
    """No debug route answers, no answer shows a stack trace, and no header names the server's version.

    Each helps an attacker to find a way in. A version in a header is only noted: a stock nginx has one.
    """
    known = Request("GET", "/healthz", label="GET /healthz")
    answers = [seen.expect(known, http.send(known), 200, control=True)]
    asked = [Request("GET", path, label=f"GET {path}") for path in DEBUG_PATHS]
    for request, answer in zip(asked, http.several(asked), strict=True):
        if answer.status < 300:  # whoever is sent elsewhere, as from `/x/` to `/x`, was shown nothing
            seen.expect(request, answer, 404)
        answers.append(answer)
    for answer in answers:
        trace = traces_in(answer.body)
        assert not trace, f"an answer {answer.status} shows a stack trace: {trace[0]}"
        seen.count()
    seen.severity = Severity.INVESTIGATE  # the contract does not forbid it
    for name, answer in itertools.product(("Server", "X-Powered-By"), answers):
        banner = answer.header(name) or ""
        assert not any(c.isdigit() for c in banner), f"the {name} header says {banner!r}"
    seen.severity = None


def _ready(target: Target) -> int:
    """The status of /readyz over a new connection; 0 for no answer."""
    try:
        with HttpDoor(target.base_url, timeout_s=5.0) as door:
            return door.send(Request("GET", "/readyz")).status
    except NoAnswer:
        return 0


@drill(
    "drill/identity/not-ready-without-database",
    needs=("database",),
    where=Where.REFERENCE,
    covers=("O02",),
    phase="last",
    deep=True,
)
def test_not_ready_without_database(scene: Scene) -> None:
    """With the database cut, /readyz says no while /healthz says yes, and a replay is refused as unavailable; when it
    is back, /readyz says yes again, and /metrics shows what it showed before.

    If readiness is always yes, requests go where none can be answered; if it stays no, the instance never recovers. A
    client that gets 500 instead of 503 does not retry. Where a scrape in an outage is the last one, nobody is alarmed.
    """
    scene.seen.require(scene.target.control, "the gate did not start this stack: its database cannot be cut")
    scene.seen.require(_ready(scene.target) == 200, "the service is not ready to begin with")
    has_gauges = _has_gauges(scene)
    scene.db.close()
    with Control(scene.target.control) as control:
        control.kill("postgres")
        cut = scene.until_true(lambda: _ready(scene.target) not in {200, 0}, within_s=6.0)
        alive = scene.http.send(Request("GET", "/healthz")).status
        scene.http.send(METRICS)  # as Prometheus, which does not wait
        scene.replay(new_id("company"), 503, "unavailable")
        assert cut, "/readyz still says 200 six seconds after the database was killed"
        assert alive == 200, f"/healthz answers {alive} without a database; due: 200, for the process is alive"
        scene.seen.count(2)
        control.restart("postgres")
        back = scene.until_true(lambda: _ready(scene.target) == 200, within_s=10.0)
        assert back, "/readyz does not say 200 ten seconds after the database is back"
        shows = not has_gauges or scene.until_true(lambda: _has_gauges(scene), within_s=10.0)
        assert shows, "/metrics shows no outbox_pending ten seconds after the database is back; it did before"
    scene.seen.control("ready before and after")


def _has_gauges(scene: Scene) -> bool:
    answer = scene.http.send(METRICS)
    return parse_metrics(answer.body, answer.header("content-type") or "").total("outbox_pending") is not None


@drill(
    "drill/identity/not-ready-without-worker",
    needs=("database",),
    where=Where.REFERENCE,
    covers=("O02",),
    phase="last",
    deep=True,
)
def test_not_ready_without_worker(scene: Scene) -> None:
    """While every worker is frozen, /readyz turns to no; when they go on, it says yes again, though their database
    sessions have ended meanwhile.

    A deployment accepts events, delivers none, and nobody notices; or it delivers, and stays out of service.
    """
    scene.seen.require(scene.target.control, "the gate did not start this stack: its workers cannot be stopped")
    scene.seen.require(_ready(scene.target) == 200, "the service is not ready to begin with")
    with Control(scene.target.control) as control:
        workers = [p.name for p in control.processes() if p.name.startswith("worker")]
        for worker in workers:
            control.freeze(worker)
        said_no = scene.until_true(lambda: _ready(scene.target) not in {200, 0}, within_s=WORKER_GONE_S)
        terminate_backends(scene, "replay_worker")
        for worker in workers:
            control.thaw(worker)
        assert said_no, f"/readyz still says 200 {WORKER_GONE_S:g} s after every worker stood still"
        scene.seen.count()
        back = scene.until_true(lambda: _ready(scene.target) == 200, within_s=10.0)
        assert back, "/readyz does not say 200 ten seconds after the workers go on"
    scene.seen.control("ready before and after")
