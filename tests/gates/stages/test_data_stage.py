"""The SQL checks of a run do not hold another gate's tenants, or those of a starved load, against the release."""

import datetime as dt
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from gates.catalogue import load
from gates.decision.policy_file import Settings, parse
from gates.deployment.sql.database import connect, execute
from gates.deployment.target import Target
from gates.deployment.tenants.leftovers import TIMED, sweep, take_lease
from gates.deployment.tenants.tenants import Tenants
from gates.evidence import Evidence, Outcome, TargetKind
from gates.evidence_file import read_lines
from gates.stages.context import Context
from gates.stages.load_process import CROWDED, FOLDER
from gates.stages.sql import data
from gates.watch.look import Drills
from gates.watch.story import Watch, one_round

LATE = """
insert into public.event_outbox (company_id, event_type, payload, inserted_at, processed_at)
select %s, 'x', '{}', now() - make_interval(secs => %s), now() from generate_series(1, 100)
"""
CHECK, OTHER, UNTIL = "alert/dlq-size", "0badcafe", 9_999_999_999


def look(url: str, out: Path, when: str = "after", check: str = CHECK) -> list[Evidence]:
    """The evidence that one check leaves."""
    specs = tuple(s for s in load() if s.id == check)
    context = Context(Target(TargetKind.STAGING, database_url=url), Settings(state=out / "state"), out, "run", specs)
    seen = len(read_lines(context.evidence))
    with data(context, when) as looks:
        looks()
    return [e for e in read_lines(context.evidence)[seen:] if e.check == check]


def test_the_dead_letters_of_another_gate(migrated_url: str, tmp_path: Path) -> None:
    """Before the load they are ignored, after it unknown while that gate lives; a customer's fail."""
    with connect(migrated_url) as connection:
        customer = Tenants(connection, "customer").create()
        execute(
            connection,
            "insert into public.event_outbox (company_id, event_type, payload, processed_at)"
            " values (%s, 'x', '{}', now())",
            customer,
        )
        lease, mark = take_lease(migrated_url, OTHER, shared=True)
        assert lease is not None
        Tenants(connection, OTHER, lease=f"{mark}{UNTIL}").add_items(
            Tenants(connection, OTHER, lease=f"{mark}{UNTIL}").create(), 12
        )
        assert look(migrated_url, tmp_path, "before") == []
        (after,) = look(migrated_url, tmp_path)
        assert (after.outcome, "another gate" in after.message) == (Outcome.UNKNOWN, True)
        lease.release()
        assert [e.outcome for e in look(migrated_url, tmp_path)] == [Outcome.PASS]
        Tenants(connection, "customer").add_items(customer, 12)
        assert [e.outcome for e in look(migrated_url, tmp_path)] == [Outcome.FAIL]


def test_a_load_for_which_the_machine_had_no_time(migrated_url: str, tmp_path: Path) -> None:
    """After such a load its tenants' lateness, and its absence, are unknown; a customer's lateness fails."""
    lag, out = "alert/outbox-lag", tmp_path / FOLDER
    with connect(migrated_url) as connection:
        companies = [Tenants(connection, name).create() for name in ("of the load", "customer")]
        out.mkdir()

        def seen(company: str, when: str = "after", late_s: int = 9) -> list[tuple[Outcome, bool]]:
            execute(connection, "delete from public.event_outbox")
            execute(connection, LATE, company, late_s)
            found = look(migrated_url, tmp_path, when, lag)
            return [(e.outcome, "too busy for them" in e.message) for e in found]

        assert seen(companies[0]) == [(Outcome.FAIL, False)]
        (out / CROWDED).write_text(companies[0])
        assert seen(companies[0]) == [(Outcome.UNKNOWN, True)]
        assert seen(companies[0], "before") == [(Outcome.FAIL, False)]
        assert seen(companies[1]) == [(Outcome.FAIL, False)]
        assert seen(companies[1], late_s=0) == [(Outcome.UNKNOWN, True)]
        for company in companies:
            execute(connection, "delete from public.event_outbox where company_id = %s", company)
            execute(connection, "delete from public.companies where id = %s", company)


def test_a_round_of_the_watch_beside_another_gate(migrated_url: str, tmp_path: Path) -> None:
    """Dead letters of another gate's drills make the round doubtful, not a page."""
    with connect(migrated_url) as connection:
        lease, mark = take_lease(migrated_url, OTHER, shared=True)
        assert lease is not None
        theirs = Tenants(connection, OTHER, lease=f"{mark}{UNTIL}")
        theirs.add_items(theirs.create(), 12)
    specs = tuple(s for s in load() if s.id == CHECK)
    target = Target(TargetKind.STAGING, database_url=migrated_url)
    file = parse("version: 1\n", "gate.yaml", tmp_path, dt.date(2026, 1, 1))
    done = one_round(Watch(target, file, specs, tmp_path / "history.ndjson", drills=Drills.NONE))
    lease.release()
    assert done is not None
    assert done.round.state == "doubtful"


def test_a_login_that_may_remove_nothing_sees_the_other_gate(migrated_url: str, tmp_path: Path) -> None:
    """Leftovers of a dead gate that the login may not delete do not hide a living gate."""
    with connect(migrated_url) as connection:
        execute(connection, "drop role if exists data_stage_reader")
        execute(connection, "create role data_stage_reader login bypassrls password 'r'")
        execute(connection, "grant pg_read_all_data to data_stage_reader")
        Tenants(connection, "0dead000", lease=f"{TIMED}1").create()
        lease, mark = take_lease(migrated_url, OTHER, shared=True)
        assert lease is not None
        Tenants(connection, OTHER, lease=f"{mark}{UNTIL}").create()
        url = make_conninfo(migrated_url, user="data_stage_reader", password="r")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            sweep(url)
        (after,) = look(url, tmp_path)
        lease.release()
        assert (after.outcome, "another gate" in after.message) == (Outcome.UNKNOWN, True)
        execute(connection, "drop owned by data_stage_reader")
        execute(connection, "drop role data_stage_reader")
