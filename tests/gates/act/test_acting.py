"""The sessions of an act: on a primary, on the server that was judged, with the settings it needs."""

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg.rows import dict_row

from gates.act import acting, rollout
from gates.act.emergency import emergency
from gates.act.flag import look_at
from gates.act.operations import set_budget
from gates.act.rollout import act, promote
from gates.decision.policy_file import Settings
from gates.decision.rules import Policy
from gates.deployment.identity import identity, server_of
from gates.deployment.sql import database as door
from gates.deployment.sql.connection import Answering
from gates.deployment.target import Target
from gates.errors import CannotWork
from gates.evidence import TargetKind
from gates.proof.healthy.servers import replica
from gates.request import RunRequest
from gates.verdict import NOT_ROLLED_BACK, Decision, Verdict
from replay_service.migrate import migrate
from tests.gates.act.flagged import FLAG, Database, flagged, is_on, on_change, order, rolled_back, switch
from tests.gates.gate_process import gate
from tests.postgres_fixture import PgServer
from tests.waiting import until

ORDER = order(patience_s=1)


def test_a_standby_proves_no_rollback(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a standby alone nothing is written, and both acts print the SQL; beside the primary it is not asked."""
    with replica(asked=False) as around:
        first, late = str(around.options["server"]), around.replica
        migrate(first)
        with (
            psycopg.connect(first, autocommit=True, row_factory=dict_row) as primary,
            psycopg.connect(late, autocommit=True) as standby,
        ):
            switch(primary, on=False)
            seen = "select to_regclass('public.feature_flags') is not null"
            until(lambda: standby.execute(seen).fetchone() == (True,), 30)
            until(lambda: standby.execute("select count(*) from public.feature_flags").fetchone() == (1,), 30)
            standby.execute("select pg_wal_replay_pause()")
            switch(primary, on=True)
            for action in (rolled_back(late, ORDER), emergency(late, ORDER, time.monotonic, print)):
                assert (action.result, action.flag) == ("failed", "unknown"), action
                assert "standby" in action.message
                assert "UPDATE public.feature_flags" in action.by_hand
            assert is_on(primary)
            monkeypatch.setattr(door, "_open", _any_server)
            assert acting.STANDBY in rolled_back(late, ORDER).message  # a pooler may hide what the server is
            monkeypatch.undo()
            one, other = urlsplit(late), urlsplit(first)
            both = f"{one.netloc},{other.hostname}:{other.port}"
            with door.session(one._replace(netloc=both).geturl(), read_only=True) as read:
                assert door.value(read, "select not pg_is_in_recovery()")
            with pytest.raises(psycopg.errors.FeatureNotSupported, match="Name the primary"):
                door.connect(late)
            assert rolled_back(one._replace(netloc=both).geturl(), ORDER).result == "done"
            assert not is_on(primary)


_open = door._open


def _any_server(url: str, *, primary: bool, **more: Any) -> Answering:
    """Accepts a standby, whatever the URL asks for."""
    assert primary
    return _open(url, **more)


RECORDING = """
create table public.settings_seen (name text, setting text);
grant insert on public.settings_seen to public;
create function public.see() returns trigger language plpgsql as $$ begin
  insert into public.settings_seen
  select s.name, s.setting from pg_catalog.pg_settings s
  where s.name in ('synchronous_commit', 'session_replication_role', 'row_security', 'search_path',
                   'default_transaction_read_only', 'transaction_timeout');
  return new; end $$;
create trigger see before update on public.feature_flags for each row execute function public.see();
alter table public.feature_flags enable always trigger see;
"""


@pytest.mark.parametrize("what", ["promote", "rollback"])
@pytest.mark.parametrize(
    ("given", "wanted"), [("off", "on"), ("local", "on"), ("remote_write", "on"), ("remote_apply", "remote_apply")]
)
def test_an_act_has_the_settings_that_it_relies_on(
    what: str, given: str, wanted: str, pg_server: PgServer, migrated_db: str, database: Database
) -> None:
    """Whatever the database sets, commits are durable, triggers fire, it may write, and no other limit cuts it."""
    database.execute(RECORDING.encode())
    url = pg_server.url(migrated_db)
    others = ["session_replication_role = replica", "default_transaction_read_only = on", "row_security = off"]
    others += ["client_encoding = 'EUC_TW'"]  # of which Python knows nothing
    if database.info.server_version >= 170000:
        others.append("transaction_timeout = '200ms'")
    for setting in (f"synchronous_commit = {given}", *others):
        pg_server.superuser.execute(f"alter database {migrated_db} set {setting}".encode())
    done = promote(url, replace(ORDER, seen=look_at(url, FLAG))) if what == "promote" else rolled_back(url, ORDER)
    assert done.result == "done", done
    seen = {r["name"]: r["setting"] for r in database.execute("select * from public.settings_seen").fetchall()}
    assert seen["synchronous_commit"] == wanted
    assert seen["session_replication_role"] == "origin"
    assert (seen["row_security"], seen["default_transaction_read_only"]) == ("on", "off")
    assert seen.get("transaction_timeout", "0") == "0"


def test_an_act_is_on_the_server_that_was_judged(migrated_url: str, database: Database) -> None:
    """On another server nothing is changed, and a rollback never counts as done."""
    seen = look_at(migrated_url, FLAG)
    assert seen is not None
    elsewhere = replace(ORDER, seen=replace(seen, server="7/7"))
    step = act(Verdict(Decision.PROMOTE, "passed"), elsewhere, migrated_url)
    assert (step.result, step.holds, "another one than was judged" in step.message) == ("changed", True, True)
    back = act(Verdict(Decision.ROLLBACK, "harm"), elsewhere, migrated_url)
    assert (back.result, back.flag, "another one than was judged" in back.message) == ("failed", "unknown", True)
    assert look_at(migrated_url, FLAG) == seen
    switch(database, on=True)
    here = replace(ORDER, seen=look_at(migrated_url, FLAG))
    assert act(Verdict(Decision.PROMOTE, "passed"), here, migrated_url).to_percent == 50


def test_an_old_primary_that_comes_back_is_not_what_was_judged() -> None:
    """An old primary still accepts writes that nobody sees; only the new one may be changed."""
    with replica(asked=False) as around:
        old, new = str(around.options["server"]), around.replica
        migrate(old)
        with (
            psycopg.connect(old, autocommit=True, row_factory=dict_row) as primary,
            psycopg.connect(new, autocommit=True, row_factory=dict_row) as standby,
        ):
            switch(primary, on=True)
            before = look_at(old, FLAG)
            there = "select to_regclass('public.feature_flags') is not null as seen"
            until(lambda: standby.execute(there).fetchone() == {"seen": True}, 30)
            until(lambda: standby.execute("select from public.feature_flags").rowcount > 0, 30)
            standby.execute("select pg_promote()")
            standby.execute("checkpoint")
            judged = look_at(new, FLAG)
            wrong = rolled_back(old, replace(ORDER, seen=judged))
            assert (wrong.result, wrong.flag, is_on(primary)) == ("failed", "unknown", True), wrong
            assert act(Verdict(Decision.PROMOTE, "passed"), replace(ORDER, seen=judged), old).result == "changed"
            assert rolled_back(new, replace(ORDER, seen=before)).result == "done"


@pytest.mark.parametrize(
    ("verdict", "judged", "kept"),
    [(Decision.PROMOTE, True, 1), *((Decision.ROLLBACK, judged, kept) for judged in (True, False) for kept in (1, 2))],
)
def test_what_a_name_leads_to_may_change_in_an_act(
    verdict: Decision,
    judged: bool,
    kept: int,
    migrated_url: str,
    database: Database,
    pg_server: PgServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If the name leads to another database, that one is left alone, and its answers do not count."""
    opened, open_one, seen = itertools.count(), door._open, look_at(migrated_url, FLAG)
    monkeypatch.setattr(rollout, "SETTLE_S", 0)
    with pg_server.database() as other_db, _migrated(pg_server.url(other_db)) as other:
        there = look_at(other, FLAG)
        monkeypatch.setattr(door, "_open", lambda url, **o: open_one(url if next(opened) < kept else other, **o))
        action = act(Verdict(verdict, "x"), replace(ORDER, seen=seen if judged else None), migrated_url)
        monkeypatch.undo()
        assert next(opened) > kept
        assert action.holds, action
        assert look_at(other, FLAG) == there


def test_a_login_that_may_not_read_the_number_of_the_cluster_still_knows_its_database(
    pg_server: PgServer, migrated_db: str, database: Database
) -> None:
    """Without the cluster's identifier, the database itself identifies it."""
    database.execute("revoke execute on function pg_catalog.pg_control_system() from public")
    with acting.session(pg_server.url(migrated_db, "replay_gate"), read_only=True) as connection:
        assert server_of(connection).endswith(f"/{migrated_db}")


@contextmanager
def _migrated(url: str) -> Iterator[str]:
    migrate(url)
    with flagged(url, percent=50):
        yield url


def by_command(folder: Path, url: str, *words: str, **environ: str) -> int:
    """The exit code of `gate rollback`."""
    state = ("--state", str(folder / "state"), "--policy", str(folder / "gate.yaml"))
    (folder / "gate.yaml").write_text("version: 1\nrollout: {rollback_patience_s: 1}\n", encoding="utf-8")
    return gate("rollback", "--reason", "harm", *state, *words, environ={"DATABASE_URL": url, **environ}).returncode


@pytest.mark.parametrize("variable", ["PGHOSTADDR", "PGPORT", "PGDATABASE", "PGOPTIONS", "PGSERVICE", "PGTZ"])
def test_no_variable_of_libpq_leads_an_act_elsewhere(
    variable: str, migrated_url: str, database: Database, tmp_path: Path
) -> None:
    """If the URL names a host, libpq's variables add nothing to the place."""
    parts = urlsplit(migrated_url)
    wrong = {
        "PGHOSTADDR": "127.0.0.9",
        "PGPORT": "9",
        "PGDATABASE": "none",
        "PGOPTIONS": "-c x=",
        "PGSERVICE": "x",
        "PGTZ": "x",
    }
    assert by_command(tmp_path, migrated_url, **{variable: wrong[variable]}) == 0
    assert not is_on(database)
    switch(database, on=True)
    login = parts.netloc.rpartition("@")[0]
    elsewhere = {
        "PGHOSTADDR": parts._replace(netloc=f"{login}@nowhere.invalid:{parts.port}").geturl(),
        "PGPORT": parts._replace(netloc=f"{login}@{parts.hostname}").geturl(),
        "PGDATABASE": parts._replace(path="").geturl(),
    }
    right = {"PGHOSTADDR": "127.0.0.1", "PGPORT": str(parts.port), "PGDATABASE": parts.path[1:]}
    if variable in elsewhere:
        assert by_command(tmp_path, elsewhere[variable], **{variable: right[variable]}) == NOT_ROLLED_BACK
        assert is_on(database)


@pytest.mark.parametrize("in_a_file", [True, False])
def test_a_connection_string_without_a_place_has_that_of_the_environment(
    in_a_file: bool, migrated_url: str, database: Database, tmp_path: Path
) -> None:
    """Variables from --env-file count as well, and the memory is kept for that place."""
    parts = urlsplit(migrated_url)
    place = {"PGHOST": str(parts.hostname), "PGPORT": str(parts.port)}
    url = f"dbname={parts.path[1:]} user={parts.username} password={parts.password}"
    if in_a_file:
        (tmp_path / "env").write_text("".join(f"{k}={v}\n" for k, v in place.items()), encoding="utf-8")
    more = ("--env-file", str(tmp_path / "env")) if in_a_file else ()
    assert by_command(tmp_path, url, *more, **({} if in_a_file else place)) == 0
    assert not is_on(database)
    made = identity(Target(TargetKind.PRODUCTION, database_url=migrated_url))
    assert [path.name for path in (tmp_path / "state").iterdir()] == [made]


def test_two_services_are_two_deployments() -> None:
    """Two names in a service file are two places."""
    made = [identity(Target(TargetKind.PRODUCTION, database_url=f"service={name}")) for name in ("prod", "staging")]
    assert made[0] != made[1]


def test_a_gate_that_stood_still_before_its_step_takes_none(migrated_url: str, database: Database) -> None:
    """If the machine slept after the verdict, nobody knows what runs now. A rollback is still done."""
    seen = look_at(migrated_url, FLAG)
    assert seen is not None
    then = str(database.execute("select (now() - interval '61 minutes')::text as at").fetchall()[0]["at"])
    request, policy = RunRequest(Target(TargetKind.STAGING), Policy(), Settings(), Path()), Policy(max_age_minutes=60)
    promoted = Verdict(Decision.PROMOTE, "all passed")
    late = replace(request.order(policy, replace(seen, at=then), promoted), plan=ORDER.plan)
    for wanted in (replace(late, dry_run=True), late):
        action = act(promoted, wanted, migrated_url)
        assert (action.kind, action.result, action.holds) == ("none", "refused", True)
        assert "was judged more than 60 minutes ago" in action.message
    assert look_at(migrated_url, FLAG) == seen
    assert act(Verdict(Decision.ROLLBACK, "harm"), late, migrated_url).flag == "off"


@pytest.mark.parametrize("does", ["new.daily_limit := 500; return new;", "return null;"])
def test_a_limit_is_set_once_it_is_read_back(does: str, migrated_url: str, database: Database) -> None:
    """If a trigger keeps another limit than was asked for, or none, the command fails and tells what there is."""
    tenant = "00000000-0000-4000-8000-0000000000aa"
    database.execute("insert into public.companies (id, name) values (%s, 'x')", (tenant,))
    database.execute("insert into public.replay_budgets (company_id) values (%s) on conflict do nothing", (tenant,))
    target = Target(TargetKind.STAGING, database_url=migrated_url)
    assert set_budget(target, tenant, 7, None)["daily_limit"] == 7
    on_change(database, "before update on public.replay_budgets", does)
    with pytest.raises(CannotWork, match=r"daily_limit|unique"):
        set_budget(target, tenant, 9, None)
