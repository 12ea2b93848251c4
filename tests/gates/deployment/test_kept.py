"""Connections that are kept for the next user: which, for how long, and what changes behind a pooler."""

from pathlib import Path

import psycopg
import pytest

from gates.config import environment_of, load_target
from gates.deployment.sql import database
from gates.deployment.sql.database import SESSION, TRANSACTION, backend_of, connect, lending, see_lending, told, value
from gates.deployment.sql.kept import borrowed, keeping
from gates.deployment.target import Target
from gates.evidence import TargetKind
from gates.proof.workbench.pooler import lacking, pgbouncer
from tests.waiting import until


def pid(url: str, *, autocommit: bool = True) -> int:
    with borrowed(url, autocommit=autocommit) as connection:
        return backend_of(connection)


def test_one_serves_all_who_come_after_each_other(migrated_url: str) -> None:
    """Users in turn share a connection within the block; at the end all are closed."""
    assert pid(migrated_url) != pid(migrated_url)
    with keeping():
        first = pid(migrated_url)
        with borrowed(migrated_url) as held:
            assert backend_of(held) == first
            assert pid(migrated_url) != first
        assert pid(migrated_url, autocommit=False) not in {first, pid(migrated_url)}
    with connect(migrated_url) as other:
        ours = "select count(*) from pg_stat_activity where application_name = 'replaygate' and pid = %s"
        until(lambda: value(other, ours, first) == 0)


def test_what_is_not_committed_is_rolled_back(migrated_url: str) -> None:
    """An error rolls back, and the connection is lent again."""
    with keeping():
        with pytest.raises(psycopg.errors.DivisionByZero), borrowed(migrated_url, autocommit=False) as one:
            one.execute("create table public.left_behind (a int)")
            one.execute("select 1 / 0")
        with borrowed(migrated_url, autocommit=False) as two:
            assert two is one
            assert value(two, "select to_regclass('public.left_behind')::text") is None


def test_what_ended_or_was_changed_is_not_lent_again(migrated_url: str) -> None:
    """A session that ended, or whose settings were changed, is not lent again."""
    with keeping():
        first = pid(migrated_url)
        with connect(migrated_url) as other:
            other.execute("select pg_terminate_backend(%s, 5000)", (first,))
        second = pid(migrated_url)
        assert second != first
        with borrowed(migrated_url) as connection:
            connection.give({"timezone": "Asia/Kolkata"})
        assert pid(migrated_url) != second


@pytest.mark.skipif(bool(lacking()), reason=lacking())
@pytest.mark.parametrize(("mode", "lent"), [("transaction", TRANSACTION), ("session", SESSION)])
def test_how_a_pooler_lends_is_seen_and_told(
    migrated_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, lent: str
) -> None:
    """A child learns the mode from its environment; where idle clients hold sessions, at most one is kept."""
    with pgbouncer(tmp_path, migrated_url, mode, size=3) as url:
        assert lending(url) == ""
        see_lending(url)
        assert lending(url) == lent
        environ = environment_of(Target(TargetKind.STAGING, database_url=url), {})
        assert load_target(environ).database_url == url
        monkeypatch.setattr(database, "_POOLED", {})
        told(environ)
        assert lending(url) == lent
        with keeping():
            with borrowed(url) as one:
                pass
            with borrowed(url) as two:
                assert (one is two) == (lent == TRANSACTION)
        with keeping(one_lent=True):
            with borrowed(url) as one, borrowed(url) as two:
                pass
            with borrowed(url) as three:
                assert three in (one, two)
            assert [one.closed, two.closed].count(True) == (lent == SESSION)


def test_without_a_pooler_none_is_told_of(migrated_url: str) -> None:
    """Without a pooler a child's environment names no mode."""
    see_lending(migrated_url)
    assert lending(migrated_url) == ""
    environ = environment_of(Target(TargetKind.STAGING, database_url=migrated_url), {database.LENDING: TRANSACTION})
    assert database.LENDING not in environ
