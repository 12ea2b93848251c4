"""The audit trail across runs: what a checkpoint saves a run, and that nothing can be removed unnoticed."""

import datetime as dt
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psycopg
import pytest

from sql_checks import checkpoint
from sql_checks.spotfile import read_folder
from sql_checks.sqlsession import SqlSession
from sql_checks.trail import open_trail
from tests.postgres_fixture import PgServer
from tests.sql_checks.conftest import COMPANY, outcome_of

CHAIN, HEADS, COUNTS = (f"sql/spot/audit-{name}" for name in ("chain", "heads", "row-counts"))
SPOTS = [spot for spot in read_folder() if spot.spec.id in checkpoint.TRAIL]
OTHER = "00000000-0000-4000-8000-0000000000bb"
GREEN = dict.fromkeys((s.spec.id for s in SPOTS), "pass")


@pytest.fixture(scope="module")
def longer(pg_server: PgServer, seeds: Callable[[], str]) -> Iterator[str]:
    """A copy of the seeded database, with 3,000 more audit rows of two scopes."""
    with pg_server.database(seeds()) as name:
        change(pg_server.url(name), append(1500, COMPANY), append(1500, OTHER))
        yield name


@pytest.fixture
def url(pg_server: PgServer, longer: str) -> Iterator[str]:
    """A copy of it for one test."""
    with pg_server.database(longer) as name:
        yield pg_server.url(name)


def append(rows: int, scope: str) -> str:
    """Append rows in several transactions: a row reads every version of its head from its own transaction."""
    return (
        f"do $$ begin for n in 1..{rows} by 500 loop insert into public.audit_logs (action, actor, scope)"
        f" select 'x', 'x', '{scope}' from generate_series(n, least(n + 499, {rows})); commit; end loop; end $$"
    )


def change(url: str, *statements: str) -> None:
    """Append rows as a service does, and run all other statements past the triggers that guard the trail."""
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            if not statement.startswith("do "):
                connection.execute("alter table public.audit_logs disable trigger user")
            connection.execute(statement.encode())
            connection.execute("alter table public.audit_logs enable always trigger audit_logs_chain")
            connection.execute("alter table public.audit_logs enable always trigger audit_logs_append_only")


def verify(url: str, state: Path, *, deep: bool = False, required: bool = False) -> dict[str, str]:
    """Run the trail's checks once; the outcomes, and `message` with the text."""
    session = SqlSession(url, deep=deep)
    found: dict[str, str] = {}
    messages: list[str] = []
    try:
        trail = open_trail(session, state)
        for spot in SPOTS:
            outcome, message, _ = outcome_of(partial(trail.judge, spot, session, required=required))
            found[spot.spec.id] = outcome
            messages.append(message)
    finally:
        session.close()
    return {**found, "message": " ".join(filter(None, messages))}


def outcomes(found: dict[str, str]) -> dict[str, str]:
    return {k: v for k, v in found.items() if k != "message"}


def red(found: dict[str, str]) -> set[str]:
    return {k for k, v in outcomes(found).items() if v == "fail"}


def the_file(state: Path) -> Path:
    (path,) = state.iterdir()
    return path


CUT = f"""
with gone as (
  delete from public.audit_logs where scope = '{COMPANY}' and id > (
    select id from public.audit_logs where scope = '{COMPANY}' order by id desc offset 5 limit 1) returning 1)
update public.audit_heads h set row_count = row_count - 5, (last_id, last_hash) = (
  select id, hash from public.audit_logs where scope = h.scope order by id desc offset 5 limit 1)
where scope = '{COMPANY}'"""


@pytest.mark.parametrize(
    "statements",
    [
        (CUT,),
        (CUT, append(5, COMPANY)),
        (
            f"delete from public.audit_logs where scope = '{OTHER}'",
            f"delete from public.audit_heads where scope = '{OTHER}'",
        ),
        ("truncate public.audit_logs, public.audit_heads", append(9, OTHER)),
        ("truncate public.audit_logs, public.audit_heads",),
        (f"update public.audit_heads set row_count = row_count - 1 where scope = '{OTHER}'",),
    ],
    ids=["tail", "tail-grown-again", "scope", "everything", "emptied", "count"],
)
def test_what_was_verified_cannot_be_removed(statements: tuple[str, ...], url: str, tmp_path: Path) -> None:
    """The next runs miss a removed end, or a removed chain, even with repaired heads."""
    assert outcomes(verify(url, tmp_path)) == GREEN
    change(url, *statements)
    for _ in range(2):
        assert checkpoint.CHECK in red(verify(url, tmp_path))


def test_a_cut_with_repaired_heads_is_not_seen_without_a_checkpoint(url: str, tmp_path: Path) -> None:
    """The control: only the gate's memory shows that the end is missing."""
    change(url, CUT)
    assert outcomes(verify(url, tmp_path)) == GREEN


