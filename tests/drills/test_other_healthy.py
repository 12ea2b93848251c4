"""Drills pass on healthy deployments that choose other values where the contract leaves them open."""

import dataclasses
import http.client
import itertools
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from faults.proxy.rewriting import json_of, problem, with_json
from faults.proxy.server import Defect, Forward, Reply, Sent, proxy
from gates.contract.names import UNCLAIMED
from gates.deployment.dialect.current import NAMES
from gates.deployment.requests import mint_token
from gates.deployment.sql.database import execute, script, session
from gates.evidence import Outcome, Severity
from gates.stack.plan import StackOptions
from gates.stack.stack import reference_stack
from tests.drills.examination import OVER_HTTP, examine, matching, not_passed
from tests.drills.test_named_dialect import CHECKS as IN_OTHER_WORDS

OF_ATTEMPTS = (
    "drill/outbox/failed-is-tried-again",
    "drill/outbox/failing-event-holds-its-key",
    "drill/outbox/dead-letter-once",
)

ROTATED = ("the-new-secret-of-32-characters!", "the-old-secret-of-32-characters!")
SET = {
    "WORKER_MAX_ATTEMPTS": "2",
    "TRANSBOT_HMAC_SECRET": ",".join(ROTATED),
    "REPLAY_JWT_AUDIENCE": "replay",
    "REPLAY_JWT_ISSUER": "https://issuer.example",
}


@pytest.fixture(scope="module")
def strict() -> Iterator[dict[str, str]]:
    """A deployment amid a rotation that requires v2, an audience and an issuer, gives up after two attempts, and
    writes each task once, when it is completed.
    """
    with reference_stack(StackOptions(history=False, variables=SET), os.environ) as stack:
        with session(stack.info.database_url) as connection:
            execute(
                connection,
                "insert into public.feature_flags (key, enabled, rollout_percentage)"
                " values ('security.signing_v2_required', true, 100) on conflict (key, company_id)"
                " do update set enabled = true, rollout_percentage = 100",
            )
            script(connection, LEAVES_NO_TASK)
        told = {**stack.info.variables(), **SET}
        yield {**told, "GATE_TARGET": "reference", "GATE_STACK_CONTROL": stack.info.control}


def test_two_attempts_are_enough(strict: dict[str, str], tmp_path: Path) -> None:
    """The number of attempts is the deployment's choice, as long as there is a second one."""
    found = examine(strict, OF_ATTEMPTS, tmp_path)
    assert set(found) == set(OF_ATTEMPTS)
    assert not_passed(found) == {}


def test_failed_attempts_leave_no_task(strict: dict[str, str], tmp_path: Path) -> None:
    """If a service writes only completed tasks, the drills write no others."""
    found = examine(strict, AFTER_A_FAILURE, tmp_path)
    assert set(found) == set(AFTER_A_FAILURE)
    assert not_passed(found) == {}


def _counts_of_its_own(sent: Sent, forward: Forward) -> Reply:
    """A service with its own names for a run's counts."""
    reply = forward(sent)
    shown = json_of(reply)
    if sent.method != "GET" or "target_count" not in shown:
        return reply
    counts = {name: shown[f"{name}_count"] for name in ("target", "success", "failure")}
    body = json.dumps({"status": shown["status"], "counts": counts}).encode()
    return dataclasses.replace(problem(200, ""), body=body)


def test_counts_may_have_names_of_their_own(variables: dict[str, str], tmp_path: Path) -> None:
    """The contract promises the counts, not their names."""
    check = "drill/lifecycle/run-counts-add-up"
    with proxy(variables["BASE_URL"], _counts_of_its_own) as url:
        found = examine({**variables, "BASE_URL": url}, [check], tmp_path)
    assert found[check].outcome is Outcome.PASS, found[check].message


def _order_of_its_own(sent: Sent, forward: Forward) -> Reply:
    """A service that lists ids in its own order, not in that of the claims."""
    reply = forward(sent)
    lists = ("items", "not_found", "ineligible")
    shown = {name: sorted(ids) for name in lists if isinstance(ids := json_of(reply).get(name), list)}
    return with_json(reply, **shown) if shown else reply


SWITCHED = (
    "drill/budgets/*",
    "drill/dlq/*",
    "drill/lifecycle/stop-refunds-the-rest",
    "drill/audit/refusal-budget-exhausted",
    "drill/rate-limit/exhausted-budget-counts",
    "drill/rate-limit/fourth-refused",
    "drill/dry-run/no-budget-like-real",
    "drill/dry-run/same-items-as-the-real-run",
    "drill/idempotency/refusal-by-*",
    "drill/flags/tenant-row-wins",
    "drill/flags/budget-switch-is-wired",
    "drill/outbox/delivered-once",
)

