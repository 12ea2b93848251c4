"""A planted secret is redacted in every spelling, wherever a target may repeat it."""

import base64
import dataclasses
import datetime as dt
import html
import json
import random
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from gates.config import load_target
from gates.decision.decide import decide
from gates.decision.rules import Policy
from gates.deployment.redaction import hidden, hide_where_cut, redact_evidence, redact_text, scrub, telling
from gates.deployment.requests import Request, curl, mint_token
from gates.deployment.target import Target
from gates.evidence import CheckSpec, Evidence, JsonValue, Outcome, Severity, TargetKind, Where, stamp
from gates.evidence_file import read_log, write_lines
from gates.text import foreign
from gates.text.foreign import MOST_TEXT
from gates.verdict import Decision

SECRETS = ("planted-secret-0123456789", "p/+a?n&t<e>d\"s'e c\\r:e@t%#ü€😀!", "AAAAAAAAAAAAAAAA", "p'l''a\\'nted-secret")
TOKEN = mint_token(SECRETS[0], {"sub": "x"})


def spellings(secret: str) -> dict[str, str]:
    """How servers, libraries and shells write a text."""
    raw, rng = secret.encode(), random.Random(7)
    every = "".join(f"%{b:02X}" for b in raw)
    mixed = "".join(c if rng.random() < 0.5 else "".join(f"%{b:02x}" for b in c.encode()) for c in secret)
    escaped = "".join(f"\\u{ord(c):04X}" if ord(c) < 0x10000 and rng.random() < 0.5 else c for c in secret)
    found = {
        "raw": secret,
        "json": json.dumps(secret),
        "json of utf-8": json.dumps(secret, ensure_ascii=False),
        "json in json": json.dumps(json.dumps({"x": secret})),
        "json with escaped slashes": json.dumps(secret).replace("/", "\\/"),
        "json of escapes": escaped,
        "url": quote(secret),
        "url, slashes too": quote(secret, safe=""),
        "url, lower case": quote(secret, safe="").lower() if secret.islower() else quote(secret, safe=""),
        "form": quote_plus(secret),
        "url, every byte": every,
        "url, every byte, lower": every.lower(),
        "url, some bytes": mixed,
        "url twice": quote(quote(secret, safe=""), safe=""),
        "html": html.escape(secret),
        "html references": "".join(f"&#{ord(c)};" for c in secret),
        "html references, hex": "".join(f"&#x{ord(c):X};" for c in secret),
        "repr": repr(secret),
        "repr of bytes": repr(raw),
        "shell": shlex.quote(secret),
        "sql": secret.replace("'", "''"),
        "hex": raw.hex(),
        "HEX": raw.hex().upper(),
        "bytea": f"\\x{raw.hex()}",
        "hex pairs": raw.hex(":"),
        "HEX PAIRS": raw.hex(" ").upper(),
        "pairs of bytes": raw.hex(" ", 2),
        "a list of bytes": str(list(raw)),
        "a list of hex numbers": ", ".join(f"0x{b:02x}" for b in raw),
        "a list of bytes in Go": str(list(raw)).replace(",", ""),
        "a list of bytes, one a line": json.dumps(list(raw), indent=1),
        "base64 twice": base64.b64encode(base64.b64encode(raw)).decode(),
        "a buffer of Node.js": json.dumps({"type": "Buffer", "data": list(raw)}, separators=(",", ":")),
    }
    for before in range(3):
        text = b"xyz"[:before] + raw + b"after"
        for name, encode in (("base64", base64.b64encode), ("base64url", base64.urlsafe_b64encode)):
            found[f"{name} at {before}"] = encode(text).decode()
            found[f"{name} at {before}, as url"] = quote(encode(text), safe="")
            found[f"{name} at {before}, as json"] = encode(text).decode().replace("/", "\\/")
    return found


CASES = [(s, how) for s in SECRETS for how in spellings(s)]


@pytest.mark.parametrize(("secret", "how"), CASES, ids=[f"{SECRETS.index(s)} {how}" for s, how in CASES])
def test_a_secret_is_hidden_in_every_spelling(secret: str, how: str, tmp_path: Path) -> None:
    """It is hidden in text, in files, and in every part of an evidence line."""
    hide = {secret: "TRANSBOT_HMAC_SECRET"}
    said = spellings(secret)[how]
    text = redact_text(f"before {said} after", hide)
    assert "$TRANSBOT_HMAC_SECRET" in text
    core = said[4:-8] if "base64" in how else said.strip("\"'b")
    assert core not in text
    assert text.startswith("before ")
    assert text.endswith(" after")
    (tmp_path / "file").write_bytes(b"\xff\x00" + said.encode() + b"\xfe")
    assert scrub(tmp_path, hide) == [tmp_path / "file"]
    assert core.encode() not in (tmp_path / "file").read_bytes()
    assert (tmp_path / "file").read_bytes().startswith(b"\xff\x00")
    line = Evidence("a/b/c", Outcome.FAIL, said, said, said, "", 1, witness={said: [said]}, details={"x": {said: said}})
    assert core not in json.dumps(dataclasses.asdict(redact_evidence(line, hide)), ensure_ascii=False)


