"""The service's configuration, read from the environment once and strictly."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network

from replay_service.client_ip import Network

MIN_HMAC_BYTES = 16
MIN_JWT_BYTES = 32
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
_BASE_PATH = re.compile(r"(?:/[A-Za-z0-9._~-]+)*")


class ConfigurationError(Exception):
    """The service cannot start with this environment; the message names the variable and what to do, never a secret."""


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What the deployment asks of tokens; an empty audience or issuer is not checked."""

    secret: bytes
    audience: str = ""
    issuer: str = ""


@dataclass(frozen=True, slots=True)
class Settings:
    """The service's configuration."""

    database_url: str = field(repr=False)
    hmac_secrets: tuple[bytes, ...] = field(repr=False)
    tokens: TokenRules = field(repr=False)
    trusted_proxies: tuple[Network, ...] = ()
    release: str = "unknown"
    commit: str = "unknown"
    log_level: str = "INFO"
    base_path: str = ""
    pool_min: int = 2
    pool_max: int = 12
    pool_timeout_s: float = 3.0
    statement_timeout_ms: int = 10_000
    lock_timeout_ms: int = 4_000
    idle_in_transaction_timeout_ms: int = 10_000
    body_timeout_s: float = 10.0
    heartbeat_fresh_s: float = 15.0


def read_settings(environment: Mapping[str, str], base_path: str = "") -> Settings:
    """The settings from environment variables (contract, section 1). Raise ConfigurationError."""
    hmac_secrets = _hmac_secrets(environment.get("TRANSBOT_HMAC_SECRET", ""))
    level = environment.get("LOG_LEVEL", "") or "INFO"
    if level.upper() not in LOG_LEVELS:
        raise ConfigurationError(f"LOG_LEVEL is {level!r}; allowed are {', '.join(LOG_LEVELS)}; set one or none")
    return Settings(
        database_url=_required(environment, "DATABASE_URL"),
        hmac_secrets=hmac_secrets,
        tokens=TokenRules(
            _jwt_secret(environment, hmac_secrets),
            environment.get("REPLAY_JWT_AUDIENCE", ""),
            environment.get("REPLAY_JWT_ISSUER", ""),
        ),
        trusted_proxies=_networks(environment.get("TRUSTED_PROXIES", "")),
        release=environment.get("RELEASE", "") or "unknown",
        commit=environment.get("COMMIT", "") or "unknown",
        log_level=level.upper(),
        base_path=_clean_base_path(base_path),
        pool_max=_integer(environment, "DB_POOL_MAX", 12, 2, 200),
    )


def _required(environment: Mapping[str, str], name: str) -> str:
    value = environment.get(name, "")
    if not value:
        raise ConfigurationError(f"{name} is not set; the service has no default for it; set it and start again")
    return value


def _hmac_secrets(joined: str) -> tuple[bytes, ...]:
    name = "TRANSBOT_HMAC_SECRET"
    if not joined:
        raise ConfigurationError(f"{name} is not set; there is no default secret; set at least {MIN_HMAC_BYTES} bytes")
    secrets = []
    for position, element in enumerate(joined.split(","), start=1):
        if element != element.strip():
            raise ConfigurationError(f"{name}: element {position} begins or ends with a space; remove the space")
        if len(element.encode()) < MIN_HMAC_BYTES:
            raise ConfigurationError(
                f"{name}: element {position} has {len(element.encode())} bytes; at least {MIN_HMAC_BYTES} are needed;"
                " give a longer secret or remove the stray comma"
            )
        secrets.append(element.encode())
    return tuple(secrets)


def _jwt_secret(environment: Mapping[str, str], hmac_secrets: tuple[bytes, ...]) -> bytes:
    name = "REPLAY_JWT_SECRET"
    secret = _required(environment, name).encode()
    if len(secret) < MIN_JWT_BYTES:
        raise ConfigurationError(
            f"{name} has {len(secret)} bytes; at least {MIN_JWT_BYTES} are needed; give a longer secret"
        )
    if secret in hmac_secrets:
        raise ConfigurationError(f"{name} is also in TRANSBOT_HMAC_SECRET; they must differ; make a new secret for one")
    return secret


def _networks(joined: str) -> tuple[Network, ...]:
    found = []
    for entry in (part.strip() for part in joined.split(",") if part.strip()):
        try:
            found.append(ip_network(entry, strict=False))
        except ValueError:
            raise ConfigurationError(f"TRUSTED_PROXIES: {entry!r} is no CIDR; write it like 10.0.0.0/8") from None
    return tuple(found)


def _clean_base_path(path: str) -> str:
    trimmed = path.rstrip("/")
    if not _BASE_PATH.fullmatch(trimmed):
        raise ConfigurationError(f"--base-path is {path!r}; it must look like /functions/v1")
    return trimmed


def _integer(environment: Mapping[str, str], name: str, default: int, lowest: int, highest: int) -> int:
    text = environment.get(name, "")
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or not lowest <= int(text[:9]) <= highest:
        raise ConfigurationError(f"{name} is {text[:20]!r}; allowed is an integer from {lowest} to {highest}")
    return int(text)
