"""Layouts of migration tools: which files run, in which order, in which transactions."""

import os
from pathlib import Path

import pytest

from gates.errors import ConfigError
from gates.rehearsal.command import rehearsal
from gates.rehearsal.reading.layouts import layout_of
from gates.rehearsal.reading.sources import read_migrations
from gates.rehearsal.reading.splitting import split
from gates.rehearsal.report import RehearsalResult

INDEX = "create table a (id int);\ncreate index concurrently ia on a (id);\n"
ALONE = "create index concurrently ia on a (id);\n"
VALUE = "alter type e add value 'b';\ncreate table q (x e default 'b');\n"
TABLE, ENUM = "create table a (id int);\n", "create type e as enum ('a');\n"

REFUSED = {
    "Prisma": {"migration_lock.toml": "", "1_a/migration.sql": ENUM, "2_b/migration.sql": VALUE},
    "dbmate": {"1_a.sql": f"-- migrate:up\n{INDEX}-- migrate:down\ndrop table a;\n"},
    "dbmate, one query": {"1_a.sql": f"-- migrate:up transaction:false\n{INDEX}"},
    "goose": {"1_a.sql": f"-- +goose Up\n{INDEX}-- +goose Down\ndrop table a;\n"},
    "sql-migrate": {"1_a.sql": f"-- +migrate Up\n{INDEX}"},
    "Flyway": {"V1__a.sql": ENUM, "V2__b.sql": VALUE},
    "Flyway, mixed": {"V1__a.sql": INDEX},
    "golang-migrate": {"000001_a.up.sql": INDEX, "000001_a.down.sql": "drop table a;\n"},
    "Atlas": {"atlas.sum": "", "1_a.sql": INDEX},
    "Diesel": {"1_a/up.sql": INDEX, "1_a/down.sql": "drop table a;\n"},
    "Drizzle": {"meta/_journal.json": "{}", "0000_a.sql": INDEX},
}
"""Folders with one statement, the last, that cannot run as the tool runs it."""
SPLIT = {
    "Prisma": {"1_a/migration.sql": TABLE, "2_b/migration.sql": ALONE},
    "dbmate": {"1.sql": f"-- migrate:up\n{TABLE}", "2.sql": f"-- migrate:up transaction:false\n{ALONE}"},
    "goose": {"1_a.sql": f"-- +goose NO TRANSACTION\n-- +goose Up\n{INDEX}"},
    "sql-migrate": {"1_a.sql": f"-- +migrate Up notransaction\n{INDEX}"},
    "Flyway": {"V1__a.sql": TABLE, "V2__b.sql": ALONE + "vacuum a;\n"},
    "Flyway, configured": {"V1__a.sql": INDEX, "V1__a.sql.conf": "executeInTransaction=false\n"},
    "golang-migrate": {"000001_a.up.sql": TABLE, "000002_b.up.sql": ALONE},
    "sqlx": {"1_a.up.sql": f"-- no-transaction\n{INDEX}"},
    "Atlas": {"atlas.sum": "", "1_a.sql": f"-- atlas:txmode none\n{INDEX}"},
    "Diesel": {"1_a/up.sql": INDEX, "1_a/metadata.toml": "run_in_transaction = false\n"},
    "its own transactions": {"V1__a.sql": f"begin;\n{TABLE}commit;\n{ALONE}"},
}
"""Folders whose last file no tool runs in one transaction."""
RUNS = {
    "no tool": {"1.sql": ENUM, "2.sql": INDEX, "3.sql": VALUE},
    "what undoes it first": {"1.sql": f"-- +goose Down\ndrop table a;\n-- +goose Up\n{TABLE}"},
    "two parts that do": {
        "1.sql": f"-- +migrate Up\n{TABLE}-- +migrate Down\ndrop table a;\n-- +migrate Up\nselect * from a;\n"
    },
    "knex": {"up/1.sql": TABLE, "down/1.sql": "drop table a;\n"},
    "Sqitch": {
        "sqitch.plan": "%syntax-version=1.0.0\n\nz 2024-01-01T00:00:00Z A <a@b> # x\na [z] 2024-01-02T00:00:00Z A\n",
        "deploy/z.sql": f"begin;\n{TABLE}commit;\n",
        "deploy/a.sql": "select * from a;\n",
        "revert/a.sql": "drop table b;\n",
        "verify/a.sql": "select * from b;\n",
    },
    "Flyway, placeholders": {
        "V1__a.sql": "create schema ${app};\ncreate table ${app}.${prefix}_t (t text default '${flyway:user}');\n",
        "V2__b.sql": "insert into ${app}.${prefix}_t default values;\n",
    },
    "Liquibase": {
        "changelog.sql": (
            f"--liquibase formatted sql\n--changeset a:1\n{TABLE}--changeset a:2 endDelimiter:/ splitStatements:false\n"
            "create function f() returns int language sql as $$ select 1 / 1; $$\n/\n--changeset a:3\nselect f();\n"
        )
    },
}
"""Folders whose statements all run in the order and the parts that the tool runs."""


