"""The journal of the drills: which exchanges it keeps, and for which check."""

import json
import multiprocessing
from collections.abc import Iterator

import pytest

from drills.ledger import test_ledger as ledger
from drills.workbench.credentials import REPLAY
from drills.workbench.journal import EVENTS, MOST_BYTES, Journal
from gates.deployment.requests import Answer, Request, mint_token, token_post

COMPANY = "00000000-0000-4000-8000-000000000001"


@pytest.fixture
def journal() -> Iterator[Journal]:
    """A journal while a check runs."""
    made = Journal()
    made.check = "drill/of/nothing"
    yield made
    made.end()


def _note(journal: Journal, request_id: str, path: str = REPLAY, **asked: object) -> None:
    body = json.dumps({"company_id": COMPANY.upper(), **asked}).encode()
    answer = json.dumps({"status": "started", "duplicate": False, "items": [], "more": 1}).encode()
    journal.note(Request("POST", path, body=body), Answer(200, (("x-request-id", request_id),), answer, 1.0))


def test_what_it_keeps(journal: Journal) -> None:
    """An entry has the check, the request and the contract's members of the answer."""
    _note(journal, "one", dry_run=True)
    journal.close()
    (entry,) = journal.entries(REPLAY)
    assert (entry.check, entry.company, entry.request_ids) == ("drill/of/nothing", COMPANY, ["one"])
    assert entry.is_first
    assert entry.is_dry
    assert entry.answer == {"status": "started", "duplicate": False, "items": []}
    assert entry.row is None


def test_of_every_process(journal: Journal) -> None:
    """It has the entries of forked processes, and those that are not yet on disk."""

    def work() -> None:
        _note(journal, "forked")
        journal.close()

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    _note(journal, "own")
    assert {e.request_ids[0] for e in journal.entries(REPLAY)} == {"forked", "own"}


def test_what_it_leaves_out(journal: Journal) -> None:
    """It omits other paths and methods, invalid or repeated ids, large bodies, and checks that change rows by hand."""
    _note(journal, "event", EVENTS)
    for request_id in ("twice", "twice", ""):
        _note(journal, request_id)
    _note(journal, "long", payload="x" * MOST_BYTES)
    journal.note(Request("GET", REPLAY), Answer(200, (("x-request-id", "read"),), b"{}", 1.0))
    journal.check = ""
    _note(journal, "by hand")
    journal.close()
    assert not journal.entries(REPLAY)
    assert [e.request_ids for e in journal.entries(EVENTS)] == [["event"]]


def test_ids_of_a_proxy(journal: Journal) -> None:
    """An exchange may have several ids; one that another exchange has, too, makes both shared."""
    for ids in ("edge-1, one", "edge-2, two", "edge-3, two"):
        _note(journal, ids)
    assert [e.request_ids for e in journal.entries(REPLAY)] == [["edge-1", "one"]]
    assert [e.request_ids[0] for e in journal.of_shared_ids()] == ["edge-2", "edge-3"]


def test_strangers_in_a_refusal(journal: Journal) -> None:
    """The strangers of a refusal are the tenants' ids and names in it that its caller neither sent nor has."""
    own, other = "0" * 8 + COMPANY[8:-1] + "2", "f" * 8 + COMPANY[8:]
    request = token_post(REPLAY, {"company_id": COMPANY}, mint_token("s" * 32, {"company_id": own}), "by a token")
    said = json.dumps({"detail": f"{COMPANY.upper()} {own} drill-a-b-{own[:8]} drill-a-b-{other[:8]} {other}"}).encode()
    for status in (200, 403):
        journal.note(request, Answer(status, (("x-request-id", str(status)),), said, 1.0))
    assert [entry.strangers for entry in journal.entries(REPLAY)] == [[], [f"drill-a-b-{other[:8]}", other]]


def test_a_number_that_no_double_holds_may_be_the_double_next_to_it() -> None:
    """What many languages read of JSON is no other payload: of an integer beyond 2^53 the last digits may be lost."""
    for sent, kept, is_like in (
        (2**53 + 1, 2**53, True),
        (-(2**60) - 1, -(2**60), True),
        (2**53 - 1, 2**53 - 2, False),
        (2**60, 2**60 + 2**12, False),
    ):
        told = {"payload": {"of": [{"n": sent}]}}
        assert (ledger._unlike(told, {"payload": {"of": [{"n": kept}]}}) == "") is is_like, (sent, kept)
