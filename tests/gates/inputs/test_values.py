"""Bad values of variables end in exit code 3, bad values of options in 2; odd but legal ones are taken."""

import itertools
from pathlib import Path

import pytest

from gates import cli
from gates.config import ConfigError, environment_of, load_target
from gates.deployment.requests import mint_token
from gates.inputs import strict_yaml
from tests.gates.gate_process import gate

ROOT = Path(__file__).resolve().parents[3]
COMPANY = "00000000-0000-4000-8000-000000000004"
SECRET = "planted-hmac-secret-0123456789"
JWT_SECRET = "planted-jwt-secret-0123456789-0123456789"
NOT_UTF8 = b"\xff\xfe".decode("utf-8", "surrogateescape")

BAD = {
    "GATE_TARGET": ("prod", "Staging", "production,staging", NOT_UTF8),
    "BASE_URL": (
        *("example.com", "//example.com", "ftp://example.com", "http://", "http:///x", "https://:80", "planted-text"),
        *("http://h:99999", "http://h:x", "http://h:0", "http://exa mple", "http://h/a b", "http://h/?q=planted"),
        *("http://h/#x", "http://[::1", "http://h\x1b[2J", "http://h\nX: y", f"http://h/{NOT_UTF8}", "javascript:x"),
        *("http://h..planted", "http://.h", f"http://{'a' * 64}", "http://ä..ö"),
        *("http://u:12/planted@h", "http://u/planted@h:80"),  # a / of the password
    ),
    "DATABASE_URL": (
        *("planted-pw", "http://u:planted-pw@h/d", "mysql://u:planted-pw@h/d", "host=h planted-pw", "host='h planted"),
        *("postgresql://u:planted@h:x/d", "postgresql://u:planted@h:70000/d", "nosuch=planted"),
        *("host=h port=-1", f"host=h port={'9' * 5000}", "host=h password='planted''s'"),
        *("postgresql://u:planted@h/d?planted=1", "postgresql://u:planted%zz@h/d", f"postgresql://{NOT_UTF8}@h/d"),
        *("postgresql://u:pw@planted@h/d", "postgresql://u:12/planted@h/d"),  # an @ or / of the password
    ),
    "TEST_COMPANY_ID": ("x", COMPANY[:-1], f"{{{COMPANY}}}", COMPANY.replace("-", ""), f"urn:uuid:{COMPANY}", "' or 1"),
    "ADMIN_JWT": ("planted", "a.b.c", "Bearer planted", "..", "e30.e30", "W10.e30.c2ln", f"e30.{NOT_UTF8}.x"),
    "TRANSBOT_HMAC_SECRET": ("planted", f"{SECRET},", f",{SECRET}", f"{SECRET},,{SECRET}", f"{SECRET},planted"),
    "REPLAY_JWT_SECRET": ("planted", "p" * 31),
    "TRUSTED_PROXIES": ("proxy", "10.0.0.0/33", "10.0.0.0/8,", "10.0.0.0/8;fd00::/8", "300.1.1.1"),
    "SLACK_WEBHOOK_URL": ("planted", "hooks.slack.com/services/planted", "file:///planted", "https:// planted"),
    "TEST_OUTBOX": ("1", "yes", "truefalse"),
    "TEST_DLQ": ("0", "no"),
    "TEST_AGENTS": ("on", "TRUE!"),
    "RELEASE": (
        *("a\x1b[31mb", "r" * 201, NOT_UTF8, "1.0\u200b", "1.0\u202e", "\ufeff1.0"),
        *('"1.0"', "'1.0'", "$CI_COMMIT_SHA", "v-${TAG}", "$(RELEASE)", "{{ .Values.tag }}"),
    ),
    "REPLAY_JWT_AUDIENCE": (NOT_UTF8,),
    "REPLAY_JWT_ISSUER": ("a\nb",),
    "GATE_STACK_CONTROL": ("a\x07b",),
}


