"""gate.yaml and the environment, read strictly -> Target, Policy. The sole reader of the environment."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from gates.errors import ConfigError
from gates.evidence import TargetKind
from gates.policy_file import PolicyFile, parse
from gates.target.deployment import Target

__all__ = ["ConfigError", "environment_of", "load_policy", "load_target", "process_environment"]

POLICY_FILE = "gate.yaml"
SHIPPED_POLICY = Path(__file__).resolve().parent.parent / POLICY_FILE

VARIABLES = (
    "GATE_TARGET",
    "BASE_URL",
    "TRANSBOT_HMAC_SECRET",
    "TEST_COMPANY_ID",
    "ADMIN_JWT",
    "REPLAY_JWT_SECRET",
    "REPLAY_JWT_AUDIENCE",
    "REPLAY_JWT_ISSUER",
    "DATABASE_URL",
    "RELEASE",
    "SLACK_WEBHOOK_URL",
    "TEST_OUTBOX",
    "TEST_DLQ",
    "TEST_AGENTS",
    "GATE_STACK_CONTROL",
)
"""The variables that describe a target (contract, section 1)."""


def process_environment() -> Mapping[str, str]:
    """The environment of this process. Everything else gets it as an argument."""
    return os.environ


def load_target(environ: Mapping[str, str]) -> Target:
    """Parse the variables of the contract. Raise ConfigError naming the variable that is wrong."""

    def text(name: str) -> str:
        return environ.get(name, "").strip()

    try:
        kind = TargetKind(text("GATE_TARGET") or "production")
    except ValueError:
        raise ConfigError(
            f"GATE_TARGET is {text('GATE_TARGET')!r}; allowed: production, staging, reference. Correct the variable"
        ) from None
    return Target(
        kind=kind,
        base_url=text("BASE_URL").rstrip("/"),
        hmac_secrets=tuple(s.strip() for s in text("TRANSBOT_HMAC_SECRET").split(",") if s.strip()),
        test_company_id=text("TEST_COMPANY_ID").lower(),
        admin_jwt=text("ADMIN_JWT"),
        jwt_secret=text("REPLAY_JWT_SECRET"),
        jwt_audience=text("REPLAY_JWT_AUDIENCE"),
        jwt_issuer=text("REPLAY_JWT_ISSUER"),
        trusted_proxies=tuple(p.strip() for p in text("TRUSTED_PROXIES").split(",") if p.strip()),
        database_url=text("DATABASE_URL"),
        release=text("RELEASE"),
        slack_webhook_url=text("SLACK_WEBHOOK_URL"),
        test_outbox=_switch("TEST_OUTBOX", text("TEST_OUTBOX")),
        test_dlq=_switch("TEST_DLQ", text("TEST_DLQ")),
        test_agents=_switch("TEST_AGENTS", text("TEST_AGENTS")),
        control=text("GATE_STACK_CONTROL"),
    )


def _switch(name: str, value: str) -> bool:
    if value.lower() in {"", "true"}:
        return True
    if value.lower() == "false":
        return False
    raise ConfigError(f"{name} is {value!r}; allowed: true or false. Correct the variable")


def environment_of(target: Target, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for a suite that examines `target`: load_target of it gives the target again."""
    switches = {"TEST_OUTBOX": target.test_outbox, "TEST_DLQ": target.test_dlq, "TEST_AGENTS": target.test_agents}
    described = {
        "GATE_TARGET": target.kind.value,
        "BASE_URL": target.base_url,
        "TRANSBOT_HMAC_SECRET": ",".join(target.hmac_secrets),
        "TRUSTED_PROXIES": ",".join(target.trusted_proxies),
        "TEST_COMPANY_ID": target.test_company_id,
        "ADMIN_JWT": target.admin_jwt,
        "REPLAY_JWT_SECRET": target.jwt_secret,
        "REPLAY_JWT_AUDIENCE": target.jwt_audience,
        "REPLAY_JWT_ISSUER": target.jwt_issuer,
        "DATABASE_URL": target.database_url,
        "RELEASE": target.release,
        "GATE_STACK_CONTROL": target.control,
        **{name: "true" if on else "false" for name, on in switches.items()},
    }
    others = {k: v for k, v in environ.items() if k not in VARIABLES}
    return {**others, **{k: v for k, v in described.items() if v}}


def load_policy(path: Path | None, today: dt.date, state: Path | None = None) -> PolicyFile:
    """gate.yaml: the file named, or that of the working directory, or the one shipped, or the defaults.

    state: another folder than the file's for what must outlive a run.

    Raise ConfigError where a named file cannot be read, or on anything in it that is not right.
    """
    if path is None:
        found = [p for p in (Path(POLICY_FILE), SHIPPED_POLICY) if p.is_file()]
        if not found:
            return _remembering(parse("version: 1\n", POLICY_FILE, Path(), today), state)
        path = found[0]
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}:1:1: {error}; allowed: a readable text file. Correct --policy") from None
    return _remembering(parse(text, str(path), path.parent.resolve(), today), state)


def _remembering(file: PolicyFile, state: Path | None) -> PolicyFile:
    return file if state is None else replace(file, settings=replace(file.settings, state=state))
