"""The command line as users run it: exit codes, streams, and errors without a traceback."""

import dataclasses
import datetime as dt
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

from gates import catalogue, cli, gate_version
from gates.decision.rules import Policy
from gates.deployment.requests import sign_v1
from gates.evidence import CheckSpec, Evidence, Outcome, Severity, TargetKind, Where, stamp
from gates.evidence_file import read_log, write_lines
from gates.operator import lint
from gates.record import begin, locked, recompute, write, write_run
from gates.verdict import Action
from tests.cases import rows
from tests.gates.floor_checks import FLOOR_SPECS, floor_passed
from tests.gates.gate_process import gate
from tests.small_target import serving
from tests.sources import ROOT
from tests.waiting import command_line, until

SECRET = "planted-secret-0123456789"
COMPANY = "00000000-0000-4000-8000-000000000004"
NOW = dt.datetime(2026, 1, 2, 12, tzinfo=dt.UTC)


def saved(folder: Path, outcome: Outcome, **evidence: Any) -> Path:
    """The record of a finished run with one check."""
    spec = CheckSpec("drill/small/main", "c", "c", Severity.PAGE, Where.READ_ONLY)
    policy = Policy(catalogue=(spec, *FLOOR_SPECS), target=TargetKind.STAGING)
    run = begin(folder, {"started_at": stamp(NOW), "run_id": "x", "gate": "0", "target": "staging", "release": ""})
    line = Evidence(spec.id, outcome, samples=1, started_at=stamp(NOW), **evidence)
    write_lines(folder / "evidence.ndjson", [line, *floor_passed(stamp(NOW))])
    done = Action("none", result="nothing_to_do").to_json()
    end = read_log(folder / "evidence.ndjson").end.to_json()
    times: dict[str, Any] = {"decided_at": stamp(NOW), "finished_at": stamp(NOW), "evidence": end}
    write_run(folder, {**run, **times, "policy": policy.to_json(), "policy_digest": policy.digest, "action": done})
    write(folder / "verdict.json", recompute(folder).dump())
    return folder


@pytest.mark.parametrize(
    ("outcome", "code", "decision"),
    [(Outcome.PASS, 0, "promote"), (Outcome.UNKNOWN, 10, "hold"), (Outcome.FAIL, 20, "rollback")],
)
def test_decide_gives_the_bytes_of_the_verdict_and_its_exit_code(
    tmp_path: Path, outcome: Outcome, code: int, decision: str
) -> None:
    """0 promote, 10 hold, 20 rollback; stdout has exactly verdict.json, and a missing file is written again."""
    folder = saved(tmp_path, outcome)
    written = (folder / "verdict.json").read_text(encoding="utf-8")
    done = gate("decide", str(folder))
    assert (done.returncode, done.stdout) == (code, written)
    assert json.loads(done.stdout)["decision"] == decision
    (folder / "verdict.json").unlink()
    assert gate("decide", str(folder)).stdout == written
    assert (folder / "verdict.json").read_text(encoding="utf-8") == written


def test_a_hold_can_be_spared_and_a_rollback_cannot(tmp_path: Path) -> None:
    """For systems that know only pass or fail."""
    assert gate("decide", str(saved(tmp_path / "h", Outcome.UNKNOWN)), "--exit-zero-on", "hold").returncode == 0
    assert gate("decide", str(saved(tmp_path / "r", Outcome.FAIL)), "--exit-zero-on", "hold").returncode == 20
    assert gate("decide", str(tmp_path), "--exit-zero-on", "rollback").returncode == 2


