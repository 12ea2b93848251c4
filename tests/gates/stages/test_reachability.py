"""A target that cannot be reached ends the run in seconds, with that as the only cause."""

import dataclasses
import datetime as dt
import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gates.decision.policy_file import Settings, parse
from gates.deployment.http.client import HttpDoor
from gates.deployment.identity import server_of
from gates.deployment.sql import database
from gates.deployment.target import Target
from gates.evidence import CheckSpec, Evidence, Outcome, Severity, TargetKind, Where
from gates.evidence_file import read_lines
from gates.operator.one_stage import run_stage
from gates.proof.workbench.relay import RelayOptions, relay
from gates.proof.workbench.servers import Asked, Behaviour, Reply, raw, serve
from gates.request import RunRequest
from gates.run import run_gate
from gates.stages import preflight, reachability, suite
from gates.stages.context import Context, Progress
from gates.stages.preflight import endpoints, looks, pairing
from gates.verdict import Decision, Verdict
from tests.postgres_fixture import PASSWORD, PgServer
from tests.small_target import accepting

COMPANY = "00000000-0000-4000-8000-000000000004"
PATH = "/functions/v1"
MOST_S = 20.0
FAR_S = 0.3


def spec(check: str) -> CheckSpec:
    return CheckSpec(check, "c", "c", Severity.PAGE, Where.READ_ONLY)


STAGED = tuple(spec(i) for i in ("drill/small/main", "sql/small/data", "alert/small", "load/small"))
CATALOGUE = (*preflight.SPECS, *STAGED)


def request(folder: Path, base_url: str, database_url: str) -> RunRequest:
    """A run with every variable and no suites: a stage that begins raises an error."""
    target = Target(
        TargetKind.STAGING,
        base_url,
        hmac_secrets=("a-secret-of-the-test",),
        test_company_id=COMPANY,
        admin_jwt="e30.e30.e30",
        jwt_secret="another-secret-of-the-test",
        database_url=database_url,
        release="r1",
    )
    file = parse("version: 1\n", "gate.yaml", folder, dt.date(2026, 1, 1))

    def load(_target: Target, _out: Path) -> list[Evidence]:
        raise AssertionError("the load began")

    policy = file.policy(CATALOGUE, target.kind, target.release, deep=False)
    return RunRequest(target, policy, file.settings, folder / "out", load=load)


@pytest.fixture(autouse=True)
def _no_suites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "ROOT", tmp_path)


@contextmanager
def _nobody() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    yield f"http://127.0.0.1:{port}{PATH}"


