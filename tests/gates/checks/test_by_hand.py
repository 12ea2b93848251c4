"""What somebody switched off while a run went on, and midnight, excuses a drill that fails, and nothing else does."""

import dataclasses
import datetime as dt

import psycopg
import pytest

from gates.checks import by_hand
from gates.checks.by_hand import excused, found, standing
from gates.evidence import CheckSpec, Outcome, Severity, Where

OFF = "update public.feature_flags set enabled = false where key = 'outbox.enabled' and company_id is null"
LESS = OFF.replace("enabled = false", "rollout_percentage = 1")
PAUSE = "update public.agent_controls set agents_paused = true where company_id is null"
LOAN = "insert into public.feature_flags (key, enabled, rollout_percentage) values ('drill.loan.{}', false, 0)"
OWN = "insert into public.companies (id, name) values ('00000000-0000-4000-8000-00000000000a', 'a');"
OWN_OFF = (
    "insert into public.feature_flags (key, company_id, enabled) select 'outbox.enabled', id, false from companies"
)


def spec(check: str) -> CheckSpec:
    return CheckSpec(check, "It is so.", "", Severity.PAGE, Where.SELF_CLEANING)


@pytest.mark.parametrize(
    ("before", "meanwhile", "check", "outcome"),
    [
        ("", OFF, "drill/a/b", Outcome.UNKNOWN),
        ("", LESS, "drill/a/b", Outcome.UNKNOWN),
        ("", PAUSE, "drill/a/b", Outcome.UNKNOWN),
        ("", "", "drill/a/b", Outcome.FAIL),
        ("", OFF, "sql/spot/a", Outcome.FAIL),
        (OFF, OFF, "drill/a/b", Outcome.FAIL),
        (OFF, OFF.replace("false", "true"), "drill/a/b", Outcome.FAIL),
        (PAUSE, PAUSE, "drill/a/b", Outcome.FAIL),
        ("", f"{OFF}; {LOAN.format('outbox.enabled')}", "drill/a/b", Outcome.FAIL),
        ("", f"{PAUSE}; {LOAN.format('everybody')}", "drill/a/b", Outcome.FAIL),
        ("", f"{OWN}{OWN_OFF}", "drill/a/b", Outcome.FAIL),
        ("", "drop table public.feature_flags cascade", "drill/a/b", Outcome.FAIL),
    ],
)
def test_a_drill_that_fails_after_somebody_switched_it_off_is_unknown(
    migrated_url: str, before: str, meanwhile: str, check: str, outcome: Outcome
) -> None:
    """What was off from the start, a drill itself has set, or is one tenant's, excuses nothing."""
    found.cache_clear()
    with psycopg.connect(migrated_url, autocommit=True) as somebody:
        on = "insert into public.feature_flags (key, enabled, rollout_percentage) values ('outbox.enabled', true, 10)"
        somebody.execute(f"{on} on conflict (key, company_id) do update set enabled = true".encode())
        somebody.execute(before.encode() or b"select 1")
        found(migrated_url)
        somebody.execute(meanwhile.encode() or b"select 1")
    got, said = excused(Outcome.FAIL, "seen", spec(check), migrated_url)
    assert got is outcome
    assert said == "seen" if outcome is Outcome.FAIL else said.startswith("somebody ")
    assert excused(Outcome.PASS, "", spec(check), migrated_url) == (Outcome.PASS, "")


@pytest.mark.parametrize("lacks", ["", "delete from agent_controls", "drop table agent_controls cascade"])
def test_a_failure_after_midnight_is_unknown(migrated_url: str, monkeypatch: pytest.MonkeyPatch, lacks: str) -> None:
    """A budget that a drill spent before midnight UTC is whole after it: a service that admits its replay is right,
    also where nobody can be paused.
    """
    with psycopg.connect(migrated_url, autocommit=True) as somebody:
        somebody.execute(lacks.encode() or b"select 1")
    now = standing(migrated_url)
    assert now.day is not None, "the day was not read"
    yesterday = dataclasses.replace(now, day=now.day - dt.timedelta(days=1))
    monkeypatch.setattr(by_hand, "found", lambda _url: yesterday)
    got, said = excused(Outcome.FAIL, "seen", spec("drill/a/b"), migrated_url)
    assert got is Outcome.UNKNOWN, f"the failure stands: {said}"
    assert said == "a day began (UTC), with whole budgets, while the gate looked: seen"
