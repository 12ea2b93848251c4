"""Keeps secrets out of everything that is written: evidence, reports, logs, attachments, the terminal.

A secret of the target is replaced by the name of its variable, in every spelling: raw, JSON, URL, HTML, also mixed,
base64 at every alignment, hex. Any other token loses its signature, because a token that a drill minted is a credential
as long as it lives. Any other connection string or URL loses its password. Linear in the
text. Pure, but for `scrub`, which rewrites files.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict

from gates.deployment.dialect.current import secrets
from gates.deployment.target import Target
from gates.evidence import Evidence
from gates.evidence_file import rechained
from gates.text.foreign import JsonValue, plain

SHORTEST_SECRET = 6
"""Shorter passwords are hidden where they stand in a connection string or URL alone: replacing them everywhere would
garble ordinary text. Secrets that sign have 16 bytes or more."""
LEAST_BEGINNING = 12
"""So many first characters of a long secret are hidden also where the rest was cut off."""
LEAST_SEGMENT = 16
"""Characters of a part of the webhook's path that is a secret by itself."""
SECRET_KEYWORDS = ("password", "sslpassword", "scram_client_key", "scram_server_key", "oauth_client_secret")

_RUN = re.compile(r"[A-Za-z0-9_.-]+")
_IN_POSTGRES_URL = re.compile(r"(postgres(?:ql)?://[^\s:@/'\"]{0,200}):[^\s@'\"]{1,400}@")
_IN_URL = re.compile(r"(://[^\s:@/'\"]{0,200}):[^\s@'\"/?#]{1,400}@")
_KEYWORD = re.compile(r"(password ?= ?)(?:'(?:[^'\\]|\\.){0,400}'|[^\s'\"&,;<>)]{1,400})", re.IGNORECASE)
_NAMED = {"&": "amp", "<": "lt", ">": "gt", '"': "quot", "'": "apos"}


def hidden(target: Target) -> dict[str, str]:
    """Every secret of the target -> the name of the variable that holds it, the longest first."""
    target = target.told
    named = {
        target.database_url: "DATABASE_URL",
        **dict.fromkeys(_parts_of_webhook(target.slack_webhook_url), "SLACK_WEBHOOK_URL"),
        **dict.fromkeys((target.admin_jwt, target.admin_jwt.rpartition(".")[2]), "ADMIN_JWT"),
        target.jwt_secret: "REPLAY_JWT_SECRET",
        **dict.fromkeys(_parts_of_key(target.signing_key), "GATE_SIGNING_KEY"),
        **dict.fromkeys(target.hmac_secrets, "TRANSBOT_HMAC_SECRET"),
        **dict.fromkeys((*_passwords(target.database_url), *target.other_passwords), "PGPASSWORD"),
        **dict.fromkeys(_password_in_url(target.base_url), "BASE_URL_PASSWORD"),
        **dict.fromkeys(_password_in_url(target.baseline_url), "BASELINE_URL_PASSWORD"),
        **secrets(),
    }
    return {s: named[s] for s in sorted(named, key=len, reverse=True) if len(s) >= SHORTEST_SECRET}


def _passwords(conninfo: str) -> set[str]:
    """The secrets of a connection string in whichever form, as written and as meant."""
    try:
        parts = conninfo_to_dict(conninfo) if conninfo else {}
    except (psycopg.Error, UnicodeError):
        parts = {}
    return {str(parts[name]) for name in SECRET_KEYWORDS if parts.get(name)} | _password_in_url(conninfo)


def _password_in_url(url: str) -> set[str]:
    try:
        raw = urlsplit(url).password or ""
    except ValueError:
        return set()
    return {raw, unquote(raw)}


def _parts_of_webhook(url: str) -> set[str]:
    """The address, its path, and each part of the path that is long enough to be the token."""
    path = url.partition("://")[2].partition("/")[2]
    long = {part for part in re.split(r"[/?&=]", path) if len(part) >= LEAST_SEGMENT}
    return {url, *long, *([path] if len(path) >= LEAST_SEGMENT else [])}


