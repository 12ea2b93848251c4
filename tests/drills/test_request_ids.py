"""A proxy may put its own request id beside the service's."""

import dataclasses
import uuid
from pathlib import Path

from faults.proxy.server import Forward, Reply, Sent, proxy
from tests.drills.examination import examine, not_passed

NAME = "x-request-id"
READ_IT = (
    *("drill/audit/*", "drill/ledger/*", "drill/observability/request-id-in-the-trail"),
    *("drill/http-surface/request-ids", "drill/idempotency/duplicate-marked"),
)


def test_a_proxy_adds_ids_of_its_own(variables: dict[str, str], tmp_path: Path) -> None:
    """The contract says nothing of several request ids: a row that has one of them is the request's, whether the
    others come before it, after it or in the same line.
    """

    def adding(sent: Sent, forward: Forward) -> Reply:
        reply = forward(sent)
        before, beside, after = (uuid.uuid4().hex for _ in range(3))
        ids = [f"{beside}, {value}" for header, value in reply.headers if header.lower() == NAME]
        rest = reply.without(NAME)
        return dataclasses.replace(rest, headers=(*rest.headers, *((NAME, one) for one in (before, *ids, after))))

    with proxy(variables["BASE_URL"], adding) as url:
        found = examine({**variables, "BASE_URL": url}, READ_IT, tmp_path)
    assert len(found) > 30
    assert not_passed(found) == {}
