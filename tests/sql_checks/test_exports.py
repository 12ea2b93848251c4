"""promtool and psql confirm that the exports judge what the gate judges."""

import dataclasses
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
import yaml

from gates.contract.queues import Queue, presets
from sql_checks.commands import main
from sql_checks.export.prometheus import queries_yaml
from sql_checks.export.psql import alerts_to_psql, spots_to_psql
from sql_checks.rules.file import read_all_rules
from sql_checks.spotfile import read_folder
from tests.postgres_fixture import PgServer

PROMTOOL = shutil.which("promtool")
PSQL = shutil.which("psql")
Export = Callable[..., tuple[int, str, str]]


def run(*words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, env=env)


@pytest.fixture
def export(capsys: pytest.CaptureFixture[str]) -> Export:
    """`python -m sql_checks export` in this process: exit code, stdout and stderr."""

    def exported(*words: str) -> tuple[int, str, str]:
        return (main(("export", *words)), *capsys.readouterr())

    return exported


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (apt-get install prometheus)")
def test_promtool_accepts_the_rules_and_their_tests(tmp_path: Path) -> None:
    """The exported rules are valid, quiet on each limit, firing beyond it, and quiet with too few samples. What is no
    number, of the fleet or of a tenant, is no data; of two targets one that ends is told.
    """
    made = run(sys.executable, "-m", "sql_checks", "export", "alerts", "prometheus", "--output", str(tmp_path))
    assert made.returncode == 0, made.stderr
    for words in (("check", "rules", "rules.yml"), ("test", "rules", "rules_test.yml")):
        done = run("promtool", *words[:2], str(tmp_path / words[2]))
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_queries_of_an_exporter_run_and_give_no_number_for_what_proves_nothing(seeded_url: str) -> None:
    """What the gate calls unknown is NULL there, which the exporter makes NaN and the rules `no data`."""
    rules = read_all_rules()
    rows = {
        "sound": "0.5, now()",
        "of no time": "0.5, null",
        "stale": "0.5, now() - interval '1 day'",
        "of the future": "0.5, now() + interval '1 day'",
        "impossible": "-1, now()",
        "no number": "'NaN', now()",
    }
    values = ", ".join(f"('{name}', 99, {row})" for name, row in rows.items())
    query = f"select * from (values {values}) v (subject, samples, value, newest)"
    fed = dataclasses.replace(next(rule for rule in rules if rule.stale_after_s), query=query)
    with psycopg.connect(seeded_url, autocommit=True) as connection:
        for one in yaml.safe_load(queries_yaml(rules)).values():
            connection.execute(one["query"].encode()).fetchall()
        (one,) = yaml.safe_load(queries_yaml([fed])).values()
        found = {str(subject): value for subject, value, _ in connection.execute(one["query"].encode())}
    assert found == {**dict.fromkeys(rows), "sound": 0.5, "of no time": 0.5}


@pytest.mark.skipif(PSQL is None, reason="psql is not installed (apt-get install postgresql-client)")
@pytest.mark.parametrize(
    ("what", "breach"),
    [
        (
            "alerts",
            (
                "insert into public.agent_tasks (company_id, status) select id, 'failed' from"
                " public.companies, generate_series(1, 99)"
            ),
        ),
        ("sql", "alter table public.audit_logs disable trigger all"),
        ("sql", "alter table public.events no force row level security"),
    ],
)
def test_psql_fails_on_a_breach_only(
    what: str, breach: str, pg_server: PgServer, seeded_db: str, tmp_path: Path
) -> None:
    """Plain psql runs the exported file: exit 0 on the healthy reference, not 0 on a breach."""
    text = alerts_to_psql(read_all_rules()) if what == "alerts" else spots_to_psql(read_folder())
    file = tmp_path / "checks.sql"
    file.write_text(text, encoding="utf-8")
    with pg_server.database(seeded_db) as name:
        url = pg_server.url(name)
        words = ("psql", "-X", "-v", "ON_ERROR_STOP=1", "-f", str(file), url)
        healthy = run(*words)
        assert healthy.returncode == 0, healthy.stderr
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(breach.encode())
        broken = run(*words)
        assert broken.returncode != 0
        assert "breach:" in broken.stderr


@pytest.mark.skipif(PSQL is None, reason="psql is not installed (apt-get install postgresql-client)")
def test_psql_fails_where_nothing_was_seen(migrated_url: str, tmp_path: Path) -> None:
    """An empty database fails, unless -v allow_unknown=1 is given."""
    file = tmp_path / "alerts.sql"
    file.write_text(alerts_to_psql(read_all_rules()), encoding="utf-8")
    words = ("psql", "-X", "-v", "ON_ERROR_STOP=1", "-f", str(file), migrated_url)
    assert "unknown:" in run(*words).stderr
    assert run(*words).returncode != 0
    assert run(*words, "-v", "allow_unknown=1").returncode == 0


@pytest.mark.skipif(PSQL is None, reason="psql is not installed (apt-get install postgresql-client)")
def test_the_rules_of_a_queue_are_exported_for_psql(export: Export, pg_server: PgServer, tmp_path: Path) -> None:
    """`--queue` exports that queue's rules, which fail on jobs that nobody takes."""
    schema = Path(__file__).parent / "queues" / "schemas" / "river.sql"
    queue = Queue(presets()["river"]).to_json()
    file = tmp_path / "queue.sql"
    words = ("alerts", "psql", "--queue", queue, "--queue-alone", "--output", str(file))
    assert export(*words)[0] == 0
    with pg_server.database() as name:
        url = pg_server.url(name)
        psql = ("psql", "-X", "-v", "ON_ERROR_STOP=1", "-v", "allow_unknown=1", "-f", str(file), url)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(schema.read_bytes())
            healthy = run(*psql)
            assert healthy.returncode == 0, healthy.stderr
            connection.execute("insert into river_job (scheduled_at, created_at) values ('2020-01-01', '2020-01-01')")
        broken = run(*psql)
        assert broken.returncode != 0
        assert "queue-oldest-age" in broken.stderr


@pytest.mark.parametrize(("what", "only"), [("alerts", "alert/dlq-growth"), ("sql", "sql/spot/tenants-*")])
def test_what_was_asked_for_alone_is_exported(what: str, only: str, export: Export) -> None:
    """`--only` exports the checks that it names and no others; a name of none exits with 2."""
    code, out, err = export(what, "psql", "--only", only)
    assert code == 0, err
    assert only.rpartition("/")[2].rstrip("*") in out
    assert len(out) < len(export(what, "psql")[1]) / 4
    assert export(what, "psql", "--only", "nobody")[:2] == (2, "")


@pytest.mark.parametrize("words", [["sql", "psql", "/dev/full"], ["alerts", "prometheus", "/dev/full/folder"]])
def test_a_place_that_takes_no_export_is_no_mistake_of_the_configuration(words: list[str], export: Export) -> None:
    """A full disk exits with 4, and says what to do."""
    code, _, err = export(*words[:2], "--output", words[2])
    assert (code, err.partition("; allowed: ")[2]) == (4, "a place that can be written. See to its disk\n")