def _parts_of_key(pem: str) -> set[str]:
    """The PEM text, each line of it, and the bytes at its end, which are the key; none of a path."""
    if "-----BEGIN" not in pem:
        return set()
    lines = [line for line in re.split(r"\s+|\\[nr]", pem) if len(line) >= LEAST_SEGMENT and "-----" not in line]
    try:
        key = base64.b64decode("".join(lines))[-32:].decode("utf-8", "surrogateescape")
    except ValueError:
        key = ""
    return {pem, *lines, key}


def redact_text(text: str, hide: Mapping[str, str]) -> str:
    """The text without the secrets in `hide`, without signatures of tokens and passwords in connection strings."""
    text = without_secrets(text, hide)
    text = _RUN.sub(_unsigned, text) if "eyJ" in text else text
    text = _IN_URL.sub(r"\1:$PASSWORD@", _IN_POSTGRES_URL.sub(r"\1:$PGPASSWORD@", text)) if "://" in text else text
    return _KEYWORD.sub(r"\1$PGPASSWORD", text)


def without_secrets(text: str, hide: Mapping[str, str]) -> str:
    """The text without the secrets in `hide` alone."""
    for secret, name in hide.items():
        for form in _spellings(secret):
            text = text.replace(form, f"${name}")
        if _spelled(_middle(secret)).search(text):  # the whole pattern of a long secret takes long to make
            text = _spelled(secret).sub(f"${name}", text)
    for secret, name in hide.items():  # when all whole ones are gone: two secrets may begin alike
        for form in _begun(secret):
            text = _without_beginning(text, form, f"${name}")
    return text


def _without_beginning(text: str, form: str, instead: str) -> str:
    """The text without the beginning of a form that was cut before it came here."""
    parts, start = [], 0
    while (at := text.find(form[:LEAST_BEGINNING], start)) >= 0:
        parts += [text[start:at], instead]
        start = at + next((i for i, c in enumerate(form) if text[at + i : at + i + 1] != c), len(form))
    return "".join([*parts, text[start:]]) if parts else text


def _unsigned(run: re.Match[str]) -> str:
    """Of `header.claims.signature` the first two parts."""
    parts = run.group().split(".")
    for i, part in enumerate(parts[:-2]):
        if "eyJ" in part and len(parts[i + 2]) >= LEAST_SEGMENT:
            parts[i + 2] = "<signature>"
    return ".".join(parts)


def redact(value: JsonValue, hide: Mapping[str, str]) -> JsonValue:
    """The value as bounded JSON, every string in it redacted before it is cut, keys included."""
    return plain(value, lambda text: redact_text(text, hide))


def redact_evidence(one: Evidence, hide: Mapping[str, str]) -> Evidence:
    """The line with every text in it redacted; the release, too, is what a target says."""
    details = redact(dict(one.details), hide)
    return dataclasses.replace(
        one,
        message=redact_text(one.message, hide),
        observed=redact(one.observed, hide),
        limit=redact(one.limit, hide),
        unit=redact_text(one.unit, hide),
        witness=redact(one.witness, hide),
        reproduce=redact_text(one.reproduce, hide),
        release=redact_text(one.release, hide),
        details=details if isinstance(details, dict) else {"details": details},
    )


@contextmanager
def scrubbing(folder: Path, hide: Mapping[str, str]) -> Iterator[None]:
    """Scrub the folder where a signal or an error ends the block."""
    try:
        yield
    except BaseException:
        with suppress(OSError):
            scrub(folder, hide)
        raise


