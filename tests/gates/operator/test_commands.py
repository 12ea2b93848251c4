"""The table of commands: common options, lazy imports, and the small commands."""

import json
import shlex
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from dotenv import dotenv_values

from gates import catalogue, cli
from gates.decision.rules import QUEUE_STAGE, STAGES, Policy, again
from gates.errors import ConfigError
from gates.evidence import Evidence, Outcome, TargetKind, Where
from gates.inputs import env_file
from gates.operator import run_command
from gates.operator.up_command import FORMATS
from gates.text.patterns import matches
from tests.gates.gate_process import gate

ODD = {"A": 'it\'s "so" $HOME `id` \\ #1', "B": "", "C": "postgresql://u:p@h/d?x=1&y=2"}


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_options_and_something_to_carry_out(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Its help has the common options, and its module has the function that the table names."""
    with pytest.raises(SystemExit) as ended:
        cli.main([name, "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "--quiet" in said
    assert "--env-file" in said
    assert cli.COMMANDS[name].said[:20] in said
    assert callable(sys.modules[cli.COMMANDS[name].module].carry_out)


@pytest.mark.parametrize(
    "text",
    [
        f"rollout: {{bake_minutes: {'9' * 5000}}}",
        f"lag_checks: {'[' * 3000}{']' * 3000}",
        'state: "\\UFFFFFFFF"',
        "rollout: {bake_minutes: oops}",
    ],
)
def test_no_policy_keeps_a_rollback_of_a_named_flag_from_being_tried(text: str, tmp_path: Path) -> None:
    """With a flag, a broken policy does not prevent the attempt (21); without one it is an error."""
    path = tmp_path / "gate.yaml"
    path.write_text(f"version: 1\n{text}\n", encoding="utf-8")
    words = ("rollback", "--reason", "harm", "--policy", str(path), "--dry-run")
    environ = {"DATABASE_URL": "postgresql://u@127.0.0.1:9/x"}
    tried, refused = gate(*words, "--flag", "a.b", environ=environ), gate(*words, environ=environ)
    assert (tried.returncode, refused.returncode) == (21, 3), (tried, refused)
    assert "goes on with the defaults" in tried.stderr
    assert "would be switched off" not in tried.stdout
    assert f"{path}:" in refused.stderr


@pytest.mark.parametrize("command", ["rollback", "emergency"])
def test_what_lacks_a_database_is_no_rollback_of_the_past(command: str, tmp_path: Path) -> None:
    """Such a call rolls nothing back, so it is not in the history and cancels no promote."""
    done = gate(command, "--reason", "harm", "--state", str(tmp_path), environ={"BASE_URL": "http://127.0.0.1:9"})
    assert done.returncode == 3, done
    assert not [*tmp_path.rglob("*")]


@pytest.mark.parametrize("before", [True, False])
def test_a_word_below_a_command_takes_what_all_share(before: bool) -> None:
    """Common options may stand on either side of the subcommand, which resets none of them."""
    shared, word = ["--quiet", "--env-file", "f"], ["enable", "k", "--at", "10", "--reason", "r"]
    words = ["flags", *shared, *word] if before else ["flags", *word, *shared]
    options = cli.parser("flags").parse_args(words)
    assert (options.quiet, options.env_file, options.at) == (True, "f", 10)


def test_help_imports_no_command() -> None:
    """`gate --help` imports no driver, YAML, HTTP client or Locust; what reads a policy imports no parser of SQL."""
    asked = (
        "import sys, gates.cli\ntry: gates.cli.main(['--help'])\nexcept SystemExit: found = BAD & sys.modules.keys()\n"
        "import gates.config\nprint([*found, *{'postgast'} & sys.modules.keys()])"
    )
    words = [sys.executable, "-c", f"BAD = {{'psycopg', 'yaml', 'httpcore', 'locust'}}\n{asked}"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.endswith("[]\n"), done.stdout[-200:]


@pytest.mark.parametrize(
    ("words", "hint"), [(("rum",), "'run'"), (("prove", "--suite", "hostil"), "'hostile'"), (("alert",), "'alerts'")]
)
def test_a_word_that_is_nearly_right_is_answered_with_the_right_one(words: tuple[str, ...], hint: str) -> None:
    """A usage error suggests the nearest right word."""
    done = gate(*words)
    assert done.returncode == 2
    assert f"Did you mean {hint}?" in done.stderr


def test_the_version_is_that_of_the_distribution() -> None:
    """`gate --version` prints `gate` and a version of the 0 series on stdout."""
    done = gate("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("gate 0.")


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_completion_knows_commands_and_options(shell: str) -> None:
    """The script names every command, and an option of a run."""
    done = gate("completion", shell)
    assert done.returncode == 0
    assert all(word in done.stdout for word in (*cli.COMMANDS, "--disruptive"))


def test_a_quiet_command_says_results_and_errors_alone(tmp_path: Path) -> None:
    """Progress is suppressed, errors are not."""
    environ = {"TRANSBOT_HMAC_SECRET": "a-secret-of-the-test-0123", "TEST_COMPANY_ID": str(uuid.UUID(int=4, version=4))}
    loud, quiet = gate("sign", "-v", environ=environ), gate("sign", "-v", "--quiet", environ=environ)
    assert "signature: " in loud.stderr
    assert (quiet.returncode, bool(quiet.stdout), quiet.stderr) == (0, True, "")
    wrong = gate("report", str(tmp_path / "none"), "--quiet")
    assert wrong.returncode != 0
    assert wrong.stderr


def test_variables_come_from_a_file_and_the_environment_wins(tmp_path: Path) -> None:
    """The environment overrides the file, and secrets from the file are redacted as well."""
    file = tmp_path / "vars"
    file.write_text("# ours\nexport TRANSBOT_HMAC_SECRET='a-secret-of-the-file-0123'\nTEST_COMPANY_ID=no\n")
    file.chmod(0o600)
    company = "00000000-0000-4000-8000-000000000004"
    done = gate("sign", "-v", "--env-file", str(file), environ={"TEST_COMPANY_ID": company})
    assert done.returncode == 0, done.stderr
    assert company in done.stdout
    assert "a-secret-of-the-file" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("text", "mode", "told"),
    [
        ("A=1\nno assignment\n", 0o600, "2:1: no assignment"),
        ("A=1\nB\n", 0o600, "2:1: no assignment"),
        ("A=1\nA=2\n", 0o600, "2:1: A a second time"),
        ("A=1\n# see\rB=2\n", 0o600, "2:6: '\\r', which editors do not show"),
        ("A=1\n", 0o622, "others may write it"),
        ("A='1\n", 0o600, "1:1: no assignment"),
        ("A=1\nB='a\0b'\n", 0o600, "2:1: no variable can hold it"),
        ("'A=B'=1\n", 0o600, "1:1: no variable can hold it"),
        ("'A\0'=1\n", 0o600, "1:1: no variable can hold it"),
    ],
)
def test_a_wrong_file_of_variables_is_refused_at_its_place(text: str, mode: int, told: str, tmp_path: Path) -> None:
    """The error names the file and what is wrong, for a wrong line with its place."""
    file = tmp_path / "vars"
    file.write_text(text, newline="")
    file.chmod(mode)
    with pytest.raises(ConfigError) as raised:
        env_file.read(file, lambda _text: None)
    assert told in str(raised.value)
    assert str(file) in str(raised.value)


def test_a_file_that_others_may_read_is_told_of(tmp_path: Path) -> None:
    """It is only a warning, since CI writes such files."""
    file = tmp_path / "vars"
    file.write_text("A=1\n")
    file.chmod(0o644)
    told: list[str] = []
    assert env_file.read(file, told.append) == {"A": "1"}
    assert "chmod 600" in told[0]


def test_what_up_prints_is_read_back_by_shells_and_dotenv_readers(tmp_path: Path) -> None:
    """Every value comes back as it was, whatever characters it has."""
    file = tmp_path / "vars"
    file.write_text(FORMATS["dotenv"](ODD))
    assert dotenv_values(file, interpolate=False) == ODD
    script = FORMATS["env"](ODD) + "".join(f'printf "%s\\0" "${name}"\n' for name in ODD)
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.split("\0")[:-1] == list(ODD.values())


def test_a_check_is_run_alone_by_its_id(migrated_url: str, tmp_path: Path) -> None:
    """`--only` limits the stage and its counts; a wrong id is a usage error with the nearest right one."""
    environ = {"DATABASE_URL": migrated_url}
    words = ("sql", "--output", str(tmp_path / "out"), "--json", "--only")
    done = gate(*words, "sql/spot/replay-runs-unique", environ=environ)
    assert json.loads(done.stdout)["counts"]["pass"] == 1, done.stderr
    wrong = gate(*words, "sql/spot/replay-runs-uniq", environ=environ)
    assert wrong.returncode == 2
    assert "Did you mean 'sql/spot/replay-runs-unique'?" in wrong.stderr


def test_the_short_drill_speaks_the_words_of_the_checklist() -> None:
    """Each result is one line; what was not seen is unknown, and failures have a reason."""
    seen = [
        Evidence("drill/proof/invalid-signature-refused", Outcome.PASS, samples=1),
        Evidence("drill/proof/valid-signature-accepted", Outcome.FAIL, "observed 500", samples=1),
        Evidence("drill/proof/admin-token-accepted", Outcome.PASS, samples=1),
    ]
    first, second, third, *_ = run_command.short_drill(seen)
    assert first == "FAIL    HMAC Authentication: Invalid -> 401, Valid -> 200 (observed 500)"
    assert second.startswith("PASS    JWT Role Guard")
    assert third.startswith("UNKNOWN Rate Limiting")


def test_every_finding_is_repeated_by_a_command_of_the_gate() -> None:
    """The command's options exist, and its pattern matches only that check."""
    policy = Policy(catalogue.load(), TargetKind.STAGING, deep=True, disruptive=True)
    parsers = {command: cli.parser(command) for command in ("run", *STAGES)}
    for spec in policy.catalogue:
        _, command, *words = shlex.split(again(spec))
        options = parsers[command].parse_args([command, *words])
        assert options.deep == spec.deep
        assert getattr(options, "disruptive", False) == (spec.where is Where.DISRUPTIVE)
        only = tuple(getattr(options, "only", None) or ())
        own = [s.id for s in policy.of_stage(command).catalogue] if only else []
        assert [one for one in own if matches(one, only)] == [spec.id] * bool(only)
    assert again(next(s for s in policy.catalogue if s.id.startswith(QUEUE_STAGE))) == "gate run --dry-run"
