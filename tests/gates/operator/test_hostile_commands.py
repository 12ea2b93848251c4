"""`gate flags`, `budget`, `status` and `replay` against a database and a server full of hostile text."""

import json
from collections.abc import Iterator

import psycopg
import pytest

from gates.proof.workbench.servers import Asked, Reply, serve
from gates.text.foreign import text as stored
from tests.gates.gate_process import gate
from tests.gates.hostile_text import ALL, EVERYTHING
from tests.gates.reports.test_console import is_inert
from tests.gates.test_cli import COMPANY, SECRET
from tests.postgres_fixture import TEMPLATE, PgServer

ROWS = (
    "insert into public.companies (id, name) values (%(company)s, %(text)s)",
    "insert into public.replay_budgets (company_id) values (%(company)s) on conflict do nothing",
    (
        "insert into public.feature_flags (key, description, enabled, rollout_percentage) values"
        " (left(%(text)s, 600), %(text)s, true, 10)"
    ),
    "update public.agent_controls set agents_paused = true, pause_reason = %(text)s",
    (
        "insert into public.audit_logs (action, actor, scope, metadata) values ('flag_promoted', %(text)s, %(text)s,"
        " jsonb_build_object('key', %(text)s::text, 'reason', %(text)s::text, 'release', %(text)s::text))"
    ),
)


@pytest.fixture(scope="module")
def hostile(pg_server: PgServer) -> Iterator[dict[str, str]]:
    """The variables of a target with hostile text everywhere."""

    def behave(asked: Asked) -> Reply:
        body = EVERYTHING if "replay" in asked.path else json.dumps({"release": EVERYTHING, EVERYTHING: EVERYTHING})
        return Reply(200, (("X-Request-Id", "\x1b[2J::error::forged"),), body.encode("utf-8", "surrogatepass"))

    with pg_server.database(TEMPLATE) as name:
        fits = stored(EVERYTHING, len(EVERYTHING) * 2)
        with psycopg.connect(pg_server.url(name), autocommit=True) as connection:
            for statement in ROWS:
                connection.execute(statement.encode(), {"company": COMPANY, "text": fits})
        with serve(behave) as base:
            yield {
                "BASE_URL": base,
                "DATABASE_URL": pg_server.url(name),
                "TRANSBOT_HMAC_SECRET": SECRET,
                "TEST_COMPANY_ID": COMPANY,
            }


@pytest.mark.parametrize(
    "words",
    [
        ("flags",),
        ("flags", "--json"),
        ("budget",),
        ("budget", "--json"),
        ("status",),
        ("status", "--json"),
        ("replay", "-m", "5", "-d", "-v"),
    ],
    ids=" ".join,
)
def test_what_a_command_shows_of_a_hostile_target_is_inert(hostile: dict[str, str], words: tuple[str, ...]) -> None:
    """No line controls a terminal or pipeline or looks like a verdict; JSON is one document."""
    done = gate(*words, environ=hostile)
    assert "Traceback" not in done.stderr
    assert done.returncode in {0, 10}, done.stderr
    assert done.stdout
    for stream in (done.stdout, done.stderr):
        assert is_inert(stream)
        assert not [line for line in stream.splitlines() if line.startswith(("PROMOTE", "decision="))]
    if "--json" in words:
        assert ALL[0][4:8] in json.dumps(json.loads(done.stdout))


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"status": "dry_run", "replay_run_id": null, "target_count": 0, "items": []}', 0),
        (b"<title>Sign in</title>", 10),
        (b"{}", 10),
        (b'{"message": "Welcome"}', 10),
        (b'[{"status": "started"}]', 10),
        (b"", 10),
    ],
)
def test_a_replay_is_done_if_its_answer_says_so(body: bytes, code: int) -> None:
    """A login page or a proxy that answers 200 to everything is no success of a replay."""
    with serve(lambda _asked: Reply(200, (("Content-Type", "application/json"),), body)) as base:
        done = gate(
            "replay", "-d", environ={"BASE_URL": base, "TRANSBOT_HMAC_SECRET": SECRET, "TEST_COMPANY_ID": COMPANY}
        )
    assert (done.returncode, "no answer of a replay" in done.stderr) == (code, code != 0), done.stderr
