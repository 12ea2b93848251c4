"""Queue libraries from their registries: healthy ones pass, and each of six defects is named."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from gates.contract.queues import ProbeOptions, Queue, QueueOptions, presets
from gates.deployment.queue.jobs import QueueDoor
from gates.deployment.queue.schema import look_at
from gates.deployment.sql.database import connect, value
from gates.evidence import Outcome
from gates.stages.queue import Probing
from sql_checks.rules.judge import RuleResult, judge_proved
from sql_checks.rules.queues import rules_of
from sql_checks.rules.run import measure
from tests.postgres_fixture import PASSWORD, PgServer
from tests.sql_checks.queues.libraries import LIBRARIES, Library, Program, installed
from tests.waiting import until

POLL_S = 0.2
PATIENCE_S = 40.0
ROLE = "queue_reader"


@dataclass
class Bench:
    """A library set up in a database of its own, looked at by a login with the grants of its preset and no other."""

    program: Program
    admin: str
    reader: str

    def sql(self, statement: str) -> None:
        with psycopg.connect(self.admin, autocommit=True) as connection:
            connection.execute(statement.encode())

    def judged(self, options: QueueOptions | None = None, check: str = "") -> dict[str, RuleResult]:
        """The outcome of each check, or of one."""
        queue = Queue(presets()[self.program.library.preset], options or QueueOptions())
        with connect(self.reader, read_only=True) as connection:
            look = look_at(queue, connection)
            assert look.trouble == ""
            found = {}
            for rule in (rule for rule in rules_of(queue, look.schema) if check in {"", rule.name}):
                measured = measure(rule, connection)
                found[rule.name] = judge_proved(rule, measured.samples, measured.now)
            return found

    def until(self, check: str, outcome: Outcome, options: QueueOptions | None = None) -> dict[str, RuleResult]:
        """The judgements once a check has this outcome."""
        until(lambda: self.judged(options, check)[check].outcome is outcome, PATIENCE_S, check, POLL_S)
        return self.judged(options)

    def waits(self) -> bool:
        """Whether any job is due or claimed."""
        queue = Queue(presets()[self.program.library.preset])
        either = "select count(*) from (select queue from {{waiting}} w union all select queue from {{running}} r) jobs"
        with connect(self.reader, read_only=True) as connection:
            return value(connection, queue.written(either, look_at(queue, connection).schema)) != 0

    def drained(self, task: str, count: int) -> None:
        """Send jobs to a worker, and wait until none is left."""
        self.program.do("send", task, str(count))
        until(lambda: not self.waits(), PATIENCE_S, "all jobs done", POLL_S)


def failed(found: dict[str, RuleResult]) -> set[str]:
    return {name for name, result in found.items() if result.outcome is Outcome.FAIL}


@pytest.fixture(scope="module", params=LIBRARIES, ids=lambda library: library.preset)
def library(request: pytest.FixtureRequest) -> Library:
    found: Library = request.param
    return found


@pytest.fixture(scope="module")
def folder(library: Library, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library's folder, installed once for all workers of the test run."""
    base = tmp_path_factory.getbasetemp()
    return installed(library, base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base)


@pytest.fixture(scope="module")
def template(library: Library, folder: Path, pg_server: PgServer) -> Iterator[str]:
    """A database with the library's tables, and the reader's grants."""
    with pg_server.database() as name:
        url = pg_server.url(name)
        Program(library, folder, url).do("setup")
        preset = presets()[library.preset]
        queue = Queue(preset)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                f"do $$ begin create role {ROLE} login password '{PASSWORD}';"
                " exception when duplicate_object then null; end $$".encode()
            )
            with connect(url) as looking:
                look = look_at(queue, looking)
            since = [grant for table, grant in preset.grants_since.items() if table in look.schema.columns]
            for grant in (*preset.grants, *since):
                connection.execute(queue.named(grant).replace("{{login}}", ROLE).encode())
        yield name


@pytest.fixture
def bench(library: Library, folder: Path, template: str, pg_server: PgServer) -> Iterator[Bench]:
    """A fresh copy of the template."""
    with pg_server.database(template) as name:
        admin = pg_server.url(name)
        yield Bench(Program(library, folder, admin), admin, pg_server.url(name, ROLE))


