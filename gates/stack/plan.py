"""The options of a stack, and the variables for its users."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from gates import gate_version
from gates.deployment.requests import bucket
from gates.deployment.target import Target
from gates.evidence import TargetKind
from gates.stack.errors import StackOptionError

DEFAULT_COMPANY_ID = "00000000-0000-4000-8000-000000000004"
"""The first company id of its kind whose bucket for outbox.enabled (1) is inside the canary's 10 %."""
CANARY_FLAG, CANARY_PERCENT = "outbox.enabled", 10
MOST_PROCESSES = 32
TRUSTED_PROXY = "127.0.0.99/32"
"""An address from which only the proxy's checks come."""


@dataclass(frozen=True, slots=True)
class StackOptions:
    """What to start.

    `server`: URL of a PostgreSQL server to use, empty for the embedded one. `variables` are added to the environment of
    service and worker; `serve_arguments` and `work_arguments` to their commands. `history` False leaves the database as
    the migrations made it, with the flags only. `source`: the folder with the package `replay_service`, if it is not
    this one. `pooler`: maps the superuser's URL of the database to its URL behind a pooler, for service and worker.
    """

    server: str = field(default="", repr=False)
    instances: int = 1
    workers: int = 1
    release: str = "reference"
    company_id: str = DEFAULT_COMPANY_ID
    variables: Mapping[str, str] = field(default_factory=dict)
    serve_arguments: tuple[str, ...] = ()
    work_arguments: tuple[str, ...] = ()
    history: bool = True
    source: Path | None = None
    pooler: Callable[[str], AbstractContextManager[str]] = nullcontext

    def check(self) -> None:
        """Raise StackOptionError that names the wrong option."""
        if bucket(CANARY_FLAG, self.company_id) >= CANARY_PERCENT:
            allowed = f"a UUID whose bucket for {CANARY_FLAG} is under {CANARY_PERCENT}"
            raise StackOptionError(f"--company-id is {self.company_id}; allowed: {allowed}. Correct the option")


@dataclass(frozen=True, slots=True)
class StackInfo:
    """What a user of the stack needs to know. `gate_url` logs in as `replay_gate`."""

    base_url: str
    company_id: str
    release: str
    folder: Path
    control: str
    hmac_secret: str = field(repr=False)
    jwt_secret: str = field(repr=False)
    admin_jwt: str = field(repr=False)
    database_url: str = field(repr=False)
    gate_url: str = field(repr=False)

    def variables(self) -> dict[str, str]:
        """The variables of the contract, section 1, as `gate up` prints them. They name a staging target."""
        return {
            "GATE_TARGET": TargetKind.STAGING.value,
            "BASE_URL": self.base_url,
            "TRANSBOT_HMAC_SECRET": self.hmac_secret,
            "TEST_COMPANY_ID": self.company_id,
            "ADMIN_JWT": self.admin_jwt,
            "REPLAY_JWT_SECRET": self.jwt_secret,
            "DATABASE_URL": self.database_url,
            "RELEASE": self.release,
            "TRUSTED_PROXIES": TRUSTED_PROXY,
            "TEST_OUTBOX": "true",
            "TEST_DLQ": "true",
            "TEST_AGENTS": "true",
        }

    def target(self) -> Target:
        """The target for a gate that started the stack itself: it may also kill processes."""
        return Target(
            kind=TargetKind.REFERENCE,
            base_url=self.base_url,
            hmac_secrets=(self.hmac_secret,),
            test_company_id=self.company_id,
            admin_jwt=self.admin_jwt,
            jwt_secret=self.jwt_secret,
            database_url=self.database_url,
            release=self.release,
            trusted_proxies=(TRUSTED_PROXY,),
            control=self.control,
        )


def default_release() -> str:
    """The default release of the reference: it is part of this distribution."""
    return f"reference-{gate_version()}"