def test_the_reports_are_rendered_from_the_record(tmp_path: Path) -> None:
    """To files, or one to stdout."""
    folder = saved(tmp_path, Outcome.FAIL, message="seen")
    done = gate("report", str(folder))
    assert done.returncode == 0
    assert (folder / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert gate("report", str(folder), "--print", "markdown").stdout.startswith("## 🔴 rollback\n")
    assert json.loads(gate("report", str(folder), "--print", "slack").stdout)["blocks"]


ERRORS = """
2 |  |  | gate COMMAND --help
2 | fly |  | 'fly' observed; allowed: run
2 | run --outptu x |  | gate run: error: '--outptu' observed; allowed: the options above. Did you mean '--output'?
2 | flags step k --raeson x --reason y |  | gate flags step: error: '--raeson' observed
2 | status extra |  | gate status: error: 'extra' observed; allowed: no further word
2 | drill --only sql/spot/constraints-validated |  | Another one has: gate sql --only 'sql/spot/constraints-validated'
2 | sql --only constraints |  | Did you mean '*constraints*'?
2 | explain idempotency |  | Did you mean '*idempotency*'?
2 | promote |  | --reason
2 | flags step |  | KEY
2 | flags step outbox.enabled |  | --reason
3 | flags step outbox.enabled --reason x |  | DATABASE_URL is not set
2 | promote --reason ' ' |  | it is empty
3 | run --policy nowhere.yaml |  | nowhere.yaml:1:1:
3 | run --policy BROKEN |  | broken.yaml:2:1: the unknown key 'rolout'
3 | lint --policy BROKEN |  | Did you mean 'rollout'?
3 | run | GATE_TARGET=prod | GATE_TARGET is 'prod'
3 | run | GATE_TARGET=production BASE_ULR=http://127.0.0.1:9 | these variables are there: GATE_TARGET;
3 | run | GATE_TARGET=reference BASE_URL=https://db.example | leads to another machine
3 | run | GATE_TARGET=reference DATABASE_URL=postgresql://u@127.0.0.1,10.0.0.7/x | leads to another machine
3 | run | GATE_TARGET=reference 'DATABASE_URL=hostaddr=10.0.0.7 host=localhost' | leads to another machine
3 | run | GATE_TARGET=reference DATABASE_URL=dbname=x PGHOST=db.example | leads to another machine
3 | run | 'BASE_URL= ' DATABASE_URL= | these variables are there: BASE_URL, DATABASE_URL;
3 | drill | TRANSBOT_HMAC_SECRET=SECRET | these variables are there: TRANSBOT_HMAC_SECRET;
2 | run --output '' | BASE_URL=http://127.0.0.1:9 | it is empty
3 | drill | TEST_DLQ=1 BASE_URL=http://127.0.0.1:9 | TEST_DLQ
3 | promote --reason x |  | DATABASE_URL is not set
4 | flags | DATABASE_URL=postgresql://u:planted-pw@127.0.0.1:9/x | at DATABASE_URL
3 | sign -c COMPANY |  | TRANSBOT_HMAC_SECRET is not set
2 | sign | TRANSBOT_HMAC_SECRET=SECRET | TEST_COMPANY_ID
3 | replay -c COMPANY | TRANSBOT_HMAC_SECRET=SECRET | BASE_URL is not set
4 | replay -c COMPANY | TRANSBOT_HMAC_SECRET=SECRET BASE_URL=http://127.0.0.1:9 | allowed: an answer
2 | decide nowhere |  | name the folder of a run as DIR
2 | report nowhere |  | run.json
2 | checklist nowhere |  | run.json
2 | budget --daily -1 |  | 0 or more
2 | budget --daily 5 | DATABASE_URL=postgresql://127.0.0.1:9/x | Give -c
"""
"""Exit code, words, variables, what is said of it."""


@pytest.mark.parametrize(("code", "words", "variables", "said"), rows(ERRORS))
def test_an_error_has_its_exit_code_and_no_traceback(
    tmp_path: Path, code: str, words: str, variables: str, said: str
) -> None:
    """2 usage, 3 configuration, 4 the gate could not work: on stderr, nothing on stdout, no secret."""
    broken = tmp_path / "broken.yaml"
    broken.write_text("version: 1\nrolout: {}\n", encoding="utf-8")
    texts = {"BROKEN": str(broken), "COMPANY": COMPANY}
    pairs = (pair.partition("=") for pair in shlex.split(variables.replace("SECRET=SECRET", f"SECRET={SECRET}")))
    environ = {name: value for name, _, value in pairs}
    done = gate(*(texts.get(word, word) for word in shlex.split(words)), cwd=tmp_path, environ=environ)
    assert done.returncode == int(code), done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "planted" not in done.stderr
    assert not done.stdout


def test_what_libpq_reads_counts_from_a_file_of_variables_too(tmp_path: Path) -> None:
    """An order to verify the server that nobody heard would send the password to whoever answers."""
    (tmp_path / "gate.env").write_text(
        "DATABASE_URL=postgresql://u:planted-pw@127.0.0.1:9/x\nPGSSLMODE=mistyped\nPGHOST=elsewhere.invalid\n"
    )
    (tmp_path / "gate.env").chmod(0o600)
    done = gate("flags", "--env-file", "gate.env", cwd=tmp_path)
    assert (done.returncode, 'invalid sslmode value: "mistyped"' in done.stderr) == (4, True), done
    done = gate("flags", "--env-file", "gate.env", cwd=tmp_path, environ={"PGSSLMODE": "disable"})
    assert (done.returncode, "port 9 failed: Connection refused" in done.stderr) == (4, True), done


def test_a_pipeline_is_shown_why_the_gate_could_not_work(tmp_path: Path) -> None:
    """At the top of the job, also where no file is to blame."""
    done = gate("run", cwd=tmp_path, environ={"GATE_TARGET": "prod", "GITHUB_ACTIONS": "true"})
    assert "\n::error title=gate run::GATE_TARGET is 'prod'" in done.stderr


@pytest.mark.parametrize("command", ["run", "drill", "sql", "alerts", "load"])
def test_a_folder_belongs_to_one_gate_at_a_time(command: str, tmp_path: Path) -> None:
    """A second one says so and touches nothing there: two would mix their evidence. When the first ended, it may."""
    nowhere = {"BASE_URL": "http://127.0.0.1:9"}
    out = tmp_path / "out"
    with locked(out):
        done = gate(command, "--output", str(out), cwd=tmp_path, environ=nowhere)
        assert (done.returncode, list(out.iterdir())) == (4, [])
        assert f"another gate writes to {out}; allowed: one at a time" in done.stderr
    if command == "sql":
        assert gate(command, "--output", str(out), cwd=tmp_path, environ=nowhere).returncode == 10


def test_python_asks_for_nothing_more_at_the_end(tmp_path: Path) -> None:
    """With PYTHONINSPECT a process that ends would wait for a person, or end with another exit code."""
    words = [sys.executable, "-m", "gates", "decide", str(saved(tmp_path, Outcome.UNKNOWN))]
    environ = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "PYTHONINSPECT": "1"}
    more = "raise SystemExit(0)"
    done = subprocess.run(words, cwd=ROOT, env=environ, input=more, capture_output=True, text=True, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (10, False)


def test_nobody_else_may_write_what_a_run_leaves(tmp_path: Path) -> None:
    """A caller without a umask, as some containers and service managers are, opens no evidence to every user."""
    words = [sys.executable, "-m", "gates", "sql", "--output", "out"]
    environ = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "BASE_URL": "http://127.0.0.1:9"}
    subprocess.run(words, cwd=tmp_path, env=environ, capture_output=True, check=False, umask=0)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "out", *(tmp_path / "out").rglob("*"))}
    assert "evidence.ndjson" in modes
    assert {name for name, mode in modes.items() if mode & 0o002} == set()


