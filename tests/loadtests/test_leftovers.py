"""What a killed run left is found again and removed; nothing else is."""

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from types import SimpleNamespace

import pytest

from gates.deployment.ids import id_of
from gates.deployment.sql.connection import Answering
from gates.deployment.sql.database import execute
from gates.deployment.tenants import leftovers
from gates.deployment.tenants.leftovers import HELD, KEPT, LEASE_S, TIMED, at_work, name_of, sweep, take_lease, term_of
from gates.deployment.tenants.tenants import Tenants
from loadtests.engine import database
from loadtests.plan import LoadPlan, dump_plan
from tests.loadtests.fake_target import Behaviour, target
from tests.loadtests.load_process import ENVIRON, ROOT
from tests.waiting import until

RUN, PAST, FUTURE = "00c0ffee", 1_000_000_000, 9_999_999_999


def company(db: Answering, name: str, own_id: str = "") -> str:
    made = own_id or id_of(name)
    execute(db, "insert into public.companies (id, name) values (%s, %s)", made, name)
    execute(
        db,
        "insert into public.dead_letter_queue (company_id, event_type, payload, error_type)"
        " values (%s, 'x', '{}', 'x')",
        made,
    )
    return made


def names_left(db: Answering) -> set[str]:
    return {str(row["name"]) for row in execute(db, "select name from public.companies where name like 'drill-%'")}


def test_only_companies_of_dead_runs_are_removed(db: Answering, migrated_url: str) -> None:
    """Whose lock is free or whose lease is over; never what was to be kept, or only looks like one of ours."""
    dead = [company(db, name_of(RUN, HELD, FUTURE, n, 0)) for n in range(2)]
    dead.append(company(db, name_of(RUN, TIMED, PAST, 3, 0)))
    stay = [name_of(RUN, TIMED, FUTURE, 4, 0), name_of(RUN, KEPT, PAST, 5, 0), "drill-load-x", "drill-other"]
    for name in stay:
        company(db, name)
    lookalike = name_of(RUN, HELD, PAST, 6, 0)
    company(db, lookalike, str(uuid.uuid4()))
    test_company = name_of(RUN, HELD, PAST, 7, 0)
    company(db, test_company)
    assert sorted(sweep(migrated_url, id_of(test_company).upper())) == sorted(dead)
    assert names_left(db) == {*stay, lookalike, test_company}
    assert execute(db, "select from public.dead_letter_queue where company_id = any(%s::uuid[])", dead) == []


def test_a_living_run_keeps_its_companies_until_it_lets_go(db: Answering, migrated_url: str) -> None:
    """Another gate's lock is respected, until its connection ends."""
    lease, mark = take_lease(migrated_url, RUN)
    assert lease is not None
    assert mark == HELD
    own = company(db, name_of(RUN, mark, FUTURE, 0, 0))
    assert sweep(migrated_url) == []
    lease.release()
    until(lambda: sweep(migrated_url) == [own], what="the end of the session that held the lock")
    assert take_lease(migrated_url.replace("/", "/no-such-host-", 1), RUN) == (None, TIMED)


def test_lease_ends_by_the_database_s_clock(db: Answering, migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong clock of a gate neither shortens nor extends its lease."""
    now = time.time()
    for set_s in (-7200.0, 1e8):
        monkeypatch.setattr(leftovers, "time", SimpleNamespace(time=lambda s=set_s: now + s))
        term = term_of(TIMED, migrated_url)
        assert (term[0], abs(int(term[1:]) - LEASE_S - now) < 60) == (TIMED, True)
    assert term_of(HELD, migrated_url.replace("/", "/no-such-host-", 1)) == f"{HELD}{int(now + 1e8) + LEASE_S}"
    company(db, name_of(RUN, TIMED, int(term[1:]), 1, 0))
    assert sweep(migrated_url) == []


def test_the_companies_of_a_run_are_named_to_be_found_again(db: Answering, migrated_url: str) -> None:
    """`sweep` recognises what `prepare` makes."""
    plan = LoadPlan("http://127.0.0.1:1", run=RUN, lease=f"{HELD}{FUTURE}", tenants_wanted=3)
    prepared = database.prepare(migrated_url, plan)
    assert len(names_left(db)) == 3
    assert sorted(sweep(migrated_url)) == sorted(prepared.created)
    assert names_left(db) == set()


def test_a_load_whose_gate_was_killed_ends_and_removes_its_companies(
    db: Answering, migrated_url: str, tmp_path: Path
) -> None:
    """Even those that were to stay for a second look: nobody is left who would take it."""
    with target(Behaviour()) as url:
        plan = LoadPlan(base_url=url, run=RUN, duration_s=60.0, most_s=60.0, keep_tenants=True, tenants_wanted=3)
        path = tmp_path / "plan.json"
        path.write_text(dump_plan(plan).replace('"parent": 0', '"parent": PARENT'), encoding="utf-8")
        command = [sys.executable, "-m", "loadtests", str(path), str(tmp_path / "out")]
        starter = (
            f"import os, pathlib, subprocess; p = pathlib.Path({str(path)!r});"
            " p.write_text(p.read_text().replace('PARENT', str(os.getpid())));"
            f" subprocess.run({command!r}, start_new_session=True, check=False)"
        )
        environ = {**ENVIRON, "DATABASE_URL": migrated_url}
        gate = subprocess.Popen([sys.executable, "-c", starter], cwd=ROOT, env=environ)
        listing = tmp_path / "out" / "companies.txt"
        until(lambda: names_left(db) and listing.exists(), timeout_s=30, what="the load's companies")
        os.kill(gate.pid, signal.SIGKILL)
        gate.wait()
        until(lambda: not names_left(db), timeout_s=60, what="their removal")
    assert len(listing.read_text(encoding="utf-8").split()) == 60


def test_drill_tenants_of_a_killed_run(db: Answering, migrated_url: str) -> None:
    """Tenants of a killed drill are removed, those of a living one left alone."""
    held, mark = take_lease(migrated_url, "0badcafe", shared=True)
    again, _ = take_lease(migrated_url, "0badcafe", shared=True)
    assert held is not None
    assert again is not None
    assert mark == HELD
    made = Tenants(db, "0badcafe", lease=f"{mark}{FUTURE}")
    company_id = made.create(label="race")
    made.add_items(company_id, 12)
    bystander = Tenants(db, "0badcafe").create()
    assert sweep(migrated_url) == []
    again.release()
    assert sweep(migrated_url) == []
    assert [n.rpartition("-")[0] for n in at_work(migrated_url, ())] == [f"drill-0badcafe-race-{HELD}{FUTURE}"]
    assert at_work(migrated_url, {company_id}) == []
    held.release()
    removed = list[str]()

    def are_gone() -> list[str]:
        removed.extend(sweep(migrated_url))
        return removed

    until(are_gone, what="the end of the session that held the lock")
    assert removed == [company_id]
    assert execute(db, "select from public.dead_letter_queue") == []
    assert execute(db, "select id::text from public.companies where name like 'drill-%'") == [{"id": bystander}]