@contextmanager
def silence() -> Iterator[int]:
    """A port that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


@contextmanager
def _silent() -> Iterator[str]:
    with silence() as port:
        yield f"http://127.0.0.1:{port}{PATH}"


def answering(
    reply: Reply, scheme: str = "http", page: Reply | None = None
) -> Callable[[], AbstractContextManager[str]]:
    """A server with one answer to everything; `page` is for /healthz."""

    @contextmanager
    def server() -> Iterator[str]:
        with serve(lambda asked: page if page and asked.path.endswith("/healthz") else reply) as url:
            yield f"{scheme}{url.removeprefix('http')}{PATH}"

    return server


@contextmanager
def _signed_by_itself() -> Iterator[str]:
    """A server with a certificate of nobody that this machine trusts."""
    key, today = ec.generate_private_key(ec.SECP256R1()), dt.datetime.now(dt.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    built = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    signed = built.not_valid_before(today).not_valid_after(today + dt.timedelta(1)).sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    kept = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with NamedTemporaryFile() as file:
        file.write(signed.public_bytes(pem) + kept)
        file.flush()
        context.load_cert_chain(file.name)
    with accepting(lambda peer, _number, _end: context.wrap_socket(peer, server_side=True)) as url:
        yield f"https{url.removeprefix('http')}{PATH}"


@contextmanager
def _of_old_tls() -> Iterator[str]:
    def refuse(peer: socket.socket, _number: int, _end: object) -> None:
        peer.recv(65_536)
        peer.sendall(bytes.fromhex("15030100020246"))

    with accepting(refuse) as url:
        yield f"https{url.removeprefix('http')}{PATH}"


@contextmanager
def _unknown_name() -> Iterator[str]:
    yield f"https://no-such-host.invalid{PATH}"


PAGE = Reply(200, (("Content-Type", "text/html; charset=utf-8"),), b"<!DOCTYPE html><title>Log in</title>")
ABSENT: dict[str, tuple[Callable[[], AbstractContextManager[str]], str]] = {
    "refused": (_nobody, "refused"),
    "unknown name": (_unknown_name, "no-such-host.invalid"),
    "silent": (_silent, "timed out"),
    "no TLS": (answering(Reply(200), "https"), "SSL"),
    "old TLS": (_of_old_tls, "TLS 1.0 or 1.1 alone"),
    "an authority of one's own": (_signed_by_itself, "name the authority's file in SSL_CERT_FILE"),
    "no HTTP": (answering(raw(b"\x00\xff no http\r\n\r\n")), "does not speak HTTP/1.1"),
    "redirect": (
        answering(Reply(302, (("Location", "https://sso.example/login?code=A#b"),))),
        "a redirect to https://sso.example/login, not followed. Check",
    ),
    "https": (
        answering(Reply(308, (("Location", f"https://h.example{PATH}"),)), page=Reply(200, (), b'{"release": "r1"}')),
        "a POST to /dlq-replay is answered 308, a redirect to https://h.example",
    ),
    "bad gateway": (answering(Reply(502, (), b"<h1>502</h1>")), "/healthz answers 502"),
    "login page": (answering(PAGE), "a web page"),
    "another place": (answering(Reply(404, (), b"Not Found")), "a POST to /dlq-replay 404"),
    "a function's own URL": (answering(Reply(405, (), b'{"code": "method_not_allowed"}')), "a POST to /dlq-replay 405"),
    "a gateway": (answering(Reply(403, (), b'{"message": "Forbidden"}')), "is answered 403, so nothing shows"),
    "another API": (answering(Reply(200, (), b"{}")), "is answered 200, so nothing shows"),
    "a port of TLS": (answering(Reply(400, (), b"<h1>plain HTTP</h1>")), "is answered 400, so nothing shows"),
    "a page alone": (answering(Reply(404), page=Reply(200)), "is answered 404, so nothing shows"),
    "no service yet": (answering(Reply(500, (), b"<h1>It works not</h1>")), "is answered 500, so nothing shows"),
}


def ended(verdict: Verdict, cause: str, words: str) -> None:
    """The run holds for one cause, and everything else is blocked by it."""
    assert verdict.decision is Decision.HOLD
    causes = [f for f in verdict.findings if not f.blocked_by]
    assert [f.check for f in causes] == [cause], [(f.check, f.message) for f in causes]
    assert verdict.reason.startswith(f"{cause} is unknown: ")
    assert words in verdict.reason
    assert {f.check for f in verdict.findings} >= {s.id for s in STAGED}
    assert (verdict.counts.failed, verdict.action.kind) == (0, "none")


@pytest.mark.parametrize("name", list(ABSENT))
def test_a_base_url_where_no_target_answers_ends_the_run(
    name: str, tmp_path: Path, migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No stage begins, nothing fails, and the one cause is the reason."""
    if name == "silent":
        monkeypatch.setattr(preflight, "TIMEOUT_S", 1.0)
    door, words = ABSENT[name]
    started = time.monotonic()
    with door() as url:
        verdict = run_gate(request(tmp_path, url, migrated_url))
    assert time.monotonic() - started < MOST_S
    ended(verdict, "preflight/target-reachable", words)


