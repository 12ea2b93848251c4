"""Whether service and database belong together, asked by a company that the gate has just written."""

import itertools
import json
from typing import Any

import pytest

from gates.deployment.requests import mint_token
from gates.deployment.target import Target
from gates.evidence import TargetKind
from gates.proof.workbench.servers import Asked, Reply, serve
from gates.stages.preflight import pairing
from tests.postgres_fixture import PgServer


@pytest.mark.parametrize(
    ("given", "apart"),
    [
        ({"jwt_secret": "j" * 32}, pairing.APART),
        ({"admin_jwt": mint_token("j" * 32, {"role": "super_admin"})}, pairing.APART),
        ({"admin_jwt": mint_token("j" * 32, {"role": "company_admin"})}, None),
        ({"jwt_secret": "j" * 32, "hmac_secrets": ("not-that-of-the-service",)}, pairing.APART),
    ],
)
def test_any_credential_asks_whether_a_database_is_that_of_the_service(
    given: dict[str, Any], apart: str | None, pg_server: PgServer, migrated_db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A super_admin token can ask, too: the service refuses it for a tenant of another database."""
    monkeypatch.setattr(pairing, "SEEN_S", 0.0)

    def answer(asked: Asked) -> Reply:
        known = asked.header("Authorization")
        return Reply(403 if known else 401, (), json.dumps({"code": "forbidden" if known else "no"}).encode())

    with serve(answer) as url:
        target = Target(TargetKind.STAGING, url, database_url=pg_server.url(migrated_db), **given)
        assert pairing.is_apart(target, lambda _company: None) is apart


def test_instances_of_two_databases_are_told(
    pg_server: PgServer, migrated_db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One instance knows the company and the other does not; a known pair of service and database excuses nothing."""
    monkeypatch.setattr(pairing, "SEEN_S", 0.0)
    turns = itertools.cycle((Reply(200), Reply(403, (), b'{"code": "forbidden"}')))
    with serve(lambda _asked: next(turns)) as url:
        target = Target(TargetKind.STAGING, url, database_url=pg_server.url(migrated_db), jwt_secret="j" * 32)
        assert pairing.is_apart(target, lambda _company: None, known=True) == pairing.SOME_APART
