"""Attested verdicts: an in-toto Statement (v1) about a run's files, in a DSSE envelope (v1) with an Ed25519 signature.

https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md
https://github.com/secure-systems-lab/dsse/blob/master/protocol.md
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gates import foreign, record
from gates.errors import ConfigError
from gates.evidence import UNREADABLE, JsonValue

FILE = "verdict.intoto.jsonl"
SIGNING_KEY, VERIFY_KEY = "GATE_SIGNING_KEY", "GATE_VERIFY_KEY"
UNSIGNED = f"none: {SIGNING_KEY} is not set"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "urn:replaygate:verdict:v1"
SUBJECTS = (record.VERDICT, record.RUN, record.EVIDENCE)


def signing_key(environ: Mapping[str, str]) -> Any | None:
    """The Ed25519 private key of GATE_SIGNING_KEY (PEM, or the path of one); None where it is not set.

    Raise ConfigError, which never shows the value, where it is no such key.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415  -- a run that signs nothing needs it not
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    def load(pem: bytes) -> object:
        return load_pem_private_key(pem, None)

    return _key(environ, SIGNING_KEY, load, Ed25519PrivateKey) if environ.get(SIGNING_KEY) else None


def verify_key(environ: Mapping[str, str]) -> Any:
    """The public key of GATE_VERIFY_KEY, else that of GATE_SIGNING_KEY. Raise ConfigError where neither is set."""
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
        pem = value.encode() if value.startswith("-----BEGIN") else Path(value).read_bytes()
        found = load(pem)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{name} cannot be read ({type(error).__name__}); {wanted}") from None
    if not isinstance(found, kind):
        raise ConfigError(f"{name} is a key of another kind; {wanted}")
    return found


def attest(folder: Path, recorded: record.Recorded, target: str, key: Any) -> None:
    """Sign what the folder holds now, for the target of that identity. The last thing that a run does."""
    run = recorded.run
    predicate: dict[str, JsonValue] = {
        "decision": recorded.verdict.decision.value,
        "title": recorded.verdict.title,
        "release": recorded.verdict.release,
        "target": {"kind": recorded.verdict.target, "identity": target},
        "policy_digest": recorded.verdict.policy_digest,
        **{name: run[name] for name in ("run_id", "gate", "dry_run", "started_at", "decided_at", "finished_at")},
    }
    subjects: list[JsonValue] = [{"name": n, "digest": {"sha256": d}} for n, d in _digests(folder).items()]
    statement = {"_type": STATEMENT, "subject": subjects, "predicateType": PREDICATE, "predicate": predicate}
    payload = json.dumps(statement, ensure_ascii=False, separators=(",", ":")).encode()
    signature = {"keyid": _key_id(key.public_key()), "sig": _text(key.sign(pae(payload)))}
    envelope = {"payloadType": PAYLOAD_TYPE, "payload": _text(payload), "signatures": [signature]}
    record.write(folder / FILE, json.dumps(envelope) + "\n")


def doubts(folder: Path, key: Any) -> list[str]:
    """Why nothing may act on the verdict in the folder; empty where it is verified.

    Signature, digests, the chain of the evidence, and the verdict made again, byte for byte.
    """
    recorded = record.read(folder)
    try:
        statement = _statement((folder / FILE).read_bytes(), key)
    except OSError as error:
        return [f"{FILE} cannot be read: {error}"]
    except (ValueError, TypeError, KeyError) as error:
        return [f"{FILE} is no envelope that this key signed: {foreign.text(error, 200)}"]
    signed = {str(s["name"]): s["digest"]["sha256"] for s in statement["subject"]}
    found = [f"{n} is not the file that was signed" for n, d in _digests(folder).items() if signed.get(n) != d]
    found += [e.message for e in recorded.evidence if e.check.startswith(UNREADABLE)]
    if (folder / record.VERDICT).read_bytes() != recorded.verdict.dump().encode():
        found.append(f"{record.VERDICT} is not what the evidence comes to")
    if statement["predicate"]["decision"] != recorded.verdict.decision.value:
        found.append("the statement is of another decision")
    return found


def _statement(envelope: bytes, key: Any) -> dict[str, Any]:
    """The statement whose signature holds. Raise ValueError, TypeError or KeyError for any other."""
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


def _digests(folder: Path) -> dict[str, str]:
    paths = {name: folder / name for name in SUBJECTS}
    return {n: hashlib.sha256(p.read_bytes()).hexdigest() if p.exists() else "" for n, p in paths.items()}


def _key_id(public: Any) -> str:
    return hashlib.sha256(public.public_bytes_raw()).hexdigest()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
