"""Outside its own drill tenants the gate sends no request that could have an effect."""

import json
import re

import pytest

from gates.contract.names import names_of
from gates.deployment.dialect.current import use
from gates.deployment.http import probes
from gates.deployment.requests import is_of_another_company, mint_token
from tests.sources import ROOT

SECRET = "a-secret-of-32-characters-or-more"
MAKERS = {
    "gates/deployment/requests.py",
    "gates/deployment/http/probes.py",
    "gates/deployment/capabilities.py",  # a dry run of a tenant of its own
    "gates/stages/preflight/pairing.py",  # likewise
    "gates/act/operations.py",  # what a person asked for
    "loadtests/engine/workload.py",  # tenants of its own, or what a person named
}


def test_no_probe_is_a_request_to_anybody() -> None:
    """A probe's body is no JSON, so that a service with a default for everything cannot act."""
    asked = [probes.bare(), probes.bare_get(), *probes.signed(SECRET, 1), *probes.with_token("a.b.c")]
    for request in asked:
        assert request.method == "GET" or request.body == probes.IMPOSSIBLE
        with pytest.raises(ValueError, match="Expecting"):
            json.loads(request.body)


def test_a_whole_body_is_a_dry_run_or_none() -> None:
    """A valid body is sent only where the deployment claims dry runs."""
    assert json.loads(probes.for_nobody("c", max=3)) == {"company_id": "c", "max": 3, "dry_run": True}
    for given in ({"unclaimed": ["dry-run"]}, {"http": {"fields": {"dry_run": None}}}):
        use(names_of(given))
        assert probes.for_nobody("c", max=3) == probes.IMPOSSIBLE


def test_only_one_place_shows_credentials_outside_of_own_tenants() -> None:
    """Only the listed modules build requests with credentials."""
    makes = re.compile(r"\b(signed_post|signed_post_v2|token_post|signed_get|token_get)\(")
    found = {
        str(path.relative_to(ROOT))
        for folder in ("gates", "loadtests", "sql_checks")
        for path in (ROOT / folder).rglob("*.py")
        if "proof" not in path.parts and makes.search(path.read_text(encoding="utf-8"))
    }
    assert found <= MAKERS


@pytest.mark.parametrize("role", ["company_admin", "super_admin"])
def test_a_token_that_names_a_tenant_is_of_no_other(role: str) -> None:
    """A token for another tenant is not used: the service may act for the token's tenant."""
    token = mint_token(SECRET, {"role": role, "company_id": "somebody"})
    assert is_of_another_company(token, "a-drill-tenant")
    assert not is_of_another_company(token, "somebody")
    assert not is_of_another_company(mint_token(SECRET, {"role": "super_admin"}), "a-drill-tenant")
    assert is_of_another_company(mint_token(SECRET, {"role": "company_admin"}), "a-drill-tenant")
