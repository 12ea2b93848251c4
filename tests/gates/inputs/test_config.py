"""gate.yaml and the environment: every mistake is an error with its place; nothing is guessed."""

import base64
import dataclasses
import datetime as dt
import json
import os
import pwd
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gates.config import actor, environment_of, load_policy, load_target
from gates.decision import policy_file
from gates.decision.policy_file import Settings, parse, schema
from gates.decision.rules import Policy, PolicyRule
from gates.deployment.credentials import of_another_secret
from gates.deployment.sql.libpq import FILES, OF_OPENSSL
from gates.deployment.target import Target
from gates.errors import ConfigError
from gates.evidence import CheckSpec, Severity, TargetKind, Where
from gates.reports.citation import cited
from gates.verdict import Effect
from gates.watch.look import canary
from sql_checks.fingerprint import ManifestError, load_manifest
from tests.gates.gate_process import gate

ROOT = Path(__file__).resolve().parents[3]
TODAY = dt.date(2026, 1, 2)
SPECS = [
    CheckSpec(i, "c", "c", Severity.PAGE, Where.READ_ONLY) for i in ("drill/a/b", "sql/spot/x", "preflight/release")
]
LET_GO = "contract: {{claims: [replay, tenancy], dropped: [{{area: audit, reason: r, owner: ann, expires: {}}}]}}\n"
TWICE = "contract: {claims: [replay, tenancy, replay]}\n"
RULES = "severity, decides, required, below, above"
WAIVER = "waivers:\n- {check: sql/spot/x, reason: known, owner: ann, expires: 2026-02-01}\n"


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("version: 1\nversion: 1\n", "2:1", "again (first on line 1)"),
        ("versoin: 1\n", "1:1", "Did you mean 'version'?"),
        ("rollout: {}\n", "1:1", "'version' is missing"),
        ("version: 2\n", "1:10", "allowed: the number 1"),
        ("version: '1'\n", "1:10", "'1'; allowed: the number 1"),
        ("version: 1.0\n", "1:10", "1.0"),
        ("version: true\n", "1:10", "True"),
        ("version: 1\nrollout: {steps: [50, 10]}\n", "2:18", "percentages that rise"),
        ("version: 1\nrollout: {steps: []}\n", "2:18", "at least 1"),
        ("version: 1\nrollout: {steps: [10, 101]}\n", "2:23", "from 1 to 100"),
        ("version: 1\nrollout: {bake_minutes: 1e3}\n", "2:25", "'1e3'"),
        ("version: 1\nrollout: {bake_minutes: 1:30}\n", "2:25", "'1:30'"),
        ("version: 1\nrollout: {bake_minutes: 0x10}\n", "2:25", "'0x10'"),
        ("version: 1\nrollout: {bake_minutes: 010}\n", "2:25", "'010'"),
        ("version: 1\nchecks: {drill/a/b: {required: yes}}\n", "2:32", "Write one of them, without quotes"),
        ("version: 1\nchecks: {drill/a/b: {severity: pgae}}\n", "2:32", "Did you mean 'page'?"),
        ("version: 1\nchecks: {drill/a/b: {below: .nan}}\n", "2:29", "'.nan'"),
        ("version: 1\nx: &a 1\n", "2:4", "an anchor or alias"),
        ("version: !!int 1\n", "1:10", "the tag"),
        ("version: 1\n<<: {a: 1}\n", "2:1", "no name"),
        ("version: 1\n---\nversion: 1\n", "2:1", "another document"),
        ("version: 1\n# see\u2028waivers: []\n", "2:6", "editors do not show"),
        ("version: 1\n# see\x85waivers: []\n", "2:6", "editors do not show"),
        ("version: 1\n# see\rwaivers: []\n", "2:6", "editors do not show"),
        ("version: 1\nstate: a\u202eb\n", "2:9", "editors do not show"),
        ("- 1\n", "1:1", "a mapping"),
        ("", "1:1", "the file is empty"),
        ("version: [\n", "2:1", "expected"),
        ("version: 1\n\tx: 1\n", "2:1", "cannot start any token"),
        (f"version: {'9' * 5000}\n", "1:10", "a number of 5000 characters"),
        (f"version: -{'9' * 400}.5\n", "1:10", "a number of 403 characters"),
        (f"version: 1\nx: {'[' * 3000}{']' * 3000}\n", "2:35", "values within each other"),
        ("version: 1\nunwaivable:\n" + "- a\n" * 20_000, "19998:3", "more than 20000 values"),
        ('version: 1\nstate: "a\\0b"\n', "2:8", "NUL"),
        ('version: 1\nstate: "a\\ud800b"\n', "2:8", "half a surrogate pair"),
        (f"version: 1\n{WAIVER}".replace("reason: known", 'reason: "\\u200b "'), "3:31", "text that can be read"),
        ('version: "\\UFFFFFFFF"\n', "1:1", "it cannot be read"),
        ("version: 1\nflag: \x07\n", "2:7", "a character that YAML does not allow"),
        (f"version: 1\n{WAIVER}".replace("2026-02-01", "2026-01-01"), "3:3", "expired on 2026-01-01"),
        (f"version: 1\n{WAIVER}".replace("2026-02-01", "9999-12-31"), "3:59", "until 9999-12-31; allowed: 2027-01-"),
        (f"version: 1\n{WAIVER}{WAIVER.partition(chr(10))[2]}", "4:3", "a second waiver of sql/spot/x"),
        (f"version: 1\n{WAIVER}".replace("2026-02-01", "2026-02-30"), "3:59", "YYYY-MM-DD"),
        (f"version: 1\n{WAIVER}".replace("owner: ann", "owner: 12"), "3:45", "Put it in quotes"),
        (f"version: 1\n{WAIVER}".replace("sql/spot/x", "preflight/release"), "3:3", "may be waived"),
        (f"version: 1\nunwaivable: [sql/*]\n{WAIVER}", "4:3", "may be waived"),
        ("version: 1\nwaivers:\n- {check: sql/spot/x, reason: known, owner: ann}\n", "3:3", "'expires' is missing"),
        ("version: 1\ncontract: {claims: [replay, tenancy, audti]}\n", "2:38", "Did you mean 'audit'?"),
        ("version: 1\ncontract: {claims: [gate, replay, tenancy]}\n", "2:21", "'gate'; allowed: replay"),
        ("version: 1\ncontract: {claims: [replay, tenancy, replay]}\n", "2:38", "replay twice"),
        ("version: 1\ncontract: {claims: []}\n", "2:20", "at least 1"),
        ("version: 1\ncontract: {claims: [replay, audit]}\n", "2:20", "claims without tenancy"),
        ("version: 1\ncontract: {claims: [queue, audit]}\n", "2:20", "claims without replay and tenancy"),
        ("version: 1\ncontract: {preset: pgboss}\n", "2:20", "Did you mean 'pg-boss'?"),
        ("version: 1\ncontract: {preset: pg-boss, claims: [replay, tenancy]}\n", "2:37", "claims without queue"),
        (f"version: 1\n{LET_GO.format('2026-02-01')}".replace("y]", "y, audit]"), "2:56", "which is claimed"),
        (f"version: 1\n{LET_GO.format('2026-01-01')}", "2:49", "which ended on 2026-01-01"),
        (f"version: 1\n{LET_GO.format('2099-01-01')}", "2:95", "let go until 2099-01-01; allowed: 2027-01-"),
        ("version: 1\ncontract: {options: 3}\n", "2:21", "a mapping"),
        ("version: 1\nattestations: [{box: b, by: ann, date: 2026-03-01}]\n", "2:40", "or earlier"),
    ],
)
def test_a_mistake_is_an_error_with_file_line_and_column(text: str, place: str, words: str) -> None:
    """What was observed, what is allowed, where, what to do."""
    with pytest.raises(ConfigError) as error:
        parse(text, "gate.yaml", Path(), TODAY)
    assert str(error.value).startswith(f"gate.yaml:{place}: ")
    assert words in str(error.value)
    assert "; allowed: " in str(error.value)


