"""The first release has no earlier deliveries for comparison."""

import pytest

from sql_checks.rules.run import measure
from tests.sql_checks.conftest import COMPANY, RULES, PlantedSession

DELIVERED = """
insert into public.event_outbox (company_id, event_type, payload, inserted_at, processed_at)
select %s, 'x', '{}', now() - make_interval(mins => %s, secs => 1.4), now() - make_interval(mins => %s)
from generate_series(1, 50)
"""


@pytest.mark.parametrize("times", [(1,), (1, 30)], ids=["no past", "a past"])
def test_under_one_and_a_half_seconds_nothing_is_slower(times: tuple[int, ...], planted: PlantedSession) -> None:
    """At 1.4 s the ratio is one, with earlier deliveries and without."""
    planted.planted.execute("delete from public.event_outbox")
    for minutes in times:
        planted.planted.execute(DELIVERED, (COMPANY, minutes, minutes))
    (sample,) = measure(RULES["performance-degradation"], planted.planted).samples
    assert sample.value == 1
    assert sample.samples == 50