PASSWORDS: tuple[tuple[str, Mapping[str, str]], ...] = (
    ("planted-pw-1", {"DATABASE_URL": "postgresql://u:planted-pw-1@h/d"}),
    ("planted/pw@2", {"DATABASE_URL": "postgresql://u:planted%2Fpw%402@h/d"}),
    ("planted-pw-3", {"DATABASE_URL": "postgresql://u@h/d?password=planted-pw-3"}),
    ("planted-pw-4", {"DATABASE_URL": "host=h user=u password=planted-pw-4 dbname=d"}),
    ("planted 'pw\\5", {"DATABASE_URL": r"host=h password = 'planted \'pw\\5'"}),
    ("planted-pw-6", {"DATABASE_URL": "postgresql://u@h/d?sslpassword=planted-pw-6"}),
    ("planted-pw-7", {"DATABASE_URL": "postgresql://u:planted-pw-7@a:1,b:2/d"}),
    ("planted-pw-8", {"DATABASE_URL": "postgresql://h/d", "PGPASSWORD": "planted-pw-8"}),
    ("planted-pw-9", {"PGPASSWORD": "planted-pw-9"}),
    ("planted:pw-a", {"DATABASE_URL": "postgresql://h/d", "PGPASSFILE": "FOLDER/pass"}),
    ("planted:pw-a", {"DATABASE_URL": "host=h passfile=FOLDER/pass"}),
    ("planted-pw-b", {"DATABASE_URL": "service=mine", "PGSERVICEFILE": "FOLDER/service"}),
    ("planted:pw-c", {"DATABASE_URL": "postgresql://h/d", "HOME": "FOLDER"}),
    ("planted-pw-d", {"BASE_URL": "http://user:planted-pw-d@h/x"}),
    ("planted@pw-e", {"BASE_URL": "https://user:planted%40pw-e@h/x"}),
    ("plantedplantedplanted0", {"SLACK_WEBHOOK_URL": "https://hooks.slack.com/services/T0/B0/plantedplantedplanted0"}),
    ("services/T0/B0/planted", {"SLACK_WEBHOOK_URL": "https://hooks.slack.com/services/T0/B0/planted"}),
    (SECRETS[0], {"TRANSBOT_HMAC_SECRET": f"the-first-of-two-secrets,{SECRETS[0]}"}),
    (f"{SECRETS[0]}-{SECRETS[0]}", {"REPLAY_JWT_SECRET": f"{SECRETS[0]}-{SECRETS[0]}"}),
    (TOKEN.rpartition(".")[2], {"ADMIN_JWT": TOKEN}),
)


@pytest.mark.parametrize(("secret", "environ"), PASSWORDS, ids=range(len(PASSWORDS)))
def test_secret_of_every_variable_and_form_is_known(secret: str, environ: Mapping[str, str], tmp_path: Path) -> None:
    """Secrets are found in URLs, libpq settings and files, user info, webhook paths and tokens."""
    (tmp_path / "pass").write_text("# no:t:h:i:s-line\n*:*:*:u:planted\\:pw-a\n", encoding="utf-8")
    (tmp_path / ".pgpass").write_text("h:5432:d:u:planted\\:pw-c\n", encoding="utf-8")
    (tmp_path / "service").write_text("[mine]\nhost=h\npassword=planted-pw-b\n", encoding="utf-8")
    target = load_target({k: v.replace("FOLDER", str(tmp_path)) for k, v in environ.items()})
    hide = hidden(target)
    shown = TOKEN if "ADMIN_JWT" in environ else secret
    for said in (shown, quote(shown, safe=""), json.dumps(shown), shown.encode().hex()):
        assert secret not in redact_text(f"FATAL: echo {said} end", hide)
        assert said not in redact_text(f"FATAL: echo {said} end", hide)
    for value in environ.values():
        assert secret not in redact_text(f"the variable is {value}", hide)
    assert secret not in repr(target)


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://u:unknown-pw@h/d",
        "could not connect: password=unknown-pw host=h",
        "host=h password='unknown pw' user=u",
        "PGPASSWORD=unknown-pw psql",
        "http://user:unknown-pw@h/x",
        f"Bearer {TOKEN}",
        f"x%20{TOKEN}",
        f"line\\n{TOKEN}",
    ],
)
def test_credentials_that_nobody_told_us_are_hidden_by_their_place(text: str) -> None:
    """Unknown passwords and token signatures are found by their place; a second pass changes nothing."""
    once = redact_text(text, {})
    assert "known" not in once
    assert TOKEN.rpartition(".")[2] not in once
    assert redact_text(once, {}) == once