def test_a_gate_that_crashes_leaves_no_memory(tmp_path: Path) -> None:
    """A core file would hold every secret: the gate, and what it starts, make none where the machine allows them."""
    asked = "import gates.__main__ as m, resource as r; m.main(['decide', '.']); print(r.getrlimit(r.RLIMIT_CORE))"
    words = ["/bin/sh", "-c", f'ulimit -c hard; exec {sys.executable} -c "{asked}"']
    environ = {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=tmp_path, env=environ, capture_output=True, text=True, check=True)
    assert done.stdout in {"(1, -1)\n", "(0, 0)\n"}


def test_no_variable_takes_the_driver_away(tmp_path: Path) -> None:
    """PSYCOPG_IMPL may name one that is not there: every command would end in a traceback, a rollback, too."""
    words = [sys.executable, "-m", "gates", "rollback", "--reason", "why"]
    environ = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "PSYCOPG_IMPL": "none"}
    done = subprocess.run(words, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, "DATABASE_URL is not set" in done.stderr) == (3, True), done.stderr


def test_a_gate_without_streams_has_some_that_lead_nowhere(tmp_path: Path) -> None:
    """A service manager may close them: no file of a run and no connection gets their numbers, and nobody asks None."""
    seen = "all(os.path.samestat(os.fstat(n), os.stat(os.devnull)) and s.fileno() == n for n, s in enumerate(streams))"
    asked = f"streams = (sys.stdin, sys.stdout, sys.stderr); print({seen}, file=open('seen', 'w'))"
    shell = f'exec {sys.executable} -c "import os, sys, gates.__main__; {asked}" <&- >&- 2>&-'
    subprocess.run(["/bin/sh", "-c", shell], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, check=True)
    assert (tmp_path / "seen").read_text(encoding="utf-8") == "True\n"


