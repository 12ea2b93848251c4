"""Keeps secrets out of everything that is written: evidence, reports, logs, attachments.

A secret of the target is replaced by the name of its variable; of any other token the signature is cut off, because a
token that a drill minted is a credential as long as it lives. Pure, but for `scrub`, which rewrites files.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from gates.evidence_file import rechained
from gates.foreign import JsonValue, plain
from gates.target.deployment import Target

SHORTEST_SECRET = 6
"""Shorter values are left alone: replacing them would garble ordinary text."""

_TOKEN = re.compile(r"(eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+)\.[A-Za-z0-9_-]{16,}")
_PASSWORD_IN_URL = re.compile(r"(postgres(?:ql)?://[^\s:@/'\"]+):[^\s@'\"]+@")
_TOKEN_BYTES = re.compile(_TOKEN.pattern.encode())
_PASSWORD_BYTES = re.compile(_PASSWORD_IN_URL.pattern.encode())


def hidden(target: Target) -> dict[str, str]:
    """Every secret of the target -> the name of the variable that holds it, the longest first."""
    named = {
        target.database_url: "DATABASE_URL",
        target.slack_webhook_url: "SLACK_WEBHOOK_URL",
        target.admin_jwt: "ADMIN_JWT",
        target.jwt_secret: "REPLAY_JWT_SECRET",
        **dict.fromkeys(target.hmac_secrets, "TRANSBOT_HMAC_SECRET"),
        **dict.fromkeys(_passwords(target.database_url), "PGPASSWORD"),
    }
    return {s: named[s] for s in sorted(named, key=len, reverse=True) if len(s) >= SHORTEST_SECRET}


def _passwords(url: str) -> set[str]:
    try:
        raw = urlsplit(url).password or ""
    except ValueError:
        return set()
    return {raw, unquote(raw)}


def redact_text(text: str, hide: Mapping[str, str]) -> str:
    """The text without the secrets in `hide` and without the signature of any token."""
    for secret, name in hide.items():
        text = text.replace(secret, f"${name}")
    return _PASSWORD_IN_URL.sub(r"\1:$PGPASSWORD@", _TOKEN.sub(r"\1.<signature>", text))


def redact(value: JsonValue, hide: Mapping[str, str]) -> JsonValue:
    """The value as bounded JSON, every string in it redacted before it is cut, keys included."""
    return plain(value, lambda text: redact_text(text, hide))


def scrub(folder: Path, hide: Mapping[str, str]) -> list[Path]:
    """Rewrite every file under `folder` that holds a secret, in any spelling. Returns those files."""
    forms = {form.encode(): name for secret, name in hide.items() for form in _spellings(secret)}
    rewritten = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.is_symlink()):
        before = path.read_bytes()
        after = before
        for form, name in forms.items():
            after = after.replace(form, f"${name}".encode())
        after = _PASSWORD_BYTES.sub(rb"\1:$PGPASSWORD@", _TOKEN_BYTES.sub(rb"\1.<signature>", after))
        if after != before:
            after = rechained(before, after) if path.suffix == ".ndjson" else after
            path.write_bytes(after)
            rewritten.append(path)
    return rewritten


def _spellings(secret: str) -> list[str]:
    found = {
        secret,
        json.dumps(secret)[1:-1],
        html.escape(secret),
        quote(secret, safe=""),
        quote(secret),
        repr(secret)[1:-1],
    }
    return sorted(found, key=len, reverse=True)