def test_ordinary_text_stays_as_it_is() -> None:
    """Addresses, versions and short words are not changed."""
    hide = hidden(Target(TargetKind.STAGING, database_url="postgresql://u:pw@h/d", hmac_secrets=SECRETS))
    for text in ("http://127.0.0.1:8080/x?a=b", "pw", "a.b.c 1.2.3", "eyJ", "100 % of u@h", "::1", "x" * 100):
        assert redact_text(text, hide) == text


LARGE = {
    "plain": "The quick brown fox. ",
    "json": '{"a\\u0062c":"d\\n%41&#65;"},',
    "beginnings": SECRETS[0][:-1],
    "middles": SECRETS[0][6:-1] + "65,65,65,x",
    "percent": "%70%6c%61%6e",
    "backslashes": "\\",
    "tokens": "eyJ",
    "dots": "eyJ.",
    "addresses": "://a:",
    "keywords": "password=",
    "quotes": "password='",
}


@pytest.mark.parametrize("name", LARGE)
def test_redaction_is_linear(name: str) -> None:
    """The time grows with the length of the text, not faster, whatever the text repeats."""
    hide = hidden(Target(TargetKind.STAGING, hmac_secrets=SECRETS, jwt_secret="j" * 40, admin_jwt=TOKEN))
    redact_text("warm", hide)

    def taken(characters: int) -> float:
        text = LARGE[name] * (characters // len(LARGE[name]))
        started = time.process_time()
        redact_text(text, hide)
        return time.process_time() - started

    small, large = min(taken(50_000) for _ in range(3)), taken(400_000)
    assert large < 8 * 4 * small + 0.2
    assert large < 5.0


OF_OUTCOMES = ("effects", "samples", "rollback", "unknown", "reached")
WORDS = ("outbox", "release", "duration_ms", "drill/outbox", "2026-0", *OF_OUTCOMES)


@pytest.mark.parametrize("password", WORDS)
def test_a_password_that_is_a_word_of_ours_changes_no_decision(password: str, tmp_path: Path) -> None:
    """Only free text is redacted, so a failure still rolls back."""
    now = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
    spec = CheckSpec("drill/outbox/effects", "c", "c", Severity.PAGE, Where.READ_ONLY)
    said = f"it said {password}"
    details: dict[str, JsonValue] = {"unreachable": False, "answered_until": stamp(now), "samples": [[0, 1]]}
    line = Evidence(
        *(spec.id, Outcome.FAIL, said, 2, 1, "effects", 1, stamp(now), 3.0),
        blocked_by="drill/outbox/other",
        release="release-outbox-1",
        details={**details, "reached": {"outbox": said}},
    )
    hide = hidden(Target(TargetKind.PRODUCTION, database_url=f"host=h password='{password}'"))
    write_lines(tmp_path / "evidence.ndjson", [redact_evidence(line, hide)], "run1")
    write_lines(tmp_path / "evidence.ndjson", [line], "run1")
    scrub(tmp_path, hide)
    log = read_log(tmp_path / "evidence.ndjson", run="run1")
    assert log.whole
    policy = Policy(catalogue=(spec,), release="release-outbox-1", target=TargetKind.PRODUCTION)
    assert decide(log.evidence, policy, now).decision is Decision.ROLLBACK
    for one in log.evidence:
        due = dataclasses.replace(line, message="it said $PGPASSWORD")
        due = dataclasses.replace(due, details={**details, "reached": {"outbox": "it said $PGPASSWORD"}})
        assert one == due


@pytest.mark.parametrize(
    ("password", "tells"),
    [
        *[(word, False) for word in ("secret", "replay", "postgres", "dlq_replay", "Invalid-request", "audit_logs2")],
        *[(word, False) for word in ("123456", "20261130", "0" * 64, "abababababababababab")],
        *[(word, True) for word in ("S3cret!x", "kX9vQ2mz", "correct-horse-battery-staple", "9888176f94128b3a")],
    ],
)
def test_a_password_that_any_text_may_say_shows_no_leak(password: str, tells: bool) -> None:
    """It is redacted, but an answer that contains it proves no leak."""
    target = Target(TargetKind.STAGING, database_url=f"postgresql://u:{password}@h/d")
    assert password in hidden(target)
    assert (password in telling(target)) is tells
    assert target.database_url in telling(target)


def test_json_keeps_its_members_and_their_order(tmp_path: Path) -> None:
    """A member whose name is the secret keeps it, and the order stays; what only looks like JSON is text."""
    hide = {"outbox": "PGPASSWORD"}
    document = {"outbox": 1, "outcome": "outbox", "said": ["the outbox"], "Outbox outbox": None}
    (tmp_path / "a.json").write_text(json.dumps(document), encoding="utf-8")
    (tmp_path / "b.json").write_text("{outbox", encoding="utf-8")
    (tmp_path / "c.json").write_text('{"outbox": 1}', encoding="utf-8")
    assert scrub(tmp_path, hide) == [tmp_path / "a.json", tmp_path / "b.json"]
    due = [("outbox", 1), ("outcome", "outbox"), ("said", ["the $PGPASSWORD"]), ("Outbox $PGPASSWORD", None)]
    assert list(json.loads((tmp_path / "a.json").read_text(encoding="utf-8")).items()) == due
    assert (tmp_path / "b.json").read_text(encoding="utf-8") == "{$PGPASSWORD"


@pytest.mark.parametrize("secret", ["q7RkZ2mVx9LpT4wB", "Sup3rSecretPassw0rd", SECRETS[0]])
def test_no_part_of_a_secret_is_left_by_a_cut(secret: str) -> None:
    """Text is redacted before it is cut; a secret that others cut is known by its beginning."""
    hide = {secret: "TRANSBOT_HMAC_SECRET"}
    hide_where_cut(hide)
    try:
        for most in (200, MOST_TEXT):
            for shown in range(1, len(secret)):
                cut = foreign.text("x" * (most - 40 - shown) + secret + "y" * 5_000, most)
                assert secret[:4] not in cut, (most, shown)
                line = Evidence("a/b/c", Outcome.FAIL, "x" * (most - 26 - shown) + secret + "y" * 5_000)
                assert secret[:4] not in line.message
    finally:
        foreign.before_cut(str)
    for shown in range((len(secret) + 1) // 2 + 4, len(secret)):
        assert secret[:shown] not in redact_text(f"it says: {secret[:shown]}. See it", hide)


@pytest.mark.parametrize("column", [16, 20, 64, 76])
@pytest.mark.parametrize("end", ["\n", "\\n", "\r\n", '" + "', "\x1b[0m"])
def test_a_secret_that_is_wrapped_leaves_no_long_part(column: int, end: str) -> None:
    """No twelve characters of it stay, whichever column, encoding and beginning; ordinary text does."""
    secret = "b9" * 4 + "c0ffee1234567890" * 3 + "5f"
    for before in range(3):
        raw = b"xyz"[:before] + secret.encode() + b";"
        for text in (raw.decode(), raw.hex(), base64.b64encode(raw).decode()):
            wrapped = end.join(text[at : at + column] for at in range(0, len(text), column))
            for begins in (0, column // 2):
                left = redact_text(f"see {wrapped[begins:]}", {secret: "KEY"})
                inner = text[6:-6]  # what its neighbours do not affect
                assert not [at for at in range(len(inner) - 11) if inner[at : at + 12] in left], left
    assert redact_text("gate_readonly_owner", {"replay_gate_readonly": "KEY"}) == "gate_readonly_owner"


@pytest.mark.parametrize("url", ["https://sk_live_4f9aQ2c81b@h/x", "https://sk_live_4f9aQ2c81b:x@h/x"])
def test_a_login_in_an_address_is_hidden_with_its_user(url: str) -> None:
    """The user may be a token, so it is hidden with the password."""
    token = "sk_live_4f9aQ2c81b"
    for variable in ("BASE_URL", "BASELINE_URL"):
        hide = hidden(load_target({variable: url}))
        for said in (token, base64.b64encode(f"{token}:x".encode()).decode(), url):
            assert token not in redact_text(f"you sent {said}", hide)
            assert said not in redact_text(f"you sent {said}", hide)
    assert token not in redact_text(url, {})
    command = curl(Request("GET", "/a?b=c d"), url, {})
    assert command == "curl -i -X GET \"${BASE_URL%/}\"'/a?b=c d'"


def test_a_file_without_end_keeps_no_decision_waiting(tmp_path: Path) -> None:
    """A file too large to search is deleted; the others are searched."""
    hide = {"planted-secret": "$SECRET"}
    huge, beside = tmp_path / "a.log", tmp_path / "b.log"
    with huge.open("wb") as out:
        out.truncate(1 << 40)
    beside.write_text("planted-secret", encoding="utf-8")
    assert scrub(tmp_path, hide) == [beside]
    assert not huge.exists()