def written(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def rehearsed(folder: Path, files: dict[str, str]) -> RehearsalResult:
    return rehearsal(read_migrations(written(folder, files)), os.environ)


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_a_tool_runs_in_one_transaction_is_one(name: str, tmp_path: Path) -> None:
    """The folder's layout or marks in the files tell the tool."""
    migrations = read_migrations(written(tmp_path, REFUSED[name]))
    layout, last = layout_of(migrations), migrations.sources[-1]
    assert layout is not None
    assert (layout.tool, layout.in_one_transaction(last, split(last))) == (name.partition(",")[0], True)


@pytest.mark.parametrize("name", SPLIT)
def test_a_file_that_opts_out_is_run_statement_by_statement(name: str, tmp_path: Path) -> None:
    """It opts out by its tool's words, as a single statement, or with its own BEGIN."""
    migrations = read_migrations(written(tmp_path, SPLIT[name]))
    layout, last = layout_of(migrations), migrations.sources[-1]
    assert layout is not None
    assert not layout.in_one_transaction(last, split(last))


@pytest.mark.parametrize(("name", "code"), [("Flyway", "55P04"), ("goose", "25001")])
def test_what_the_transaction_of_a_tool_refuses_is_a_cause(name: str, code: str, tmp_path: Path) -> None:
    """A new enum value in use and a concurrent index fail there, and the tool is named."""
    result = rehearsed(tmp_path, REFUSED[name])
    assert [(o.kind, o.code) for o in result.obstacles] == [("cause", code)]
    assert any(f"as {name} runs it" in note for note in result.notes)


@pytest.mark.parametrize("name", RUNS)
def test_what_a_tool_runs_is_run_in_its_order(name: str, tmp_path: Path) -> None:
    """Every statement runs in the tool's order and parts; down migrations are left out, wherever they are."""
    result = rehearsed(tmp_path, RUNS[name])
    assert (result.obstacles, result.exit_code) == ((), 0)


def test_where_no_tool_is_known_the_statement_that_depends_on_it_is_named(tmp_path: Path) -> None:
    """A note says that each statement was its own transaction."""
    result = rehearsed(tmp_path, {"1.sql": TABLE, "2.sql": ALONE})
    assert any("2.sql:1:1" in note and "one transaction" in note for note in result.notes)


def test_a_transaction_that_nothing_ends_is_a_cause(tmp_path: Path) -> None:
    """It is reported at its BEGIN, and what needs its tables says that they were rolled back."""
    files = {"1.sql": "begin;\ncreate table a (id int);\n", "2.sql": "select * from a;\n"}
    files["3.sql"] = "begin;\ncreate table b (id int);\nrollback;\nselect * from b;\n"
    result = rehearsed(tmp_path, files)
    places = [(Path(o.place.file).name, o.place.line) for o in result.obstacles]
    assert places == [("1.sql", 1), ("2.sql", 1), ("3.sql", 4)]
    assert "no COMMIT" in result.obstacles[0].meaning
    assert ["was undone by the transaction at" in o.meaning for o in result.obstacles[1:]] == [True, True]
    assert result.exit_code == 10


@pytest.mark.parametrize("text", ["-- nothing\n", "-- +goose Up\n-- +goose Down\ndrop table a;\n"])
def test_nothing_to_rehearse_is_no_success(text: str, tmp_path: Path) -> None:
    """A folder has no statement, or only down migrations."""
    result = rehearsed(tmp_path, {"1.sql": text})
    assert [o.kind for o in result.obstacles] == ["not judged"]
    assert result.exit_code == 10


@pytest.mark.parametrize("way", ["a link", "a link to a folder", "a plan"])
def test_a_file_of_another_place_is_not_read(tmp_path: Path, way: str) -> None:
    """PostgreSQL quotes what is no SQL, so a linked key would end up in a log."""
    secrets, folder = tmp_path / "secrets", tmp_path / "migrations"
    secrets.mkdir()
    (secrets / "key.sql").write_text("abc123def456\n")
    (folder / "deploy").mkdir(parents=True)
    if way == "a link":
        (folder / "1.sql").symlink_to(secrets / "key.sql")
    elif way == "a link to a folder":
        (folder / "deploy").rmdir()
        (folder / "deploy").symlink_to(secrets)
        (folder / "sqitch.plan").write_text("key 2024-01-01T00:00:00Z A <a@b> # x\n")
    else:
        (folder / "sqitch.plan").write_text("../../secrets/key 2024-01-01T00:00:00Z A <a@b> # x\n")
    with pytest.raises(ConfigError, match="a file that is not below") as refused:
        read_migrations(folder)
    assert "abc123" not in str(refused.value)


@pytest.mark.parametrize("of_repository", [False, True])
def test_a_link_within_the_folder_or_its_repository_is_read(tmp_path: Path, of_repository: bool) -> None:
    """So a volume of Kubernetes has its files, and so two services of a repository share one."""
    folder = tmp_path / "migrations"
    place = tmp_path / "shared" if of_repository else folder / "..data"
    place.mkdir(parents=True)
    folder.mkdir(exist_ok=True)
    if of_repository:
        (tmp_path / ".git").mkdir()
    (place / "a").write_text(TABLE)
    (folder / "1.sql").symlink_to(place / "a")
    assert [source.text for source in read_migrations(folder).sources] == [TABLE]