def test_the_next_run_reads_only_what_is_new(url: str, tmp_path: Path) -> None:
    """Of the rows before the checkpoint, a thousand are read again, and all with --deep."""
    assert outcomes(verify(url, tmp_path)) == GREEN
    change(
        url,
        "update public.audit_logs set actor = 'another' where id = (select min(id) from public.audit_logs)",
        append(7, COMPANY),
    )
    assert outcomes(verify(url, tmp_path)) == GREEN
    assert red(verify(url, tmp_path, deep=True)) == {CHAIN}
    assert red(verify(url, tmp_path / "none")) == {CHAIN}


@pytest.mark.parametrize(
    ("statement", "check"),
    [
        (
            "update public.audit_logs set actor = 'another' where id = (select max(id) - 3 from public.audit_logs)",
            {CHAIN},
        ),
        (
            "delete from public.audit_logs where id = (select max(id) - 3 from public.audit_logs)",
            {CHAIN, HEADS, COUNTS},
        ),
        ("delete from public.audit_logs where id = (select max(id) from public.audit_logs)", {HEADS, COUNTS}),
    ],
)
def test_what_is_new_is_verified(statement: str, check: set[str], url: str, tmp_path: Path) -> None:
    """A change after the checkpoint fails, and the checkpoint stays where it was."""
    assert outcomes(verify(url, tmp_path)) == GREEN
    before = the_file(tmp_path).read_text(encoding="utf-8")
    change(url, append(9, COMPANY), statement)
    assert red(verify(url, tmp_path)) == check
    assert the_file(tmp_path).read_text(encoding="utf-8") == before


def test_more_than_a_run_reads_is_read_without_a_gap(url: str, tmp_path: Path) -> None:
    """If too much is new, the first and last rows are read, and the next run continues after the first."""
    assert outcomes(verify(url, tmp_path)) == GREEN
    change(url, append(13_000, COMPANY))
    change(
        url, "update public.audit_logs set actor = 'another' where id = (select max(id) - 7000 from public.audit_logs)"
    )
    assert outcomes(verify(url, tmp_path)) == GREEN
    assert json.loads(the_file(tmp_path).read_text(encoding="utf-8"))["is_behind"]
    assert red(verify(url, tmp_path)) == {CHAIN}


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda _data: "", "JSONDecodeError"),
        (lambda _data: "{}", "KeyError"),
        (lambda data: json.dumps({**data, "last_hash": "ab"}), "no hash"),
        (lambda data: json.dumps({**data, "format": 2}), "format 2"),
        (lambda data: json.dumps({**data, "scopes": {"x": 1}}), "TypeError"),
        (lambda data: json.dumps({**data, "database": "another"}), "it is of another"),
        (lambda data: json.dumps({**data, "written_at": "2999-01-01T00:00:00+00:00"}), "it is of 2999"),
    ],
    ids=["empty", "no-members", "no-hash", "format", "scopes", "another-database", "future"],
)
def test_a_checkpoint_that_cannot_be_used_is_unknown(
    spoil: Callable[[dict[str, object]], str], said: str, url: str, tmp_path: Path
) -> None:
    """It is neither ignored nor overwritten; other checks work without it."""
    assert outcomes(verify(url, tmp_path)) == GREEN
    path = the_file(tmp_path)
    path.write_text(spoilt := spoil(json.loads(path.read_text(encoding="utf-8"))), encoding="utf-8")
    found = verify(url, tmp_path)
    assert outcomes(found) == {**GREEN, checkpoint.CHECK: "unknown"}
    assert said in found["message"]
    assert path.read_text(encoding="utf-8") == spoilt


def test_a_trail_older_than_its_checkpoint_fails(url: str, tmp_path: Path) -> None:
    """If the trail ends before the checkpoint, its end was removed."""
    assert outcomes(verify(url, tmp_path)) == GREEN
    path = the_file(tmp_path)
    data = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**data, "last_id": data["last_id"] + 10**9}), encoding="utf-8")
    assert red(verify(url, tmp_path)) == {checkpoint.CHECK}


def test_a_server_that_was_started_since_may_be_a_restored_one(url: str, tmp_path: Path) -> None:
    """After a restart, missing rows are unknown, and stay so: the server may be a restored backup."""
    assert outcomes(verify(url, tmp_path)) == GREEN
    path = the_file(tmp_path)
    data = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**data, "server_started_at": "2001-01-01T00:00:00+00:00"}), encoding="utf-8")
    change(url, CUT)
    for _ in range(2):
        found = verify(url, tmp_path)
        assert outcomes(found) == {**GREEN, checkpoint.CHECK: "unknown"}
        assert "restored" in found["message"]


