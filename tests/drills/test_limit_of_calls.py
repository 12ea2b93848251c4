"""Drills work for rate limits that keep a row for each call, or a counter for each moment."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gates.deployment.dialect.current import NAMES
from gates.evidence import Outcome
from gates.stack.plan import StackOptions
from gates.stack.postgres import connect
from gates.stack.service import SOURCE_ROOT
from gates.stack.stack import reference_stack
from tests.drills.examination import examine

CHECKS = [
    "drill/rate-limit/*",
    "drill/proof/fourth-call-refused",
    "drill/dry-run/*",
    "drill/ledger/counted-however-asked",
    "drill/ledger/refused-however-asked",
    "drill/safety-rails/answer-adds-up",
]
OF = {"at": "called_at", "company": "tenant", "address": "client"}
NUMBER = {"a row for each call": {}, "a counter": {"number": "calls"}}
STORE = """
drop table public.edge_rate_limits;
create table public.replay_calls (
  tenant uuid not null, client inet not null, called_at timestamptz not null, calls int not null default 1);
create index on public.replay_calls (tenant, client, called_at);
grant select, insert, update, delete on public.replay_calls to replay_service, replay_gate;
grant select on public.replay_calls to authenticated;
alter table public.replay_calls enable row level security, force row level security;
create policy services on public.replay_calls to replay_service, replay_gate using (true) with check (true);
create policy tenants on public.replay_calls for select to authenticated
  using (tenant::text = auth.jwt() ->> 'company_id');
create unique index slots on public.replay_calls (tenant, client, called_at);
create function public.count_call(key text, allowed int, window_s float, out admitted boolean, out retry_after_s int)
language plpgsql as $$
declare
  whose uuid := split_part(key, ':', 2);
  whence inet := case when key like '%.%' then '::ffff:' else '' end || substr(key, 45);
  found timestamptz[];
begin
  perform pg_advisory_xact_lock(hashtextextended(key, 0));
  found := array(select c.called_at from public.replay_calls c, generate_series(1, c.calls)
                 where tenant = whose and client = whence
                   and called_at >= clock_timestamp() - make_interval(secs => window_s)
                 order by 1);
  admitted := cardinality(found) < allowed;
  if admitted then
    insert into public.replay_calls as c values (whose, whence, date_trunc('milliseconds', clock_timestamp()), 1)
    on conflict (tenant, client, called_at) do update set calls = c.calls + 1;
  end if;
  retry_after_s := least(window_s, greatest(1, ceil(extract(epoch from
    coalesce(found[cardinality(found) - allowed + 1], clock_timestamp()) - clock_timestamp()) + window_s)));
end $$;
"""
FUNCTION = STORE[STORE.index("create function") :].replace("create function", "create or replace function")
ADMIT = "select admitted, retry_after_s from public.count_call(%(key)s, %(allowed)s, %(window_s)s::float)"
BROKEN = {
    "concurrent-exactly-three": {
        "perform pg_advisory_xact_lock(hashtextextended(key, 0));": "",
        "  if admitted then": "  perform pg_sleep(0.2);\n  if admitted then",
    },
    "window-closed-until-300-s": {"make_interval(secs => window_s)": "interval '1 minute'"},
    "refusal-changes-nothing": {"if admitted then": "if true then"},
}
"""Drill -> what makes it red."""
UNLOCKABLE = {
    f"drill/rate-limit/{name}"
    for name in ("counted-when-its-turn-comes", "locked-store-fails-closed", "uncounted-is-not-admitted")
}
"""What locks the one row of a limit does not apply; a run leaves it out."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A reference with such a limit, which writes IPv4 addresses as IPv6; it has no earlier calls."""
    source = tmp_path_factory.mktemp("source")
    shutil.copytree(
        SOURCE_ROOT / "replay_service", source / "replay_service", ignore=shutil.ignore_patterns("__pycache__")
    )
    (source / "replay_service" / "sql" / "admit_request.sql").write_text(ADMIT, encoding="utf-8")
    source.chmod(0o755)
    with reference_stack(StackOptions(history=False, source=source), os.environ) as stack:
        told = {**stack.info.variables(), "GATE_TARGET": "staging", "GATE_STACK_CONTROL": stack.info.control}
        with connect(told["DATABASE_URL"]) as connection:
            connection.execute(STORE)
        yield told


def looked_at(place: dict[str, str], shape: str, checks: list[str], folder: Path) -> dict[str, tuple[Outcome, str]]:
    names = {"tables": {"edge_rate_limits": {"is": "replay_calls", "calls": OF | NUMBER[shape]}}}
    found = examine({**place, NAMES: json.dumps(names)}, checks, folder)
    return {check: (e.outcome, e.message) for check, e in found.items()}


@pytest.mark.parametrize("shape", NUMBER)
def test_green(shape: str, place: dict[str, str], tmp_path: Path) -> None:
    """Every drill that fills, back-dates, reads or resets a limit passes. Calls of one millisecond share a counter."""
    shared = "date_trunc('milliseconds', clock_timestamp())"
    with connect(place["DATABASE_URL"]) as connection:
        connection.execute(FUNCTION if NUMBER[shape] else FUNCTION.replace(shared, "clock_timestamp()"))
    found = looked_at(place, shape, CHECKS, tmp_path)
    assert len(found) > 20
    assert {c: told for c, told in found.items() if told[0] is not Outcome.PASS and c not in UNLOCKABLE} == {}


@pytest.mark.parametrize("check", BROKEN)
def test_red(check: str, place: dict[str, str], tmp_path: Path) -> None:
    """The drill of the broken part of a limit fails."""
    broken = FUNCTION
    for good, bad in BROKEN[check].items():
        assert good in FUNCTION
        broken = broken.replace(good, bad)
    with connect(place["DATABASE_URL"]) as connection:
        connection.execute(broken)
    try:
        found = looked_at(place, "a row for each call", [f"drill/rate-limit/{check}"], tmp_path)
    finally:
        with connect(place["DATABASE_URL"]) as connection:
            connection.execute(FUNCTION)
    assert found[f"drill/rate-limit/{check}"][0] is Outcome.FAIL, found


GUESSED: dict[str, tuple[dict[str, Any], str]] = {
    "another signature": (
        {"http": {"signature": {"form": "sha1={hex}", "v2": "t={t},s={hex}"}}},
        "drill/authentication/signed-accepted",
    ),
    "another claim": ({"tenant_claim": "org.id"}, "drill/tokens/foreign-company"),
    "another column": (
        {"tables": {"edge_rate_limits": {"is": "replay_calls", "calls": {"at": "called_at", "company": "client"}}}},
        "drill/rate-limit/row-as-documented",
    ),
}
"""What a draft may have guessed wrongly, and a check that does not pass then."""


@pytest.mark.parametrize("guess", GUESSED)
def test_a_wrong_guess_never_passes(guess: str, place: dict[str, str], tmp_path: Path) -> None:
    """With a wrong mapping the check fails or is unknown."""
    names, check = GUESSED[guess]
    tables = {"edge_rate_limits": {"is": "replay_calls", "calls": OF}}
    found = examine({**place, NAMES: json.dumps({"tables": tables, **names})}, [check], tmp_path)
    assert found
    assert Outcome.PASS not in {e.outcome for e in found.values()}, {c: e.message for c, e in found.items()}
