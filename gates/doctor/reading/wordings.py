"""What a document says in words or examples: how requests are signed, how many calls are allowed. Pure."""

import re
from collections.abc import Mapping

CONTRACTS = {"form": "{hex}", "v2": "t={t},v2={hex}", "signed": "{t}.{body}"}
"""The contract's own form, which tells nothing."""
_MAC = r"(?:<[^<>]{1,60}>|\{[^{}]{1,40}\}|[0-9a-f]{16,}|[0-9A-Za-z+/]{40,}={0,2}|\.{3}|…|[A-Z_]{3,})"
_TIMED = re.compile(
    rf"\bt=(?:<[^<>]{{1,40}}>|\{{[^{{}}]{{1,40}}\}}|\d{{4,}}|\.{{3}}|…)([,;]\s?)(\w{{1,20}}=){_MAC}", re.IGNORECASE
)
_PLAIN = re.compile(rf"(?<![\w,;=-])((?:hmac-)?sha-?256[=:]|v[0-9]=|hmac[=: ]){_MAC}", re.IGNORECASE)
_BARE = re.compile(r"\[0-9a-f(?:A-F)?\]\{64\}|(?<![\w=])[0-9a-f]{64}(?!\w)")
_BASE64 = re.compile(r"\bbase-?64\b", re.IGNORECASE)
_SIGNED = re.compile(
    r"[<{]?\b(?:t|ts|timestamp|unix[ _]seconds)\b[>}]?\s*(\.|:|\\n|\n|\+)\s*[<{]?(?:the )?(?:raw |request )?body\b",
    re.IGNORECASE,
)
_OF_A_GET = re.compile(r"\bGETs?\b[^;\n]*")
"""What a GET signs, having no body, is the contract's in any form."""
_ONE_OF_MORE = re.compile(r"[<{]?\b(?:method|path|url|nonce|host)\b[>}]", re.IGNORECASE)
_CALLS = re.compile(
    r"\b(\d{1,3})\s+(?:\w+\s+){0,2}?(?:per|in|within|every|each|/)\s+(?:(?:a|an|any|the|rolling|sliding)\s+){0,2}"
    r"(?:(\d{1,5})[ -]?)?(s|sec|second|min|minute|h|hour)s?\b",
    re.IGNORECASE,
)
_TOLERANT = r"(?:toleran|old|age|skew|within|expir|valid|leeway)"
_AGE = re.compile(
    rf"\b{_TOLERANT}\w*\D{{0,40}}?(\d{{1,5}})[ -]?(s|sec|second|min|minute)s?\b"
    rf"|\b(\d{{1,5}})[ -]?(s|sec|second|min|minute)s?\W{{1,3}}{_TOLERANT}",
    re.IGNORECASE,
)
SECONDS = {"s": 1, "m": 60, "h": 3600}


def signature_form(said: str) -> dict[str, str]:
    """`http.signature` from a description, a pattern or an example of its header; empty if nothing tells. Parts that no
    form of ours has (a method, a nonce) make it empty: a person must say it.
    """
    said = _OF_A_GET.sub(" ", said)
    if _ONE_OF_MORE.search(said):
        return {}
    mac = "{base64}" if _BASE64.search(said) else "{hex}"
    found = {}
    if timed := _TIMED.search(said):
        found["v2"] = f"t={{t}}{timed[1]}{timed[2]}{mac}"
    if plain := _PLAIN.search(_TIMED.sub(" ", said)):
        found["form"] = f"{plain[1]}{mac}"
    elif _BARE.search(_TIMED.sub(" ", said)) or (mac == "{base64}" and not timed):
        found["form"] = mac
    if (joint := _SIGNED.search(said)) and "v2" in found:
        between = {"\\n": "\n", "+": ""}.get(joint[1], joint[1])
        found["signed"] = f"{{t}}{between}{{body}}"
    return found


def differing(form: Mapping[str, str]) -> dict[str, str]:
    """The parts of a form that `names:` has to say: neither the contract's own, nor what is signed unchanged."""
    if all(CONTRACTS[part] == said for part, said in form.items()):
        return {}
    return {part: said for part, said in form.items() if part != "signed" or said != CONTRACTS[part]}


def call_limits(said: str) -> dict[str, int]:
    """`calls` and `window_s` from texts like "5 calls per minute"; empty without one clear value."""
    found = {(int(number), int(many or 1) * SECONDS[unit[0].lower()]) for number, many, unit in _CALLS.findall(said)}
    return dict(zip(("calls", "window_s"), found.pop(), strict=True)) if len(found) == 1 else {}


def age_s(said: str) -> int:
    """How many seconds a signature is valid; 0 if nothing says so."""
    found = {int(a or b) * SECONDS[(x or y)[0].lower()] for a, x, b, y in _AGE.findall(said)}
    return found.pop() if len(found) == 1 else 0
