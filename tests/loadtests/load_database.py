"""Writes and reads of a load's database, for these tests."""

import uuid

from gates.deployment.sql.database import Connection, execute
from loadtests.plan import LoadPlan

PLAN = LoadPlan("http://127.0.0.1:1", run="t1", tenants_wanted=3)


def set_flag(db: Connection, key: str, percentage: int, company: str | None = None) -> None:
    execute(
        db, "delete from public.feature_flags where key = %s and company_id is not distinct from %s::uuid", key, company
    )
    execute(
        db,
        "insert into public.feature_flags (key, company_id, enabled, rollout_percentage) values"
        " (%s, %s::uuid, true, %s)",
        key,
        company,
        percentage,
    )


def a_company(db: Connection) -> str:
    company = str(uuid.uuid4())
    execute(db, "insert into public.companies (id, name) values (%s, 'drill-load-test')", company)
    return company