@pytest.mark.parametrize(("name", "text"), [(n, t) for n, texts in BAD.items() for t in texts])
def test_bad_variable_is_named_with_what_is_allowed_and_never_repeated_where_it_is_secret(name: str, text: str) -> None:
    """The message is one printable line: the variable, the allowed form, what to do."""
    with pytest.raises(ConfigError) as raised:
        load_target({name: text})
    said = str(raised.value)
    assert said.startswith(name)
    assert "; allowed: " in said
    assert any(words in said for words in ("Correct the variable", "Did you mean", "Remove or correct it"))
    assert "planted" not in said or name not in {
        *("BASE_URL", "DATABASE_URL", "ADMIN_JWT", "TRANSBOT_HMAC_SECRET", "REPLAY_JWT_SECRET", "SLACK_WEBHOOK_URL")
    }
    assert said.isprintable()


def test_the_nearest_target_is_named_and_equal_secrets_are_refused() -> None:
    """What is meant by a near miss is said; one secret for two purposes is a start-up error of the service."""
    with pytest.raises(ConfigError, match="Did you mean 'staging'"):
        load_target({"GATE_TARGET": "stagin"})
    with pytest.raises(ConfigError, match=r"REPLAY_JWT_SECRET is one of TRANSBOT_HMAC_SECRET"):
        load_target({"TRANSBOT_HMAC_SECRET": f"{SECRET},{JWT_SECRET}", "REPLAY_JWT_SECRET": JWT_SECRET})


@pytest.mark.parametrize("said", ["http://H.example/v1", "http://h.example:80/v1/", "http://u:p@h.example./v1"])
def test_a_baseline_that_is_the_target_is_refused(said: str) -> None:
    """However it is spelled: nothing would be compared."""
    load_target({"BASE_URL": "http://h.example/v1", "BASELINE_URL": "http://h.example:81/v1"})
    with pytest.raises(ConfigError, match="BASELINE_URL is BASE_URL"):
        load_target({"BASE_URL": "http://h.example/v1", "BASELINE_URL": said})


ODD = {
    "BASE_URL": (
        *("http://127.0.0.1:1", "https://h", "HTTP://[::1]:8080/functions/v1/", "http://u:p%40@h:80/a/b"),
        *("http://localhost/%20x", "http://under_score.internal", "http://münchen.example"),
    ),
    "DATABASE_URL": (
        *("postgresql://h/d", "postgres://u:p%40ss@[::1]:5433/d?sslmode=require", "postgresql://"),
        *("postgresql://u@a:1,b:2/d?target_session_attrs=read-write", "postgresql://%2Fvar%2Frun/d"),
        *("host=/var/run/postgresql dbname=d", "service=mine", "dbname=d"),
        *(r"host=h password='a \' b'", "postgresql:///d?host=/tmp&port=5433", "host=a,b port=1,2 dbname=d"),
    ),
    "TEST_COMPANY_ID": ("0000000A-0000-4000-8000-00000000000F",),
    "ADMIN_JWT": (mint_token(SECRET, {"exp": 1}),),
    "TRANSBOT_HMAC_SECRET": (SECRET, f" {SECRET} , ümlaut-secret-16b "),
    "REPLAY_JWT_SECRET": ("x" * 32,),
    "TRUSTED_PROXIES": ("10.0.0.0/8", "10.1.2.3/8, fd00::/8", "127.0.0.1"),
    "SLACK_WEBHOOK_URL": ("https://hooks.slack.com/services/T0/B0/x", "http://127.0.0.1:9/x?y=z"),
    "TEST_DLQ": ("FALSE", "True"),
    "RELEASE": ("2026.1+build~7 (β)", "7 of 'main'"),
}


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("http://bücher.example/f", "http://xn--bcher-kva.example/f"),
        ("https://u:wört@bücher.example:8443/Straße/%20/", "https://u:wört@xn--bcher-kva.example:8443/Stra%C3%9Fe/%20"),
        ("http://[::1]:80/функции", "http://[::1]:80/%D1%84%D1%83%D0%BD%D0%BA%D1%86%D0%B8%D0%B8"),
        ("http://Svc_a:80/F", "http://Svc_a:80/F"),
    ],
)
def test_an_address_is_written_as_every_door_sends_it(said: str, read: str) -> None:
    """Letters of any language in a host or a path are no matter of which door a drill takes."""
    assert load_target({"BASE_URL": said}).base_url == read


