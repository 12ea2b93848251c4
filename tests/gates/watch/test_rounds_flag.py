"""A watch rolls back only where it was asked to, for harm that it saw twice, and never against a person."""

import dataclasses
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from gates import past_decisions
from gates.act.insist import Carried
from gates.errors import CannotWork, NotRolledBack
from gates.evidence import Outcome
from gates.operator.execution import Interrupted
from gates.verdict import NOT_ROLLED_BACK, Decision
from gates.watch import story
from gates.watch.incidents import Patience
from gates.watch.story import Watch
from tests.gates.act.flagged import flagged as connected
from tests.gates.act.flagged import is_on, switch
from tests.gates.watch.rounds import Suites, kinds, look
from tests.postgres_fixture import TEMPLATE, PgServer


@pytest.fixture
def flagged(watched: Watch, pg_server: PgServer) -> Iterator[tuple[Watch, str]]:
    """A watch that may roll back over a migrated database, and the database's URL; the flag is on at 50 %."""
    with pg_server.database(TEMPLATE) as name:
        url = pg_server.url(name)
        put(url, True)
        target = dataclasses.replace(watched.target, database_url=url)
        yield dataclasses.replace(watched, target=target, rollback=True), url


def put(url: str, enabled: bool) -> None:
    with connected(url) as connection:
        switch(connection, on=enabled, percent=50)


def flag(url: str) -> bool:
    with psycopg.connect(url, row_factory=dict_row) as connection:
        return is_on(connection)


def audited(url: str) -> list[dict[str, Any]]:
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "select metadata from public.audit_logs where action = 'flag_rolled_back' order by id"
        )
        return [r[0] for r in rows.fetchall()]


@pytest.mark.parametrize(
    ("seen", "on"),
    [
        ((Outcome.FAIL,), True),
        ((Outcome.FAIL, Outcome.FAIL), False),
        ((Outcome.UNKNOWN, Outcome.UNKNOWN, Outcome.UNKNOWN), True),
        ((Outcome.FAIL, Outcome.UNKNOWN, Outcome.FAIL), True),
        ((Outcome.FAIL, Outcome.PASS, Outcome.FAIL), True),
    ],
)
def test_the_flag_goes_off_only_for_harm_seen_in_two_rounds_in_a_row(
    flagged: tuple[Watch, str], suites: Suites, seen: tuple[Outcome, ...], on: bool, tmp_path: Path
) -> None:
    """By the path of a run: one audit row with the reason, and a line of the history; unknown never rolls back."""
    watched, url = flagged
    settings = dataclasses.replace(watched.policy_file.settings, state=tmp_path / "remembered")
    watched = dataclasses.replace(watched, policy_file=dataclasses.replace(watched.policy_file, settings=settings))
    dones = [look(watched, suites, grave=outcome) for outcome in seen]
    assert flag(url) is on
    assert len(audited(url)) == (not on)
    told = past_decisions.read(settings.state_of(watched.name))
    assert [(one.decision, one.release, one.target) for one in told] == [(Decision.ROLLBACK, "r1", "staging")] * (
        not on
    )
    if not on:
        assert dones[-1].round.action["result"] == "done"
        assert "seen failing in 2 rounds in a row" in audited(url)[0]["reason"]
        assert ("rolled back", "grave") in kinds(dones[-1])


