"""Attested verdicts: what is verified, and every change after which nothing may act on the verdict."""

import base64
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gates import record
from gates.config import environment_of, load_target
from gates.deployment.redaction import hidden, redact_text
from gates.errors import ConfigError
from gates.evidence import Outcome
from gates.operator.one_stage import run_stage
from gates.reports import attestation
from gates.reports.formats import FILES
from gates.request import RunRequest
from tests.gates.gate_process import gate
from tests.gates.test_cli import saved

serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")


def pem(key: Any) -> str:
    private = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return str(key.private_bytes(serialization.Encoding.PEM, *private).decode())


KEY = ed25519.Ed25519PrivateKey.generate()
ENVIRON = {attestation.SIGNING_KEY: pem(KEY)}


@pytest.fixture
def signed(tmp_path: Path) -> Path:
    """The folder of a promote, attested."""
    folder = saved(tmp_path, Outcome.PASS)
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    record.write_run(folder, {**run, "dry_run": False})
    for name in FILES:
        record.write(folder / name, "promote")
    attestation.attest(folder, record.read(folder), "abc", attestation.signing_key(ENVIRON))
    return folder


def test_an_attested_verdict_is_verified(signed: Path) -> None:
    """By the public key alone, and of what it is; the envelope and its statement are those of DSSE and in-toto. A
    report that is gone changes nothing.
    """
    assert attestation.verify(signed, KEY.public_key()).doubts == ()
    (signed / FILES[0]).unlink()
    done = gate("verify", str(signed), environ=ENVIRON)
    assert (done.returncode, done.stdout.partition(":")[0]) == (0, "verified")
    assert f"release {record.read(signed).verdict.release or '(not known)'} on " in done.stdout
    assert attestation.pae(b"hello") == b"DSSEv1 28 application/vnd.in-toto+json 5 hello"


def turned(folder: Path, name: str, old: str, new: str) -> None:
    path = folder / name
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


@pytest.mark.parametrize(
    "change",
    [
        lambda f: turned(f, "verdict.json", '"release": ""', '"release": "r9"'),
        lambda f: turned(f, "evidence.ndjson", '"samples":1', '"samples":2'),
        lambda f: turned(f, "run.json", '"max_age_minutes": 60', '"max_age_minutes": 61'),
        *(lambda f, name=name: turned(f, name, "promote", "rollback") for name in FILES),
        lambda f: turned(f, attestation.FILE, '"sig": "', '"sig": "AAAA'),
        lambda f: turned(f, attestation.FILE, "application/vnd.in-toto+json", "text/plain"),
        lambda f: (f / attestation.FILE).write_text("[]"),
        lambda f: (f / attestation.FILE).unlink(),
        lambda f: (f / "verdict.json").write_text("{}"),
        lambda f: (f / "run.json").write_text("{"),
        lambda f: (f / "evidence.ndjson").unlink(),
        lambda f: [(f / "report.html").unlink(), (f / "report.html").symlink_to(f / "report.html")],
        lambda f: attestation.attest(f, record.read(f), "abc", ed25519.Ed25519PrivateKey.generate()),
    ],
)
def test_whatever_was_changed_is_not_verified(signed: Path, change: Callable[[Path], object]) -> None:
    """A file, the signature, the envelope, another key: exit 10, and the reason."""
    change(signed)
    assert attestation.verify(signed, KEY.public_key()).recorded is None
    done = gate("verify", str(signed), environ=ENVIRON)
    assert (done.returncode, done.stdout.partition(":")[0]) == (10, "not verified")


@pytest.mark.parametrize("value", ["nowhere.pem", "-----BEGIN PRIVATE KEY-----\nplanted\n-----END PRIVATE KEY-----"])
def test_a_key_of_no_use_is_named_by_its_variable_and_not_shown(value: str, signed: Path) -> None:
    """Exit 3; so is none at all."""
    with pytest.raises(ConfigError, match="GATE_SIGNING_KEY cannot be read"):
        attestation.signing_key({attestation.SIGNING_KEY: value})
    done = gate("verify", str(signed), environ={attestation.VERIFY_KEY: value})
    assert (done.returncode, "planted" in done.stderr) == (3, False)
    assert gate("verify", str(signed)).returncode == 3


def test_a_run_signs_what_it_leaves(asked: RunRequest) -> None:
    """The last thing that is written, over the files as they stand; no key, no attestation, said in run.json."""
    request = dataclasses.replace(asked, environ={**asked.environ, **ENVIRON})
    run_stage(request, "sql")
    assert attestation.verify(asked.out, KEY.public_key()).doubts == ()
    assert json.loads((asked.out / "run.json").read_text())["attestation"] == attestation.FILE
    assert all("PRIVATE KEY" not in p.read_text(errors="replace") for p in asked.out.rglob("*") if p.is_file())
    run_stage(asked, "sql")
    assert json.loads((asked.out / "run.json").read_text())["attestation"] == attestation.UNSIGNED
    assert not (asked.out / attestation.FILE).exists()


def test_a_key_that_comes_back_is_hidden_in_every_spelling() -> None:
    """The text, a line of it, JSON, hex and base64 of its bytes; no suite is given it."""
    environ = {"GATE_SIGNING_KEY": pem(KEY)}
    target = load_target(environ)
    raw = KEY.private_bytes_raw()
    secrets = (pem(KEY).splitlines()[1], raw.hex(), base64.b64encode(raw).decode())
    for text in (pem(KEY), json.dumps(pem(KEY)), *secrets):
        shown = redact_text(f"<{text}>", hidden(target))
        assert "$GATE_SIGNING_KEY" in shown
        assert not any(secret[i : i + 16] in shown for secret in secrets for i in range(len(secret) - 15))
    assert not {k for k in environment_of(target, environ) if k.startswith("GATE_SIGN")}