@pytest.mark.parametrize(
    "numbers", [(signal.SIGINT,), (signal.SIGTERM,), (signal.SIGHUP,), (signal.SIGTERM, signal.SIGHUP, signal.SIGTERM)]
)
def test_an_interrupted_run_leaves_a_hold(tmp_path: Path, numbers: tuple[int, ...]) -> None:
    """Ctrl-C, SIGTERM, a terminal that goes away, or several of them at once end the run and its subprocesses; what is
    on disk says hold, and no secret.
    """
    with serving(lambda _path: (200, {"release": "r1"})) as url:
        clean = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "BASE_URL": url, "TRANSBOT_HMAC_SECRET": SECRET}
        default = ["env", "--default-signal=INT,HUP"]  # a suite in the background, or under nohup, ignores them
        words = [*default, sys.executable, "-m", "gates.cli", "run", "--output", str(tmp_path)]
        process = subprocess.Popen(
            words, cwd=ROOT, env=clean, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        until(lambda: (tmp_path / "logs").exists() or process.poll() is not None, timeout_s=60, what="the run")
        left = tmp_path / "logs" / "left.txt"
        left.write_text(f"an answer: {SECRET}", encoding="utf-8")
        for number in numbers:
            process.send_signal(number)
        out, err = process.communicate(timeout=30)
        assert process.returncode in {128 + number for number in numbers}, err
        assert "Traceback" not in err
        assert not out
        assert json.loads((tmp_path / "verdict.json").read_text(encoding="utf-8"))["decision"] == "hold"
        assert left.read_text(encoding="utf-8") == "an answer: $TRANSBOT_HMAC_SECRET"
        # what was just being started dies with its parent, a moment later
        until(lambda: str(tmp_path) not in "".join(command_lines()), timeout_s=60, what="its end")


def command_lines() -> list[str]:
    found = [command_line(path.name).replace("\0", " ") for path in Path("/proc").glob("[0-9]*")]
    return [f for f in found if str(os.getpid()) not in f]


def test_a_signed_body_is_what_the_contract_says() -> None:
    """The signature is over the very bytes of the curl command; -v shows both; the secret is nowhere."""
    environ = {"TRANSBOT_HMAC_SECRET": f"{SECRET},other-secret-16-bytes", "BASE_URL": "http://x/functions/v1"}
    done = gate("sign", "-c", COMPANY.upper(), "-m", "25", "-k", "INC-1", "-d", "-f", "-v", environ=environ)
    assert done.returncode == 0
    body = f'{{"company_id":"{COMPANY}","max":25,"idempotency_key":"INC-1","dry_run":true,"force":true}}'
    assert f"'{body}'" in done.stdout
    assert f"X-Transbot-Signature: {sign_v1(SECRET, body.encode())}" in done.stdout
    assert "http://x/functions/v1/dlq-replay" in done.stdout
    assert body in done.stderr
    assert SECRET not in done.stdout + done.stderr
    second = json.loads(gate("sign", "-c", COMPANY, "--v2", "--json", environ=environ).stdout)
    assert re.fullmatch(r"t=\d+,v2=[0-9a-f]{64}", second["signature"])


def test_the_operator_s_hand_works_on_a_database(migrated_url: str) -> None:
    """flags, budget, promote, rollback, emergency: what is shown and done is what the database has."""
    with psycopg.connect(migrated_url, autocommit=True) as database:
        database.execute("delete from public.feature_flags where key = 'outbox.enabled'")
        database.execute(
            "insert into public.feature_flags (key, enabled, rollout_percentage) values ('outbox.enabled', true, 10)"
        )
        database.execute("insert into public.companies (id, name) values (%s, 'one')", (COMPANY,))
        environ = {"DATABASE_URL": migrated_url, "RELEASE": "r1", "USER": "ann"}
        (flag,) = [
            f for f in json.loads(gate("flags", "--json", environ=environ).stdout) if f["key"] == "outbox.enabled"
        ]
        assert (flag["enabled"], flag["rollout_percentage"]) == (True, 10)
        dry = gate("promote", "--reason", "try", "--dry-run", environ=environ)
        assert (dry.returncode, "promote dry run, 10 % → 50 %" in dry.stdout) == (0, True), dry
        assert gate("promote", "--reason", "go", environ=environ).returncode == 0
        baking = gate("promote", "--reason", "again", environ=environ)
        assert (baking.returncode, "may come in" in baking.stdout) == (10, True)
        assert gate("budget", "-c", COMPANY, "--daily", "7", environ=environ).returncode == 0
        (budget,) = json.loads(gate("budget", "-c", COMPANY, "--json", environ=environ).stdout)
        assert budget["daily_limit"] == 7
        assert [*budget][:6] == ["company_id", "company_name", "status", "daily_limit", "daily_used", "daily_remaining"]
        assert gate("rollback", "--reason", "harm", environ=environ).returncode == 0
        emergency = json.loads(gate("emergency", "--reason", "worse", "--json", environ=environ).stdout)
        assert (emergency["kind"], emergency["result"]) == ("emergency", "done")
        actors = {
            r[0] for r in database.execute("select actor from public.audit_logs where action like 'flag_%'").fetchall()
        }
        assert actors == {"gate:ann"}


def test_the_checklist_is_ticked_by_evidence_or_not_ticked(tmp_path: Path) -> None:
    """A record with one drill ticks nothing that it did not see; people's boxes need an attestation."""
    folder = saved(tmp_path, Outcome.PASS)
    policy = tmp_path / "gate.yaml"
    said = "{box: Team trained on new procedures, by: ann, date: 2026-01-01}"
    policy.write_text(f"version: 1\nattestations: [{said}]\n", encoding="utf-8")
    done = gate("checklist", str(folder), "--policy", str(policy))
    assert done.returncode == 10
    assert "  [x] Team trained on new procedures: ann, 2026-01-01" in done.stdout
    assert "[ ] SQL spot checks verified: " in done.stdout
    assert "[ ] Success metrics defined: nobody says so" in done.stdout


def test_lint_finds_no_problem_and_the_catalogue_is_complete_both_ways() -> None:
    """Every check that is declared is listed as it is declared, and nothing else is; lint names what is not."""
    first, second, *rest = catalogue.load()
    changed = dataclasses.replace(second, cost="another")
    own = dataclasses.replace(first, id="drill/small/own")
    said = "\n".join(lint._catalogue_problems((own, changed, *rest)))
    for found in ("own is declared and not listed", f"{first.id} is listed and not declared", f"{second.id} differs"):
        assert found in said
    done = gate("lint")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no problem found" in done.stderr


def test_nothing_that_a_rollback_does_not_need_keeps_it_from_happening(migrated_url: str, tmp_path: Path) -> None:
    """A broken policy, a file for --state, a wrong variable: the named flag goes off; one that is not there is 21."""
    broken = tmp_path / "broken.yaml"
    broken.write_text("version: 1\nrolout: {}\n", encoding="utf-8")
    wrong = {"TEST_DLQ": "1", "GATE_TARGET": "prod", "TEST_COMPANY_ID": "x", "ADMIN_JWT": "x", "RELEASE": "two\nlines"}
    environ = {**wrong, "DATABASE_URL": migrated_url, "GITHUB_ACTIONS": "true"}
    words = ("rollback", "--reason", "harm", "--policy", str(broken), "--state", str(broken), "--flag")
    with psycopg.connect(migrated_url, autocommit=True) as database:
        database.execute("insert into public.feature_flags (key, enabled) values ('other.flag', true)")
        done = gate(*words, "other.flag", environ=environ)
        assert (done.returncode, "rolout" in done.stderr) == (0, True), done
        assert database.execute("select enabled from public.feature_flags where key = 'other.flag'").fetchall() == [
            (False,)
        ]
    failed = gate(*words, "other.falg", environ=environ)
    assert failed.returncode == 21
    assert failed.stdout.startswith("THE FLAG MAY STILL BE ON\n")
    assert "UPDATE public.feature_flags SET enabled = false WHERE key = 'other.falg';" in failed.stdout
    assert "::error title=THE FLAG MAY STILL BE ON::" in failed.stderr
    assert gate(*words[:-1], environ=environ).returncode == 3


def test_flags_that_a_login_may_not_see_are_not_called_none_without_a_word(migrated_url: str) -> None:
    """That there is no flag is not the same as that row-level security hides them."""
    for login, hides in ((migrated_url, False), (f"{migrated_url}?options=-crole%3Dpg_read_all_data", True)):
        done = gate("flags", "--json", environ={"DATABASE_URL": login})
        assert (done.returncode, json.loads(done.stdout)) == (0, []), done
        assert ("may hide the flags from this login" in done.stderr) is hides
        with psycopg.connect(migrated_url, autocommit=True) as database:
            database.execute("insert into public.feature_flags (key) values ('other.flag') on conflict do nothing")


def test_a_file_that_cannot_be_written_is_no_internal_error(tmp_path: Path) -> None:
    """Exit code 4, and no traceback."""
    folder = saved(tmp_path, Outcome.PASS)
    (folder / "report.html").mkdir()
    done = gate("report", str(folder))
    assert (done.returncode, "Traceback" in done.stderr) == (4, False), done
    assert "See to the disk" in done.stderr


def test_a_copy_that_was_not_installed_acts_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package's metadata no command ends in a traceback before it began; the version is 0."""
    monkeypatch.setattr("importlib.metadata.Distribution.discover", lambda **_: iter(()))
    assert gate_version() == "0"
    assert cli.parser("rollback").parse_args(["rollback", "--reason", "x"]).reason == "x"