def scrub(folder: Path, hide: Mapping[str, str]) -> list[Path]:
    """Rewrite every file under `folder` that holds a secret, in any spelling. Returns those files."""
    rewritten = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.is_symlink()):
        before = path.read_bytes()
        after = redact_text(before.decode("utf-8", "surrogateescape"), hide).encode("utf-8", "surrogateescape")
        if after != before:
            after = rechained(before, after) if path.suffix == ".ndjson" else after
            path.write_bytes(after)
            rewritten.append(path)
    return rewritten


# --- spellings ---------------------------------------------------------------------------------------------------


@lru_cache(maxsize=128)
def _spellings(secret: str) -> tuple[str, ...]:
    """Texts that hold the whole secret in base64 or hex."""
    raw = secret.encode("utf-8", "surrogateescape")
    forms = {f for one in (raw.hex(), *_base64(raw)) for f in (one, one.upper() if one == raw.hex() else one)}
    spelled = {change(form) for form in forms for change in _CHANGES}
    return tuple(sorted(spelled, key=len, reverse=True))


@lru_cache(maxsize=256)
def _spelled(secret: str) -> re.Pattern[str]:
    """A pattern that takes each character however it is written.

    It begins with one of a few characters and repeats nothing without a bound.
    """
    return re.compile("".join(map(_written, secret)))


def _middle(secret: str) -> str:
    """A part that is the secret's own: the beginnings of tokens and addresses are alike."""
    at = max(0, len(secret) - SHORTEST_SECRET) // 2
    return secret[at : at + SHORTEST_SECRET]


@lru_cache(maxsize=128)
def _begun(secret: str) -> tuple[str, ...]:
    """The spellings of which a beginning is hidden: not of addresses and tokens, which all begin alike."""
    if "://" in secret or secret.startswith("eyJ") or len(secret) < 2 * LEAST_BEGINNING:
        return ()
    raw = secret.encode("utf-8", "surrogateescape")
    return (secret, json.dumps(secret)[1:-1], quote(raw, safe=""), raw.hex(), base64.b64encode(raw).decode())


_CHANGES: tuple[Callable[[str], str], ...] = (
    str,
    lambda form: form.replace("+", "-").replace("/", "_"),
    lambda form: form.replace("/", "\\/"),
    lambda form: quote(form, safe=""),
    lambda form: quote(form, safe="").replace("%2B", "%2b").replace("%2F", "%2f"),
)


def _base64(raw: bytes) -> Iterator[str]:
    """What stands for the secret in a longer text: the characters that its neighbours do not touch."""
    for before in range(3):
        whole = base64.b64encode(b"\0" * before + raw).decode().rstrip("=")
        first = (0, 2, 3)[before]
        last = (before + len(raw)) * 8 // 6
        if last - first >= SHORTEST_SECRET:
            yield whole[first:last]


def _written(character: str) -> str:
    """A pattern of one character: raw, or as JSON, a URL, HTML, repr or a shell write it."""
    point = ord(character)
    octets = character.encode("utf-8", "surrogateescape")
    units = character.encode("utf-16-be", "surrogatepass")
    ways = [
        r"\\{0,4}" + re.escape(character) if not character.isalnum() else re.escape(character),
        "".join(f"%(?:25){{0,2}}{_digits(f'{b:02x}')}" for b in octets),
        "".join(rf"\\{{1,4}}u{_digits(units[i : i + 2].hex())}" for i in range(0, len(units), 2)),
        "".join(rf"\\{{1,4}}x{_digits(f'{b:02x}')}" for b in octets),
        f"&(?:amp;)?#(?:0{{0,6}}{point}|[xX]0{{0,6}}{_digits(f'{point:x}')});",
    ]
    ways += [f"&(?:amp;)?{name};" for named, name in _NAMED.items() if named == character]
    ways += [r"\+"] * (character == " ")
    ways += ["'\"'\"'", r"'\\''", "''"] * (character == "'")
    return f"(?:{'|'.join(ways)})"


def _digits(text: str) -> str:
    """Hexadecimal digits in either case."""
    return "".join(f"[{c}{c.upper()}]" if c.isalpha() else c for c in text)
