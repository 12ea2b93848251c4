"""gate.yaml and the environment, read strictly -> Target, Policy. The sole reader of the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping

from gates.evidence import TargetKind
from gates.target.deployment import Target


class ConfigError(Exception):
    """The configuration cannot be used: what was observed, what is allowed, where, what to do."""


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
