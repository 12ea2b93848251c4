"""A tenant's digest changes when a row is written, not when a table gets another column."""

from typing import Any, cast

import pytest

from drills.workbench.scene import Scene
from gates.checks.observation import Observer
from gates.deployment.sql.database import connect, execute
from gates.deployment.target import Target
from gates.deployment.tenants.tenants import Tenants
from gates.evidence import TargetKind

MINE = "(select id from public.dead_letter_queue where company_id = '{company}' limit 1)"


@pytest.mark.parametrize(
    ("statement", "changed"),
    [
        ("alter table public.dead_letter_queue add column note text", False),
        ("alter table public.dead_letter_queue add column note text not null default 'n'", False),
        ("alter table public.dead_letter_queue drop column error_message", False),
        ("update public.dead_letter_queue set status = status where company_id <> '{company}'", False),
        (f"update public.dead_letter_queue set status = status where id = {MINE}", True),
        (f"delete from public.dead_letter_queue where id = {MINE}", True),
        ("insert into public.replay_budgets (company_id) values ('{company}')", True),
    ],
)
def test_digest(statement: str, changed: bool, migrated_url: str) -> None:
    """A migration beside a drill leaves the digest as it was; a row that is written again changes it."""
    nothing = cast("Any", None)
    target = Target(TargetKind.STAGING, database_url=migrated_url)
    with connect(migrated_url, autocommit=False) as connection:
        tenants = Tenants(connection, "digest")
        scene = Scene(target, connection, nothing, tenants, Observer(target), nothing)
        company = tenants.create()
        tenants.add_items(company, 2)
        tenants.add_items(tenants.create(), 2)
        connection.commit()
        before = scene.digest(company)
        execute(connection, statement.replace("{company}", company))
        assert (scene.digest(company) != before) is changed
        connection.rollback()
        tenants.remove()
        connection.commit()
