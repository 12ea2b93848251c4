"""What a target can do beyond the contract's minimum: asked of the target, never guessed.

`drill-agent`: `/version` says `"drill_agent": true`. `two-sources`: requests from two local addresses reach the target
(only a loopback target can be asked that way).
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from gates.target.client import HttpDoor, NoAnswer
from gates.target.deployment import Target
from gates.target.requests import Request

PROBE_TIMEOUT_S = 5.0
SECOND_SOURCE = "127.0.0.2"
VERSION = Request("GET", "/version")


def evidence_id(capability: str) -> str:
    """The id of the evidence that says whether the target claims the capability."""
    return f"preflight/capability/{capability}"


def claims(target: Target) -> dict[str, bool | None]:
    """Capability -> whether the target has it; None where it could not be asked."""
    return {"drill-agent": _drill_agent(target), "two-sources": _two_sources(target)}


def _drill_agent(target: Target) -> bool | None:
    if not target.base_url:
        return None
    try:
        with HttpDoor(target.base_url, timeout_s=PROBE_TIMEOUT_S) as door:
            answer = door.send(VERSION)
    except NoAnswer:
        return None
    if answer.status != 200 or not answer.json():
        return None
    return answer.json().get("drill_agent") is True


def _two_sources(target: Target) -> bool | None:
    if not target.base_url:
        return None
    if not is_loopback(target.base_url):
        return False
    return _answers(target, SECOND_SOURCE) if _answers(target, None) else None


def _answers(target: Target, source: str | None) -> bool:
    try:
        with HttpDoor(target.base_url, timeout_s=PROBE_TIMEOUT_S, source=source) as door:
            return door.send(VERSION).status == 200
    except (NoAnswer, OSError):
        return False


def is_loopback(base_url: str) -> bool:
    """Whether the host of the URL is an IPv4 loopback address (or localhost)."""
    try:
        host = urlsplit(base_url).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host) in ipaddress.ip_network("127.0.0.0/8")
    except (ValueError, TypeError):
        return False
