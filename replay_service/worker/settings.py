"""The worker's configuration, read strictly from the environment. All tunables and their defaults live here."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from replay_service.settings import LOG_LEVELS, MIN_HMAC_BYTES, ConfigurationError

AGENTS = ("sql", "http")
_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{1,6})?")


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """The worker's configuration."""

    database_url: str = field(repr=False)
    release: str = "unknown"
    commit: str = "unknown"
    log_level: str = "INFO"
    agent: str = "sql"
    agent_url: str = ""
    agent_secret: bytes = field(default=b"", repr=False)
    runners: int = 2  # connections that drain; more than the number of cores gains nothing
    window: int = 2000  # rows examined by a statement: larger ones gain little and make others wait longer
    poll_s: float = 0.25  # a lost notification costs at most this
    slots: int = 256  # leased deliveries at once; a scripted delay costs a slot and nothing else
    settlers: int = 4  # connections that settle them
    lease_s: float = 15.0  # longer than any delivery; a killed worker's leases end after it
    http_timeout_s: float = 10.0
    max_attempts: int = 5
    backoff_base_s: float = 0.2
    backoff_cap_s: float = 60.0
    retry_base_s: float = 30.0  # of a dead letter's retry_after
    retry_cap_s: float = 3600.0
    heartbeat_s: float = 1.0
    stuck_s: float = 60.0  # no heartbeat after so long without progress
    grace_s: float = 3.0  # for deliveries in progress, after SIGTERM

    @property
    def backoff(self) -> dict[str, float]:
        """The parameters of the settling statements."""
        return {
            "backoff_base_s": self.backoff_base_s,
            "backoff_cap_s": self.backoff_cap_s,
            "max_attempts": self.max_attempts,
        }

    @property
    def retry(self) -> dict[str, float]:
        """The parameters of a dead letter's next retry."""
        return {"retry_base_s": self.retry_base_s, "retry_cap_s": self.retry_cap_s}


TUNABLES: Mapping[str, tuple[str, float, float]] = {
    "WORKER_WINDOW": ("window", 10, 20_000),
    "WORKER_POLL_S": ("poll_s", 0.01, 60),
    "WORKER_SLOTS": ("slots", 1, 4096),
    "WORKER_LEASE_S": ("lease_s", 1, 3600),
    "WORKER_HTTP_TIMEOUT_S": ("http_timeout_s", 0.1, 600),
    "WORKER_MAX_ATTEMPTS": ("max_attempts", 1, 100),
    "WORKER_BACKOFF_BASE_S": ("backoff_base_s", 0.001, 3600),
    "WORKER_BACKOFF_CAP_S": ("backoff_cap_s", 0.001, 86_400),
}
"""Variable -> field, smallest and largest value allowed. Whole numbers where the field's default is one."""


def read_worker_settings(environment: Mapping[str, str]) -> WorkerSettings:
    """The settings from the environment. Raise ConfigurationError, whose message names the variable."""
    url = environment.get("DATABASE_URL", "")
    if not url:
        raise ConfigurationError("DATABASE_URL is not set; the worker has no default for it; set it and start again")
    level = (environment.get("LOG_LEVEL", "") or "INFO").upper()
    if level not in LOG_LEVELS:
        raise ConfigurationError(f"LOG_LEVEL is {level!r}; allowed are {', '.join(LOG_LEVELS)}; set one or none")
    given: dict[str, Any] = _agent(environment)
    given |= {name: _number(environment, key) for key, (name, _, _) in TUNABLES.items() if key in environment}
    settings = WorkerSettings(
        database_url=url,
        release=environment.get("RELEASE", "") or "unknown",
        commit=environment.get("COMMIT", "") or "unknown",
        log_level=level,
        **given,
    )
    if settings.agent == "http" and settings.http_timeout_s >= settings.lease_s:
        raise ConfigurationError(
            f"WORKER_HTTP_TIMEOUT_S is {settings.http_timeout_s} and WORKER_LEASE_S {settings.lease_s}; a delivery"
            " must end before its lease does; shorten the timeout or lengthen the lease"
        )
    return settings


def _agent(environment: Mapping[str, str]) -> dict[str, Any]:
    agent = environment.get("AGENT", "") or "sql"
    if agent not in AGENTS:
        raise ConfigurationError(f"AGENT is {agent!r}; allowed are {' and '.join(AGENTS)}; set one or none")
    if agent == "sql":
        return {"agent": agent}
    url, secret = environment.get("AGENT_URL", ""), environment.get("AGENT_SECRET", "").encode()
    if urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).netloc:
        raise ConfigurationError("AGENT_URL is missing or no http(s) URL; AGENT=http needs one; set it")
    if len(secret) < MIN_HMAC_BYTES:
        raise ConfigurationError(
            f"AGENT_SECRET has {len(secret)} bytes; at least {MIN_HMAC_BYTES} are needed: AGENT=http signs"
        )
    return {"agent": agent, "agent_url": url, "agent_secret": secret}


def _number(environment: Mapping[str, str], variable: str) -> float:
    name, smallest, largest = TUNABLES[variable]
    text = environment[variable]
    is_whole = isinstance(WorkerSettings.__dataclass_fields__[name].default, int)
    if not _NUMBER.fullmatch(text) or (is_whole and "." in text) or not smallest <= float(text) <= largest:
        kind = "whole number" if is_whole else "number"
        raise ConfigurationError(f"{variable} is {text!r}; allowed is a {kind} {smallest:g}..{largest:g}; mend it")
    return int(text) if is_whole else float(text)
