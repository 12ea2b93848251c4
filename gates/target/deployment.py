"""Target: the deployment under test and what may be done to it. Parsed by gates.config, carried everywhere."""

from __future__ import annotations

from dataclasses import dataclass, field

from gates.evidence import TargetKind


@dataclass(frozen=True, slots=True)
class Target:
    """The variables of the contract, parsed. An empty string or tuple means: not given."""

    kind: TargetKind
    base_url: str = ""
    hmac_secrets: tuple[str, ...] = field(default=(), repr=False)
    test_company_id: str = ""
    admin_jwt: str = field(default="", repr=False)
    jwt_secret: str = field(default="", repr=False)
    jwt_audience: str = ""
    jwt_issuer: str = ""
    trusted_proxies: tuple[str, ...] = ()
    """CIDRs (TRUSTED_PROXIES) whose X-Forwarded-For the target believes: an address among them may name any other."""
    database_url: str = field(default="", repr=False)
    release: str = ""
    slack_webhook_url: str = field(default="", repr=False)
    test_outbox: bool = True
    test_dlq: bool = True
    test_agents: bool = True
    control: str = ""
    """Path of the stack's control socket (GATE_STACK_CONTROL); set only where the gate started the stack itself."""

    @property
    def hmac_secret(self) -> str:
        """The secret that signs: the first of the list."""
        return self.hmac_secrets[0] if self.hmac_secrets else ""

    @property
    def can_create_tenants(self) -> bool:
        return bool(self.database_url)

    def secrets(self) -> tuple[str, ...]:
        """Everything that must never be printed, longest first."""
        password = self.database_url.partition("://")[2].rpartition("@")[0].partition(":")[2]
        found = {*self.hmac_secrets, self.admin_jwt, self.jwt_secret, password, self.slack_webhook_url}
        return tuple(sorted((s for s in found if len(s) >= 6), key=len, reverse=True))
