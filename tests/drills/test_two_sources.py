"""Whether the target tells two addresses apart is seen at the target, not by a working connection."""

from urllib.parse import urlsplit

from gates.deployment.capabilities import claims
from gates.deployment.target import Target
from gates.deployment.tenants.leftovers import sweep
from gates.evidence import TargetKind
from gates.proof.workbench.relay import RelayOptions, relay
from gates.stack.postgres import connect


def at(variables: dict[str, str], base_url: str, kind: TargetKind = TargetKind.STAGING) -> Target:
    """The target at this URL."""
    secret = variables["TRANSBOT_HMAC_SECRET"]
    return Target(kind, base_url, hmac_secrets=(secret,), database_url=variables["DATABASE_URL"])


def test_a_port_forward_hides_the_second_source(variables: dict[str, str]) -> None:
    """Behind a relay all calls have its address; the probe's tenant is removed."""
    direct = variables["BASE_URL"]
    parts = urlsplit(direct)
    made: list[str] = []
    assert claims(at(variables, direct), made.append)["two-sources"] is True
    with relay(f"{parts.scheme}://{parts.netloc}", RelayOptions()) as base:
        hidden = base + parts.path
        assert claims(at(variables, hidden), made.append)["two-sources"] is False
        assert claims(at(variables, hidden, TargetKind.PRODUCTION))["two-sources"] is True
    assert len(made) == 2, "a company for each look on staging, none in production"
    with connect(variables["DATABASE_URL"]) as connection:
        left = connection.execute("select from public.companies where id = any(%s::uuid[])", (made,)).fetchall()
        hits = connection.execute(
            "select from public.edge_rate_limits where split_part(key, ':', 2) = any(%s)", (made,)
        ).fetchall()
    assert (left, hits) == ([], [])


def test_a_company_that_could_not_be_removed_is_removed_by_the_next_gate(variables: dict[str, str]) -> None:
    """A locked table keeps the probe's tenant; the next gate removes it."""
    made: list[str] = []
    with connect(variables["DATABASE_URL"]) as somebody:
        somebody.autocommit = False
        somebody.execute("lock table public.event_outbox in access exclusive mode")
        claims(at(variables, variables["BASE_URL"]), made.append)
    assert len(made) == 1
    sweep(variables["DATABASE_URL"])
    with connect(variables["DATABASE_URL"]) as connection:
        assert connection.execute("select from public.companies where id = any(%s::uuid[])", (made,)).fetchall() == []
