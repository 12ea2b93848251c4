"""Controls test no more than they need: a healthy deployment that differs is judged, a broken one named."""

import dataclasses
from pathlib import Path

from faults.proxy.rewriting import fields_of, problem
from faults.proxy.server import Forward, Reply, Sent, proxy
from gates.evidence import Outcome, Severity
from tests.drills.examination import examine, not_passed

SIGNED = "drill/authentication/signed-accepted"
UNKNOWN = "drill/authentication/unknown-company-forbidden"
OF_CREDENTIALS = (
    SIGNED,
    "drill/authentication/wrong-secret",
    "drill/authentication/bad-token-beside-good-signature",
    "drill/tokens/admin-accepted",
    "drill/proof/invalid-signature-refused",
    "drill/proof/oversized-batch-refused",
)
RACES = ("drill/idempotency/race-same-request", "drill/rate-limit/concurrent-exactly-three")
FOURTH = "drill/rate-limit/fourth-refused"


def _not_found(sent: Sent, forward: Forward) -> Reply:
    reply = forward(sent)
    return problem(404, "not_found") if reply.status == 403 else reply


def test_how_an_unknown_company_is_refused_is_for_one_check(variables: dict[str, str], tmp_path: Path) -> None:
    """A 404 there fails that check alone; for all others the credentials were accepted."""
    with proxy(variables["BASE_URL"], _not_found) as url:
        found = examine({**variables, "BASE_URL": url}, [*OF_CREDENTIALS, UNKNOWN], tmp_path)
    assert found.pop(UNKNOWN).outcome is Outcome.FAIL
    assert not_passed(found) == {}
    assert set(found) == set(OF_CREDENTIALS)


def _broken(sent: Sent, forward: Forward) -> Reply:
    reply = forward(sent)
    return problem(500, "internal") if sent.is_replay and reply.status == 200 else reply


def test_a_service_whose_every_replay_fails_is_told_so_once(variables: dict[str, str], tmp_path: Path) -> None:
    """Credentials are still judged; the proof drill names the 500, and the rest are its consequences."""
    proof, dry = "drill/proof/valid-signature-accepted", "drill/proof/dry-run-changes-nothing"
    with proxy(variables["BASE_URL"], _broken) as url:
        found = examine({**variables, "BASE_URL": url}, [SIGNED, proof, dry], tmp_path)
    assert found[SIGNED].outcome is Outcome.PASS
    assert found[proof].outcome is Outcome.FAIL
    assert found[proof].message.startswith("every replay answers 500")
    assert {found[check].details["symptom"] for check in (proof, dry)} == {"POST /dlq-replay answered 500"}


DEBUG = "drill/identity/no-debug-routes"


def _stock_nginx(sent: Sent, forward: Forward) -> Reply:
    reply = forward(sent)
    return dataclasses.replace(reply, headers=(*reply.headers, ("Server", "nginx/1.22.1")))


def _sends_home(sent: Sent, forward: Forward) -> Reply:
    return Reply(307, (("Location", "/admin"),), b"") if sent.path.endswith("/admin/") else forward(sent)


def test_a_version_in_a_header_is_only_noted(variables: dict[str, str], tmp_path: Path) -> None:
    """It is a note; a redirect of a trailing slash shows nothing, and passes."""
    with proxy(variables["BASE_URL"], _stock_nginx) as url:
        told = examine({**variables, "BASE_URL": url}, [DEBUG], tmp_path)[DEBUG]
    with proxy(variables["BASE_URL"], _sends_home) as url:
        sent = examine({**variables, "BASE_URL": url}, [DEBUG], tmp_path)[DEBUG]
    assert (told.outcome, told.severity, "nginx/1.22.1" in told.message) == (Outcome.FAIL, Severity.INVESTIGATE, True)
    assert (sent.outcome, sent.severity) == (Outcome.PASS, "")


def _limiter_breaks(sent: Sent, forward: Forward) -> Reply:
    reply = forward(sent)
    return problem(500, "internal") if reply.status == 429 else reply


def test_a_race_under_a_broken_limiter_says_what_it_could_judge(variables: dict[str, str], tmp_path: Path) -> None:
    """If the limiter answers 500, its own check blocks the race's, which says what the race kept all the same."""
    with proxy(variables["BASE_URL"], _limiter_breaks) as url:
        found = examine({**variables, "BASE_URL": url}, [*RACES, FOURTH], tmp_path)
    assert found[FOURTH].outcome is Outcome.FAIL
    for race, kept in zip(RACES, ("one key had one effect", "exactly 3 of 12 calls were admitted"), strict=True):
        assert (found[race].outcome, found[race].blocked_by) == (Outcome.UNKNOWN, FOURTH)
        assert found[race].message.startswith(kept)


def _race_breaks(sent: Sent, forward: Forward) -> Reply:
    reply = forward(sent)
    raced = reply.status == 429 and "idempotency_key" in fields_of(sent)
    return dataclasses.replace(reply, status=500) if raced else reply


def test_a_race_that_breaks_by_itself_is_a_failure(variables: dict[str, str], tmp_path: Path) -> None:
    """If the limiter works, server errors in the race are its own."""
    with proxy(variables["BASE_URL"], _race_breaks) as url:
        found = examine({**variables, "BASE_URL": url}, [RACES[0]], tmp_path)
    assert found[RACES[0]].outcome is Outcome.FAIL
