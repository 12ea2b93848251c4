"""Rate limits with a row for each call, or a counter for each moment, are judged like any."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from gates.contract.names import Names, names_of
from gates.deployment.dialect.current import use
from gates.deployment.sql.database import execute, script
from sql_checks.attempts.row_level_security import probe
from sql_checks.spotrun import judge_spot
from tests.postgres_fixture import PgServer
from tests.sql_checks.conftest import PlantedSession, outcome_of
from tests.sql_checks.test_rls_red import verdicts
from tests.sql_checks.test_spots_red import SPOTS

SPOTS_OF_LIMITS = ("rate-limit-exact", "rate-limit-window-moving", "unique-keys", "rls-enabled", "rls-forced")
CALLS = """
create table public.rate_limit_hits (
  id bigserial primary key, route text not null, tenant {type} not null, ip inet, at timestamptz not null);
insert into public.rate_limit_hits (route, tenant, ip, at)
select 'replay', split_part(key, ':', 2)::{type}, substr(key, 45)::inet, h from public.edge_rate_limits, unnest(hits) h;
insert into public.rate_limit_hits (route, tenant, at) select 'login', split_part(key, ':', 2)::{type}, now() from
  public.edge_rate_limits, generate_series(1, 9);
"""
SLOTS = """
create table public.rate_limit_hits (
  route text, tenant {type}, ip text, at timestamptz, n smallint, primary key (route, tenant, ip, at));
insert into public.rate_limit_hits select 'replay', split_part(key, ':', 2)::{type}, substr(key, 45), h, 1
from public.edge_rate_limits, unnest(hits) h;
"""
SECURED = """
drop table public.edge_rate_limits;
alter table public.rate_limit_hits enable row level security, force row level security;
create policy own on public.rate_limit_hits for select to authenticated
  using (tenant::text = auth.jwt() ->> 'company_id');
create policy gates on public.rate_limit_hits to replay_gate using (true) with check (true);
create policy services on public.rate_limit_hits to replay_service using (true) with check (true);
grant select on public.rate_limit_hits to authenticated, replay_gate, replay_service;
"""
OF = {"at": "at", "company": "tenant", "address": "ip"}
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "a row for each call": (
        CALLS.format(type="uuid"),
        {"calls": OF, "rows": "route = 'replay'", "also": {"route": "'replay'"}},
    ),
    "a counter": (SLOTS.format(type="uuid"), {"calls": {**OF, "number": "n"}, "also": {"route": "'replay'"}}),
}


def _names(shape: str) -> Names:
    return names_of({"tables": {"edge_rate_limits": {"is": "rate_limit_hits", **SHAPES[shape][1]}}})


@pytest.fixture(params=SHAPES)
def limited(request: pytest.FixtureRequest, planted: PlantedSession) -> PlantedSession:
    """The planted session with such a limit."""
    planted.planted.execute("set local search_path = public, pg_catalog")
    script(planted.planted, SHAPES[request.param][0] + SECURED)
    planted.planted.execute("set local search_path = pg_catalog, pg_temp")
    use(_names(request.param))
    return planted


@pytest.mark.parametrize("name", SPOTS_OF_LIMITS)
def test_green(name: str, limited: PlantedSession) -> None:
    """Healthy rows violate nothing."""
    assert outcome_of(lambda seen: judge_spot(SPOTS[name], limited, seen))[:2] == ("pass", "")


KEY = "replay:8a8a8a8a-0000-4000-8000-00000000000a:192.0.2.99"
RED = {
    "rate-limit-exact": f"insert into public.edge_rate_limits (key, hits) values ('{KEY}',"
    " array(select now() - make_interval(secs => n) from generate_series(1, 4) n))",
    "rate-limit-window-moving": "insert into public.edge_rate_limits (key, hits) values"
    f" ('{KEY}', array[now() + interval '2 minutes'])",
    "rls-enabled": 'alter table "public"."rate_limit_hits" disable row level security',
    "rls-forced": 'alter table "public"."rate_limit_hits" no force row level security',
}


@pytest.mark.parametrize("name", RED)
def test_red(name: str, limited: PlantedSession) -> None:
    """Each defect is found, and its message has the caller's address or the real table."""
    execute(limited.planted, RED[name])
    outcome, said, *_ = outcome_of(lambda seen: judge_spot(SPOTS[name], limited, seen))
    assert outcome == "fail"
    assert ("192.0.2.99" if name.startswith("rate-limit") else "rate_limit_hits") in said


def test_what_the_drills_do_to_rows(limited: PlantedSession) -> None:
    """The contract's statements fill, back-date, read and reset the limit."""
    db = limited.planted
    assert db is not None
    key = "replay:8a8a8a8a-0000-4000-8000-00000000000b:2001:db8::1"
    fill = "insert into public.edge_rate_limits (key, hits) values (%s, array(select now() - make_interval(secs => n)"
    execute(db, f"{fill} from generate_series(%s::int - 1, 0, -1) n))", key, 3)
    read = "select key, hits, count, window_start from public.edge_rate_limits where key like %s order by key"
    before: dict[str, Any] = execute(db, read, "replay:8a8a8a8a-0000-4000-8000-00000000000b:%")[0]
    assert (before["key"], before["count"], before["window_start"]) == (key, 3, before["hits"][0])
    move = "update public.edge_rate_limits set hits = array(select h - make_interval(secs => %s) from unnest(hits) h)"
    execute(db, f"{move} where key like %s", 200, key)
    after: dict[str, Any] = execute(db, read, key)[0]
    assert [(b - a).total_seconds() for b, a in zip(before["hits"], after["hits"], strict=True)] == [200] * 3
    execute(db, "delete from public.edge_rate_limits where key like %s", key)
    assert not execute(db, read, key)


@pytest.mark.parametrize("open_rows", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_probe_of_row_security(shape: str, open_rows: bool, pg_server: PgServer, seeded_db: str) -> None:
    """A tenant sees only its own calls; a leak is found."""
    with pg_server.database(seeded_db) as name:
        with psycopg.connect(pg_server.url(name), row_factory=dict_row) as connection:
            connection.execute("set local search_path = public, pg_catalog")
            connection.execute((SHAPES[shape][0] + SECURED).encode())
            if open_rows:
                connection.execute(
                    "create policy more on public.rate_limit_hits for select to authenticated using (true)"
                )
        use(_names(shape))
        told = {k: v for k, v in verdicts(probe(pg_server.url(name))).items() if v != "pass"}
        assert bool(told) == open_rows
        assert "unknown" not in told.values()
