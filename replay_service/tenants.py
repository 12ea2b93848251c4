"""What the database says about a tenant before a replay touches anything: existence, flags, pause."""

from dataclasses import dataclass

from replay_service.database import Connection, fetch_row, fetch_value
from replay_service.exchange import Caller
from replay_service.problems import Refusal, unavailable


@dataclass(frozen=True, slots=True)
class ReplayFlags:
    """The flags of one tenant at this moment."""

    replay_enabled: bool
    outbox_enabled: bool
    budget_control: bool

    def refusal(self) -> Refusal | None:
        """The `feature_disabled` refusal naming the first flag that is off."""
        for name, is_on in (("dlq.replay.enabled", self.replay_enabled), ("outbox.enabled", self.outbox_enabled)):
            if not is_on:
                return Refusal("feature_disabled", f"The flag {name} is off for this company.", members={"flag": name})
        return None


async def signing_v2_required(conn: Connection) -> bool:
    """Whether v1 signatures are refused; asked anew for every v1 request."""
    return bool(await fetch_value(conn, "signing_v2_required"))


async def is_authorised(conn: Connection, caller: Caller, company_id: str) -> bool:
    """Step 4: the caller may act for the company, and the company exists."""
    if not caller.may_act_for(company_id):
        return False
    return bool(await fetch_value(conn, "company_exists", company_id=company_id))


async def read_flags(conn: Connection, company_id: str) -> ReplayFlags:
    """Step 6: decided by is_feature_enabled alone, never cached."""
    row = await fetch_row(conn, "replay_flags", company_id=company_id)
    if row is None:
        raise unavailable()
    return ReplayFlags(*row)


async def is_paused(conn: Connection, company_id: str, lock_timeout_ms: int) -> bool:
    """Step 8: everybody or this tenant is paused."""
    row = await fetch_row(conn, "is_paused", company_id=company_id, lock_timeout=f"{lock_timeout_ms}ms")
    return row is None or bool(row[0])
