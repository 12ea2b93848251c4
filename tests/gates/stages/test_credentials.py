"""A wrong credential of the gate is no harm; the refusal of one that was accepted before is."""

import contextlib
import dataclasses
import datetime as dt
import hashlib
import itertools
import json
import time
from pathlib import Path

import pytest

from gates.checks.observation import Blocked
from gates.contract.names import names_of
from gates.decision.policy_file import Settings
from gates.deployment.credentials import CheckedTarget, good_claims, unfit
from gates.deployment.dialect.current import use
from gates.deployment.http import probes
from gates.deployment.http.client import HttpDoor
from gates.deployment.redaction import hidden
from gates.deployment.requests import SIGNATURE, claims_of, mint_token, raw_token
from gates.deployment.target import Target
from gates.evidence import CheckSpec, Evidence, Outcome, Severity, TargetKind, Where
from gates.evidence_file import read_lines
from gates.proof.workbench.servers import Asked, Behaviour, Reply, serve
from gates.stages import preflight
from gates.stages.context import Context
from gates.stages.load import load
from gates.stages.preflight import credentials, endpoints
from gates.stages.preflight.credentials import CredentialDoor, Memory
from tests.gates.stages.credential_service import A_DAY_S, JWT_SECRET, OLDER, REFUSED, SECRET, WRONG, Service, admin

NAMES = ("signing-secret", "admin-token", "token-secret")
LOADED = CheckSpec("load/small", "c", "c", Severity.PAGE, Where.READ_ONLY)

GOOD = Target(TargetKind.STAGING, hmac_secrets=(SECRET,), admin_jwt=admin(), jwt_secret=JWT_SECRET, test_company_id="c")


def looked(folder: Path, service: Behaviour, target: Target = GOOD) -> dict[str, Evidence]:
    """The preflight's evidence on the three credentials."""
    with serve(service) as url:
        # one address for the memory, whatever port the small server has
        context = Context(dataclasses.replace(target, base_url=f"{url}/functions/v1"), Settings(), folder, "run")
        context = dataclasses.replace(context, catalogue=preflight.SPECS)
        evidence = len(read_lines(context.evidence))
        preflight.preflight(context)
    lines = read_lines(context.evidence)[evidence:]
    found = {e.check.removeprefix("preflight/credentials/"): e for e in lines}
    return {name: found[name] for name in NAMES}


def outcomes(found: dict[str, Evidence]) -> list[str]:
    return [found[name].outcome.value for name in NAMES]


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A memory that takes every port of the small server for the same target."""
    path = tmp_path / "state" / "credentials.json"
    monkeypatch.setattr(preflight, "_memory", lambda _context: Memory(path, "the-target"))
    return path


def test_good_credentials_pass_and_leave_nothing_behind(tmp_path: Path) -> None:
    """All three are accepted, by GET or by a body that no endpoint can act on."""
    service = Service()
    found = looked(tmp_path, service)
    assert outcomes(found) == ["pass"] * 3, found
    assert set(service.posted) <= {probes.IMPOSSIBLE, b""}


@pytest.mark.parametrize("has_get", [True, False])
def test_a_service_that_acts_upon_any_json_is_not_made_to_act(has_get: bool, tmp_path: Path) -> None:
    """The probe's body is no JSON object: where everything has a default, `{}` would replay all."""
    service, replayed = Service(), list[bytes]()

    def eager(asked: Asked) -> Reply:
        path = "/" + asked.path.partition("/v1/")[2]
        if asked.method == "GET" and path.startswith("/dlq-replay") and not has_get:
            return Reply(404)
        found = service(asked)
        with contextlib.suppress(ValueError):
            if asked.method == "POST" and found.status != 401 and isinstance(json.loads(asked.body), dict):
                replayed.append(asked.body)
        return found

    found = looked(tmp_path, eager)
    assert outcomes(found) == ["pass"] * 3, found
    assert replayed == []


def test_a_404_that_the_deployment_calls_forbidden_is_no_acceptance(tmp_path: Path) -> None:
    """The status that came is judged, not the contract's code to which the policy maps it."""
    read = names_of({"http": {"codes": {"forbidden": ["not_found", 404]}}})
    body = b'{"code": "not_found"}'
    use(read)
    answers = serve(lambda a: REFUSED if a.method == "POST" else Reply(404, (), body))
    with answers as url, HttpDoor(f"{url}/functions/v1") as door:
        desk = CredentialDoor(GOOD, door, frozenset({"POST"}), int(time.time()))
        assert not desk.takes(probes.signed(SECRET, desk.now))
        assert not dataclasses.replace(desk, guarded=frozenset()).takes(probes.signed(SECRET, desk.now))