BUDGETS_FOR = (
    "update public.feature_flags set (enabled, rollout_percentage) = ({})"
    " where key = 'dlq.replay.budget_control' and company_id is null"
)
CANARY = (
    "update public.feature_flags set rollout_percentage = 5"
    " where key in ('outbox.enabled', 'dlq.replay.enabled') and company_id is null"
)
ODD_SETTINGS = (
    "datestyle = 'SQL, DMY'",
    "timezone = 'Asia/Kolkata'",
    "intervalstyle = 'iso_8601'",
    "bytea_output = 'escape'",
    "extra_float_digits = -15",
    "standard_conforming_strings = off",
    "default_transaction_isolation = 'serializable'",
    "default_transaction_read_only = on",
    "row_security = off",
    "quote_all_identifiers = on",
    "search_path = 'nowhere'",
)
LEAVES_NO_TASK = """
create function public.a_task_is_an_effect() returns trigger language plpgsql as $$ begin
  if current_user like 'replay_%' and (tg_op = 'UPDATE' or new.status <> 'completed') then return null; end if;
  return new;
end $$;
create trigger a_task_is_an_effect before insert or update on public.agent_tasks
  for each row execute function public.a_task_is_an_effect()
"""
AFTER_A_FAILURE = (
    "drill/outbox/unfinished-task-becomes-the-effect",
    "drill/outbox/effect-touches-only-its-event",
    "drill/flags/direct-effect-with-its-event",
)
UNDER_ODD_SETTINGS = (
    *("replay", "lifecycle", "outbox", "budgets", "audit", "flags", "idempotency", "rate-limit", "dlq"),
    *("dry-run", "tokens"),
)


@pytest.fixture(scope="module")
def oddly_set() -> Iterator[dict[str, str]]:
    """The variables of a deployment whose database has odd defaults for every session, keeps milliseconds and gives
    each session fifty numbers of the trail at a time, which controls budgets for one company in a hundred, calls a run
    failed of which every item failed, records new companies and changed flags in the trail, too, and dates effects by
    a clock that is a second behind.
    """
    with reference_stack(StackOptions(history=False), os.environ) as stack:
        with session(stack.info.database_url) as connection:
            name = str(connection.info.dbname)
            execute(connection, BUDGETS_FOR.format("true, 1"))
            execute(connection, CANARY)
            script(connection, Path(__file__).with_name("oddly_set.sql").read_text(encoding="utf-8"))
            execute(connection, "alter sequence public.audit_logs_id_seq cache 50")
            for setting in ODD_SETTINGS:
                connection.execute(f'alter database "{name}" set {setting}'.encode())
            execute(connection, "select pg_terminate_backend(pid) from pg_stat_activity where usename like 'replay_%'")
        yield {**stack.info.variables(), "GATE_TARGET": "reference", "GATE_STACK_CONTROL": stack.info.control}


def test_settings_of_the_database(oddly_set: dict[str, str], tmp_path: Path) -> None:
    """Service, worker and gate set in each session what they rely on: no default of a database changes an answer. Whom
    budgets are controlled for is the operator's to say, and so is the size of the canary. The contract says which items
    a replay takes first, not in which order the answer lists them. A proxy alone turns no check red: those of
    IN_OTHER_WORDS pass through one that changes every word.
    """
    asked = [*(f"drill/{promise}/*" for promise in UNDER_ODD_SETTINGS), "drill/statemachine/kept-programs", *SWITCHED]
    assert {*matching(OVER_HTTP)} <= {*matching(asked), *matching(IN_OTHER_WORDS)}
    with proxy(oddly_set["BASE_URL"], _order_of_its_own) as url:
        found = examine({**oddly_set, "BASE_URL": url}, asked, tmp_path, "--deep")
    assert len(found) > 150
    assert not_passed(found) == {}


def test_rotation_where_v1_is_refused(strict: dict[str, str], tmp_path: Path) -> None:
    """If v2 is required the older secret is tried with v2, so refusing v1 is right."""
    check = "drill/authentication/every-secret-of-the-list"
    found = examine(strict, [check], tmp_path)
    assert found[check].outcome is Outcome.PASS, found[check].message
    assert found[check].observed == 2