@pytest.mark.parametrize(("name", "text"), [(n, t) for n, texts in ODD.items() for t in texts])
def test_an_odd_but_legal_variable_is_taken_and_survives_the_environment_of_a_suite(name: str, text: str) -> None:
    """And an empty one is none."""
    target = load_target({name: text})
    assert load_target(environment_of(target, {})) == target
    assert load_target({name: "  "}) == load_target({})


BODY = ("sign", "-c", COMPANY)
OPTIONS = [
    *[(*BODY, "-m", m) for m in ("0", "51", "500", "-1", "1.5", "1e1", "x", "", "１０", "9" * 30)],
    *[(*BODY, "-k", k) for k in ("", "k" * 201, "ü", "a\nb", "a\x1bb", NOT_UTF8)],
    *[(c, "-c", v) for c, v in itertools.product(("sign", "replay", "budget"), ("x", COMPANY[:-1], "' or 1=1"))],
    *[("budget", "-c", COMPANY, o, v) for o in ("--daily", "--monthly") for v in ("-1", "x", "1.5", "99999999999")],
    *[(c, "--reason", "r", "--flag", f) for c in ("promote", "rollback") for f in ("", "a b", "a;b", "x" * 201)],
    ("flags", "step", "a b", "--reason", "r"),
    *[("rollback", "--reason", r) for r in ("", " ", "a\x1b[2J", NOT_UTF8)],
    *[("promote", "--reason", "r", "--release", r) for r in ("a\nb", NOT_UTF8, "r" * 201)],
    *[("load", "--rate", v) for v in ("nan", "inf", "-1", "0", "x", "1e9")],
    *[("load", "--vus", v) for v in ("-1", "1.5", "nan")],
    *[("load", o, v) for o in ("--duration", "--most") for v in ("nan", "-1", "inf", "x")],
    *[("load", "--master-port", v) for v in ("-1", "65536", "x")],
    *[("load", "--url", v) for v in ("example.com", "ftp://h", "http://a b")],
    *[("watch", "--every", v) for v in ("0", "-5", "nan", "5x", "", "999999d")],
    *[("watch", "--confirm", v) for v in ("0", "101", "x")],
    *[("up", "--company-id", v) for v in ("x", COMPANY[:-1])],
    *[(c, "--output", "FILE") for c in ("run", "drill", "sql", "alerts", "load", "prove", "watch")],
    ("run", "--output", "FILE/deeper"),
    *[("run", o, p) for o in ("--state", "--output") for p in ("FILE", "x" * 300)],
    ("prove", "--sample", "-1"),
]


@pytest.mark.parametrize("words", OPTIONS, ids=lambda w: " ".join(w).encode("ascii", "backslashreplace").decode()[:60])
def test_bad_option_is_usage_error(words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 before anything is read or done; the message names the option and what is allowed."""
    file = tmp_path / "file"
    file.write_text("", encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        cli.parser(words[0]).parse_args([w.replace("FILE", str(file)) for w in words])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "allowed: " in said
    assert "argument " in said


READERS = {
    **dict.fromkeys(("run", "drill", "sql", "alerts", "load", "watch", "status", "flags", "budget"), ()),
    **dict.fromkeys(("promote", "rollback", "emergency"), ("--reason", "r")),
    **dict.fromkeys(("sign", "replay"), ("-c", COMPANY)),
}


@pytest.mark.parametrize("command", READERS)
def test_every_command_that_reads_variables_refuses_a_bad_one_first(command: str, tmp_path: Path) -> None:
    """Exit code 3, one message, no traceback, nothing on stdout, nothing written."""
    done = gate(command, *READERS[command], cwd=tmp_path, environ={"DATABASE_URL": "host=h planted-pw"})
    assert done.returncode == 3, done.stderr
    assert "DATABASE_URL cannot be used; allowed: " in done.stderr
    assert "planted" not in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout
    assert not list(tmp_path.iterdir())


def test_a_long_value_is_quoted_by_its_beginning() -> None:
    """A message about a policy stays short enough to be read, however long the wrong value is."""
    with pytest.raises(ConfigError) as refused:
        raise strict_yaml.Place("gate.yaml", 1, 1).error("x" * 20_000, "a number", "Correct it")
    assert len(str(refused.value)) < 500
    assert "[20000 characters in all]; allowed: a number" in str(refused.value)