def test_a_healthy_queue_passes_every_check(bench: Bench) -> None:
    """After 100 jobs nothing fails; a time one hour ahead is then named."""
    options = QueueOptions(
        probe=ProbeOptions("mail", queue="mail", payload={"company_id": "probe"}, within_s=PATIENCE_S)
    )
    with bench.program.working():
        bench.drained("mail", 100)
        found = bench.judged()
        with QueueDoor(Queue(presets()[bench.program.library.preset], options), bench.admin) as door:
            probing = Probing(door)
            probing.run(0.0, 1)
            assert probing.proof().outcome is Outcome.PASS, probing.proof().message
            until(door.ended, PATIENCE_S, "a job that ended", POLL_S)
    assert {name: r.message for name, r in found.items() if r.outcome is not Outcome.PASS} == {}
    bench.sql(bench.program.library.skewed)
    assert "clock" in failed(bench.judged())


def test_an_empty_queue_is_no_failure(bench: Bench) -> None:
    """Nothing fails, and what needs jobs is unknown."""
    found = bench.judged()
    assert failed(found) == set()
    assert found["oldest-age"].outcome is Outcome.UNKNOWN
    assert found["claim-index"].outcome is Outcome.PASS


def test_claims_of_a_killed_worker_are_named(bench: Bench) -> None:
    """A claim outlives its killed worker beyond the time that a job may run."""
    with bench.program.working() as worker:
        bench.program.do("send", "slow", "1")
        options = QueueOptions(max_run_time_s=0.5)
        bench.until("stuck-claims", Outcome.FAIL, options)
        worker.kill()
    found = bench.judged(options)
    assert failed(found) == {"stuck-claims"}
    assert "of slow" in found["stuck-claims"].message


def test_a_backlog_without_a_worker_is_named(bench: Bench) -> None:
    """Jobs that wait for minutes without a worker are a page by their age."""
    bench.program.do("send", "mail", "30")
    assert failed(bench.judged()) <= {"lag"}
    bench.sql(bench.program.library.aged)
    found = bench.judged()
    assert found["oldest-age"].severity == "page"
    assert failed(found) <= {"oldest-age", "standstill", "lag", "workers", "scheduler"}
    assert {"standstill", "lag", "scheduler"} & set(found) <= failed(found)


def test_dead_letters_are_named_and_old_ones_fail_no_release(bench: Bench) -> None:
    """A dead letter is noted with its queue and rolls nothing back; old ones are not the release's."""
    poison = bench.program.library.poison
    with bench.program.working():
        bench.drained("mail", 60)
        bench.program.do("send", poison, "1")
        found = bench.until("dead-letters", Outcome.FAIL)
        assert found["dead-letters"].severity == "investigate"
        assert "most of bad" in found["dead-letters"].message
        assert failed(found) == {"dead-letters"}
        bench.drained(poison, 19)
    bench.sql(AGED_DEAD[bench.program.library.preset])
    with bench.program.working():
        bench.drained("mail", 40)
        found = bench.judged()
    assert {name: r.severity for name, r in found.items() if r.outcome is Outcome.FAIL} in (
        {"unreplayed": "investigate"},
        {},
    )


def only(preset: str) -> pytest.MarkDecorator:
    """Marks a test of one library."""
    return pytest.mark.parametrize(
        "library", [one for one in LIBRARIES if one.preset == preset], indirect=True, ids=[preset]
    )


@only("pg-boss")
def test_a_queue_whose_table_was_taken_out_is_named(bench: Bench) -> None:
    """A detached partition still has jobs that no list of all jobs shows."""
    bench.sql(
        "do $$ begin execute (select format('alter table pgboss.job detach partition pgboss.%I', partition_name)"
        " from pgboss.queue where name = 'mail'); end $$"
    )
    found = bench.judged()
    assert failed(found) == {"unfinished-builds"}
    assert "of queue mail is not attached" in found["unfinished-builds"].message


@only("graphile-worker")
def test_jobs_that_are_given_up_are_dead_letters(bench: Bench) -> None:
    """Jobs given up early count as failed now, whenever they were due."""
    bench.program.do("send", "mail", "20")
    bench.sql("select graphile_worker.permanently_fail_jobs(array(select id from graphile_worker.jobs))")
    found = bench.judged()
    assert failed(found) == {"dead-letters", "unreplayed"}
    assert found["dead-letters"].severity == "page"


