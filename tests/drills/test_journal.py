"""The journal of the drills: which exchanges it keeps, and for which check."""

import json
import multiprocessing
from collections.abc import Iterator

import pytest

from drills.workbench.credentials import REPLAY
from drills.workbench.journal import EVENTS, MOST_BYTES, Journal
from gates.deployment.requests import Answer, Request

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
    assert (entry.check, entry.company, entry.request_id) == ("drill/of/nothing", COMPANY, "one")
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
    assert {e.request_id for e in journal.entries(REPLAY)} == {"forked", "own"}


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
    assert [e.request_id for e in journal.entries(EVENTS)] == ["event"]
