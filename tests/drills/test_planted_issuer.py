"""The checks of audience and issuer, on a service that has both: green as it is, red where they are not looked at."""

from __future__ import annotations

import os
from pathlib import Path

from gates.deployment.requests import mint_token
from gates.stack.plan import StackOptions
from gates.stack.stack import reference_stack
from tests.drills.defects import excuses
from tests.drills.examination import drill_files, examine
from tests.drills.planted import Planted, seen_red
from tests.drills.planted_tokens import claims_of

CHECKS = ("drill/tokens/audience", "drill/tokens/issuer")
EXPECTED = {"REPLAY_JWT_AUDIENCE": "replay", "REPLAY_JWT_ISSUER": "https://issuer.example"}


def test_audience_and_issuer(tmp_path: Path) -> None:
    """Tokens for another audience or of another issuer are seen where they are accepted, and only there."""
    with reference_stack(StackOptions(history=False, variables=EXPECTED), os.environ) as stack:
        told = stack.info.variables()
        claims = {
            "sub": "x",
            "role": "super_admin",
            "exp": 4_000_000_000,
            "aud": "replay",
            "iss": "https://issuer.example",
        }
        variables = {**told, **EXPECTED, "ADMIN_JWT": mint_token(told["REPLAY_JWT_SECRET"], claims)}
        seen = examine(variables, CHECKS, tmp_path, drill_files(CHECKS))
        assert {i: e.message for i, e in seen.items() if e.outcome != "pass"} == {}
        for claim, check in zip(("aud", "iss"), CHECKS, strict=True):
            defect = excuses(lambda sent, c=claim: bool(claims_of(sent)) and claims_of(sent).get(c) != EXPECTED)  # type: ignore[misc]
            seen_red(Planted(f"{claim} is not looked at", defect, (check,)), variables, tmp_path)
