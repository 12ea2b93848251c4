"""Step 5: three requests per rolling five minutes, per tenant and client address, by the database clock."""

import psycopg

from replay_service.database import Connection, fetch_row
from replay_service.problems import Refusal, unavailable

ALLOWED = 3
WINDOW_S = 300


async def admit(conn: Connection, company_id: str, client: str) -> None:
    """Count the request, or raise Refusal: `rate_limited`, or `unavailable` where the store cannot be asked.

    The count is committed when this returns: the connection is in autocommit mode.
    """
    key = f"replay:{company_id}:{client}"
    try:
        row = await fetch_row(conn, "admit_request", key=key, allowed=ALLOWED, window_s=WINDOW_S)
    except psycopg.Error as error:
        raise unavailable() from error
    if row is None:
        raise unavailable()
    admitted, retry_after_s = row
    if not admitted:
        raise Refusal(
            "rate_limited",
            f"At most {ALLOWED} replay requests per {WINDOW_S} seconds for a company and client address.",
            headers={"retry-after": str(retry_after_s)},
        )
