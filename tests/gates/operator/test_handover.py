"""A verdict handed from one job to another: the one step it allows, and everything that makes it unfit."""

import base64
import dataclasses
import datetime as dt
import io
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gates import catalogue, cli, config, past_decisions, record
from gates.act.flag import Order, look_at
from gates.act.rollback import roll_back
from gates.decision.rules import Policy, RolloutPlan
from gates.deployment.identity import identity
from gates.deployment.target import Target
from gates.evidence import Evidence, Outcome, stamp
from gates.evidence_file import read_log, write_lines
from gates.operator.hand_command import carry_out
from gates.past_decisions import PastDecision
from gates.reports import attestation
from gates.reports.console import Console
from gates.stages import preflight
from gates.verdict import Action
from tests.gates.act.flagged import Database, database, flag
from tests.gates.gate_process import gate
from tests.gates.test_attestation import pem, turned
from tests.small_target import serving

__all__ = ["database"]
KEY = Ed25519PrivateKey.generate()
PUBLIC = (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
NOW = dt.datetime.now(dt.UTC)


@pytest.fixture
def running() -> list[str]:
    """The release that /version states."""
    return ["r1"]


@pytest.fixture
def service(running: list[str]) -> Iterator[str]:
    """Where it answers."""
    with serving(lambda _path: (200, {"release": running[0]})) as url:
        yield url


@pytest.fixture
def environ(migrated_url: str, database: object, service: str) -> dict[str, str]:
    """The variables of both jobs, without the signing key."""
    return {
        "BASE_URL": service,
        "DATABASE_URL": migrated_url,
        "RELEASE": "r1",
        "GATE_TARGET": "staging",
        "GATE_SIGNING_KEY": pem(KEY),
    }


def judged(folder: Path, environ: Mapping[str, str], outcome: Outcome = Outcome.PASS, **facts: Any) -> Path:
    """A signed dry run of all checks; `facts` overrides members of run.json."""
    target: Target = config.load_target(environ)
    at = stamp(facts.pop("at", NOW))
    stage = facts.pop("stage", "")
    policy: Policy = config.load_policy(None, NOW.date()).policy(catalogue.load(), target.kind, "r1", deep=False)
    policy = policy.of_stage(stage) if stage else policy
    seen = look_at(target.database_url, policy.rollout.flag)
    run = record.begin(folder, {"run_id": "one", "gate": "0", "dry_run": True, "started_at": at})
    lines = [Evidence(s.id, outcome, samples=1, started_at=at, release="r1") for s in policy.catalogue]
    write_lines(folder / record.EVIDENCE, lines)
    action = Action("promote", 10, 50, "dry_run")
    done = record.Decided(
        policy, dt.datetime.fromisoformat(at), read_log(folder / record.EVIDENCE).end, action, stamp(NOW)
    )
    record.write_run(folder, {**run, record.FLAG: seen.to_json() if seen else None, **done.facts(), **facts})
    recorded = record.read(folder)
    record.write(folder / record.VERDICT, recorded.verdict.dump())
    attestation.attest(folder, recorded, identity(target), attestation.signing_key(environ))
    return folder


@dataclasses.dataclass(frozen=True)
class Done:
    """The result of a command."""

    returncode: int
    stdout: str


def promote(folder: Path, environ: Mapping[str, str], *words: str) -> Done:
    """`gate promote --from`, in this process."""
    options = cli.parser("promote").parse_args(["promote", "--from", str(folder), "--reason", "approved", *words])
    console = Console(io.StringIO(), io.StringIO(), environ)
    code = carry_out(options, console)
    assert isinstance(console.out, io.StringIO)
    return Done(code, console.out.getvalue())


def test_a_dry_run_s_verdict_is_good_for_one_step(tmp_path: Path, environ: dict[str, str], database: Database) -> None:
    """The public key is enough, the audit row names the run, and a second use holds even if the flag is back."""
    folder = judged(tmp_path, environ)
    public = KEY.public_key().public_bytes(*PUBLIC).decode()
    mine = {k: v for k, v in environ.items() if k not in {"GATE_SIGNING_KEY", "RELEASE"}} | {"GATE_VERIFY_KEY": public}
    assert promote(folder, mine, "--dry-run").returncode == 0
    assert flag(database)[1] == 10
    done = promote(folder, mine)
    assert (done.returncode, flag(database)[1]) == (0, 50), done
    (row,) = database.execute("select metadata from public.audit_logs where action = 'flag_promoted'").fetchall()
    assert {"verdict": "one", "release": "r1", "reason": "approved"}.items() <= row["metadata"].items()
    again = promote(folder, mine)
    assert (again.returncode, flag(database)[1]) == (10, 50)
    taken = "the step of this verdict was taken before, and outbox.enabled is at %d %%"
    assert taken % 50 in again.stdout
    database.execute("update public.feature_flags set rollout_percentage = 10 where key = 'outbox.enabled'")
    third = promote(folder, mine)
    assert (third.returncode, flag(database)[1]) == (10, 10), third
    assert taken % 10 in third.stdout


@pytest.mark.parametrize("release", ["r1", ""])
def test_a_rollback_that_is_remembered_ends_a_verdict(
    release: str, tmp_path: Path, environ: dict[str, str], database: Database
) -> None:
    """A later rollback of this release ends it, even if the flag is at its step again; another release's does not."""
    folder, state = judged(tmp_path / "out", environ), tmp_path / "state"
    place = state / identity(config.load_target(environ))
    later = PastDecision.by_hand(Action("rollback", 10, 0, "done"), "harm", "staging", dt.datetime.now(dt.UTC))
    past_decisions.remember(place, dataclasses.replace(later, release=release))
    refused = promote(folder, environ, "--state", str(state))
    assert (refused.returncode, flag(database)[1]) == (10, 10)
    assert "was rolled back after it" in refused.stdout
    past_decisions.remember(place, dataclasses.replace(later, release="another"))
    (place / past_decisions.FILE).write_text((place / past_decisions.FILE).read_text().splitlines()[-1] + "\n")
    assert promote(folder, environ, "--state", str(state)).returncode == 0


def test_clock_that_was_set_back_hides_no_rollback(tmp_path: Path, environ: dict[str, str], database: Database) -> None:
    """The order of the history counts, not its times."""
    folder, state = judged(tmp_path / "out", environ), tmp_path / "state"
    place = state / identity(config.load_target(environ))
    recorded = record.read(folder)
    past_decisions.remember(place, PastDecision.of(recorded.run, recorded.verdict))
    before = NOW - dt.timedelta(minutes=30)
    by_hand = PastDecision.by_hand(Action("rollback", 10, 0, "done"), "harm", "staging", before, "r1")
    past_decisions.remember(place, by_hand)
    refused = promote(folder, environ, "--state", str(state))
    assert (refused.returncode, flag(database)[1]) == (10, 10)
    assert "was rolled back after it" in refused.stdout


@pytest.mark.parametrize("ahead_s", [0, 30])
def test_a_rollback_in_the_audit_trail_ends_a_verdict(
    ahead_s: int, tmp_path: Path, environ: dict[str, str], database: Database
) -> None:
    """A later rollback from anywhere ends it, even if the flag is back or the gate's clock was ahead."""
    folder = judged(tmp_path, environ, at=NOW + dt.timedelta(seconds=ahead_s))
    order = Order(RolloutPlan(settle_s=0, drain_timeout_s=1), "r1", "test", "harm")
    assert roll_back(environ["DATABASE_URL"], order, time.monotonic, print).result == "done"
    database.execute("update public.feature_flags set enabled = true where key = 'outbox.enabled'")
    refused = promote(folder, environ)
    assert (refused.returncode, flag(database)[1]) == (10, 10)
    assert "was rolled back after it was judged" in refused.stdout


def test_an_earlier_rollback_ends_no_verdict(tmp_path: Path, environ: dict[str, str], database: Database) -> None:
    """An earlier rollback does not count as later because the gate's clock was behind."""
    order = Order(RolloutPlan(settle_s=0, drain_timeout_s=1), "r1", "test", "harm")
    assert roll_back(environ["DATABASE_URL"], order, time.monotonic, print).result == "done"
    database.execute("update public.feature_flags set enabled = true where key = 'outbox.enabled'")
    folder = judged(tmp_path, environ, at=NOW - dt.timedelta(minutes=5))
    assert promote(folder, environ).returncode == 0
    assert flag(database)[1] == 50


def _resigned(folder: Path, member: str, value: object, key: Any = KEY) -> None:
    """The envelope with another statement, signed by the right key."""
    path = folder / attestation.FILE
    envelope = json.loads(path.read_text(encoding="utf-8"))
    statement = json.loads(base64.b64decode(envelope["payload"]))
    place = statement["predicate"] if member in statement["predicate"] else statement
    place[member] = value
    payload = json.dumps(statement).encode()
    envelope["payload"] = base64.b64encode(payload).decode()
    envelope["signatures"][0]["sig"] = base64.b64encode(key.sign(attestation.pae(payload))).decode()
    path.write_text(json.dumps(envelope), encoding="utf-8")


_MEMBERS: dict[str, object] = {
    "decision": "hold",
    "title": "sql stage passed",
    "release": "r2",
    "target": {"kind": "production", "identity": "000000000000"},
    "policy_digest": "sha256:0",
    "run_id": "two",
    "gate": "9",
    "dry_run": False,
    "started_at": "2030-01-01T00:00:00+00:00",
    "decided_at": "2030-01-01T00:00:00+00:00",
    "finished_at": "2030-01-01T00:00:00+00:00",
    "flag": {"enabled": True, "percent": 50, "version": 1},
    "subject": [],
    "predicateType": "urn:other",
    "_type": "urn:other",
}


def test_no_member_of_the_statement_says_anything_else(tmp_path: Path, environ: dict[str, str]) -> None:
    """A changed member is not verified, whichever key signed it; another target is another deployment."""
    folder = judged(tmp_path, environ)
    before = (folder / attestation.FILE).read_text(encoding="utf-8")
    statement = json.loads(base64.b64decode(json.loads(before)["payload"]))
    assert {*statement, *statement["predicate"]} - {"predicate"} == set(_MEMBERS)
    for member, value in _MEMBERS.items():
        for key in (KEY, Ed25519PrivateKey.generate()):
            _resigned(folder, member, value, key)
            found = attestation.verify(folder, KEY.public_key())
            assert found.recorded is None, member
            (folder / attestation.FILE).write_text(before, encoding="utf-8")
    _resigned(folder, "target", statement["predicate"]["target"] | {"identity": "000000000000"})
    assert "another deployment" in promote(folder, environ).stdout


@pytest.mark.parametrize(
    ("facts", "given", "words", "said"),
    [
        ({}, {"RELEASE": "r2"}, (), "it is of release r1, and the release here is r2"),
        ({}, {}, ("--release", "r2"), "it is of release r1, and the release here is r2"),
        ({}, {"GATE_TARGET": "production"}, (), "of a target that is staging, and GATE_TARGET is production"),
        ({}, {"BASE_URL": "http://127.0.0.2:9"}, (), "of another deployment"),
        ({}, {}, ("--flag", "dlq.enabled"), "about the flag outbox.enabled, and the flag here is dlq.enabled"),
        ({}, {}, ("--policy", "OTHER"), "by another policy"),
        ({"at": NOW - dt.timedelta(minutes=61)}, {}, (), "it comes too late"),
        ({"at": NOW + dt.timedelta(minutes=30)}, {}, (), "it comes too late, or a clock is wrong"),
        ({"outcome": Outcome.UNKNOWN}, {}, (), "its decision is hold"),
        ({"outcome": Outcome.FAIL}, {}, (), "its decision is rollback"),
        ({"stage": "sql"}, {}, (), "of the sql stage alone"),
        ({"flag": None}, {}, (), "could not read the flag"),
        ({"finished_at": ""}, {}, (), "its decision is hold: the run did not finish"),
        ({}, {"GATE_VERIFY_KEY": "ANOTHER"}, (), "no signature of it holds"),
    ],
)
def test_a_verdict_that_does_not_fit_is_refused_in_one_sentence(
    facts: dict[str, Any],
    given: dict[str, str],
    words: tuple[str, ...],
    said: str,
    tmp_path: Path,
    environ: dict[str, str],
    database: Database,
) -> None:
    """It exits with 10, names what does not fit, and writes nothing."""
    folder = judged(tmp_path / "out", environ, **facts)
    other = tmp_path / "gate.yaml"
    other.write_text("version: 1\nevidence: {max_age_minutes: 59}\n", encoding="utf-8")
    if given.get("GATE_VERIFY_KEY"):
        given = {"GATE_VERIFY_KEY": Ed25519PrivateKey.generate().public_key().public_bytes(*PUBLIC).decode()}
    done = promote(folder, environ | given, *(str(other) if w == "OTHER" else w for w in words))
    assert (done.returncode, said in done.stdout, len(done.stdout.splitlines())) == (10, True, 1), done
    assert flag(database)[1] == 10
    assert not database.execute("select from public.audit_logs where action like 'flag_%'").fetchall()


@pytest.mark.parametrize(
    "change",
    [
        lambda f: turned(f, "evidence.ndjson", '"samples":1', '"samples":2'),
        lambda f: (f / "run.json").unlink(),
        lambda f: (f / attestation.FILE).unlink(),
        lambda f: [p.unlink() for p in f.iterdir() if p.is_file()],
    ],
)
def test_a_folder_that_is_not_verified_is_refused(
    change: Callable[[Path], object], tmp_path: Path, environ: dict[str, str], database: Database
) -> None:
    """It exits with 10, also for an empty folder and as JSON."""
    change(judged(tmp_path, environ))
    done = promote(tmp_path, environ, "--json")
    action = json.loads(done.stdout)
    assert (done.returncode, action["result"], flag(database)[1]) == (10, "refused", 10)
    assert "it is not verified" in action["message"]


def test_a_flag_changed_meanwhile_takes_no_step(tmp_path: Path, environ: dict[str, str], database: Database) -> None:
    """The flag is off, at another percentage, or was moved and moved back."""
    folder = judged(tmp_path, environ)
    for change in ("enabled = false", "enabled = true, rollout_percentage = 20", "rollout_percentage = 10"):
        database.execute(f"update public.feature_flags set {change}, version = version + 1".encode())
        before = flag(database)[1]
        assert (promote(folder, environ).returncode, flag(database)[1]) == (10, before), change


@pytest.mark.parametrize(
    ("now", "said"), [("r2", "/version says r2; allowed: r1"), ("", "the instances say no release")]
)
@pytest.mark.parametrize("named", ["r1", ""])
def test_a_release_that_came_meanwhile_takes_no_step_by_the_verdict_of_another(
    now: str,
    said: str,
    named: str,
    running: list[str],
    tmp_path: Path,
    environ: dict[str, str],
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The release that runs now must be the judged one, whether the job names a release or not."""
    monkeypatch.setattr(preflight, "PATIENCE_S", 0.0)
    folder = judged(tmp_path, environ)
    running[0] = now
    done = promote(folder, environ | {"RELEASE": named})
    assert (done.returncode, said in done.stdout, flag(database)[1]) == (10, True, 10), done


def test_without_a_key_or_a_database_nothing_is_looked_at(tmp_path: Path, environ: dict[str, str]) -> None:
    """It exits with 3 and names the variable."""
    for missing, named in (("GATE_SIGNING_KEY", "GATE_VERIFY_KEY"), ("DATABASE_URL", "DATABASE_URL")):
        given = {k: v for k, v in environ.items() if k != missing}
        done = gate("promote", "--from", str(tmp_path), "--reason", "approved", environ=given)
        assert (done.returncode, f"{named} is not set" in done.stderr, done.stdout) == (3, True, "")