def test_older_secret_that_is_refused(strict: dict[str, str], tmp_path: Path) -> None:
    """An older secret that the deployment refuses with v2 is a failure."""
    check = "drill/authentication/every-secret-of-the-list"
    lacking = {**strict, "TRANSBOT_HMAC_SECRET": f"{ROTATED[0]},a-secret-that-nobody-knows-here!"}
    found = examine(lacking, [check], tmp_path)
    assert found[check].outcome is Outcome.FAIL, found[check].message


TOKEN_CHECKS = (
    "drill/proof/admin-token-accepted",
    "drill/proof/duplicate-short-circuits",
    "drill/proof/fourth-call-refused",
    "drill/idempotency/other-credentials-same-key",
    "drill/idempotency/key-generated",
    "drill/rate-limit/credentials-share",
    "drill/tokens/admin-accepted",
)


def test_admin_of_one_company(variables: dict[str, str], tmp_path: Path) -> None:
    """ADMIN_JWT may be limited to TEST_COMPANY_ID, and not valid for the drill's tenants."""
    claims = {"sub": "ops", "role": "company_admin", "company_id": variables["TEST_COMPANY_ID"]}
    own = mint_token(variables["REPLAY_JWT_SECRET"], {**claims, "exp": int(time.time()) + 3600})
    found = examine({**variables, "ADMIN_JWT": own}, TOKEN_CHECKS, tmp_path)
    assert set(TOKEN_CHECKS) <= set(found)
    assert not_passed(found) == {}
    unminted = {**variables, "ADMIN_JWT": own, "REPLAY_JWT_SECRET": ""}
    alone = examine(unminted, TOKEN_CHECKS[:1], tmp_path)[TOKEN_CHECKS[0]]
    assert alone.outcome is Outcome.UNKNOWN, alone.message


LIMITED = (
    "drill/rate-limit/fourth-refused",
    "drill/rate-limit/concurrent-exactly-three",
    "drill/rate-limit/row-as-documented",
    "drill/rate-limit/row-is-the-limit",
    "drill/rate-limit/spoofed-address-not-charged",
    "drill/rate-limit/window-rolls",
    "drill/ledger/counted-however-asked",
    "drill/ledger/refused-however-asked",
    "drill/proof/fourth-call-refused",
)


def test_balancer_of_several_addresses(variables: dict[str, str], tmp_path: Path) -> None:
    """Behind an untrusted balancer each of its addresses has its own limit, which is no fault."""
    turns = itertools.cycle(("127.0.0.5", "127.0.0.6"))
    target = urlsplit(variables["BASE_URL"])

    def balanced(sent: Sent, _forward: Forward) -> Reply:
        source = (next(turns), 0)
        upstream = http.client.HTTPConnection(target.hostname or "", target.port, 15, source_address=source)
        try:
            upstream.request(sent.method, target.path + sent.path, sent.body, dict(sent.headers))
            answer = upstream.getresponse()
            return Reply(answer.status, tuple(answer.getheaders()), answer.read())
        finally:
            upstream.close()

    with proxy(variables["BASE_URL"], balanced) as url:
        found = examine({**variables, "BASE_URL": url}, LIMITED, tmp_path)
    assert set(LIMITED) <= set(found)
    failed = {i: e.message for i, e in found.items() if e.outcome is Outcome.FAIL}
    assert not failed
    assert "2 addresses" in found["drill/proof/fourth-call-refused"].message


def test_release_under_way(variables: dict[str, str], tmp_path: Path) -> None:
    """Two releases at once hold without RELEASE, and page with it."""
    check, turns = "drill/identity/one-release-on-every-instance", itertools.count()

    def rolling(sent: Sent, forward: Forward) -> Reply:
        reply = forward(sent)
        old = sent.path == "/version" and next(turns) % 2
        return (
            dataclasses.replace(reply, body=json.dumps({**json_of(reply), "release": "old"}).encode()) if old else reply
        )

    with proxy(variables["BASE_URL"], rolling) as url:
        for release, severity in (("", Severity.WARN.value), (variables["RELEASE"], "")):
            told = {**variables, "BASE_URL": url, "RELEASE": release}
            found = examine(told, [check], tmp_path)[check]
            assert (found.outcome, found.severity) == (Outcome.FAIL, severity), found.message


NO_MORE_THAN_PROMISED = (
    "drill/outbox/same-event-id-once",
    "drill/outbox/event-as-sent",
    "drill/tokens/events-of-the-named-company",
    "drill/identity/documented-is-served",
)


