"""What a deployment says that it has not is judged by no check, and takes nothing of the floor away."""

import datetime as dt
from collections.abc import Mapping
from pathlib import Path

import pytest

from gates.catalogue import load as read_catalogue
from gates.contract.contract import contract
from gates.contract.names import names_of
from gates.decision.floor import not_claimed, on_floor
from gates.decision.policy_file import parse
from gates.deployment.dialect.current import use
from gates.deployment.dialect.places import AbsentMember
from gates.deployment.dialect.words import HttpWords
from gates.deployment.requests import mint_token
from gates.text.patterns import matches
from loadtests.engine.wire import parse_address
from loadtests.engine.workload import Workload
from loadtests.plan import Credentials, LoadPlan, Tenant

CHECKS = {s.id: s for s in read_catalogue()}
TODAY = dt.date(2026, 1, 1)
POLICY = """version: 1
contract: {claims: [replay, tenancy, outbox, http]}
checks: {"load/checks{operation:status}/rate": {decides: hold}}
waivers:
  - {check: "load/http_req_duration{operation:probe}/p95", reason: r, owner: o, expires: 2026-02-01}
names:
  tables: {event_outbox: {absent: true}}
  own_tables: {app.allowance: merchant}
  http:
    paths: {"/events/{event_id}": null}
    fields: {force: null}
    signature: {v2: "ts={t};mac={hex}", signed: "{t}\\n{body}"}
"""


def test_every_pattern_matches_a_check_and_none_of_the_floor() -> None:
    """A promise that the floor needs is not left out by saying that something is not there."""
    for name, patterns in contract().lacking.items():
        for pattern in patterns:
            matched = [i for i in CHECKS if matches(i, (pattern,))]
            assert matched, f"{name}: {pattern} matches no check"
            assert not [i for i in matched if on_floor(i)], name


@pytest.mark.parametrize(
    ("check", "applies"),
    [
        ("sql/spot/replaying-items-are-on-their-way", False),
        ("load/checks{operation:status}/rate", False),
        ("load/checks{operation:probe}/rate", False),
        ("drill/safety-rails/force-string", False),
        ("load/checks{operation:replay}/rate", True),
        ("drill/proof/valid-signature-accepted", True),
    ],
)
def test_what_is_not_there_does_not_apply(check: str, applies: bool) -> None:
    """An absent table, path or member of a body, and pages that nobody claims. The policy names the checks by the ids
    that the gate prints.
    """
    policy = parse(POLICY, "gate.yaml", Path(), TODAY).policy(list(CHECKS.values()), "staging", "r", deep=False)  # type: ignore[arg-type]
    why = not_claimed(contract().placed(CHECKS[check]), policy.scope)
    assert (not why) == applies, why


def test_a_member_that_is_not_there_is_never_left_out_of_a_request() -> None:
    """Without it the request is another one, and may do more."""
    words = HttpWords(names_of({"http": {"fields": {"force": None, "max": "limit"}}}), {})
    assert words.body(b'{"max":1}') == b'{"limit":1}'
    with pytest.raises(AbsentMember, match="no body has force"):
        words.body(b'{"max":1,"force":true}')


def test_a_signature_with_a_time_alone_is_always_made_with_one() -> None:
    """A form without a time that nobody named is not sent."""
    words = HttpWords(names_of({"http": {"signature": {"v2": "ts={t};mac={hex}", "signed": "{t}\\n{body}"}}}), {})
    assert words.sign("s" * 32, b"x").startswith("ts=")


def _calls(given: Mapping[str, object], credentials: Credentials | None = None) -> tuple[list[str], bool, int]:
    """The paths that are probed, whether an event is sent, and how many replays."""
    use(names_of(given))
    plan = LoadPlan("http://127.0.0.1:1", tenants=(Tenant("a", ("1", "2")), Tenant("b", ("3", "4"))))
    work = Workload(plan, credentials or Credentials(hmac_secret="0123456789abcdef"), parse_address(plan.base_url))
    probes = [call.url for call in (work.call("probe") for _ in range(4)) if call is not None]
    replays = 0
    while work.call("replay") is not None:
        replays += 1
    return sorted(set(probes)), work.event() is not None, replays


def test_the_load_sends_what_is_claimed_and_there() -> None:
    """A request to what is not there fails, and is no failure of the release."""
    assert _calls({}) == (["/healthz", "/version"], True, 6)
    unclaimed = {"unclaimed": ["identity", "outbox", "dry-run"], "http": {"paths": {"/healthz": "/livez"}}}
    assert _calls(unclaimed) == (["/healthz"], False, 5)
    assert _calls({"http": {"paths": {"/version": None, "/events": None}}}) == (["/healthz"], False, 6)


def test_the_load_uses_no_token_of_a_tenant_for_another() -> None:
    """A service that takes the tenant from the token would replay what is real."""
    token = mint_token("s" * 32, {"role": "super_admin", "company_id": "real"})
    assert _calls({}, Credentials(admin_jwt=token)) == (["/healthz", "/version"], False, 0)
