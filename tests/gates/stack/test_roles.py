"""A guest on another server touches no other database, changes no existing role and leaves nothing."""

import psycopg
import pytest

from gates.stack import roles
from gates.stack.errors import StackOptionError
from gates.stack.postgres import Postgres, connect

MIGRATION = """
do $$ declare r text; begin
  foreach r in array
    array['replay_owner', 'replay_service', 'replay_worker', 'replay_gate', 'authenticated', 'anon'] loop
    if not exists (select from pg_roles where rolname = r) then execute format('create role %I nologin', r); end if;
  end loop;
end $$;
grant usage on schema public to replay_service, replay_worker, replay_gate;
create table public.mine (a int);
alter table public.mine owner to replay_owner;
"""


def be_guest(url: str, run: str) -> tuple[roles.Guest, dict[str, roles.Login]]:
    """What a stack does on a foreign server, with one small migration."""
    with roles.examine(url) as connection, roles.exclusively(connection):
        missing = tuple(sorted(set(roles.ROLES) - roles.existing(connection)))
        guest = roles.Guest(url, f"replaygate_{run}", run, missing)
        roles.create_database(connection, guest.database)
        own = roles.database_url(url, guest.database)
        with connect(own) as inside:
            inside.execute(MIGRATION)
        created = roles.existing(connection, missing)
        roles.mark(connection, created)
        return guest, roles.logins(connection, own, created, roles.password_key(connection, url), run)


def snapshot(url: str) -> list[object]:
    with connect(url) as connection:
        databases = connection.execute("select datname from pg_database order by 1").fetchall()
        found = connection.execute("select rolname, rolcanlogin, rolpassword from pg_authid order by 1").fetchall()
        return [databases, found]


def who(url: str) -> tuple[object, ...] | None:
    with connect(url) as connection:
        return connection.execute("select session_user, current_user").fetchone()


def test_a_guest_leaves_the_server_as_it_was(foreign_server: Postgres) -> None:
    """Databases, roles and passwords are the same before and after."""
    url = foreign_server.server.url("postgres")
    before = snapshot(url)
    guest, logins = be_guest(url, "aa")
    own = roles.database_url(url, guest.database)
    assert {who(login.url(own)) for login in logins.values()} == {(r, r) for r in roles.LOGINS}
    assert not any(login.password in str(snapshot(url)) for login in logins.values())
    guest.drop()
    assert snapshot(url) == before


def test_a_server_without_an_encoding_is_as_good_a_host(foreign_server: Postgres) -> None:
    """Names from SQL_ASCII databases are bytes unless they are cast to text."""
    url = foreign_server.server.url("postgres")
    with connect(url) as connection:
        connection.execute("create database plain template template0 encoding 'SQL_ASCII'")
    try:
        before = snapshot(url)
        guest, logins = be_guest(foreign_server.server.url("plain"), "aa")
        assert {who(login.url(roles.database_url(url, guest.database))) for login in logins.values()} == {
            (r, r) for r in roles.LOGINS
        }
        guest.drop()
        assert snapshot(url) == before
    finally:
        with connect(url) as connection:
            connection.execute("drop database plain")


def test_two_guests_share_the_roles_and_the_last_drops_them(foreign_server: Postgres) -> None:
    """Both use the same derived passwords, and the last one to end drops the roles."""
    url = foreign_server.server.url("postgres")
    before = snapshot(url)
    first, logins = be_guest(url, "aa")
    second, others = be_guest(url, "bb")
    assert {n: one.password for n, one in logins.items()} == {n: one.password for n, one in others.items()}
    first.drop()
    own = roles.database_url(url, second.database)
    assert who(others["replay_service"].url(own)) == ("replay_service", "replay_service")
    second.drop()
    assert snapshot(url) == before


def test_roles_of_another_deployment_keep_their_passwords(foreign_server: Postgres) -> None:
    """The stack logs in as a member of an existing replay_service, which stays as it was."""
    url = foreign_server.server.url("postgres")
    with connect(url) as connection:
        connection.execute("create role replay_service login password 'theirs'; create role replay_worker nologin")
    before = snapshot(url)
    guest, logins = be_guest(url, "aa")
    own = roles.database_url(url, guest.database)
    assert who(logins["replay_service"].url(own)) == ("replay_service_aa", "replay_service")
    assert who(logins["replay_worker"].url(own)) == ("replay_worker_aa", "replay_worker")
    assert who(logins["replay_gate"].url(own)) == ("replay_gate", "replay_gate")
    guest.drop()
    assert snapshot(url) == before


def test_a_role_that_somebody_began_to_use_is_left(foreign_server: Postgres) -> None:
    """A role of ours stays if another database depends on it."""
    url = foreign_server.server.url("postgres")
    guest, _ = be_guest(url, "aa")
    with connect(url) as connection:
        connection.execute("create table public.theirs (a int); grant select on public.theirs to replay_gate")
    guest.drop()
    with connect(url) as connection:
        assert roles.existing(connection) == {"replay_gate"}


def test_a_database_with_users_in_it_is_dropped(foreign_server: Postgres) -> None:
    """A connected client does not prevent it."""
    url = foreign_server.server.url("postgres")
    guest, logins = be_guest(url, "aa")
    with connect(logins["replay_service"].url(roles.database_url(url, guest.database))) as client:
        guest.drop()
        with pytest.raises(psycopg.OperationalError):
            client.execute("select 1")


def test_a_login_that_is_no_superuser_is_refused(postgres: Postgres) -> None:
    """The message says what is allowed, and holds no password."""
    with connect(postgres.server.url("postgres")) as connection:
        connection.execute("create role plain login password 'plainsecret'")
    with pytest.raises(StackOptionError, match="not a superuser; allowed: 15 to 18 and a superuser") as caught:
        roles.examine(postgres.server.url("postgres", "plain", "plainsecret"))
    assert "plainsecret" not in str(caught.value)


@pytest.mark.parametrize("url", ["mysql://x@127.0.0.1/db", "postgresql://u:topsecret@127.0.0.1:1/postgres"])
def test_an_unusable_server_is_an_option_error_without_secrets(url: str) -> None:
    """A wrong scheme or no answer is an error of the option, without the password."""
    with pytest.raises(StackOptionError, match="allowed") as caught:
        roles.examine(url)
    assert "topsecret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://a:b@h:1/d", "postgresql://u:p@h:1/d"),
        ("postgresql://h/d?sslmode=require", "postgresql://u:p@h/d?sslmode=require"),
        ("postgresql:///d?host=%2Ftmp", "postgresql://u:p@/d?host=%2Ftmp"),
    ],
)
def test_a_login_replaces_only_user_and_password(url: str, expected: str) -> None:
    """Host, port and options of the server's URL stay."""
    assert roles.Login("u", "p").url(url) == expected