def test_one_reading_tells_every_mistake() -> None:
    """Who wrote the file mends it at once, and not a mistake a run; of very many, the first stand for the rest."""
    with pytest.raises(ConfigError) as error:
        parse(
            "version: 2\nrollout: {stepz: [1], settle_s: no}\nwaivers:\n- {check: 1, reason: r}\n", "g", Path(), TODAY
        )
    places = [line.split(": ")[0] for line in str(error.value).splitlines()]
    assert places == ["g:1:10", "g:2:11", "g:2:33", "g:4:11", "g:4:3"]
    with pytest.raises(ConfigError) as error:
        parse(f"version: 1\nrollout: {{steps: [20, 10]}}\n{WAIVER}{TWICE}", "g", Path(), dt.date(2027, 1, 1))
    assert [line.split(":")[1] for line in str(error.value).splitlines()] == ["5", "2", "4"]
    with pytest.raises(ConfigError, match=r"g:2:22: lost.*\ng:2:45: gone"):
        parse("version: 1\nsql: {spot_folders: [lost], alert_folders: [gone]}\n", "g", Path(), TODAY).check_folders()
    with pytest.raises(ConfigError) as error:
        parse("version: 1\nchecks:\n" + "".join(f"  a/{i}: 1\n" for i in range(900)), "g", Path(), TODAY)
    assert str(error.value).splitlines()[19:] == [
        "g:22:9: 1; allowed: a mapping. Its members are: " + RULES,
        "and more mistakes",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("version: 1\nchecks: {drill/a/c: {required: false}}\n", "gate.yaml:2:21: 'drill/a/c', which matches no check"),
        ("version: 1\nchecks: {load/*: {required: false}}\n", "matches no check"),
        ("version: 1\nunwaivable: [sql/*, drlil/*]\n", "gate.yaml:2:21: 'drlil/*', which matches no check"),
        ("version: 1\nlag_checks: [drill/a/c]\n", "gate.yaml:2:14: 'drill/a/c', which matches no check"),
        ("version: 1\nlag_checks: ['*']\n", "gate.yaml:2:14: '*', which matches preflight/release"),
        (f"version: 1\n{WAIVER}".replace("sql/spot/x", "sql/spot/y"), "Did you mean 'sql/spot/x'?"),
    ],
)
def test_a_rule_or_waiver_must_name_a_check_that_exists(text: str, words: str) -> None:
    """A misspelt id would silently do nothing."""
    file = parse(text, "gate.yaml", Path(), TODAY)
    with pytest.raises(ConfigError) as error:
        file.policy(SPECS, TargetKind.STAGING, "r", deep=False)
    assert words in str(error.value)


