"""Keeps secrets out of everything that is written: evidence, reports, logs, attachments, the terminal.

A secret of the target is replaced by the name of its variable, in every spelling: raw, JSON, URL, HTML, also mixed,
base64 at every alignment, bytes as numbers. Any other token loses its signature, because a token that a drill minted is
a credential as long as it lives. Any other connection string loses its password, any other URL its login. Linear in the
text. Pure, but for `scrub`, which rewrites files.

Free text alone is changed. A password may be any word, also one that ids, members and outcomes are made of: what holds
evidence together, and what a decision goes by, stays as it is.
"""

import base64
import dataclasses
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict

from gates import disk
from gates.deployment.dialect.current import secrets
from gates.deployment.target import Target
from gates.evidence import Evidence
from gates.evidence_file import rewritten
from gates.text.foreign import JsonValue, before_cut, plain

SHORTEST_SECRET = 6
"""Shorter passwords are hidden only in connection strings and URLs: replacing them everywhere would garble ordinary
text. Secrets that sign have 16 bytes or more.
"""
LEAST_BEGINNING = 12
"""How many first characters of a truncated secret are hidden; of a short one, half of them."""
BLOCK = 6
"""Any 11 characters of a text contain one of its blocks of six, which is looked for in the spellings."""
LEAST_DIFFERENT = 6
"""The least number of different characters in a secret: with fewer it is a placeholder."""
LEAST_SEGMENT = 16
"""The length from which a part of the webhook's path is a secret by itself."""
SECRET_KEYWORDS = ("password", "sslpassword", "scram_client_key", "scram_server_key", "oauth_client_secret")

_RUN = re.compile(r"[A-Za-z0-9_.-]+")
_IN_POSTGRES_URL = re.compile(r"(postgres(?:ql)?://[^\s:@/'\"]{0,200}):[^\s@'\"]{1,400}@")
_IN_HTTP_URL = re.compile(r"(https?://)[^\s@/'\"?#<>]{1,600}@", re.IGNORECASE)
_IN_URL = re.compile(r"(://[^\s:@/'\"]{0,200}):[^\s@'\"/?#]{1,400}@")
_KEYWORD = re.compile(r"(password ?= ?)(?:'(?:[^'\\]|\\.){0,400}'|[^\s'\"&,;<>)]{1,400})", re.IGNORECASE)
_MEMBER = re.compile("[a-z][a-z_-]{0,14}")
"""How programs name a member: no secret that signs is so short."""
_WORD = "(?:[A-Z]?[a-z]{1,14}|[A-Z]{1,14})"
_ORDINARY = re.compile(rf"(?=.{{1,15}}$)(?:{_WORD}(?:[ ._/:-]{_WORD}){{0,4}}[ ._/:-]?\d{{0,4}}|\d+)", re.DOTALL)
"""A word or a number, or a few words and a number: the names of tables, events and releases."""
_STRUCTURE = {"check", "outcome", "severity", "round", "blocked_by", "started_at", "unit", "release", "run", "decision"}
"""Members whose values are not free text."""
_STAMP = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]{8,15}(?:Z|[+-]\d\d:\d\d)")
_MARK = "(?:%2[0C]|%3A|[^0-9A-Za-z%])"
_PAIR, _NUMBER = "[0-9A-Fa-f]{2}", "[0-9]{1,3}+"
_PAIRS = re.compile(f"{_PAIR}(?:{_MARK}{{0,8}}+(?:0?[xX]|[uU][+{{]?)?+{_PAIR}){{5,}}+")
_LISTED = re.compile(f"{_NUMBER}(?:{_MARK}{{1,12}}+{_NUMBER}){{5,}}+")
"""How programs print bytes: in pairs of hexadecimal digits, or as decimal numbers, with any marks between them."""
_NAMED = {"&": "amp", "<": "lt", ">": "gt", '"': "quot", "'": "apos"}


def hidden(target: Target) -> dict[str, str]:
    """Every secret of the target -> the name of its variable, the longest first."""
    target = target.told
    named = {
        target.database_url: "DATABASE_URL",
        **dict.fromkeys(_parts_of_webhook(target.slack_webhook_url), "SLACK_WEBHOOK_URL"),
        **dict.fromkeys((target.admin_jwt, target.admin_jwt.rpartition(".")[2]), "ADMIN_JWT"),
        target.jwt_secret: "REPLAY_JWT_SECRET",
        **dict.fromkeys(_parts_of_key(target.signing_key), "GATE_SIGNING_KEY"),
        **dict.fromkeys(target.hmac_secrets, "TRANSBOT_HMAC_SECRET"),
        **dict.fromkeys((*_passwords(target.database_url), *target.other_passwords), "PGPASSWORD"),
        **_login_in_url(target.base_url, "BASE_URL"),
        **_login_in_url(target.baseline_url, "BASELINE_URL"),
        **secrets(),
    }
    return {s: named[s] for s in sorted(named, key=len, reverse=True) if len(s) >= SHORTEST_SECRET}