@pytest.mark.parametrize(
    ("target", "expected", "words"),
    [
        (dataclasses.replace(GOOD, hmac_secrets=(WRONG,)), ["unknown", "pass", "pass"], "match the service's?"),
        (dataclasses.replace(GOOD, hmac_secrets=(WRONG, SECRET)), ["unknown", "pass", "pass"], "number 2 is accepted"),
        (dataclasses.replace(GOOD, hmac_secrets=(OLDER, SECRET)), ["pass", "pass", "pass"], ""),
        (dataclasses.replace(GOOD, admin_jwt=admin(exp=5)), ["pass", "unknown", "pass"], "ADMIN_JWT has expired (1970"),
        (
            dataclasses.replace(GOOD, admin_jwt=admin(nbf=int(time.time()) + A_DAY_S)),
            ["pass", "unknown", "pass"],
            "not valid yet (nbf",
        ),
        (
            dataclasses.replace(GOOD, admin_jwt=admin(aud="other"), jwt_audience="us"),
            ["pass", "unknown", "pass"],
            "REPLAY_JWT_AUDIENCE",
        ),
        (
            dataclasses.replace(GOOD, admin_jwt=admin(iss="other"), jwt_issuer="us"),
            ["pass", "unknown", "pass"],
            "REPLAY_JWT_ISSUER",
        ),
        (dataclasses.replace(GOOD, admin_jwt="not-a-token"), ["pass", "unknown", "pass"], "is no token"),
        (dataclasses.replace(GOOD, admin_jwt=admin("x" * 32)), ["pass", "unknown", "pass"], "was not signed"),
        (dataclasses.replace(GOOD, jwt_secret="y" * 32), ["pass", "pass", "unknown"], "Does REPLAY_JWT_SECRET match"),
    ],
)
def test_a_wrong_credential_of_ours_is_unknown(target: Target, expected: list[str], words: str, tmp_path: Path) -> None:
    """The message says which credential is wrong and why, and never shows its value."""
    found = looked(tmp_path, Service(), target)
    assert outcomes(found) == expected, found
    assert words in "".join(e.message for e in found.values())
    assert not any(s in (tmp_path / "evidence.ndjson").read_text() for s in (WRONG, SECRET, "y" * 32))


@pytest.mark.parametrize(
    "service",
    [
        Service(v1=False),
        Service(v2=False),
        Service(broken=("/dlq-replay",)),
        Service(broken=("/events",)),
        Service(validates_first=True),
        Service(guarded=False),
        Service(clock_ahead_s=4000, v1=False),
    ],
)
def test_one_accepted_signature_shows_that_the_secret_is_right(service: Service, tmp_path: Path) -> None:
    """One accepted form proves the secret; what else the release broke is for the drills to judge."""
    assert looked(tmp_path, service)["signing-secret"].outcome is Outcome.PASS


def test_a_service_that_validates_before_it_authenticates_does_not_hide_a_wrong_secret(tmp_path: Path) -> None:
    """A 400 that everybody gets is no acceptance."""
    target = dataclasses.replace(GOOD, hmac_secrets=(WRONG,))
    assert looked(tmp_path, Service(validates_first=True), target)["signing-secret"].outcome is Outcome.UNKNOWN