def test_all_that_a_policy_names_wrongly_is_told_at_once() -> None:
    """A rule, a list and a waiver."""
    text = f"version: 1\nchecks: {{drill/a/c: {{required: false}}, preflight/*: {{decides: note}}}}\n{WAIVER}"
    with pytest.raises(ConfigError) as error:
        parse(text.replace("spot/x", "spot/y"), "g", Path(), TODAY).policy(SPECS, TargetKind.STAGING, "r", deep=False)
    assert [line.split(": ")[0] for line in str(error.value).splitlines()] == ["g:2:21", "g:4:3", "g:2:63"]


def test_a_whole_file_becomes_the_policy() -> None:
    """Every member arrives where the decision looks for it."""
    text = f"""
version: 1
rollout: {{flag: a.b, steps: [5, 100], bake_minutes: 0}}
evidence: {{max_age_minutes: 10}}
checks:
  sql/*: {{severity: warn, required: false}}
  drill/a/b: {{decides: hold, below: 2.5}}
unwaivable: [drill/*]
lag_checks: [drill/a/*]
stages: {{drill: {{timeout_s: 9, workers: 3, sessions: 15}}, sql: {{timeout_s: 8}}, load: {{timeout_s: 7}}}}
sql: {{spot_folders: [mine], manifest: m.json}}
attestations: [{{box: Team trained on new procedures, by: ann, date: 2026-01-01}}]
{WAIVER}"""
    file = parse(text, "gate.yaml", Path("/p"), TODAY)
    policy = file.policy(SPECS, TargetKind.STAGING, "r", deep=True)
    assert (policy.rollout.flag, policy.rollout.steps, policy.rollout.bake_minutes) == ("a.b", (5, 100), 0)
    assert policy.rules == (
        PolicyRule("sql/*", Severity.WARN, None, False),
        PolicyRule("drill/a/b", None, Effect.HOLD, None, 2.5),
    )
    assert (policy.max_age_minutes, policy.lag_checks, policy.unwaivable) == (10, ("drill/a/*",), ("drill/*",))
    assert policy.waivers[0].owner == "ann"
    assert (file.settings.drill_timeout_s, file.settings.drill_workers, file.settings.sql_timeout_s) == (9, 3, 8)
    assert file.settings.drill_sessions == 15
    assert file.settings.spot_folders == (Path("/p/mine"),)
    assert file.settings.manifest == Path("/p/m.json")
    assert file.settings.attestations[0].by == "ann"
    other = parse(text.replace("below: 2.5", "below: 2.6"), "gate.yaml", Path(), TODAY)
    assert other.policy(SPECS, TargetKind.STAGING, "r", deep=True).digest != policy.digest


