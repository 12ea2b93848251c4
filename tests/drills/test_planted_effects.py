"""Every check of idempotency, selection and dry runs has been seen red; and the list of defects is complete."""

from __future__ import annotations

from pathlib import Path

import pytest

from gates.evidence import Outcome
from tests.drills.examination import drill_files, examine
from tests.drills.planted import PROMISES, Planted, catalogue, matching, seen_red
from tests.drills.planted_authentication import AUTHENTICATION
from tests.drills.planted_effects import DRY_RUN, SELECTION
from tests.drills.planted_idempotency import IDEMPOTENCY
from tests.drills.planted_limits import LIMITS
from tests.drills.planted_surface import SURFACE
from tests.drills.planted_tokens import TOKENS
from tests.drills.proxy import proxy

SEEN_ELSEWHERE = {
    "drill/http-surface/late-problem-documents": "http_plants.py: it takes a tenant of its own",
    "drill/tokens/audience": "test_planted_issuer.py: it takes a service with an audience",
    "drill/tokens/issuer": "test_planted_issuer.py: it takes a service with an issuer",
}


@pytest.mark.parametrize("planted", [*IDEMPOTENCY, *SELECTION, *DRY_RUN], ids=lambda p: p.name.replace(" ", "-"))
def test_defect_turns_its_checks_red(planted: Planted, variables: dict[str, str], tmp_path: Path) -> None:
    """The defect turns its checks to fail, by an observation, and leaves others green."""
    seen_red(planted, variables, tmp_path)


def test_every_check_is_seen_red() -> None:
    """No check of these promises is without a defect that turns it red."""
    tables = [*AUTHENTICATION, *TOKENS, *SURFACE, *LIMITS, *IDEMPOTENCY, *SELECTION, *DRY_RUN]
    red = {i for planted in tables for i in matching(planted.red)}
    assert sorted(set(catalogue()) - red - set(SEEN_ELSEWHERE)) == []


def test_transparent_proxy_stays_green(variables: dict[str, str], tmp_path: Path) -> None:
    """Through a proxy that changes nothing every check passes, but for those of framing, which see the proxy itself."""
    framing = matching(["drill/http-surface/length-*", "drill/http-surface/two-l*", "drill/http-surface/*chunk*"])
    ids = sorted(set(catalogue()) - set(framing))
    early = [i for i in ids if catalogue()[i].phase != "last"]
    late = [i for i in ids if catalogue()[i].phase == "last"]
    files = drill_files([f"drill/{p}" for p in PROMISES])
    with proxy(variables["BASE_URL"]) as url:
        seen = examine({**variables, "BASE_URL": url}, early, tmp_path, files)
        seen |= examine({**variables, "BASE_URL": url}, late, tmp_path, files)
    assert {i: e.message for i, e in seen.items() if e.outcome is not Outcome.PASS} == {}
    assert sorted(seen) == ids
