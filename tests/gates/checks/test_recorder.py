"""The recorder: what a test observed becomes evidence, and nothing unseen is ever a pass."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gates.evidence import CHARGED, Evidence, Outcome
from gates.evidence_file import read_lines

ROOT = Path(__file__).resolve().parents[3]
SECRET = "planted-secret-0123456789"
SUITE = '''
import pytest
from gates.checks.observation import Breach
from gates.checks.recorder import check, Unmet
from gates.deployment.requests import Answer, Request

TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJlLXRoYXQtd29ya3M"
ASKED = Request("POST", "/x", (("Authorization", f"Bearer {TOKEN}"),), b"planted-secret-0123456789")

def answer(status, body=b'{"code":"nope","echo":"planted-secret-0123456789"}'):
    return Answer(status, (), body, 1.0)

@check("t/pass")
def test_pass(seen):
    """It passes."""
    seen.expect(ASKED, answer(200), 200, control=True)

@check("t/fail")
def test_fail(seen):
    """It fails.

    Something is lost.
    """
    seen.expect(ASKED, answer(200), 200, control=True)
    seen.expect(ASKED, answer(200), 401)

@check("t/after-fail", after=("t/fail",))
def test_z_after_fail(seen):
    """It is blocked."""
    seen.control("x")
    seen.count()

@check("t/no-control")
def test_no_control(seen):
    """It saw no control."""
    seen.count()

@check("t/nothing-seen")
def test_nothing_seen(seen):
    """It observed nothing."""
    seen.control("x")

@check("t/empty")
def test_empty():
    """It does nothing."""

@check("t/skipped")
def test_skipped(seen):
    """It is skipped."""
    pytest.skip("not today")

@check("t/error")
def test_error(seen):
    """It breaks."""
    raise ValueError("planted-secret-0123456789 leaked")

def after(name, control, came, *allowed):
    def judged(seen):
        """It is judged after its control."""
        seen.expect(ASKED, control, control.status, control=True)
        seen.expect(ASKED, came, *allowed)

    globals()["test_" + name] = check("t/" + name)(judged)

OK = answer(200)
after("busy", OK, answer(503), 200)
after("limited", OK, answer(503, b'{"code": "rate_limited"}'), 429, "rate_limited")  # another status of its own refusal
after("limited-in-front", OK, answer(429, b'{"message": "API rate limit exceeded"}'), 429, "rate_limited")
after("torn", OK, answer(202, b'{"event_id": "1", "pa'), 202)
after("half", OK, answer(520), 401)  # a CDN has no whole answer of the target
after("ended", OK, answer(546), 401)  # a platform ended the function
after("again", OK, answer(408), 200)  # something in front wants the request once more
after("walled", OK, answer(403, b"<html>blocked</html>"), 400)  # or takes it for an attack
after("walled-alike", answer(403, b'{"code": "forbidden"}'), answer(403, b"<html>blocked</html>"), 403, "forbidden")
after("page", OK, answer(403, b"<html>no</html>"), 403, "forbidden")  # the service's own page, and it owes a code
after("elsewhere", OK, answer(308), 401)  # something in front wants another address

@check("t/bad-control")
def test_bad_control(seen):
    """The control does not hold."""
    seen.expect(ASKED, answer(401), 200, control=True)

@pytest.fixture
def dirty():
    yield
    raise RuntimeError("left over")

@check("t/dirty")
def test_dirty(seen, dirty):
    """It does not clean up."""
    seen.control("x")
    seen.count()

@pytest.fixture
def broken():
    assert False, "no ground to stand on"

@check("t/broken-ground")
def test_broken_ground(seen, broken):
    """Its fixture fails."""

@pytest.mark.xfail
@check("t/expected")
def test_expected(seen):
    """It is expected to fail."""
    assert False, "still"

@check("t/agent", needs=("drill-agent",))
def test_agent(seen):
    """It needs an agent."""
    seen.control("x")
    seen.count()

@check("t/database", needs=("database",))
def test_database(seen):
    """It needs SQL."""

@check("t/staging", where=__import__("gates.evidence", fromlist=["Where"]).Where.STAGING)
def test_staging(seen):
    """It is not for production."""

@check("t/breach")
def test_breach(seen):
    """It knows what it sees, and what it saw before is over."""
    with pytest.raises(Breach):
        raise Breach("nothing yet", "waited in vain")
    raise Breach("charged twice", "charged otherwise than moved")

@check("t/over")
def test_over(seen):
    """What came late is no symptom of what is wrong then."""
    with pytest.raises(Breach):
        raise Breach("nothing yet", "waited in vain")
    assert False, "wrong"

@check("t/nan")
def test_nan(seen):
    """It is not a number."""
    seen.control("x")
    seen.count()
    seen.value(float("nan"), 2.0, "s")
'''
EXPECTED = {
    "t/pass": ("pass", ""),
    "t/fail": ("fail", "observed 200 nope; allowed: 401"),
    "t/after-fail": ("unknown", "blocked by t/fail"),
    "t/no-control": ("unknown", "no positive control"),
    "t/nothing-seen": ("unknown", "nothing was observed"),
    "t/empty": ("unknown", "nothing was observed"),
    "t/skipped": ("unknown", "skipped: not today"),
    "t/error": ("unknown", "ValueError: $TRANSBOT_HMAC_SECRET leaked"),
    "t/busy": ("unknown", "busy or limited us"),
    "t/limited": ("fail", "observed 503 rate_limited; allowed: 429 rate_limited"),
    "t/limited-in-front": ("unknown", "busy or limited us"),
    "t/torn": ("fail", "observed 202 (its body cannot be read as JSON: it is cut off"),
    "t/half": ("unknown", "busy or limited us"),
    "t/ended": ("unknown", "busy or limited us"),
    "t/again": ("unknown", "busy or limited us"),
    "t/walled": ("unknown", "a firewall in front may have answered"),
    "t/walled-alike": ("unknown", "a firewall in front may have answered"),
    "t/page": ("fail", "observed 403 (its body is a page and not JSON"),
    "t/elsewhere": ("unknown", "a redirect. Set BASE_URL"),
    "t/bad-control": ("unknown", "the control did not hold"),
    "t/dirty": ("unknown", "clean-up failed"),
    "t/broken-ground": ("unknown", "no ground to stand on"),
    "t/expected": ("fail", "still"),
    "t/breach": ("fail", "charged twice"),
    "t/over": ("fail", "wrong"),
    "t/database": ("unknown", "DATABASE_URL is not set"),
    "t/nan": ("unknown", "nothing was observed"),
}

LEAN = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def run(folder: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    plugins = ("-p", "gates.checks.recorder", "-p", "xdist.plugin", "-p", "no:cacheprovider")
    words = (sys.executable, "-m", "pytest", *plugins, "-c", "/dev/null", str(folder))
    return subprocess.run(
        [*words, f"--rootdir={folder}", *options],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "TRANSBOT_HMAC_SECRET": SECRET} | LEAN | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A suite with one check for each way that a check can end."""
    (tmp_path / "test_suite.py").write_text(SUITE, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("parallel", [(), ("-n", "2")])
def test_every_way_a_check_can_end_has_its_outcome(suite: Path, parallel: tuple[str, ...]) -> None:
    """Only an observation with its control passes; only an assertion about the target fails; alone and under xdist."""
    file = suite / "evidence.ndjson"
    capability = Evidence("preflight/capability/drill-agent", Outcome.PASS, observed=False, samples=1)
    file.write_text(json.dumps(capability.to_json()) + "\n", encoding="utf-8")
    done = run(suite, f"--evidence={file}", *parallel)
    found = {e.check: e for e in read_lines(file) if e.check.startswith("t/")}
    assert done.returncode == 1
    if parallel:  # which of two workers is first is not known
        found.pop("t/after-fail")
    assert set(found) == set(EXPECTED) - ({"t/after-fail"} if parallel else set())
    for check, one in found.items():
        outcome, words = EXPECTED[check]
        assert (one.outcome, words in one.message) == (outcome, True), (check, one)


def test_the_symptom_is_that_of_the_failure_that_ended_the_check(suite: Path) -> None:
    """One that was caught before says nothing: a drill that waited once, and then saw a breach, saw the breach."""
    file = suite / "evidence.ndjson"
    run(suite, f"--evidence={file}", "-k", "test_breach or test_over")
    symptoms = {e.check: e.details.get("symptom") for e in read_lines(file)}
    assert symptoms == {"t/breach": CHARGED, "t/over": None}


@pytest.mark.parametrize("variables", [{"PYTHONOPTIMIZE": "1"}, {"PYTHONOPTIMIZE": "2"}])
def test_where_python_leaves_asserts_out_nothing_is_recorded(suite: Path, variables: dict[str, str]) -> None:
    """Also plain pytest refuses: a check whose assert is in another module would be green."""
    file = suite / "evidence.ndjson"
    done = run(suite, f"--evidence={file}", **variables)
    assert done.returncode == 4
    assert "PYTHONOPTIMIZE" in done.stderr
    assert not file.exists()


def test_a_failure_shows_the_request_its_twin_and_a_command_without_secrets(suite: Path) -> None:
    """The witness is one field from the passing twin; neither secret nor usable token is written anywhere."""
    file = suite / "evidence.ndjson"
    run(suite, f"--evidence={file}", "-k", "test_fail")
    (failed,) = read_lines(file)
    assert isinstance(failed.witness, dict)
    assert {"request", "twin", "row"} == set(failed.witness)
    assert failed.reproduce.startswith("curl -i -X POST")
    text = file.read_text(encoding="utf-8")
    assert SECRET not in text
    assert "c2lnbmF0dXJl" not in text
    assert "eyJzdWIiOiJhIn0.<signature>" in text


def test_the_catalogue_lists_what_is_declared_and_runs_nothing(suite: Path) -> None:
    """Also what may not run on this target; an id that is declared twice, differently, is an error."""
    listing = suite / "catalogue.json"
    run(suite, f"--catalogue={listing}")
    listed = json.loads(listing.read_text(encoding="utf-8"))
    assert {s["id"] for s in listed} == {*EXPECTED, "t/agent", "t/staging"}
    assert next(s for s in listed if s["id"] == "t/fail")["cost"] == "Something is lost."
    other = SUITE.replace('@check("t/pass")', '@check("t/fail")', 1)
    (suite / "test_suite.py").write_text(other, encoding="utf-8")
    assert "declared twice" in run(suite, f"--catalogue={listing}").stderr


def test_a_check_that_is_left_out_is_not_run(suite: Path) -> None:
    """What the policy does not claim is not asked for, whatever else selects it."""
    file, left_out = suite / "evidence.ndjson", suite / "left-out.txt"
    left_out.write_text("t/fail\nt/no-such\n", encoding="utf-8")
    run(suite, f"--evidence={file}", "--only=t/pass", "--only=t/f*", f"--left-out={left_out}")
    assert {e.check for e in read_lines(file)} == {"t/pass"}


def test_only_the_checks_asked_for_run(suite: Path) -> None:
    """By pattern; the round is in the evidence."""
    file = suite / "evidence.ndjson"
    run(suite, f"--evidence={file}", "--only=t/pass", "--only=t/n*", "--round=before")
    assert {(e.check, e.round) for e in read_lines(file)} == {
        ("t/pass", "before"),
        ("t/no-control", "before"),
        ("t/nothing-seen", "before"),
        ("t/nan", "before"),
    }


def test_a_variable_of_no_use_is_a_usage_error_and_no_traceback(suite: Path) -> None:
    """As `gate` says it: which variable, what is allowed, what to do."""
    done = run(suite, TEST_COMPANY_ID="nonsense")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "TEST_COMPANY_ID is 'nonsense'; allowed: " in done.stderr + done.stdout
    assert "Traceback" not in done.stderr + done.stdout