@only("procrastinate")
@pytest.mark.parametrize("end", ["aborted", "cancelled"])
def test_a_lane_is_free_when_its_job_was_given_up(bench: Bench, end: str) -> None:
    """A lane whose job was given up a moment ago does not count as held up."""
    bench.sql(
        "insert into procrastinate_jobs (queue_name, task_name, lock, status) select 'default', 'mail', 'a', 'todo'"
        " from generate_series(1, 30);"
        " update procrastinate_jobs set status = 'doing' where id = (select min(id) from procrastinate_jobs);"
        " update procrastinate_events set at = at - interval '400 s';"
        f" update procrastinate_jobs set status = '{end}' where status = 'doing';"
        f" insert into procrastinate_events (job_id, type) select min(id), '{end}' from procrastinate_jobs"
        f" having not exists (select from procrastinate_events where type = '{end}')"
    )
    assert failed(bench.judged()).isdisjoint({"lag", "oldest-age", "standstill"})
    next_one = "(select min(id) from procrastinate_jobs where status = 'todo')"
    bench.sql(f"update procrastinate_jobs set status = 'doing' where id = {next_one}")
    assert "held-up" not in failed(bench.judged())


@only("procrastinate")
@pytest.mark.parametrize(("attempts", "due"), [(0, {"due-times"}), (1, set())], ids=["put-off", "tried-again"])
def test_a_job_that_is_tried_again_later_was_not_put_off(bench: Bench, attempts: int, due: set[str]) -> None:
    """New jobs that failed, and wait for their next try, do not count as put off by their producer."""
    bench.sql(
        "insert into procrastinate_jobs (queue_name, task_name, status, attempts, scheduled_at)"
        f" select 'default', 'mail', 'todo', {attempts}, now() + interval '5 minutes' from generate_series(1, 5)"
    )
    assert failed(bench.judged()) == due


@only("graphile-worker")
@pytest.mark.parametrize(("age_s", "held"), [(2, set()), (400, {"held-up"})], ids=["moves", "stands"])
def test_a_lane_that_moves_is_not_held_up(bench: Bench, age_s: int, held: set[str]) -> None:
    """A lane counts as held up only if its running job has run for minutes."""
    bench.sql(
        "select graphile_worker.add_job('mail', queue_name := 'lane', run_at := now() - interval '1 hour')"
        " from generate_series(1, 30);"
        " update graphile_worker._private_jobs set created_at = now() - interval '1 hour';"
        f" update graphile_worker._private_jobs set locked_at = now() - interval '{age_s} s', locked_by = 'w'"
        " where id = (select min(id) from graphile_worker._private_jobs)"
    )
    assert failed(bench.judged()) == held


@pytest.mark.parametrize("how", ["lost", "invalid"])
def test_a_lost_index_is_named(bench: Bench, how: str) -> None:
    """The index that claims need is gone, or was left half-built."""
    bench.sql(str(getattr(bench.program.library, how)))
    found = bench.judged()
    assert failed(found) == {"claim-index", *(["unfinished-builds"] if how == "invalid" else [])}


def test_a_failing_handler_is_named(bench: Bench) -> None:
    """Where every job of one task fails, the check of failures names that task."""
    with bench.program.working():
        bench.drained("mail", 30)
        bench.program.do("send", "bad", "30")
        found = bench.until(bench.program.library.failing, Outcome.FAIL)
    assert "most of bad" in found[bench.program.library.failing].message
    assert failed(found) <= {"failure-rate", "retry-rate", "dead-letters", "retries", "unreplayed"}


AGED_DEAD = {
    "pg-boss": "update pgboss.job set completed_on = completed_on - interval '2 days' where state = 'failed'",
    "graphile-worker": "update graphile_worker._private_jobs set updated_at = now() - interval '2 days',"
    " run_at = now() - interval '2 days', created_at = now() - interval '2 days'",
    "procrastinate": "update procrastinate_events set at = at - interval '2 days' where type = 'failed'",
    "pgqueuer": "update pgqueuer_log set created = created - interval '2 days' where status = 'exception'",
}