@pytest.mark.parametrize("ended", [None, CannotWork("no room"), Interrupted(signal.SIGTERM)])
def test_a_rollback_that_could_not_be_carried_out_is_told_at_once_and_whole(
    flagged: tuple[Watch, str], suites: Suites, ended: BaseException | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The statement to run by hand, and exit code 21, also where the disk is full, or a signal comes."""
    watched, url = flagged
    said: list[str] = []
    watched = dataclasses.replace(watched, patience=Patience(confirm=1), warn=said.append)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "create function public.refuse() returns trigger language plpgsql as 'begin raise exception ''no''; end';"
            "create trigger refuse before update on public.feature_flags for each row execute function public.refuse()"
        )
    if ended is None:
        assert look(watched, suites, grave=Outcome.FAIL).round.exit_code == NOT_ROLLED_BACK
    else:

        def kept(*_: object) -> CannotWork:
            if isinstance(ended, CannotWork):
                return ended
            raise ended

        monkeypatch.setattr(story, "_kept", kept)
        with pytest.raises(NotRolledBack, match="THE FLAG IS STILL ON"):
            look(watched, suites, grave=Outcome.FAIL)
    assert flag(url)
    told = next(one for one in said if one.startswith("THE FLAG IS STILL ON"))
    assert "UPDATE public.feature_flags SET enabled = false WHERE key = 'outbox.enabled';" in told


def test_a_signal_in_the_rollback_ends_the_watch_and_is_remembered(
    flagged: tuple[Watch, str], suites: Suites, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One signal is enough. No older promote stands, whatever became of the flag."""
    watched, _url = flagged
    settings = dataclasses.replace(watched.policy_file.settings, state=tmp_path / "remembered")
    file = dataclasses.replace(watched.policy_file, settings=settings)
    watched = dataclasses.replace(watched, policy_file=file, patience=Patience(confirm=1))
    suites.outcomes = {"sql/spot/grave": Outcome.FAIL}

    def ended(*_: object) -> Carried:
        raise Interrupted(signal.SIGTERM)

    monkeypatch.setattr("gates.act.rollback.insist", ended)
    with pytest.raises(NotRolledBack, match="THE FLAG MAY STILL BE ON"):
        story.rounds(watched, lambda _done: None, lambda _s: None, most=2)
    (told,) = past_decisions.read(settings.state_of(watched.name))
    assert (told.decision, told.result, told.release) == (Decision.ROLLBACK, "failed", "r1")


def test_without_being_asked_the_flag_is_never_touched(flagged: tuple[Watch, str], suites: Suites) -> None:
    """Without permission to roll back, a watch only looks."""
    watched, url = flagged
    for _ in range(3):
        look(dataclasses.replace(watched, rollback=False), suites, grave=Outcome.FAIL)
    assert flag(url)


def test_a_flag_that_a_human_switched_off_stays_as_it_is(flagged: tuple[Watch, str], suites: Suites) -> None:
    """Nothing is written, and a recovery does not switch it on."""
    watched, url = flagged
    look(watched, suites, grave=Outcome.FAIL)
    put(url, False)
    done = look(watched, suites, grave=Outcome.FAIL)
    assert done.round.action["result"] == "nothing_to_do"
    look(watched, suites)
    assert (flag(url), audited(url)) == (False, [])


def test_a_human_who_switches_on_again_is_not_overruled(flagged: tuple[Watch, str], suites: Suites) -> None:
    """There is one rollback for each incident."""
    watched, url = flagged
    for _ in range(2):
        look(watched, suites, grave=Outcome.FAIL)
    put(url, True)
    look(watched, suites, grave=Outcome.FAIL)
    look(watched, suites, grave=Outcome.FAIL)
    assert flag(url)
    look(watched, suites)
    for _ in range(2):
        look(watched, suites, grave=Outcome.FAIL)
    assert (flag(url), len(audited(url))) == (False, 2)


def test_a_mild_failure_never_rolls_back_and_patience_can_be_longer(flagged: tuple[Watch, str], suites: Suites) -> None:
    """Only failures that the policy lets roll back count; --confirm sets how many rounds."""
    watched, url = flagged
    for _ in range(3):
        look(watched, suites, mild=Outcome.FAIL)
    slow = dataclasses.replace(watched, patience=Patience(confirm=3))
    for _ in range(2):
        look(slow, suites, grave=Outcome.FAIL)
    assert flag(url)
    look(slow, suites, grave=Outcome.FAIL)
    assert not flag(url)
