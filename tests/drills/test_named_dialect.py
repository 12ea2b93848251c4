"""With `names.http`, the drills see the same of a service with other words as of the reference."""

import json
from pathlib import Path

from faults.proxy.server import proxy
from gates.deployment.dialect.current import NAMES as VARIABLE
from gates.evidence import Outcome
from tests.drills.dialect import KEY, NAMES, Dialect
from tests.drills.examination import examine, matching

CHECKS = [
    f"drill/{promise}/*"
    for promise in ("authentication", "safety-rails", "dry-run", "http-surface", "proof", "idempotency", "identity")
]
NOT_OF_WORDS = {"drill/idempotency/v2-resend-is-duplicate"}
"""The key of a signed request begins with its MAC, and the proxy signs anew."""
FOR_DEEP = {"drill/identity/not-ready-without-database", "drill/identity/not-ready-without-worker"}
"""They come with --deep alone."""


def test_another_dialect_is_as_green(variables: dict[str, str], tmp_path: Path) -> None:
    """Every check passes with other paths, members, codes, headers and signatures."""
    with proxy(variables["BASE_URL"], Dialect(variables["TRANSBOT_HMAC_SECRET"].partition(",")[0])) as url:
        named = {**variables, "BASE_URL": url, VARIABLE: json.dumps(NAMES), "GATEWAY_KEY": KEY}
        found = examine(named, CHECKS, tmp_path)
    assert len(found) > 100
    seen = {i: e for i, e in found.items() if i not in NOT_OF_WORDS}
    wrong = {i: f"{e.outcome}: {e.message}" for i, e in seen.items() if e.outcome is not Outcome.PASS}
    assert wrong == {}
    assert sorted(found) == [i for i in matching(CHECKS) if i not in FOR_DEEP]
    assert KEY not in "".join(p.read_text(encoding="utf-8") for p in tmp_path.glob("*.ndjson"))


def test_without_the_names_nothing_is_understood(variables: dict[str, str], tmp_path: Path) -> None:
    """The control: without its names the same service is not recognised."""
    with proxy(variables["BASE_URL"], Dialect(variables["TRANSBOT_HMAC_SECRET"].partition(",")[0])) as url:
        found = examine({**variables, "BASE_URL": url}, ["drill/authentication/signed-accepted"], tmp_path)
    assert Outcome.PASS not in {e.outcome for e in found.values()}
