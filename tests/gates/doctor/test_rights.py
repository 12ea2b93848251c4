"""What a login may not see is not judged, not called absent, and no defect of the deployment."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from gates.contract.contract import contract
from gates.contract.names import Names
from gates.doctor.comparison.compare import Presence, compare
from gates.doctor.diagnosis import DatabaseView, judge
from gates.doctor.draft.draft import draft
from gates.doctor.reading.schema import Schema
from tests.gates.doctor.databases import database
from tests.gates.doctor.test_doctor_command import FLAGS
from tests.gates.gate_process import gate
from tests.postgres_fixture import TEMPLATE, PgServer

NOTHING = "revoke all on schema public from public"
SEES_NO_ROW = "grant usage on schema public to {0}; grant select on all tables in schema public to {0}"


@contextmanager
def login(server: PgServer, rights: str) -> Iterator[tuple[str, str]]:
    """The URLs of a superuser and of a login with only these rights, on the reference with its flags."""
    name = "doctor_sees_little"
    with database(server, FLAGS, TEMPLATE) as url, psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"create role {name} login password 'little-pw'".encode())
        try:
            connection.execute(rights.format(name).encode())
            yield url, psycopg.conninfo.make_conninfo(url, user=name, password="little-pw")
        finally:
            connection.execute(f"drop owned by {name}; drop role {name}".encode())


def told(url: str, folder: Path) -> dict[str, Any]:
    """The doctor's output as data."""
    done = gate("doctor", "--json", cwd=folder, environ={"DATABASE_URL": url})
    assert done.returncode in {0, 10}, done.stderr
    data: dict[str, Any] = json.loads(done.stdout)
    return data


@pytest.mark.parametrize("rights", [NOTHING, SEES_NO_ROW, "grant select on all tables in schema public to {0}"])
def test_checks_that_a_login_cannot_judge_are_not_counted(pg_server: PgServer, tmp_path: Path, rights: str) -> None:
    """It lacks a right, sees no row, or may not use the schema."""
    closed_schema = NOTHING if "usage" not in rights else "select 1"
    with login(pg_server, f"{rights}; {closed_schema}") as (url, little):
        all_of_it, found = told(url, tmp_path), told(little, tmp_path)
    today = {a["area"]: a["today"] for a in found["areas"]}
    assert {a["area"] for a in all_of_it["areas"] if a["closed"]} == set()
    assert today["dead-letters"] == today["pause"] == 0
    assert today["tenancy"] >= 10, "what the catalogue says needs no right"
    whole, now, closed = (
        sum(a[n] for a in areas["areas"]) for areas, n in ((all_of_it, "today"), (found, "today"), (found, "closed"))
    )
    assert now < whole == now + closed
    assert not found["complete"]


def test_what_cannot_be_seen_is_not_called_absent(pg_server: PgServer, tmp_path: Path) -> None:
    """The draft claims what the owner's does, without the manifest, and lists nothing as absent."""
    with login(pg_server, f"revoke execute on all functions in schema public from public; {NOTHING}") as (_, little):
        done = gate("doctor", "--write", cwd=tmp_path, environ={"DATABASE_URL": little})
        found = told(little, tmp_path)
    assert "more need rights that this login has not" in done.stdout
    text = (tmp_path / "gate.yaml").read_text(encoding="utf-8")
    assert set(yaml.safe_load(text)["contract"]["claims"]) == set(contract().areas) - {"gate", "queue", "schema"}
    assert "lacks" not in text
    assert "absent" not in {o["presence"] for o in found["objects"]}
    function = next(o for o in found["objects"] if o["kind"] == "function")
    assert (function["presence"], function["detail"]) == ("present", "this login may not call it")


def test_rows_that_are_hidden_are_no_defect_of_the_deployment(pg_server: PgServer, tmp_path: Path) -> None:
    """Only the login's own blindness is reported."""
    with login(pg_server, SEES_NO_ROW) as (_, little):
        found = told(little, tmp_path)
    assert {o["presence"] for o in found["objects"] if o["kind"] == "flag"} == {"unknown"}
    assert {d["seen"] for d in found["defects"]} == {"row-level security hides rows from this login"}


@pytest.mark.parametrize("part", ["tables", "further tables"])
def test_tables_that_were_not_read_are_not_drafted_as_absent(part: str) -> None:
    """A missing or partial answer of the catalogue makes no table absent."""
    schema = Schema(unread={part: "not read: the lock"})
    assert {o.presence for o in compare(schema, contract()).objects if o.kind == "table"} == {Presence.UNKNOWN}
    found = judge(DatabaseView(schema), None, contract(), Names(), "")
    assert "absent: true" not in draft(found, contract())