def test_a_checkpoint_of_another_database_never_counts(
    url: str, pg_server: PgServer, seeded_db: str, tmp_path: Path
) -> None:
    """Databases share a folder only; one that is recreated under the same name is another."""
    assert outcomes(verify(url, tmp_path)) == GREEN
    assert outcomes(verify(pg_server.url(seeded_db), tmp_path)) == GREEN
    with pg_server.database(seeded_db) as name:
        assert outcomes(verify(pg_server.url(name), tmp_path)) == GREEN
        assert len(list(tmp_path.iterdir())) == 3
    with psycopg.connect(pg_server.url("postgres"), autocommit=True) as connection:
        connection.execute(f"create database {name} template {seeded_db}".encode())
    assert outcomes(verify(pg_server.url(name), tmp_path)) == GREEN
    assert len(list(tmp_path.iterdir())) == 4
    pg_server.drop_database(name)


def test_a_required_checkpoint_must_be_there(url: str, tmp_path: Path) -> None:
    """Where the policy requires one, the first run is unknown unless an earlier one left it."""
    assert outcomes(verify(url, tmp_path, required=True)) == {**GREEN, checkpoint.CHECK: "unknown"}
    assert not list(tmp_path.iterdir())
    assert outcomes(verify(url, tmp_path)) == GREEN
    assert outcomes(verify(url, tmp_path, required=True)) == GREEN


def test_a_folder_that_cannot_be_used_is_unknown(url: str, tmp_path: Path) -> None:
    """A run that cannot remember does not pass as one that does."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    for folder, said in ((tmp_path / "file", "cannot be used"), (Path("/proc/none"), "--state")):
        found = verify(url, folder)
        assert outcomes(found) == {**GREEN, checkpoint.CHECK: "unknown"}
        assert said in found["message"]


def test_an_earlier_end_does_not_replace_a_later_one(url: str, tmp_path: Path) -> None:
    """Of two parallel runs, the farther checkpoint is kept."""
    assert outcomes(verify(url, tmp_path)) == GREEN
    path = the_file(tmp_path)
    later = path.read_text(encoding="utf-8")
    data = json.loads(later)
    place = (data["last_id"] - 10, "a" * 64)
    now = dt.datetime.now(dt.UTC)
    checkpoint.write(path, checkpoint.Checkpoint(data["database"], *place, {}, now, now), None)
    assert path.read_text(encoding="utf-8") == later


def swap(first: int) -> str:
    """Give two neighbours in a chain each other's id, as two writers that raced for the head leave them."""
    return f"""
do $$
declare
  a audit_logs; b audit_logs; head audit_heads; spare text;
begin
  select * into a from public.audit_logs where scope = '{OTHER}' order by id desc offset {first + 1} limit 1;
  select * into b from public.audit_logs where scope = '{OTHER}' order by id desc offset {first} limit 1;
  delete from public.audit_logs where id >= a.id and scope = '{OTHER}';
  select a.id into spare; a.id := b.id; b.id := spare::bigint;
  a.hash := audit_hash(a.prev_hash, a.id, a.action, a.actor, a.scope, a.target_count, a.success_count, a.failure_count,
                       a.metadata, a.request_id, a.created_at);
  b.prev_hash := a.hash;
  b.hash := audit_hash(b.prev_hash, b.id, b.action, b.actor, b.scope, b.target_count, b.success_count, b.failure_count,
                       b.metadata, b.request_id, b.created_at);
  insert into public.audit_logs values (a.*), (b.*);
  update public.audit_heads set last_id = b.id, last_hash = b.hash, row_count = (
    select count(*) from public.audit_logs where scope = '{OTHER}')
  where scope = '{OTHER}';
end $$"""


def test_ids_need_not_follow_the_chain(url: str, tmp_path: Path) -> None:
    """Writers may take ids before they lock the head: the hashes are the chain."""
    change(url, swap(0))
    assert outcomes(verify(url, tmp_path)) == GREEN
    change(url, append(3, OTHER))
    assert outcomes(verify(url, tmp_path)) == GREEN
    change(url, swap(0))
    assert outcomes(verify(url, tmp_path / "fresh")) == GREEN


def test_two_rows_after_one_are_a_fork(url: str, tmp_path: Path) -> None:
    """Two rows that follow the same row fail, each being in itself right."""
    change(
        url,
        f"""insert into public.audit_logs (id, action, actor, scope, created_at, prev_hash, hash)
        select id + 1000000, action, actor, scope, created_at, prev_hash, audit_hash(prev_hash, id + 1000000,
          action, actor, scope, target_count, success_count, failure_count, metadata, request_id, created_at)
        from public.audit_logs where scope = '{OTHER}' order by id desc limit 1""",
    )
    assert CHAIN in red(verify(url, tmp_path))


def test_ids_may_have_gaps(url: str, tmp_path: Path) -> None:
    """Gaps hide no rows, since rows are counted."""
    change(url, "alter sequence audit_logs_id_seq increment by 1000000", append(50, OTHER))
    change(
        url,
        "update public.audit_logs set actor = 'y' where id = (select id from public.audit_logs"
        " order by id desc offset 40 limit 1)",
    )
    assert red(verify(url, tmp_path)) == {CHAIN}