def test_the_shipped_policy_is_right_and_the_schema_is_up_to_date() -> None:
    """gate.yaml is read without error; editors see the same shape as the reader."""
    assert load_policy(None, TODAY).settings.drill_timeout_s > 0
    shipped = Path(policy_file.__file__).with_name("gate.schema.json")
    assert shipped.read_text(encoding="utf-8") == schema()
    members = json.loads(schema())["properties"]
    assert set(members) == set(policy_file.FILE.members)


def test_a_file_that_is_nested_without_end_is_unreadable_and_no_crash(tmp_path: Path) -> None:
    """The files that the gate reads beside its policy: a proof, a manifest, a token."""
    path, deep = tmp_path / "deep.json", "[" * 100_000
    path.write_text(deep, encoding="utf-8")
    assert canary(path) == ()
    assert "cannot be read (RecursionError)" in str(cited(path, Policy(), "")["sentence"])
    with pytest.raises(ManifestError):
        load_manifest(path)
    header = base64.urlsafe_b64encode(deep.encode()).decode()
    target = Target(TargetKind.STAGING, admin_jwt=f"{header}.e30.x")
    assert of_another_secret(target) == "its header cannot be read."


def test_a_policy_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """A named file is never replaced by defaults."""
    with pytest.raises(ConfigError, match=r"nowhere\.yaml:1:1"):
        load_policy(tmp_path / "nowhere.yaml", TODAY)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("{http: {extra_headers: {apikey: $PAYMENTS_KEY}}}", "the rollback goes on with the defaults of a policy"),
        ("{limits: {calls: 0}}", "the rollback goes on with the defaults of a policy"),
        ("{tables: {feature_flags: {is: 7}}}", "nothing was done: which objects of the target are meant is not known"),
    ],
)
def test_only_wrong_names_of_the_database_keep_a_rollback_from_being_tried(
    names: str, said: str, tmp_path: Path
) -> None:
    """What the service calls things is not asked for by a rollback; which tables are meant is."""
    (tmp_path / "gate.yaml").write_text(f"version: 1\nnames: {names}\n")
    nowhere = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:9/nothing"}
    assert gate("lint", cwd=tmp_path, environ=nowhere).returncode == 3
    done = gate("rollback", "--flag", "outbox.enabled", "--reason", "harm", "--dry-run", cwd=tmp_path, environ=nowhere)
    assert said in done.stderr


@pytest.mark.parametrize("put", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), Path.mkdir])
def test_a_policy_that_is_no_file_of_an_end_is_unreadable_at_once(put: Callable[[Path], None], tmp_path: Path) -> None:
    """A pipe or a device in the place of gate.yaml keeps no command waiting, least of all a rollback."""
    put(tmp_path / "gate.yaml")
    nowhere = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:9/nothing"}
    assert gate("lint", cwd=tmp_path, environ=nowhere).returncode == 3
    done = gate("rollback", "--flag", "outbox.enabled", "--reason", "harm", "--dry-run", cwd=tmp_path, environ=nowhere)
    assert "the rollback goes on with the defaults of a policy" in done.stderr


