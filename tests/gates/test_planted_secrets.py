"""A target that says every secret of the gate again, wherever it may choose a text: no output holds one, nor a part."""

import json
import os
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit

import psycopg
from psycopg import sql

from gates.proof.workbench.servers import Asked, Behaviour, Reply, forward, serve
from gates.stack.plan import StackOptions
from gates.stack.stack import reference_stack
from tests.gates.gate_process import gate
from tests.gates.reports.test_webhook import webhook

PART = 16
"""So many characters of a secret in a row are a leak, also of one that was cut."""
SIGNING = "planted/sig+ning?secret&<with>\"all'kinds\\of:signs@%#0123456789"
PASSWORD = "planted/pw+of?the&<data>base\"with'all\\kinds:of@signs%#987654321"
USER_INFO = "planted/user+info?&<in>the\"base'url\\abcdefghijklmnop:@%#"


def spelled(secret: str) -> tuple[str, ...]:
    """As servers write it: raw, in JSON, in a URL, base64, hex."""
    raw = secret.encode()
    return secret, json.dumps(secret)[1:-1], quote(secret, safe=""), b64encode(raw).decode(), raw.hex()


class Planted:
    """The secrets of one gate, and what an echo says of them."""

    def __init__(self, **secrets: str) -> None:
        self.secrets = secrets
        self.all = " ".join(f"{form}" for secret in secrets.values() for form in spelled(secret))

    def leaks(self, text: str) -> list[str]:
        """Which secrets stand in the text, whole or in part, by the form of their first part found."""
        return [
            f"{name}: {form[i : i + PART]}"
            for name, secret in self.secrets.items()
            for form in spelled(secret)
            for i in range(len(form) - PART + 1)
            if form[i : i + PART] in text
        ]


def echo(base: str, planted: Planted) -> Behaviour:
    """A door to the reference that adds the secrets to headers, documents, errors and the release."""

    def behave(asked: Asked) -> Reply:
        reply = forward(base, asked)
        headers = (*reply.headers, ("X-Echo", planted.all.replace("\n", " ")))
        try:
            document = json.loads(reply.body)
        except ValueError:
            return Reply(reply.status, headers, reply.body)
        if isinstance(document, dict):
            document = {**document, "echo": planted.all, planted.all: [planted.all]}
            document |= {k: f"{v} {planted.all}" for k, v in document.items() if k in {"error", "message", "release"}}
        return Reply(reply.status, headers, json.dumps(document).encode())

    return behave


def poison(url: str, planted: Planted) -> None:
    """Rows that say the secrets, and functions of the target that raise with them."""
    with psycopg.connect(url, autocommit=True) as connection:
        said, key = sql.Literal(planted.all), sql.Literal(" ".join(spelled(PASSWORD)))
        for statement in (
            "update public.agent_controls set pause_reason = {}",
            "update public.companies set name = name || {}",
            "update public.dead_letter_queue set error_message = {}",
            (
                "insert into public.audit_logs (action, actor, scope, metadata) values"
                " ('flag_promoted', {0}, {0}, jsonb_build_object('key', {0}::text, 'reason', {0}::text))"
            ),
            "insert into public.feature_flags (key, enabled, rollout_percentage) values ({1}, true, 10)",
            (
                "create or replace function public.planted_raise() returns boolean language plpgsql as"
                " $f$ begin raise exception '%', {}; end $f$"
            ),
            "create policy planted on public.replay_runs for select using (public.planted_raise())",
        ):
            connection.execute(sql.SQL(statement).format(said, key))


@contextmanager
def deployment() -> Iterator[tuple[dict[str, str], Planted]]:
    """The variables of a gate against the echo, and its secrets."""
    with reference_stack(StackOptions(), os.environ) as stack, webhook() as (hook, _posts):
        info = stack.info
        own = urlsplit(info.gate_url)
        with psycopg.connect(info.database_url, autocommit=True) as connection:
            connection.execute(
                sql.SQL("alter role {} password {}").format(sql.Identifier(str(own.username)), sql.Literal(PASSWORD))
            )
        slack = f"{hook}/services/T0000/B0000/plantedwebhooktoken0123456789"
        planted = Planted(
            accepted=info.hmac_secret,
            signing=SIGNING,
            password=PASSWORD,
            user_info=USER_INFO,
            jwt=info.jwt_secret,
            admin=info.admin_jwt.rpartition(".")[2],
            slack=slack.rpartition("/")[2],
        )
        poison(info.database_url, planted)
        base = urlsplit(info.base_url)
        with serve(echo(f"http://{base.netloc}", planted)) as door:
            yield (
                info.variables()
                | {
                    "TRANSBOT_HMAC_SECRET": f"{info.hmac_secret},{SIGNING}",
                    "BASE_URL": f"http://user:{quote(USER_INFO, safe='')}@{urlsplit(door).netloc}{base.path}",
                    "DATABASE_URL": info.gate_url.replace(str(own.password), quote(PASSWORD, safe="")),
                    "SLACK_WEBHOOK_URL": slack,
                    "GATE_TARGET": "production",
                },
                planted,
            )


def test_no_output_of_any_command_holds_an_echoed_secret(tmp_path: Path) -> None:
    """Headers, bodies, error bodies, the release, rows, SQL errors: every file, stdout and stderr of the gate."""
    with deployment() as (variables, planted):
        for words in (
            ("rollback", "--reason", f"because of {SIGNING}"),
            ("status",),
            ("flags",),
            ("budget",),
            ("replay", "-m", "5", "-d", "-v"),
            ("sql", "--output", "sql"),
            ("status", "--json"),
        ):
            done = gate(*words, cwd=tmp_path, environ=variables)
            assert planted.leaks(done.stdout) == [], words
            assert planted.leaks(done.stderr) == [], words
            assert "Traceback" not in done.stderr
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert len(files) > 5
    found = {str(p.relative_to(tmp_path)): planted.leaks(p.read_text("utf-8", "replace"))[:5] for p in files}
    assert {name: leaks for name, leaks in found.items() if leaks} == {}
