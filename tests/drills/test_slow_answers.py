"""If answers come too late for a drill to tell, it is unknown, not failed."""

import itertools
import json
import re
import time
from pathlib import Path

from drills.authentication.test_signature_v2 import MARGIN_S
from faults.proxy.server import Forward, Reply, Sent, proxy
from gates.evidence import Outcome
from tests.drills.examination import examine
from tests.waiting import pause

SIGNED_AT = re.compile(r"t=(\d+),v2=")
WAIT_S = 2.0
"""Longer than the rest of a window that a drill leaves open."""


def test_a_window_that_passed_before_the_answer_is_no_broken_limit(variables: dict[str, str], tmp_path: Path) -> None:
    """The fourth call came after the first had left the window, so it was rightly admitted."""
    calls: dict[str, itertools.count[int]] = {}

    def late(sent: Sent, forward: Forward) -> Reply:
        if sent.path.endswith("/dlq-replay"):
            company = str(json.loads(sent.body).get("company_id"))
            if next(calls.setdefault(company, itertools.count(1))) == 4:
                pause(WAIT_S)
        return forward(sent)

    check = "drill/rate-limit/window-closed-until-300-s"
    with proxy(variables["BASE_URL"], late) as url:
        found = examine({**variables, "BASE_URL": url}, [check], tmp_path)[check]
    assert found.outcome is Outcome.UNKNOWN, found.message
    assert "too slow to tell" in found.message


def test_a_signature_that_came_of_age_before_the_answer_says_nothing(variables: dict[str, str], tmp_path: Path) -> None:
    """During a slow request a future signature becomes valid, and an old one expires."""

    def late(sent: Sent, forward: Forward) -> Reply:
        signed = SIGNED_AT.search(sent.header("X-Transbot-Signature") or "")
        if signed is not None and MARGIN_S * 10 < abs(int(signed[1]) - time.time()) < MARGIN_S * 100:
            pause(MARGIN_S + 1.0)
        return forward(sent)

    checks = ["drill/authentication/v2-future", "drill/authentication/v2-past-tolerated"]
    with proxy(variables["BASE_URL"], late) as url:
        found = examine({**variables, "BASE_URL": url}, checks, tmp_path)
    assert {c: (e.outcome, e.message.partition(":")[0]) for c, e in found.items()} == dict.fromkeys(
        checks, (Outcome.UNKNOWN, "too slow to tell")
    )
