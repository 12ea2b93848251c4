"""When a delivery counts as out of order: only if no transaction's start explains the times."""

import uuid
from collections.abc import Sequence
from typing import Any, cast

import pytest

from drills.workbench.scene import Scene
from gates.checks.observation import Observer
from gates.deployment.sql.database import connect, execute
from gates.deployment.target import Target
from gates.deployment.tenants.tenants import Tenants
from gates.evidence import TargetKind


@pytest.mark.parametrize(
    ("written", "apart_ms", "ordered"),
    [((0, 1), 20, True), ((0, 1), 0, True), ((0, 1), 80, False), ((1, 0), 20, False), ((1, 0), -20, True)],
    ids=["begun early", "at once", "much later", "written first", "only written first"],
)
def test_order(written: Sequence[int], apart_ms: int, ordered: bool, migrated_url: str) -> None:
    """The first of two events of a key is processed `apart_ms` after the second; `written` is who was written first."""
    target = Target(TargetKind.STAGING, database_url=migrated_url)
    nothing = cast("Any", None)
    with connect(migrated_url) as connection:
        tenants = Tenants(connection, "order")
        scene = Scene(target, connection, nothing, tenants, Observer(target), nothing)
        company, events = tenants.create(), [str(uuid.uuid4()) for _ in range(2)]
        for index in written:
            execute(
                connection,
                "insert into public.event_outbox (event_id, company_id, event_type, payload,"
                " aggregate_key, processed_at)"
                " values (%s, %s, 'x', '{}', 'k', timestamptz '2025-01-01 12:00Z' + make_interval(secs => %s))",
                events[index],
                company,
                (1 - index) * apart_ms / 1000,
            )
        if ordered:
            scene.in_order(events)
        else:
            with pytest.raises(AssertionError, match="was delivered before"):
                scene.in_order(events)
