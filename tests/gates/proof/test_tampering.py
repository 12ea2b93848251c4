"""A green run whose evidence was tampered with is never promoted."""

import copy
import datetime as dt
from pathlib import Path

import pytest

from gates import record
from gates.decision.rules import Policy
from gates.evidence import CheckSpec, Evidence, JsonValue, Outcome, Severity, TargetKind, Where, stamp
from gates.proof.selfsuite.tampering import TAMPERINGS, Tampering, tamper
from gates.verdict import Action, Decision
from tests.gates.floor_checks import FLOOR_SPECS

AT = dt.datetime(2025, 1, 13, 12, 0, tzinfo=dt.UTC)
CHECKS = ("drill/proof/hmac-refused", "drill/proof/b", "sql/spot/a", "sql/spot/b", *(s.id for s in FLOOR_SPECS))
POLICY = Policy(tuple(CheckSpec(c, "", "", Severity.PAGE, Where.READ_ONLY) for c in CHECKS), TargetKind.STAGING, "r1")
ACTION = Action("promote", 10, 50, "dry_run")
RUN: dict[str, JsonValue] = {
    "format": record.FORMAT,
    "run_id": "1",
    "policy": POLICY.to_json(),
    "policy_digest": POLICY.digest,
    "started_at": stamp(AT),
    "decided_at": stamp(AT),
    "finished_at": stamp(AT),
    "action": ACTION.to_json(),
}
GREEN = [
    Evidence(c, Outcome.PASS, observed=1.0, limit=2.0, samples=3, started_at=stamp(AT), release="r1") for c in CHECKS
]

LINES = [e.to_json() for e in GREEN]


def decision(folder: Path, text: bytes | None, run: dict[str, JsonValue]) -> Decision:
    record.write_run(folder, run)
    if text is not None:
        (folder / record.EVIDENCE).write_bytes(text)
    return record.recompute(folder).decision


def test_the_run_is_green_before(tmp_path: Path) -> None:
    """The control: the same evidence promotes without tampering."""
    nothing = Tampering("nothing", "nothing is changed", lambda lines, _run: lines)
    assert decision(tmp_path, *tamper(nothing, LINES, RUN)) is Decision.PROMOTE


@pytest.mark.parametrize("one", TAMPERINGS, ids=lambda t: t.name)
def test_a_spoilt_run_is_never_promoted(one: Tampering, tmp_path: Path) -> None:
    """Each kind of tampering leads to one of its allowed decisions, never to a promote."""
    before = copy.deepcopy(LINES)
    assert decision(tmp_path, *tamper(one, LINES, RUN)) in one.allowed
    assert before == LINES, "the green run itself stays as it was"