@pytest.mark.parametrize("name", ["refused", "silent", "unknown name", "wrong password", "no database"])
def test_a_database_that_does_not_answer_ends_the_run(
    name: str, tmp_path: Path, pg_server: PgServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same for SQL; the message names the server and not the password."""
    monkeypatch.setattr(looks, "LOOK_S", 3.0)
    if name == "silent":
        monkeypatch.setattr(database, "CONNECT_TIMEOUT_S", 2)
    with silence() as port, serve(fine) as url:
        login = pg_server.url("postgres", "replay_gate")
        places = {
            "refused": ("postgresql://gate:planted-password@127.0.0.1:9/x", "127.0.0.1:9/x"),
            "silent": (f"postgresql://gate:planted-password@127.0.0.1:{port}/x", "127.0.0.1"),
            "unknown name": ("postgresql://gate:planted-password@no-such-host.invalid/x", "no-such-host.invalid"),
            "wrong password": (login.replace(PASSWORD, "planted-password"), "no connection"),
            "no database": (pg_server.url("no_such_database"), "no_such_database"),
        }
        database_url, words = places[name]
        started = time.monotonic()
        verdict = run_gate(request(tmp_path, url + PATH, database_url))
    assert time.monotonic() - started < MOST_S
    ended(verdict, "preflight/database", words)
    assert "planted-password" not in (tmp_path / "out" / "verdict.json").read_text(encoding="utf-8")


def fine(_asked: object) -> Reply:
    """A healthy target."""
    return Reply(200, (("Content-Type", "application/json"),), b'{"release": "r1"}')


def test_a_stage_of_its_own_needs_only_what_it_looks_at(tmp_path: Path, migrated_url: str) -> None:
    """Without a target, `gate drill` ends at once, and `gate sql` still looks at the database."""
    with _nobody() as url:
        verdict = run_stage(request(tmp_path, url, migrated_url), "drill")
        assert verdict.decision is Decision.HOLD
        assert "blocked by preflight/target-reachable" in verdict.findings[0].message
        (tmp_path / "sql_checks").mkdir()
        run_stage(request(tmp_path, url, migrated_url), "sql")
    assert "logs" in {p.name for p in (tmp_path / "out").iterdir()}


def test_a_target_that_dies_during_a_run_ends_it_before_the_next_stage(
    tmp_path: Path, migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Later stages are blocked by the dead target, which is looked at once, not once per stage."""
    monkeypatch.setattr(reachability, "PATIENCE_S", 0.2)
    asked = request(tmp_path, "", migrated_url)
    stages: list[str] = []
    alive: list[bool] = [True]
    behaviour: Behaviour = lambda one: fine(one) if alive[0] else Reply(503)  # noqa: E731
    with serve(behaviour) as url:
        target = Target(TargetKind.STAGING, url, database_url=migrated_url)
        told: Callable[[Progress], None] = lambda one: stages.append(one.stage)  # noqa: E731
        context = Context(target, asked.settings, tmp_path, "run", CATALOGUE, progress=told)
        for name, prefix in (("drill", "drill/"), ("load", "load/"), ("data after", "sql/")):
            reports = reachability.if_reached(context, name, (prefix,), list)
            assert bool(reports) is (name != "drill")
            alive[0] = False
    lines = read_lines(context.evidence)
    assert stages == ["load", "data after"]
    assert {e.blocked_by for e in lines if e.check in {"load/small", "sql/small/data"}} == {
        "preflight/target-reachable"
    }
    assert sum(e.check == "preflight/target-reachable" for e in lines) == 1


def test_a_database_that_is_another_one_by_now_is_the_one_cause(
    tmp_path: Path, migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a pooler leads to another server during the run, that is the cause, not what is missing there."""
    monkeypatch.setattr(reachability, "PATIENCE_S", 0.1)
    with database.session(migrated_url, read_only=True) as connection:
        here = server_of(connection)
    for judged, shut in ((here, 0), (f"{here}9", 1)):
        target, settings = Target(TargetKind.STAGING, database_url=migrated_url), request(tmp_path, "", "").settings
        context = Context(target, settings, tmp_path / judged.replace("/", "-"), "run")
        context.out.mkdir()
        context.write([Evidence("preflight/database", Outcome.PASS, details={"server": judged})])
        assert [e.message for e in reachability.shut_doors(context)] == [reachability.OTHER] * shut


def test_a_target_that_is_restarted_during_a_run_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few refused looks are a restart, not the end of the run."""
    monkeypatch.setattr(reachability, "POLL_S", 0.01)
    turn = iter(range(1000))
    with serve(lambda one: Reply(503) if next(turn) < 5 else fine(one)) as url:
        settings = parse("version: 1\n", "gate.yaml", tmp_path, dt.date(2026, 1, 1)).settings
        context = Context(Target(TargetKind.STAGING, url), settings, tmp_path, "run")
        assert reachability.shut_doors(context) == []


def test_a_distant_target_is_as_far_as_one_round_trip() -> None:
    """Opening connections is no part of it. A target 300 ms away is distant, and gets more time; it is not slow."""
    answers = serve(lambda one: Reply(401 if one.method == "POST" else 200))
    with answers as near, relay(near, RelayOptions(delay_s=FAR_S)) as url, HttpDoor(url) as door:
        seen = endpoints.reachable(Target(TargetKind.STAGING, url), door)
    assert FAR_S <= float(str(seen.details[looks.TRIP_MS])) / 1000 < 2 * FAR_S


@pytest.mark.parametrize("status", [401, 404, 500])
def test_a_target_that_lacks_the_page_or_is_broken_is_there_all_the_same(status: int) -> None:
    """A broken release is reachable: the checks judge it."""
    behaviour: Behaviour = lambda one: Reply(401 if one.method == "POST" else status)  # noqa: E731
    with serve(behaviour) as url, HttpDoor(url) as door:
        seen = endpoints.reachable(Target(TargetKind.STAGING, url), door)
    assert (seen.outcome, seen.unreachable) == (Outcome.UNKNOWN, False)


@pytest.mark.parametrize(
    ("status", "body"), [(401, b""), (429, b""), (400, b'{"error": "no JSON"}'), (403, b'{"code": "forbidden"}')]
)
def test_an_api_that_refuses_a_replay_is_the_service(status: int, body: bytes) -> None:
    """It counts even without /version and with codes that are not the contract's."""
    behaviour: Behaviour = lambda one: Reply(status, (), body) if one.method == "POST" else Reply(404)  # noqa: E731
    with serve(behaviour) as url, HttpDoor(url) as door:
        seen = endpoints.recognised(Target(TargetKind.STAGING, url), door, [])
    assert seen.outcome is Outcome.PASS, seen


@pytest.mark.parametrize(
    ("status", "code", "outcome"),
    [(403, "forbidden", "unknown"), (403, "feature_disabled", "pass"), (200, "fine", "pass")],
)
def test_a_database_of_another_service_is_not_judged(
    status: int,
    code: str,
    outcome: str,
    tmp_path: Path,
    pg_server: PgServer,
    migrated_db: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If the service does not see the gate's rows, the run holds; an audit row there shows that it is its database."""
    monkeypatch.setattr(pairing, "SEEN_S", 0.0)
    drill = dataclasses.replace(STAGED[0], where=Where.SELF_CLEANING)
    answered = [(status, code)]

    def audited(request: str) -> None:
        with psycopg.connect(pg_server.url(migrated_db)) as connection:
            row = "insert into public.audit_logs (action, actor, scope, request_id)"
            connection.execute(f"{row} values ('dlq_replay_refused', 'a', 'all', %s)", (request,))

    def answer(_asked: Asked) -> Reply:
        told, code = answered[-1]
        return Reply(told, (("X-Request-Id", "one"),), json.dumps({"code": code}).encode())

    with serve(answer) as url:
        target = Target(
            TargetKind.STAGING, url, database_url=pg_server.url(migrated_db), hmac_secrets=("s" * 32,), release="r1"
        )
        context = Context(target, Settings(state=tmp_path / "state"), tmp_path, "run", (*CATALOGUE, drill))
        later = dataclasses.replace(context, target=dataclasses.replace(target, release="r2"))
        found = preflight.preflight(context)
        assert [e.check for e in found.unreachable] == (["preflight/database"] if outcome == "unknown" else [])
        answered.append((403, "forbidden"))
        assert not preflight.preflight(later, reads=True).unreachable, "SQL checks alone need no service"
        assert preflight.preflight(later).unreachable, "the service has another database now"
        audited("of-another")
        assert preflight.preflight(context).unreachable, "this very release took it before: the database is another"
        assert bool(preflight.preflight(later).unreachable) is (status != 200), "a later one is judged where it audits"
        audited("one")
        assert not preflight.preflight(context).unreachable, "it audits this refusal here"
    lines = {e.check: e for e in reversed(read_lines(context.evidence))}
    assert lines["preflight/database"].outcome.value == outcome, lines["preflight/database"]
    with psycopg.connect(pg_server.url(migrated_db)) as connection:
        left = connection.execute("select from public.companies where name like 'drill-%'").fetchall()
    assert left == []


def test_without_base_url_nobody_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No name is looked up, not even one that cannot exist: a resolver may answer it, or let the gate wait."""
    names: list[object] = []

    def look_up(name: object, *_rest: object, **_more: object) -> list[object]:
        names.append(name)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    target = request(tmp_path, "", "").target
    context = Context(target, Settings(), tmp_path, "run", catalogue=preflight.SPECS)
    preflight.preflight(context)
    assert names == []
    (line,) = [e for e in read_lines(context.evidence) if e.check == endpoints.REACHABLE.id]
    assert (line.outcome, line.message) == (Outcome.UNKNOWN, "BASE_URL is not set. Set it to where the functions live")
