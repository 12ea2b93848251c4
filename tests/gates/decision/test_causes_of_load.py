"""A threshold of the load counts failures; the drill that shows one of them plainly comes before it."""

from gates.verdict import grouped
from tests.gates.decision.test_causes import DEAD, PROOF, failed, judged


def test_the_drill_that_shows_what_all_replays_answer_comes_before_the_thresholds() -> None:
    """A count of companies or of failed requests says nothing that an engineer can act upon."""
    thresholds = ("load/companies_failing/count", "load/http_req_failed/rate")
    verdict = judged(*(failed(check) for check in thresholds), failed(PROOF, details=DEAD))
    assert verdict.deciding[0].check == PROOF
    assert [len(group) for group in grouped(verdict.deciding)] == [3]
