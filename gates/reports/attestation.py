"""Attested verdicts: an in-toto Statement (v1) about a run's files, in a DSSE envelope (v1) with an Ed25519 signature.

https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md
https://github.com/secure-systems-lab/dsse/blob/master/protocol.md
"""

import base64
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gates import disk, record
from gates.errors import CannotWork, ConfigError
from gates.evidence import UNREADABLE, JsonValue
from gates.reports.formats import FILES
from gates.text import foreign

FILE = "verdict.intoto.jsonl"
SIGNING_KEY, VERIFY_KEY = "GATE_SIGNING_KEY", "GATE_VERIFY_KEY"
UNSIGNED = f"none: {SIGNING_KEY} is not set"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "urn:replaygate:verdict:v1"
MOST_KEY = 64 * 1024
RECORD = (record.VERDICT, record.RUN, record.EVIDENCE)
"""What is always signed. The reports are signed, too; one that was deleted since proves nothing, and is no doubt."""


def signing_key(environ: Mapping[str, str]) -> Any | None:
    """The Ed25519 private key of GATE_SIGNING_KEY (PEM, or the path of one); None if it is not set. Raise ConfigError,
    which never shows the value, if it is no such key.
    """
    if not environ.get(SIGNING_KEY):
        return None
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415  -- a run that signs nothing needs it not
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    def load(pem: bytes) -> object:
        return load_pem_private_key(pem, None)

    return _key(environ, SIGNING_KEY, load, Ed25519PrivateKey)


def verify_key(environ: Mapping[str, str]) -> Any:
    """The public key of GATE_VERIFY_KEY, else that of GATE_SIGNING_KEY. Raise ConfigError if neither is set."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415  -- a run that signs nothing needs it not
    from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415

    if environ.get(VERIFY_KEY):
        return _key(environ, VERIFY_KEY, load_pem_public_key, Ed25519PublicKey)
    if not environ.get(SIGNING_KEY):
        raise ConfigError(f"{VERIFY_KEY} is not set; allowed: an Ed25519 public key (PEM or path). Set the variable")
    return signing_key(environ).public_key()  # type: ignore[union-attr]


def _key(environ: Mapping[str, str], name: str, load: Any, kind: type) -> Any:
    value = environ[name].strip()
    wanted = "allowed: an Ed25519 key without a passphrase, as PEM or the path of one. Correct the variable"
    try:
        pem = value.encode() if value.startswith("-----BEGIN") else disk.read(Path(value), MOST_KEY)
        found = load(pem)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{name} cannot be read ({type(error).__name__}); {wanted}") from None
    if not isinstance(found, kind):
        raise ConfigError(f"{name} is a key of another kind; {wanted}")
    return found


@dataclass(frozen=True, slots=True)
class Attested:
    """A folder as read, the identity of the signed target, and why nothing may act on it. doubts: empty if it is
    verified; only then is there a record.
    """

    doubts: tuple[str, ...]
    recorded: record.Recorded | None = None
    target: str = ""


def attest(folder: Path, recorded: record.Recorded, target: str, key: Any) -> None:
    """Sign what the folder holds now, for the target of that identity. The last step of a run."""
    statement = _statement_of(folder, recorded, target)
    payload = json.dumps(statement, ensure_ascii=False, separators=(",", ":")).encode()
    key_id = hashlib.sha256(key.public_key().public_bytes_raw()).hexdigest()
    signature = {"keyid": key_id, "sig": _text(key.sign(pae(payload)))}
    envelope = {"payloadType": PAYLOAD_TYPE, "payload": _text(payload), "signatures": [signature]}
    record.write(folder / FILE, json.dumps(envelope) + "\n")


def _statement_of(folder: Path, recorded: record.Recorded, target: str) -> dict[str, Any]:
    """The signed statement: the digests of the files, and the result of this release on this target."""
    run, verdict = recorded.run, recorded.verdict
    names = ("run_id", "gate", "dry_run", "started_at", "decided_at", "finished_at", record.FLAG)
    predicate: dict[str, JsonValue] = {
        "decision": verdict.decision.value,
        "title": verdict.title,
        "release": verdict.release,
        "target": {"kind": verdict.target, "identity": target},
        "policy_digest": verdict.policy_digest,
        **{name: run.get(name) for name in names},
    }
    there = (*RECORD, *(name for name in FILES if not disk.missing(folder / name)))
    digests = {name: hashlib.sha256(disk.read(folder / name)).hexdigest() for name in there}
    subjects = [{"name": n, "digest": {"sha256": d}} for n, d in digests.items()]
    return {"_type": STATEMENT, "subject": subjects, "predicateType": PREDICATE, "predicate": predicate}


def verify(folder: Path, key: Any) -> Attested:
    """Check signature, digests and chain of the evidence; recompute verdict and statement and compare every byte."""
    with tempfile.TemporaryDirectory() as place:
        copied = Path(place)  # what was verified is what is acted upon, even if somebody writes meanwhile
        try:
            for name in (FILE, *RECORD, *FILES):
                if name not in FILES or not disk.missing(folder / name):
                    (copied / name).write_bytes(disk.read(folder / name))
            signed = _statement((copied / FILE).read_bytes(), key)
            recorded = record.read(copied)
            target = str(signed["predicate"]["target"]["identity"])
            doubts = tuple(_doubts(copied, recorded, signed, _statement_of(copied, recorded, target)))
        except OSError as error:
            unsigned = f"there is no {folder / FILE}: the run was not signed (GATE_SIGNING_KEY), or left it elsewhere"
            return Attested((f"a file cannot be read: {error}" if os.path.lexists(folder / FILE) else unsigned,))
        except CannotWork as error:
            return Attested((str(error).replace(f"{copied}/", ""),))
        except (ValueError, TypeError, KeyError) as error:
            return Attested((f"{FILE} is no envelope that this key signed: {foreign.text(error, 200)}",))
    return Attested(doubts) if doubts else Attested((), recorded, target)


def _doubts(
    folder: Path, recorded: record.Recorded, signed: Mapping[str, Any], expected: Mapping[str, Any]
) -> Iterator[str]:
    changed = [s["name"] for s in expected["subject"] if s not in signed["subject"]]
    yield from (f"{name} is not the file that was signed" for name in changed)
    yield from (e.message for e in recorded.evidence if e.check.startswith(UNREADABLE))
    if disk.read(folder / record.VERDICT) != recorded.verdict.dump().encode():
        yield f"{record.VERDICT} is not what the evidence comes to"
    if {**signed, "subject": expected["subject"]} != expected and not changed:
        yield "the statement does not say what the files say"


def _statement(envelope: bytes, key: Any) -> dict[str, Any]:
    """The statement, if its signature is valid. Raise ValueError, TypeError or KeyError otherwise."""
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415  -- a run that signs nothing does without it

    data = foreign.json_object(envelope)
    if data["payloadType"] != PAYLOAD_TYPE:
        raise ValueError(f"its payload is not {PAYLOAD_TYPE}")
    payload = base64.b64decode(data["payload"], validate=True)
    for one in data["signatures"]:
        try:
            key.verify(base64.b64decode(one["sig"], validate=True), pae(payload))
        except InvalidSignature:
            continue
        statement = foreign.json_object(payload)
        if (statement["_type"], statement["predicateType"]) != (STATEMENT, PREDICATE):
            raise ValueError("it is no statement about a verdict")
        return statement
    raise ValueError("no signature of it holds")


def pae(payload: bytes) -> bytes:
    """The pre-authentication encoding of DSSE v1: what is signed."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
