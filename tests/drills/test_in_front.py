"""What stands before a healthy service may read late, or take no large body: drills call it by its name."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from faults.proxy.rewriting import problem
from faults.proxy.server import Defect, Forward, Reply, Sent, proxy
from gates.evidence import Outcome
from tests.drills.examination import examine

OF_READS = (
    "drill/dlq/replayed-item-is-resolved",
    "drill/lifecycle/run-counts-add-up",
    "drill/lifecycle/unknown-run-is-not-found",
    "drill/outbox/status-of-an-event",
)
OF_EVERY_PATH = ("drill/authentication/wrong-secret", "drill/tokens/alg-none", "drill/tokens/expired")
BEHIND_S, MOST = 0.15, 16_384


def _replica() -> Defect:
    """Reads find nothing for a moment after it was written, and then show its old state for a moment."""
    seen: dict[str, tuple[float, Reply]] = {}

    def defect(sent: Sent, forward: Forward) -> Reply:
        reply = forward(sent)
        if sent.method != "GET" or reply.status != 200 or sent.path.count("/") < 2:
            return reply
        since, old = seen.setdefault(sent.path, (time.monotonic(), problem(404, "not_found")))
        if old.body == reply.body:
            return reply
        if old.status == 200 and time.monotonic() - since > 2 * BEHIND_S:  # it has changed again
            since = time.monotonic()
        seen[sent.path] = (since, reply if time.monotonic() - since > BEHIND_S else old)
        return seen[sent.path][1]

    return defect


def test_reads_that_show_later_what_was_committed_are_unknown(variables: dict[str, str], tmp_path: Path) -> None:
    """The contract does not say how soon a read follows its write, so a replica that is behind is no failure."""
    with proxy(variables["BASE_URL"], _replica()) as url:
        found = examine({**variables, "BASE_URL": url}, OF_READS, tmp_path)
    assert {one.outcome for one in found.values()} == {Outcome.UNKNOWN}, found
    assert all("a replica or a cache answers them" in one.message for one in found.values())


@pytest.mark.parametrize("path", ["/events", "/dlq-replay"])
def test_a_path_that_is_not_there_asks_for_no_credentials(path: str, variables: dict[str, str], tmp_path: Path) -> None:
    """Whoever is sent to a path that is not there, good or bad, is answered alike: no bad one was let in."""

    def lacks(sent: Sent, forward: Forward) -> Reply:
        return problem(404, "not_found") if (sent.method, sent.path) == ("POST", path) else forward(sent)

    with proxy(variables["BASE_URL"], lacks) as url:
        found = examine({**variables, "BASE_URL": url}, OF_EVERY_PATH, tmp_path)
    assert {one.outcome for one in found.values()} == {Outcome.UNKNOWN}, found


@pytest.mark.parametrize("check", ["drill/authentication/flipped-byte", "drill/proof/invalid-signature-refused"])
def test_a_body_that_a_proxy_refuses_shows_nothing_of_credentials(
    check: str, variables: dict[str, str], tmp_path: Path
) -> None:
    """A proxy with a limit of its own refuses a large body whoever signed it."""

    def refuses(sent: Sent, forward: Forward) -> Reply:
        page = replace(problem(413, ""), headers=(("Content-Type", "text/html"),), body=b"<html>413</html>")
        return page if len(sent.body) > MOST else forward(sent)

    with proxy(variables["BASE_URL"], refuses) as url:
        found = examine({**variables, "BASE_URL": url}, [check], tmp_path)[check]
    assert found.outcome is Outcome.PASS, found.message
