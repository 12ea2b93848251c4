"""Signs of a stack trace in the body of an answer."""

import json

import pytest

from drills.workbench.traces import traces_in


@pytest.mark.parametrize(
    "told",
    [
        repr(RuntimeError('canceling statement\nCONTEXT:  while locking tuple (7,6) in relation "replay_budgets"')),
        "no budget\nCONTEXT:  PL/pgSQL function guard() line 5 at RAISE",
        'duplicate key value violates unique constraint "k"\nDETAIL:  Key (event_id)=(7f) already exists.',
        "DETAIL:  Failing row contains (1, another tenant's).",
        "ERROR:  value overflows numeric format\nLINE 1: insert into event_outbox values ('7f', '{\"a\":1e40...",
    ],
)
def test_words_of_the_database_are_found(told: str) -> None:
    """The place in a statement and the quoted row are found, also if they are quoted twice."""
    assert traces_in(json.dumps({"detail": told}).encode())


@pytest.mark.parametrize(
    "told",
    [
        'Can\'t locate object method "x" at /srv/lib/Replay/Store.pm line 13.\n',
        "(replay 0.1.0) lib/replay/store.ex:41: Replay.Store.take/1",
        "/srv/replay/store.lua:13: attempt to index a nil value",
        "src/replay/store.cr:7:3 in 'take'",
    ],
)
def test_places_in_sources_are_found(told: str) -> None:
    """A source file and line of Perl, Elixir, Lua or Crystal are found."""
    assert traces_in(json.dumps({"detail": told}).encode())


def test_a_plain_refusal_has_none() -> None:
    """Plain words about keys, rows and context are no trace."""
    said = "Key (a) is in use; the row contains (b); context: locking"
    assert not traces_in(json.dumps({"detail": said}).encode())
