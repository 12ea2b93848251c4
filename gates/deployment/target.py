"""Target: the deployment under test and what may be done to it. Parsed by gates.config, carried everywhere."""

from __future__ import annotations

from dataclasses import dataclass, field

from gates.evidence import TargetKind

WANTED = {
    "BASE_URL": "base_url",
    "TRANSBOT_HMAC_SECRET": "hmac_secrets",
    "TEST_COMPANY_ID": "test_company_id",
    "ADMIN_JWT": "admin_jwt",
    "REPLAY_JWT_SECRET": "jwt_secret",
    "DATABASE_URL": "database_url",
}
"""The variables without which a run holds (contract, section 1), and the fields of a target that they fill."""


@dataclass(frozen=True, slots=True)
class Target:
    """The variables of the contract, parsed. An empty string or tuple means: not given."""

    kind: TargetKind
    base_url: str = field(default="", repr=False)
    """It may hold a user and a password."""
    hmac_secrets: tuple[str, ...] = field(default=(), repr=False)
    test_company_id: str = ""
    admin_jwt: str = field(default="", repr=False)
    jwt_secret: str = field(default="", repr=False)
    jwt_audience: str = ""
    jwt_issuer: str = ""
    trusted_proxies: tuple[str, ...] = ()
    """CIDRs (TRUSTED_PROXIES) whose X-Forwarded-For the target believes: they may name any other address."""
    database_url: str = field(default="", repr=False)
    other_passwords: tuple[str, ...] = field(default=(), repr=False)
    """Passwords of databases that libpq finds outside DATABASE_URL (PGPASSWORD, password and service files)."""
    signing_key: str = field(default="", repr=False)
    """The key that signs verdicts (GATE_SIGNING_KEY): no part of the target, but hidden like its secrets."""
    release: str = ""
    slack_webhook_url: str = field(default="", repr=False)
    test_outbox: bool = True
    test_dlq: bool = True
    test_agents: bool = True
    control: str = ""
    """Path of the stack's control socket (GATE_STACK_CONTROL); set only where the gate started the stack itself."""
    baseline_url: str = field(default="", repr=False)
    """The previous release, still running: the load compares with it."""

    @property
    def is_ours(self) -> bool:
        """Whether the gate itself started the stack."""
        return self.kind is TargetKind.REFERENCE and bool(self.control)

    @property
    def hmac_secret(self) -> str:
        """The secret that signs: the first of the list."""
        return self.hmac_secrets[0] if self.hmac_secrets else ""

    @property
    def told(self) -> Target:
        """The target as its variables describe it, including refused ones: these must be hidden."""
        return self