def test_folders_are_beside_the_policy_wherever_a_suite_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy that is named by a relative path names folders that another process finds; --state wins over it."""
    text = "version: 1\nsql: {spot_folders: [own], require_checkpoint: true}\nstate: memory\n"
    (tmp_path / "gate.yaml").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for named in (None, Path("gate.yaml")):
        settings = load_policy(named, TODAY).settings
        assert settings.spot_folders == (tmp_path / "own",)
        assert settings.state == tmp_path / "memory"
        assert settings.require_checkpoint
    assert load_policy(None, TODAY, Path("other")).settings.state == Path("other")


def test_a_target_survives_the_environment_of_a_suite() -> None:
    """What a suite is given describes the same target, and nothing of another one."""
    environ = {
        "GATE_TARGET": "staging",
        "BASE_URL": "http://x/functions/v1/",
        "TRANSBOT_HMAC_SECRET": "first-secret-of-16, second-secret-16",
        "TEST_COMPANY_ID": "0000000A-0000-4000-8000-000000000001",
        "DATABASE_URL": "postgresql://u:pw@h/d",
        "TEST_DLQ": "false",
        "HOME": "/h",
        "LOCUST_RUN_TIME": "1",
        "GEVENT_LOOP": "none",
        "PYTEST_PLUGINS": "mine",
    }
    target = load_target(environ)
    assert target.base_url == "http://x/functions/v1"
    assert target.hmac_secrets == ("first-secret-of-16", "second-secret-16")
    assert target.test_company_id == "0000000a-0000-4000-8000-000000000001"
    other = dataclasses.replace(target, release="r")
    handed = environment_of(other, {**environ, "ADMIN_JWT": "somebody else's"})
    assert load_target(handed) == other
    assert handed["HOME"] == "/h"
    assert not handed.keys() & {"ADMIN_JWT", "LOCUST_RUN_TIME", "GEVENT_LOOP", "PYTEST_PLUGINS"}


@pytest.mark.parametrize(("name", "text"), [("GATE_TARGET", "prod"), ("TEST_OUTBOX", "1"), ("TEST_DLQ", "yes")])
def test_a_variable_that_is_wrong_is_named(name: str, text: str) -> None:
    """No word but the contract's counts."""
    with pytest.raises(ConfigError, match=name):
        load_target({name: text})


@pytest.mark.parametrize("name", [*(variable for variable, _ in FILES.values()), OF_OPENSSL])
@pytest.mark.parametrize("endless", ["pipe", "/dev/zero"])
def test_a_pipe_for_a_file_of_a_connection_is_refused_where_it_is_read(name: str, endless: str, tmp_path: Path) -> None:
    """The library would read it for ever, deaf to signals; /dev/null may be, and a service file nobody asks for."""
    os.mkfifo(tmp_path / "pipe")
    environ = {"HOME": str(tmp_path), "DATABASE_URL": "service=mine", name: str(tmp_path / endless)}
    with pytest.raises(ConfigError, match="opening it may never end"):
        load_target(environ)
    load_target({**environ, name: os.devnull})
    load_target({**environ, name: "", "DATABASE_URL": "host=h", "PGSERVICEFILE": str(tmp_path / "pipe")})
    load_target({**environ, name: "", "PGPASSFILE": str(tmp_path / "pipe"), "PGPASSWORD": "p"})


def test_a_pipe_on_the_way_to_the_database_keeps_no_rollback_waiting(tmp_path: Path) -> None:
    """Neither OpenSSL's settings, which are opened when it is imported, nor a password file."""
    os.mkfifo(tmp_path / "pipe")
    words = [sys.executable, "-m", "gates", "rollback", "--reason", "harm"]
    told = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "DATABASE_URL": "postgresql://u@127.0.0.1:9/d"}
    for name in ("OPENSSL_CONF", "PGPASSFILE"):
        environ = {**told, name: str(tmp_path / "pipe")}
        done = subprocess.run(words, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 3, done.stderr
        assert "pipe" in done.stderr


def test_secrets_of_a_target_are_not_in_its_repr() -> None:
    """A traceback or log line that shows a target shows no secret."""
    target = load_target({"TRANSBOT_HMAC_SECRET": "planted-secret-1", "DATABASE_URL": "postgresql://u:planted-pw@h/d"})
    assert "planted" not in repr(target)


def test_every_setting_of_gate_yaml_is_read_by_somebody() -> None:
    """A limit that nobody obeys is a promise that is not kept."""
    code = "\n".join(
        p.read_text(encoding="utf-8") for p in (ROOT / "gates").rglob("*.py") if p.name != "policy_file.py"
    )
    unread = [f.name for f in dataclasses.fields(Settings) if not re.search(rf"ettings\.{f.name}\b", code)]
    assert unread == []


def test_who_acts_is_whom_the_ci_names_else_the_login() -> None:
    """Also in a container, which sets no USER: an audit row names somebody."""
    assert actor({"GITHUB_ACTOR": " ann ", "USER": "runner"}) == "ann"
    assert actor({"USER": "bob"}) == "bob"
    assert actor({}) == pwd.getpwuid(os.getuid()).pw_name


def test_a_process_without_a_login_is_named_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs under a number of the cluster's."""
    monkeypatch.setattr(os, "getuid", lambda: 3999999999)
    assert actor({}) == "uid 3999999999"