def test_no_more_than_is_promised(variables: dict[str, str], tmp_path: Path) -> None:
    """A service may require a key for every event, and leave public routes undocumented."""

    def sparing(sent: Sent, forward: Forward) -> Reply:
        if sent.method == "POST" and sent.path == "/events" and b'"aggregate_key"' not in sent.body:
            return problem(400, "invalid_request", errors=[{"field": "aggregate_key", "message": "is required"}])
        reply = forward(sent)
        if sent.path != "/openapi.json":
            return reply
        paths = json_of(reply)["paths"]
        return with_json(reply, paths={p: v for p, v in paths.items() if "dlq-replay" in p or "events" in p})

    assert_green(variables, sparing, NO_MORE_THAN_PROMISED, tmp_path)


VARIANTS = ("drill/http-surface/path-variants", "drill/rate-limit/path-variants-share")
PAGE = Reply(200, (("Content-Type", "text/html"),), b"<html>Welcome</html>")


@pytest.mark.parametrize("told", [PAGE, problem(400, "invalid_request")], ids=["page", "malformed"])
def test_front_end_answers_unknown_paths(variables: dict[str, str], tmp_path: Path, told: Reply) -> None:
    """A front end may answer unknown paths with its page or a 400: that bypasses nothing."""

    def front_end(sent: Sent, forward: Forward) -> Reply:
        known = sent.path.partition("?")[0] in {"/dlq-replay", "/healthz", "/version", "/openapi.json"}
        return forward(sent) if known else told

    assert_green(variables, front_end, VARIANTS, tmp_path)


def test_wall_keeps_some_clients_out(variables: dict[str, str], tmp_path: Path) -> None:
    """A firewall that blocks robots by name is no fault of the service."""

    def wall(sent: Sent, forward: Forward) -> Reply:
        robot = not (sent.header("User-Agent") or "Mozilla").startswith("Mozilla")
        return dataclasses.replace(PAGE, status=403) if robot else forward(sent)

    assert_green(variables, wall, ("drill/authentication/nothing-else-opens",), tmp_path)


def assert_green(variables: dict[str, str], before: Defect, checks: tuple[str, ...], tmp_path: Path) -> None:
    """The checks pass with this proxy in front of the service."""
    with proxy(variables["BASE_URL"], before) as url:
        found = examine({**variables, "BASE_URL": url}, checks, tmp_path)
    assert set(checks) <= set(found)
    assert not_passed(found) == {}


def test_login_of_the_reference(variables: dict[str, str], tmp_path: Path) -> None:
    """Row-level security binds the reference's login, and the check sees it."""
    check = "drill/identity/service-login-is-bound"
    found = examine(variables, [check], tmp_path)
    assert found[check].outcome is Outcome.PASS, found[check].message
    assert found[check].observed == "replay_service"


def test_a_deployment_without_dry_runs(variables: dict[str, str], tmp_path: Path) -> None:
    """Where dry runs are not claimed, requests ask for items that nobody has: what is odd about them is seen, too."""
    checks = ("drill/safety-rails/*", "drill/authentication/*", "drill/http-surface/*")
    found = examine({**variables, NAMES: json.dumps({UNCLAIMED: ["dry-run"]})}, checks, tmp_path)
    assert not_passed(found) == {}


def test_budget_control_that_is_off(variables: dict[str, str], tmp_path: Path) -> None:
    """Budget control is the operator's choice."""
    with session(variables["DATABASE_URL"]) as connection:
        execute(connection, BUDGETS_FOR.format("false, 100"))
        try:
            found = examine(variables, SWITCHED, tmp_path)
        finally:
            execute(connection, BUDGETS_FOR.format("true, 100"))
    assert len(found) > 30
    assert not_passed(found) == {}


def test_recovery_is_green_on_the_reference(variables: dict[str, str], tmp_path: Path) -> None:
    """Every recovery drill passes if nothing is broken but by itself."""
    found = examine(variables, ["drill/recovery/*"], tmp_path, "--deep")
    assert not_passed(found) == {}


def test_audience_and_issuer(strict: dict[str, str], tmp_path: Path) -> None:
    """A service that has both, and takes no v1 beside a token either, passes the checks of tokens; the faults of the
    catalogue are services that have none.
    """
    claims = {"sub": "x", "role": "super_admin", "exp": 4_000_000_000, "aud": "replay", "iss": "https://issuer.example"}
    told = {**strict, "ADMIN_JWT": mint_token(strict["REPLAY_JWT_SECRET"], claims)}
    assert not_passed(examine(told, ["drill/tokens/*"], tmp_path)) == {}
