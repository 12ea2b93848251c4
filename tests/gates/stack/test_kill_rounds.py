"""Crashes during replays lose nothing, double nothing and leave no key stuck, as seen from outside."""

import os
import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from drills.workbench.audit_chain import broken_links, head_of
from gates.deployment.control import Control
from gates.deployment.http.client import HttpDoor
from gates.deployment.sql.database import Connection, execute, session, value
from gates.stack.plan import StackInfo, StackOptions
from gates.stack.procfs import wait_until
from gates.stack.stack import Stack, reference_stack
from tests.gates.stack.kill_traffic import Traffic, forget_limit, replay_request
from tests.waiting import pause

ROUNDS = 6
VICTIMS = ("service-0", "worker-0", "postgres")
TENANTS, ITEMS = 60, 200
STUCK_S = 30.0
"""Leases last two seconds: a row that nobody settles for so long is stuck, however slow the machine is."""
LONGEST_CALM_S = 0.4
SEED = 20241201

TENANT = """
with c as (
  insert into public.companies (id, name) select gen_random_uuid(), 'drill-kill-' || n from generate_series(1, %s) n
  returning id
), f as (
  insert into public.feature_flags (key, company_id, enabled, rollout_percentage)
  select k, id, %s, 100 from c, unnest(array['outbox.enabled', 'dlq.replay.enabled']) k
), d as (
  insert into public.dead_letter_queue (company_id, event_type, payload, error_type, max_retries)
  select id, 'drill.kill', case when n %% 10 = 0 then '{"drill": {"fail_times": 1}}'::jsonb
    when n %% 4 = 0 then '{"drill": {"delay_ms": 30}}' else '{}' end, 'crash', 5
  from c, generate_series(1, %s) n
)
select id::text as id from c
"""

LEFT = """
with c as (select unnest(%s::uuid[]) as id)
select (select count(*) from public.event_outbox o join c on c.id = o.company_id
        where o.processed_at is null and o.dead_at is null)
     + (select count(*) from public.replay_runs r join c on c.id = r.company_id where r.status = 'started')
     + (select count(*) from public.dead_letter_queue d join c on c.id = d.company_id where d.status = 'replaying') as n
"""

# each gives the rows that break one promise, and the promise
PROMISES = {
    "an accepted event has exactly one effect": """
        select e as event, (select count(*) from public.agent_tasks a where a.event_id = e and a.status
          = 'completed') as n
        from unnest(%(accepted)s::uuid[]) e
        where (select count(*) from public.agent_tasks a where a.event_id = e and a.status = 'completed') <> 1""",
    "an accepted event has its business row": """
        select e as event from unnest(%(accepted)s::uuid[]) e where not exists (select from
          public.events where id = e)""",
    "no event has two effects": """
        select event_id, count(*) as n from public.agent_tasks
        where company_id = any(%(ours)s::uuid[]) group by event_id having count(*) > 1""",
    "an item is resolved with one effect, or pending with none": """
        select d.id, d.status from public.dead_letter_queue d where d.company_id = any(%(ours)s::uuid[]) and
          (select count(*) from public.agent_tasks a where a.event_id = d.event_id and a.status = 'completed')
          is distinct from (case d.status when 'resolved' then 1 when 'pending' then 0 end)""",
    "a taken item is resolved, or pending again": """
        select i as item, d.status from unnest(%(items)s::uuid[]) i left join public.dead_letter_queue d on d.id = i
        where coalesce(d.status, 'gone') not in ('resolved', 'pending')""",
    "a key has one run": """
        select k as key, count(r.id) as n from unnest(%(keys)s::text[]) k
        left join public.replay_runs r on r.idempotency_key = k group by k having count(r.id) <> 1""",
    "a run counts what it settled": """
        select r.id, r.status, r.success_count, r.failure_count from public.replay_runs r
        where r.company_id = any(%(ours)s::uuid[]) and r.success_count + r.failure_count <>
          (select count(*) from public.event_outbox o where o.replay_run_id = r.id)""",
    "the budget is charged by items moved": """
        select b.company_id, b.monthly_used from public.replay_budgets b
        where b.company_id = any(%(ours)s::uuid[]) and b.monthly_used <>
          (select count(*) from public.event_outbox o where o.company_id = b.company_id and
            o.replay_run_id is not null)""",
    "every event of the outbox is processed or dead, and not both": """
        select id from public.event_outbox
        where company_id = any(%(ours)s::uuid[]) and (processed_at is null) = (dead_at is null)""",
    "an event that took the outbox is in it": """
        select e.id from public.events e where e.company_id = any(%(ours)s::uuid[]) and e.path = 'outbox'
          and not exists (select from public.event_outbox o where o.event_id = e.id)""",
    "a run is audited once as started and once in summary": """
        select r.id from public.replay_runs r where r.company_id = any(%(ours)s::uuid[]) and
          r.target_count > 0 and exists (
          select from unnest(array['dlq_replay_started', 'dlq_replay']) a where 1 <>
            (select count(*) from public.audit_logs l where l.scope = r.company_id::text and l.action = a
               and l.metadata::text like '%%' || r.id::text || '%%'))""",
}


