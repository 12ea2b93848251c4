"""Step 9: what a tenant may still replay. Its row is locked before items are: parallel runs cannot overspend."""

from replay_service.database import Connection, fetch_value, run

DEFAULT_REMAINING = 500
"""Items left of an unused default budget (the daily limit; contract, section 3)."""


async def reserve(conn: Connection, company_id: str) -> int:
    """Items left today and this month; locks the budget row until the transaction ends. Negative: overspent."""
    left = await fetch_value(conn, "lock_budget", company_id=company_id)
    if left is None:
        await run(conn, "create_budget", company_id=company_id)
        left = await fetch_value(conn, "lock_budget", company_id=company_id)
    return 0 if left is None else int(left)


async def preview(conn: Connection, company_id: str) -> int:
    """The same amount without lock or row, for a dry run."""
    left = await fetch_value(conn, "read_budget", company_id=company_id)
    return DEFAULT_REMAINING if left is None else int(left)


async def charge(conn: Connection, company_id: str, items: int) -> None:
    """Charge `items` moved to the current periods; the row is locked by `reserve`."""
    await run(conn, "charge_budget", company_id=company_id, items=items)
