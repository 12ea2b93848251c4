"""A proxy may put its own request id beside the service's."""

import dataclasses
import uuid
from pathlib import Path

import pytest

from faults.proxy.server import Forward, Reply, Sent, proxy
from tests.drills.examination import examine, not_passed

NAME = "x-request-id"
READ_IT = (
    *("drill/audit/*", "drill/ledger/*", "drill/observability/request-id-in-the-trail"),
    *("drill/http-surface/request-ids", "drill/idempotency/duplicate-marked"),
)


@pytest.mark.parametrize("place", ["before", "after", "joined"])
def test_a_proxy_adds_ids_of_its_own(variables: dict[str, str], tmp_path: Path, place: str) -> None:
    """The contract says nothing of several request ids: a row that has one of them is the request's."""

    def adding(sent: Sent, forward: Forward) -> Reply:
        reply, own = forward(sent), uuid.uuid4().hex
        ids = [value for header, value in reply.headers if header.lower() == NAME]
        lines = {"before": [own, *ids], "after": [*ids, own], "joined": [f"{own}, {', '.join(ids)}"]}[place]
        rest = reply.without(NAME)
        return dataclasses.replace(rest, headers=(*rest.headers, *((NAME, one) for one in lines)))

    with proxy(variables["BASE_URL"], adding) as url:
        found = examine({**variables, "BASE_URL": url}, READ_IT, tmp_path)
    assert len(found) > 30
    assert not_passed(found) == {}