def telling(target: Target) -> dict[str, str]:
    """The secrets that no text contains by chance. A password may be a word or a number, as in many answers."""
    found = hidden(target).items()
    return {s: name for s, name in found if not _ORDINARY.fullmatch(s) and len(set(s)) >= LEAST_DIFFERENT}


def _passwords(conninfo: str) -> set[str]:
    """The secrets of a connection string in any form, as written and as decoded."""
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


def _login_in_url(url: str, variable: str) -> dict[str, str]:
    """User and password: some services accept a token as either."""
    try:
        user = urlsplit(url).username or ""
    except ValueError:
        return {}
    return dict.fromkeys((user, unquote(user)), f"{variable}_USER") | dict.fromkeys(
        _password_in_url(url), f"{variable}_PASSWORD"
    )


def _parts_of_webhook(url: str) -> set[str]:
    """The address, its path, and each part of the path that is long enough to be the token."""
    path = url.partition("://")[2].partition("/")[2]
    long = {part for part in re.split(r"[/?&=]", path) if len(part) >= LEAST_SEGMENT}
    return {url, *long, *([path] if len(path) >= LEAST_SEGMENT else [])}


def _parts_of_key(pem: str) -> set[str]:
    """The PEM text, each of its lines, and the final bytes, which are the key; nothing for a path."""
    if "-----BEGIN" not in pem:
        return set()
    lines = [line for line in re.split(r"\s+|\\[nr]", pem) if len(line) >= LEAST_SEGMENT and "-----" not in line]
    try:
        key = base64.b64decode("".join(lines))[-32:].decode("utf-8", "surrogateescape")
    except ValueError:
        key = ""
    return {pem, *lines, key}


def redact_text(text: str, hide: Mapping[str, str]) -> str:
    """The text without the secrets in `hide`, signatures of tokens, and passwords in connection strings."""
    text = without_secrets(text, hide)
    text = _RUN.sub(_unsigned, text) if "eyJ" in text else text
    if "://" in text:
        text = _IN_HTTP_URL.sub(r"\1$LOGIN@", _IN_POSTGRES_URL.sub(r"\1:$PGPASSWORD@", text))
        text = _IN_URL.sub(r"\1:$PASSWORD@", text)
    return _KEYWORD.sub(r"\1$PGPASSWORD", text)


def without_secrets(text: str, hide: Mapping[str, str]) -> str:
    """The text without the secrets in `hide` alone."""
    for secret, name in hide.items():
        for form in _spellings(secret):
            text = text.replace(form, f"${name}")
        if _spelled(_middle(secret)).search(text):  # building the whole pattern of a long secret is slow
            text = _spelled(secret).sub(f"${name}", text)
    for secret, name in hide.items():  # after all complete ones: two secrets may begin alike
        for form in _begun(secret):
            text = _without_beginning(text, form, f"${name}")
    text = _without_fragments(text, _blocks(tuple(hide.items())))
    return _without_numbers(text, hide)


def _without_numbers(text: str, hide: Mapping[str, str]) -> str:
    """The text without numbers that are the bytes of a secret, in UTF-8, or with a NUL at each, as in UTF-16."""
    octets = [(s.encode("utf-8", "surrogateescape").decode("latin-1"), f"${name}") for s, name in hide.items()]
    blocks = _blocks(tuple(hide.items()))

    def instead(run: re.Match[str]) -> str:
        number, base = (_PAIR, 16) if run.re is _PAIRS else (_NUMBER, 10)
        found = [one for one in re.finditer(number, run[0]) if 0 < int(one[0], base) < 256]
        said = clean = bytes(int(one[0], base) for one in found).decode("latin-1")
        for secret, name in octets:
            clean = clean.replace(secret, name)
        clean = _without_fragments(clean, blocks)
        if clean == said:
            return run[0]
        name = next(name for _, name in octets if name in clean)
        clean = clean.replace(name, "\0")  # a secret may end as its name does
        first = _alike(said, clean)
        last = max(first, len(said) - 1 - _alike(said[::-1], clean[::-1]))
        return f"{run[0][: found[first].start()]}{name}{run[0][found[last].end() :]}"

    return _LISTED.sub(instead, _PAIRS.sub(instead, text))