@pytest.fixture
def stack() -> Iterator[Stack]:
    """A reference with short leases, so that a killed worker's claims are soon free."""
    with reference_stack(StackOptions(history=False, variables={"WORKER_LEASE_S": "2"}), os.environ) as running:
        yield running


def test_kill_rounds(stack: Stack) -> None:
    """Six kills, of service, worker and PostgreSQL in turn, lose, double and block nothing."""
    info = stack.info
    with session(info.database_url) as connection:
        companies = _tenants(connection, TENANTS, ITEMS, on=True)
        direct = _tenants(connection, 1, 0, on=False)[0]
    with Traffic(info, companies, direct) as traffic:
        _crash(Control(info.control), traffic)
    with session(info.database_url) as connection:
        _judge(connection, info, traffic, [*companies, direct])


def _tenants(connection: Connection, count: int, items: int, *, on: bool) -> list[str]:
    return [str(r["id"]) for r in execute(connection, TENANT, count, on, items)]


def _crash(control: Control, traffic: Traffic) -> None:
    """Wait for some traffic and a random moment, then kill."""
    chance = random.Random(SEED)
    for number in range(ROUNDS):
        went = wait_until(_grown(traffic.replayed, 8), 20)
        assert went, f"no replay went through before kill {number}: {traffic.statuses}"
        pause(chance.uniform(0, LONGEST_CALM_S))
        control.kill(VICTIMS[number % len(VICTIMS)])
        control.mend()


def _grown(listed: list[Any], by: int) -> Callable[[], bool]:
    wanted = len(listed) + by
    return lambda: len(listed) >= wanted


def _judge(connection: Connection, info: StackInfo, traffic: Traffic, ours: list[str]) -> None:
    assert not traffic.unanswered, f"{len(traffic.unanswered)} requests are stuck: {traffic.unanswered[:5]}"
    assert traffic.statuses[0], f"no kill met a request on its way: the test proves nothing; {traffic.statuses}"
    _drained(connection, ours)
    seen: dict[str, object] = {
        "ours": ours,
        "accepted": traffic.accepted,
        "items": [i for r in traffic.replayed for i in r.items],
        "keys": [r.key for r in traffic.replayed],
    }
    for promise, query in PROMISES.items():
        broken = connection.execute(query.encode(), seen).fetchall()
        assert not broken, f"{promise}: {len(broken)} times not, e.g. {broken[0]}"
    scopes = [str(r["scope"]) for r in execute(connection, "select scope from public.audit_heads")]
    for scope in scopes:
        rows, wrong = broken_links(connection, scope)
        last = head_of(connection, scope)
        assert not wrong, f"the audit chain of {scope} is broken: {wrong[0]}"
        assert rows == last["row_count"], f"the head of {scope} counts {last['row_count']} of {rows} rows"
    _keys_answer(info, traffic)


def _drained(connection: Connection, ours: list[str]) -> None:
    """Every row is settled; within STUCK_S some progress must be seen."""
    while least := _left(connection, ours):
        moved = wait_until(partial(_fewer, connection, ours, least), STUCK_S, 0.05)
        assert moved, f"{least} rows are stuck: none was settled in {STUCK_S:g} s"


def _left(connection: Connection, ours: list[str]) -> int:
    return int(str(value(connection, LEFT, ours)))


def _fewer(connection: Connection, ours: list[str], least: int) -> bool:
    return _left(connection, ours) < least


def _keys_answer(info: StackInfo, traffic: Traffic) -> None:
    """Every key whose first answer was lost, and as many others, answer once more, as duplicates of the same run."""
    disturbed = [r for r in traffic.replayed if r.lost]
    others = [r for r in traffic.replayed if not r.lost][:: max(1, len(traffic.replayed) // 40)]
    assert disturbed, "no replay was sent twice: the test proves nothing"
    with HttpDoor(info.base_url) as door:
        for run in [*disturbed, *others]:
            forget_limit(info.database_url, run.company)
            answer = door.send(replay_request(info, run.company, run.key))
            told = answer.json()
            said = (answer.status, told.get("duplicate"), told.get("replay_run_id"))
            assert said == (200, True, run.run), f"key {run.key} of run {run.run} is answered {said}"
