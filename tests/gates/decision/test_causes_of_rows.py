"""The drill that shows plainly what the service does comes before the counts and rows that it spoils."""

import pytest

from gates.contract.remedies import ALTERED, altered, remedy_of
from gates.evidence import Outcome
from gates.verdict import grouped
from tests.gates.decision.small_policy import saw
from tests.gates.decision.test_causes import DEAD, PROOF, failed, judged


def test_the_drill_that_shows_what_all_replays_answer_comes_before_the_thresholds() -> None:
    """A count of companies or of failed requests says nothing that an engineer can act upon."""
    thresholds = ("load/companies_failing/count", "load/http_req_failed/rate")
    verdict = judged(*(failed(check) for check in thresholds), failed(PROOF, details=DEAD))
    assert verdict.deciding[0].check == PROOF
    assert [len(group) for group in grouped(verdict.deciding)] == [3]


def test_a_service_that_answers_503_to_every_replay_is_the_first_cause_of_the_hold() -> None:
    """A right that the service lacks is a 503 of all replays; a metric without a sample is its consequence."""
    busy = {"symptom": "POST /dlq-replay answered 503"}
    verdict = judged(
        failed("drill/observability/series-are-there", severity="warn"),
        failed("sql/manifest/grants", severity="warn"),
        *(saw(i, Outcome.UNKNOWN, details=busy) for i in ("drill/dlq/replayed-item-is-resolved", PROOF)),
    )
    assert verdict.decision == "hold"
    assert verdict.deciding[0].check == PROOF
    assert {f.blocked_by for f in verdict.findings if f.check == "drill/dlq/replayed-item-is-resolved"} == {PROOF}


@pytest.mark.parametrize(
    ("cause", "rows"),
    [
        ("drill/proof/duplicate-short-circuits", ["sql/spot/run-counts"]),
        ("drill/audit/chain-under-concurrency", ["sql/spot/audit-heads", "sql/spot/audit-chain"]),
    ],
)
def test_rows_that_the_service_spoils_come_behind_the_drill_that_saw_how(cause: str, rows: list[str]) -> None:
    """A chain that forks under load is no forgery, and a run that is started again no lost count."""
    verdict = judged(*(failed(check, severity="page") for check in (*rows, cause)))
    assert len(grouped(verdict.deciding)) == 1
    assert verdict.deciding[0].check == cause


@pytest.mark.parametrize(
    ("cause", "path"),
    [("drill/outbox/status-of-an-event", "/events"), ("drill/lifecycle/run-counts-add-up", "/dlq-replay")],
)
def test_a_read_that_is_not_there_opens_nothing(cause: str, path: str) -> None:
    """Where the target does not find its own events and runs, a bad token with the same answer has opened nothing."""
    missing = {"symptom": f"GET {path} answered 404 not_found"}
    verdict = judged(*(failed(c, details=missing, severity="page") for c in ("drill/tokens/expired", cause)))
    assert [[f.check for f in group] for group in grouped(verdict.deciding)] == [[cause, "drill/tokens/expired"]]
    found = judged(failed("drill/tokens/expired", details=missing, severity="page"), failed(cause, severity="page"))
    assert found.deciding[0].check == "drill/tokens/expired", "what was found, and differs, explains nothing"


@pytest.mark.parametrize(
    ("said", "met"),
    [
        ("invalid_request comes with 422 in place of 400", "observed 422 invalid_request (max: is 0); allowed: 400"),
        ("in_progress comes with 503 in place of 409", "observed 503 in_progress; allowed: 200 or 409"),
        ("not_found comes with 400 in place of 404", "observed 400 not_found; allowed: 404 not_found"),
        ("200 comes in place of 202", "observed 200; allowed: 202"),
    ],
)
def test_a_status_that_is_wrong_everywhere_is_one_cause(said: str, met: str) -> None:
    """Whoever maps one code to another status has one thing to mend, and not one in each drill that met it."""
    checks = ("drill/safety-rails/max-null", "drill/safety-rails/max-zero", "drill/outbox/refused-leaves-nothing")
    control = f"the control did not hold: {met.replace('; allowed:', ' where')} was due"
    assert altered(met) == altered(control) == said
    assert remedy_of(checks[0], seen=met).startswith(ALTERED)
    other = "observed 403 forbidden; allowed: 400 invalid_request"
    assert not altered(other)
    verdict = judged(
        *(saw(check, Outcome.FAIL, message=f"a request: {met}", details={"symptom": said}) for check in checks),
        saw("drill/dry-run/list", Outcome.FAIL, message=other),
        saw("drill/dlq/replayed-item-is-resolved", Outcome.UNKNOWN, message=control, details={"symptom": said}),
    )
    groups = {group[0].check: group for group in grouped(verdict.deciding)}
    assert {check: len(group) for check, group in groups.items()} == {checks[0]: 3, "drill/dry-run/list": 1}
    assert groups[checks[0]][0].message.startswith(f"{said}: a request")
    assert {f.blocked_by for f in verdict.findings if f.outcome == "unknown"} == {checks[0]}