def _without_beginning(text: str, form: str, instead: str) -> str:
    """The text without the beginning of a secret that was truncated before it came here."""
    parts, start = [], 0
    least = max(SHORTEST_SECRET, min(LEAST_BEGINNING, (len(form) + 1) // 2))
    while (at := text.find(form[:least], start)) >= 0:
        parts += [text[start:at], instead]
        start = at + _alike(form, text[at : at + len(form)])
    return "".join([*parts, text[start:]]) if parts else text


def _without_fragments(text: str, blocks: Mapping[str, list[tuple[str, int, str]]]) -> str:
    """The text without other parts of a secret, which was wrapped at a column, or lost its beginning elsewhere."""
    parts, start = [], 0
    for at in [i for i in range(0, len(text) - BLOCK + 1, BLOCK) if text[i : i + BLOCK] in blocks]:
        for form, place, name in blocks[text[at : at + BLOCK]] if at >= start else ():
            first = at - _alike(form[:place][::-1], text[max(start, at - place) : at][::-1])
            last = at + _alike(form[place:], text[at : at + len(form) - place])
            if last - first >= LEAST_BEGINNING and not _ORDINARY.fullmatch(text[first:last]):
                parts += [text[start:first], f"${name}"]
                start = last
                break
    return "".join([*parts, text[start:]]) if parts else text


def _alike(one: str, other: str) -> int:
    """How many characters both begin with."""
    return next(
        (i for i, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), min(len(one), len(other))
    )


def _unsigned(run: re.Match[str]) -> str:
    """The first two parts of `header.claims.signature`."""
    parts = run.group().split(".")
    for i, part in enumerate(parts[:-2]):
        if "eyJ" in part and len(parts[i + 2]) >= LEAST_SEGMENT:
            parts[i + 2] = "<signature>"
    return ".".join(parts)


def redact(value: JsonValue, hide: Mapping[str, str]) -> JsonValue:
    """The value as bounded JSON. Strings, except member names and times, are redacted before they are cut."""
    return plain(value, lambda text: _said(text, hide), lambda name: _member(name, hide))


def _said(text: str, hide: Mapping[str, str]) -> str:
    return text if _STAMP.fullmatch(text) else redact_text(text, hide)


def _member(name: str, hide: Mapping[str, str]) -> str:
    return name if _MEMBER.fullmatch(name) else redact_text(name, hide)


def redact_evidence(one: Evidence, hide: Mapping[str, str]) -> Evidence:
    """The line with every free text in it redacted."""
    return dataclasses.replace(
        one,
        message=redact_text(one.message, hide),
        observed=redact(one.observed, hide),
        limit=redact(one.limit, hide),
        witness=redact(one.witness, hide),
        reproduce=redact_text(one.reproduce, hide),
        details={name: redact(value, hide) for name, value in one.details.items()},
    )


@contextmanager
def scrubbing(folder: Path, hide: Mapping[str, str], own: Collection[str] = ()) -> Iterator[None]:
    """Scrub the folder if a signal or an error ends the block."""
    try:
        yield
    except BaseException:
        with suppress(OSError):
            scrub(folder, hide, own)
        raise


def scrub(folder: Path, hide: Mapping[str, str], own: Collection[str] = ()) -> list[Path]:
    """Rewrite every file under `folder` that holds a secret in any spelling; returns those files. A file that is too
    large to search is removed. own: names of the gate's files; other files stay as they are. Empty: all are the gate's.
    """
    tops = [folder / name for name in own] if own else [folder]
    found = {p for top in tops if not top.is_symlink() for p in (top, *top.rglob("*"))}
    changed = []
    for path in sorted(p for p in found if p.is_file() and not p.is_symlink()):
        if path.stat().st_size > disk.MOST_BYTES:
            path.unlink()
            continue
        before = disk.read(path)
        if (after := _scrubbed(path.suffix, before, hide)) != before:
            if path.stat().st_nlink > 1:  # its other hard link belongs to somebody else
                disk.write(path, after, mode=path.stat().st_mode & 0o777)
            else:
                path.write_bytes(after)
            changed.append(path)
    return changed


def _scrubbed(suffix: str, before: bytes, hide: Mapping[str, str]) -> bytes:
    """The contents of a file without the secrets; evidence and JSON keep their structure."""

    def as_text(raw: bytes) -> bytes:
        return redact_text(raw.decode("utf-8", "surrogateescape"), hide).encode("utf-8", "surrogateescape")

    after = as_text(before)
    if after != before and suffix == ".ndjson":
        return rewritten(before, lambda one: redact_evidence(one, hide), as_text)
    if after != before and suffix == ".json":
        with suppress(ValueError, RecursionError):
            found = json.loads(before)
            clean = _document(found, hide)
            return before if clean == found else json.dumps(clean, ensure_ascii=False, indent=1).encode() + b"\n"
    return after


def _document(value: JsonValue, hide: Mapping[str, str], *, of: str = "") -> JsonValue:
    """One of our JSON documents, redacted; of: the member whose value it is."""
    if isinstance(value, dict):
        return {_member(name, hide): _document(one, hide, of=name) for name, one in value.items()}
    if isinstance(value, list):
        return [_document(one, hide, of=of) for one in value]
    return _said(value, hide) if isinstance(value, str) and of not in _STRUCTURE else value


def hide_where_cut(hide: Mapping[str, str]) -> None:
    """Never cut a text of this process within a secret from now on: half a secret is secret too, and not recognised."""
    before_cut(lambda text: redact_text(text, hide))


# --- spellings ---------------------------------------------------------------------------------------------------


@lru_cache(maxsize=128)
def _spellings(secret: str) -> tuple[str, ...]:
    """Texts that contain the whole secret in base64, once or twice, or in hex."""
    raw = secret.encode("utf-8", "surrogateescape")
    forms = {*_base64(raw), raw.hex(), raw.hex().upper()}
    forms |= {twice for once in _base64(raw) for twice in _base64(once.encode())}
    spelled = {change(form) for form in forms for change in _CHANGES}
    return tuple(sorted(spelled, key=len, reverse=True))


@lru_cache(maxsize=256)
def _spelled(secret: str) -> re.Pattern[str]:
    """A pattern for each character in any spelling. It starts with one of a few characters; repetitions are bounded."""
    return re.compile("".join(map(_written, secret)))


def _middle(secret: str) -> str:
    """A part that is unique to the secret: tokens and addresses all begin alike."""
    at = max(0, len(secret) - SHORTEST_SECRET) // 2
    return secret[at : at + SHORTEST_SECRET]


@lru_cache(maxsize=128)
def _begun(secret: str) -> tuple[str, ...]:
    """The spellings whose beginning is hidden: not those of addresses and tokens, which all begin alike."""
    if "://" in secret or secret.startswith("eyJ") or "-----" in secret:  # the lines of a key are secrets themselves
        return ()
    raw = secret.encode("utf-8", "surrogateescape")
    return (secret, json.dumps(secret)[1:-1], quote(raw, safe=""), raw.hex(), base64.b64encode(raw).decode())


@lru_cache(maxsize=8)
def _blocks(named: tuple[tuple[str, str], ...]) -> dict[str, list[tuple[str, int, str]]]:
    """Block -> the spellings that it is in, its places there, the names; of secrets whose beginning is hidden, too."""
    found: dict[str, list[tuple[str, int, str]]] = {}
    for secret, name in named:
        for form in sorted({*begun, *_spellings(secret)} if (begun := _begun(secret)) else ()):
            for place in range(len(form) - BLOCK + 1):
                found.setdefault(form[place : place + BLOCK], []).append((form, place, name))
    return found


_CHANGES: tuple[Callable[[str], str], ...] = (
    str,
    lambda form: form.replace("+", "-").replace("/", "_"),
    lambda form: form.replace("/", "\\/"),
    lambda form: quote(form, safe=""),
    lambda form: quote(form, safe="").replace("%2B", "%2b").replace("%2F", "%2f"),
)


def _base64(raw: bytes) -> Iterator[str]:
    """The base64 of the secret within a longer text: the characters that its neighbours do not affect."""
    for before in range(3):
        whole = base64.b64encode(b"\0" * before + raw).decode().rstrip("=")
        first = (0, 2, 3)[before]
        last = (before + len(raw)) * 8 // 6
        if last - first >= SHORTEST_SECRET:
            yield whole[first:last]


def _written(character: str) -> str:
    """A pattern of one character: raw, or as JSON, a URL, HTML, repr or a shell writes it."""
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
