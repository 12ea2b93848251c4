"""What a document tells in words or by an example: how requests are signed, how many calls are let through. Pure."""

import re
from collections.abc import Mapping

CONTRACTS = {"form": "{hex}", "v2": "t={t},v2={hex}", "signed": "{t}.{body}"}
"""As the contract has it: that says nothing."""
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
"""What a GET signs, which has no body, is the contract's in any form."""
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
    """What `http.signature` says, by a description, a pattern or an example of its header; empty where nothing tells.

    What is signed with parts that no form of ours is sure of (a method, a nonce) tells nothing: a person has to say it.
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
    """Of a form, what `names:` has to say: nothing of the contract's own, nor what is signed as it is there."""
    if all(CONTRACTS[part] == said for part, said in form.items()):
        return {}
    return {part: said for part, said in form.items() if part != "signed" or said != CONTRACTS[part]}


def call_limits(said: str) -> dict[str, int]:
    """`calls` and `window_s`, as "5 calls per minute" says them; empty where nothing, or more than one thing, does."""
    found = {(int(number), int(many or 1) * SECONDS[unit[0].lower()]) for number, many, unit in _CALLS.findall(said)}
    return dict(zip(("calls", "window_s"), found.pop(), strict=True)) if len(found) == 1 else {}


def age_s(said: str) -> int:
    """For how many seconds a signature is good; 0 where nothing says so."""
    found = {int(a or b) * SECONDS[(x or y)[0].lower()] for a, x, b, y in _AGE.findall(said)}
    return found.pop() if len(found) == 1 else 0