@pytest.mark.parametrize("status", [404, 405, 501, 503])
def test_an_endpoint_that_is_not_there_is_unknown(status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No credential can be proved there. A busy one (503) is asked again, and the message counts the calls."""
    monkeypatch.setattr(credentials, "AGAIN_S", 0.01)
    service = Service()

    def half(asked: Asked) -> Reply:
        return Reply(status) if asked.path.endswith("/dlq-replay") else service(asked)

    found = looked(tmp_path, half)
    assert outcomes(found) == ["unknown"] * 3
    asked = " to 3 of 3 calls over 0." if status == 503 else ""
    assert all(f"/dlq-replay answers {status}{asked}" in e.message for e in found.values())


@pytest.mark.parametrize(
    ("before", "after", "outcome"),
    [(503, 503, "fail"), (503, 400, "fail"), (503, 401, "unknown"), (401, 401, "unknown")],
)
def test_a_target_that_is_too_busy_to_take_a_credential_is_loaded(
    before: int, after: int, outcome: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Overload fails; a 401 before or after the load may be the gate's own fault, so it is unknown."""
    monkeypatch.setattr(endpoints, "READY_PATIENCE_S", 0.3)  # it never is ready
    monkeypatch.setattr(credentials, "AGAIN_S", 0.01)
    status = before

    def busy(asked: Asked) -> Reply:
        path = "/" + asked.path.partition("/v1/")[2]
        bare = status == 400 and not asked.header(SIGNATURE) and not asked.header("Authorization")
        return Service()(asked) if path == "/healthz" else Reply(401 if bare else status)

    def loaded(target: Target, _out: Path) -> list[Evidence]:
        nonlocal status
        status = after
        return [Evidence(LOADED.id, Outcome.FAIL, "every request failed", samples=100, release=target.release)]

    with serve(busy) as url:
        target = dataclasses.replace(GOOD, base_url=f"{url}/functions/v1")
        context = Context(target, Settings(), tmp_path, "run", (*preflight.SPECS, LOADED))
        preflight.preflight(context)
        load(context, loaded)
    (found,) = [e for e in read_lines(context.evidence) if e.check == LOADED.id]
    assert found.outcome.value == outcome


def test_a_target_that_was_the_service_before_is_judged_whatever_it_answers(tmp_path: Path) -> None:
    """A target that answers 500 to all is unreachable, unless the gate knows it as the service."""

    def doors(folder: Path) -> list[object]:
        with serve(lambda _asked: Reply(500)) as url:
            folder.mkdir()
            target = dataclasses.replace(GOOD, base_url=f"{url}/functions/v1")
            found = preflight.preflight(Context(target, Settings(), folder, "run", preflight.SPECS))
        return [e.check for e in found.unreachable]

    assert doors(tmp_path / "before") == ["preflight/target-reachable"]
    looked(tmp_path, Service())
    assert doors(tmp_path / "after") == []


def test_a_credential_that_was_accepted_before_and_is_refused_is_harm(tmp_path: Path, memory: Path) -> None:
    """An earlier release took this very credential. Others, and expired ones, stay unknown."""
    assert outcomes(looked(tmp_path, Service(release="r0"))) == ["pass"] * 3
    broken = Service(broken=("/dlq-replay", "/events", f"/dlq-replay/{0}"), secrets=(), jwt_secret="other")
    found = looked(tmp_path, broken)
    assert outcomes(found) == ["fail"] * 3
    today = dt.datetime.now(dt.UTC).strftime("%Y-%m-%d")
    assert f"accepted it on {today}" in found["signing-secret"].message
    other = dataclasses.replace(GOOD, hmac_secrets=(WRONG,), admin_jwt=admin(jti="other"), jwt_secret="y" * 32)
    assert outcomes(looked(tmp_path, broken, other)) == ["unknown"] * 3
    spent = dataclasses.replace(GOOD, admin_jwt=admin(exp=5))
    assert looked(tmp_path, broken, spent)["admin-token"].outcome is Outcome.UNKNOWN


def test_a_rotation_of_secrets_that_the_gate_has_not_heard_of_is_no_harm(tmp_path: Path) -> None:
    """The same release took the old secret, or the target took a newer one since. A new audience is no rotation."""
    assert outcomes(looked(tmp_path, Service())) == ["pass"] * 3
    rotated = Service(secrets=(WRONG,), jwt_secret="y" * 32)
    found = looked(tmp_path, rotated)
    assert outcomes(found) == ["unknown"] * 3
    assert "that was the same release. Was the secret rotated?" in found["signing-secret"].message
    renewed = dataclasses.replace(GOOD, hmac_secrets=(WRONG,), admin_jwt=admin("y" * 32), jwt_secret="y" * 32)
    assert outcomes(looked(tmp_path, rotated, renewed)) == ["pass"] * 3
    rotated.release = "r2"
    found = looked(tmp_path, rotated)
    assert outcomes(found) == ["unknown"] * 3
    assert "it accepted another one since" in found["token-secret"].message
    foreign = dataclasses.replace(renewed, jwt_audience="of-another-service")
    rotated.audience = "of-this-service"
    found = looked(tmp_path, rotated, foreign)
    assert found["token-secret"].outcome is Outcome.UNKNOWN, "a token for somebody else is another credential"


def in_turns(*services: Service) -> Behaviour:
    """Instances that answer in turns."""
    turns = itertools.cycle(services)

    def answer(asked: Asked) -> Reply:
        return next(turns)(asked)

    return answer


@pytest.mark.parametrize(
    ("other", "unlike"),
    [
        (Service(secrets=(WRONG,)), ["fail", "pass", "pass"]),
        (Service(jwt_secret="y" * 32), ["pass", "fail", "fail"]),
        (Service(v2=False), ["fail", "pass", "pass"]),
        (Service(), ["pass", "pass", "pass"]),
    ],
)
def test_instances_that_disagree_on_a_credential_lock_callers_out(
    other: Service, unlike: list[str], tmp_path: Path
) -> None:
    """What one instance accepts and the other refuses is a failure, not luck."""
    fails = False
    for number in range(2):  # whichever instance is asked first
        services = (Service(), other) if number else (other, Service())
        found = looked(tmp_path, in_turns(*services))
        fails = fails or outcomes(found) == unlike
        told = [f.message for f in found.values() if f.outcome is Outcome.FAIL]
        assert all("right for some instances and wrong for others" in message for message in told)
    assert fails


def test_a_secret_that_is_rotated_meanwhile_is_no_disagreement(tmp_path: Path) -> None:
    """A second look finds all instances agreed."""
    service, calls = Service(), itertools.count()

    def rotated(asked: Asked) -> Reply:
        if asked.header(SIGNATURE) and next(calls) == 6:
            service.secrets = (WRONG,)
        return service(asked)

    assert looked(tmp_path, rotated)["signing-secret"].outcome is not Outcome.FAIL


def test_the_memory_holds_no_secret_and_no_plain_digest_and_damage_is_no_memory(tmp_path: Path, memory: Path) -> None:
    """Fingerprints are keyed by credential, target and mapping; a damaged file counts as empty."""
    looked(tmp_path, Service())
    text = memory.read_text(encoding="utf-8")
    for secret in (SECRET, JWT_SECRET, GOOD.admin_jwt):
        assert secret not in text
        assert hashlib.sha256(secret.encode()).hexdigest() not in text
    assert memory.stat().st_mode & 0o077 == 0
    kind = "preflight/credentials/signing-secret"
    assert Memory(memory, "the-target").accepted(kind, SECRET)
    assert not Memory(memory, "another-target").accepted(kind, SECRET)
    assert not Memory(memory, "the-target").accepted(kind, WRONG)
    # what was read by one mapping says nothing by another
    use(names_of({"http": {"codes": {"forbidden": ["not_found", 404]}}}))
    assert not Memory(memory, "the-target").accepted(kind, SECRET)
    for damage in ("", "[]", "{", '{"a": 1}', json.dumps({kind: {"x": None}}), "[" * 100_000):
        memory.write_text(damage, encoding="utf-8")
        assert not Memory(memory, "the-target").accepted(kind, SECRET)
        Memory(memory, "the-target").note(kind, SECRET, "r1")
        assert Memory(memory, "the-target").accepted(kind, SECRET)


def test_an_unguarded_target_leaves_no_memory(tmp_path: Path, memory: Path) -> None:
    """A target that accepts anybody has not proved the credential."""
    looked(tmp_path, Service(guarded=False))
    assert not memory.exists()


def test_a_reference_that_refuses_what_the_gate_gave_it_does_harm(tmp_path: Path) -> None:
    """The gate started the service with this secret, so no memory is needed."""
    target = dataclasses.replace(GOOD, kind=TargetKind.REFERENCE, control="/run/control.sock")
    assert looked(tmp_path, Service(secrets=()), target)["signing-secret"].outcome is Outcome.FAIL


def test_what_is_not_given_is_blocked_by_the_variables(tmp_path: Path) -> None:
    """Missing credentials add no cause to the one that names the variables."""
    found = looked(tmp_path, Service(), Target(TargetKind.STAGING))
    assert {(e.outcome, e.blocked_by) for e in found.values()} == {(Outcome.UNKNOWN, "preflight/variables")}


def test_a_drill_cannot_use_a_refused_credential(tmp_path: Path) -> None:
    """Reading it blocks the check; other credentials work, and evidence stays redacted."""
    target = CheckedTarget.of(GOOD, {"hmac_secrets": Blocked("preflight/credentials/signing-secret")})
    for read in (lambda: target.hmac_secret, lambda: target.hmac_secrets):
        with pytest.raises(Blocked, match="signing-secret"):
            read()
    assert target.admin_jwt == GOOD.admin_jwt
    assert hidden(target) == hidden(GOOD)


@pytest.mark.parametrize(
    ("token", "words"),
    [
        (admin(exp=0), "expired"),
        (admin(iat=int(time.time()) + A_DAY_S), "iat"),
        (mint_token("s", {"sub": "a", "role": "super_admin"}), "no claim exp"),
        (raw_token({}, b"[]", b"x"), "no token"),
        (raw_token({}, {"exp": 1e300, "sub": "a", "role": "x"}, b"x"), ""),
        (admin(exp=float("nan")), "no token"),
        (admin(exp=-1e300), "expired (-1e+300)"),
        (admin(), ""),
    ],
)
def test_a_token_says_itself_why_it_is_unfit(token: str, words: str) -> None:
    """Claims that make a token unfit are named; for others the target is asked."""
    why = unfit(dataclasses.replace(GOOD, admin_jwt=token), time.time())
    assert bool(why) is bool(words)
    assert words in why


def test_a_minted_token_has_the_audience_and_issuer_that_are_told() -> None:
    """It has them if they are configured, and otherwise has neither claim."""
    assert {"aud", "iss"} & set(good_claims(GOOD, 0)) == set()
    told = dataclasses.replace(GOOD, jwt_audience="a", jwt_issuer="i")
    claims = claims_of(mint_token("s", good_claims(told, 0)))
    assert (claims["aud"], claims["iss"]) == ("a", "i")
