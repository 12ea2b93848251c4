"""A threshold of the load counts failures; the drill that shows one of them plainly comes before it."""

import pytest

from gates.verdict import grouped
from tests.gates.decision.test_causes import DEAD, PROOF, failed, judged

REPLAYED, DELIVERED = "drill/dlq/replayed-item-is-resolved", "drill/outbox/delivered-once"


@pytest.mark.parametrize("plain", [[PROOF], [REPLAYED, DELIVERED]], ids=["every", "every-with-items"])
def test_a_drill_that_shows_what_all_replays_answer_comes_before_the_thresholds(plain: list[str]) -> None:
    """A count of companies or of failed requests says nothing that an engineer can act upon."""
    thresholds = ("load/companies_failing/count", "load/http_req_failed/rate")
    verdict = judged(*(failed(check) for check in thresholds), *(failed(check, details=DEAD) for check in plain))
    assert verdict.deciding[0].check == plain[0]
    assert [len(group) for group in grouped(verdict.deciding)] == [len(plain) + len(thresholds)]


def test_some_failing_replays_stand_behind_the_companies_whose_replays_fail() -> None:
    """If one plain replay was answered, the count of companies says more than the drill that failed."""
    verdict = judged(failed("load/companies_failing/count"), failed(REPLAYED, details=DEAD))
    assert [f.check for f in verdict.deciding] == ["load/companies_failing/count", REPLAYED]
