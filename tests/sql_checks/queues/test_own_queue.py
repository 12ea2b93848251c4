"""A queue that no preset knows is judged through the view that docs/presets.md shows."""

import pytest

from gates.contract.queues import FOLDER, Queue, QueueOptions, presets
from gates.deployment.queue.schema import look_at
from gates.deployment.sql.database import Connection, connect, script
from gates.evidence import Outcome
from sql_checks.rules.judge import judge_proved
from sql_checks.rules.queues import rules_of
from sql_checks.rules.run import measure
from tests.postgres_fixture import PgServer

OPTIONS = QueueOptions(
    schema="judged", tenant="j.args->>'company_id'", max_run_time_s=300, limits={"claim-index": {"investigate": 0}}
)
TABLE = """
create table public.work_items (
  id bigserial primary key, kind text not null default 'mail', body jsonb not null default '{"company_id": "a"}',
  status text not null default 'new', tries integer not null default 0, made_at timestamptz not null default now(),
  not_before timestamptz not null default now(), taken_at timestamptz, ended_at timestamptz
);
insert into public.work_items (status, tries, made_at, not_before, taken_at, ended_at)
select 'done', 1, t, t, t, t + interval '1 s' from (
  select now() - n * interval '2 s' as t from generate_series(2, 200) n) x;
insert into public.work_items (not_before) select now() + interval '1 day' from generate_series(1, 5)
"""
BROKEN = {
    "": set(),
    "insert into public.work_items (made_at, not_before) select now() - interval '400 s', now() - interval '400 s'"
    " from generate_series(1, 30)": {"lag", "oldest-age"},
    "insert into public.work_items (status, tries, taken_at) select 'taken', 1, now() - interval '1 hour'"
    " from generate_series(1, 12)": {"stuck-claims"},
    "insert into public.work_items (status, tries, not_before) values ('new', 500, now() + interval '5 s')": {
        "overtried"
    },
    "insert into public.work_items (status) values ('limbo')": {"lost"},
    "insert into public.work_items (not_before) values ('2400-01-01')": {"clock"},
}


def failed(connection: Connection, given: str) -> set[str]:
    """The checks that fail or are unknown with these rows, without mere notes."""
    queue = Queue(presets()["river"], OPTIONS)
    with connection.transaction(force_rollback=True):
        script(connection, given)
        look = look_at(queue, connection)
        assert look.trouble == ""
        found = set()
        for rule in rules_of(queue, look.schema):
            measured = measure(rule, connection)
            judged = judge_proved(rule, measured.samples, measured.now)
            if judged.outcome is not Outcome.PASS and judged.severity != "investigate":
                found.add(rule.name)
        return found


@pytest.mark.parametrize("given", BROKEN)
def test_a_queue_of_ones_own_is_judged_through_a_view(given: str, pg_server: PgServer) -> None:
    """Healthy rows fail nothing, and each defect is named as for a library."""
    with pg_server.database() as name, connect(pg_server.url(name), autocommit=False) as connection:
        script(connection, TABLE + ";" + (FOLDER / "own_queue.sql").read_text(encoding="utf-8"))
        assert failed(connection, given) == BROKEN[given]
