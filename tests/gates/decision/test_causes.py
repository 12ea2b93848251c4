"""The order of findings: the worst harm to users is the headline, and its consequences come after it."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gates import catalogue
from gates.contract.contract import contract
from gates.contract.names import names_of
from gates.contract.remedies import ALTERED, FILE, _data, because, remedy_of
from gates.contract.scope import Scope
from gates.decision.causes import FIRST, HARM
from gates.decision.decide import weigh
from gates.decision.rules import Policy, PolicyRule
from gates.evidence import CHARGED, WAITED, Evidence, Outcome, TargetKind
from gates.verdict import Verdict, grouped
from tests.gates.decision.small_policy import NOW, saw

CATALOGUE = catalogue.load()
IDS = [s.id for s in CATALOGUE]
PROOF = "drill/proof/valid-signature-accepted"
SIGNED = "drill/authentication/signed-accepted"
RETRIED = "drill/lifecycle/failed-item-is-pending-again"
DEAD = {"symptom": "POST /dlq-replay answered 500"}


def judged(*bad: Evidence) -> Verdict:
    whole = [*bad, *(saw(i) for i in IDS if i not in {e.check for e in bad})]
    return weigh(whole, Policy(CATALOGUE, TargetKind.REFERENCE, deep=True), NOW)


def failed(check: str, **more: object) -> Evidence:
    return saw(check, Outcome.FAIL, message=f"{check} is broken", **more)


def test_a_service_that_answers_nothing_is_the_headline_and_not_a_missing_trigger() -> None:
    """Users feel that every replay answers 500; the missing trigger comes second, consequences last."""
    replays = [s.id for s in CATALOGUE if s.id.startswith(("drill/safety-rails/", "drill/dry-run/"))]
    verdict = judged(
        failed("sql/spot/budget-trigger"),
        saw(PROOF, Outcome.FAIL, message="every replay answers 500 (3 of 3 calls); allowed: 200", details=DEAD),
        *(failed(check, details=DEAD, severity="page") for check in replays[:20]),
        *(saw(check, Outcome.UNKNOWN, message=f"the control of {check}", details=DEAD) for check in replays[20:]),
    )
    assert verdict.reason == (
        f"{PROOF} failed: every replay answers 500 (3 of 3 calls); allowed: 200"
        f" (one cause, {len(replays)} checks behind it; and 1 more failed)"
    )
    first, second = grouped(verdict.deciding)
    assert [f.check for f in first] == [PROOF, *sorted(replays[:20])]
    assert [f.check for f in second] == ["sql/spot/budget-trigger"]
    assert {f.blocked_by for f in verdict.findings if f.outcome == "unknown"} == {PROOF}


def test_a_symptom_without_a_broken_service_joins_nothing() -> None:
    """If a plain replay is answered, two defects that both answer 500 stay two causes."""
    one, other = "drill/safety-rails/answer-adds-up", "drill/budgets/tenants-apart"
    verdict = judged(*(failed(check, details=DEAD, severity="page") for check in (one, other)))
    assert [len(group) for group in grouped(verdict.deciding)] == [1, 1]
    assert not any(f.symptom for f in verdict.findings)


@pytest.mark.parametrize(
    ("harm", "less"),
    [
        ("drill/tokens/foreign-company", "drill/tokens/company-claim-confusable"),
        ("drill/tokens/foreign-company", "drill/authentication/token-rights-apply-when-both-are-sent"),
        (PROOF, "sql/rls/other-tenants-hidden"),
        ("sql/spot/replay-runs-unique", PROOF),
        ("sql/rls/other-tenants-hidden", "sql/spot/outbox-one-state"),
        ("drill/outbox/order-within-a-key", "sql/spot/budget-trigger"),
        ("drill/proof/dry-run-changes-nothing", "drill/idempotency/dry-run-stores-no-key"),
        ("drill/tokens/random-signature", "drill/proof/dry-run-changes-nothing"),
        ("queue/proof/worked-off", "queue/failure-rate"),
        ("drill/outbox/effect-within-two-seconds", "drill/lifecycle/all-of-an-item-together"),
        ("queue/standstill", "queue/lag"),
        ("queue/lag", "queue/load/p95"),
        ("drill/budgets/tenants-apart", "sql/spot/audit-append-only"),
        ("drill/audit/update-refused", "sql/manifest/triggers"),
        ("sql/spot/audit-append-only", "drill/audit/update-refused"),
        ("drill/http-surface/trace", "sql/manifest/columns"),
        ("drill/proof/fourth-call-refused", "drill/budgets/tenants-apart"),
        ("load/answers_mixed/count", "drill/tokens/issuer"),
        ("drill/outbox/same-event-id-once", "drill/ledger/events-as-sent"),
    ],
)
def test_what_harms_users_more_is_named_first(harm: str, less: str) -> None:
    """Mixed answers come before leaks, then loss, limits, the audit trail, and the schema comes last."""
    for order in itertools.permutations((harm, less)):
        verdict = judged(*(failed(check, severity="page") for check in order))
        assert [f.check for f in verdict.deciding] == [harm, less]


def test_of_what_is_unknown_that_comes_first_on_which_most_depends() -> None:
    """The headline is the unknown check that blocks most others."""
    behind = [s.id for s in CATALOGUE if SIGNED in s.after]
    verdict = judged(
        saw("alert/agent-success", Outcome.UNKNOWN, message="too few samples"),
        saw(SIGNED, Outcome.UNKNOWN, message="the control did not hold"),
        *(saw(check, Outcome.UNKNOWN, message=f"blocked by {SIGNED}", blocked_by=SIGNED) for check in behind),
    )
    assert verdict.deciding[0].check == SIGNED
    assert verdict.behind([verdict.deciding[0]]) == len(behind)


def test_what_a_broken_switch_refuses_stands_behind_it() -> None:
    """If one tenant's pause stops all, refused dead letters come after the pause."""
    paused = {"symptom": "POST /dlq-replay answered 409 agents_paused"}
    cause, dead = "drill/pause/touches-only-its-tenant", "drill/dlq/item-without-event-id"
    blind = next(i for i in IDS if i.startswith("drill/dlq/") and i != dead)
    verdict = judged(
        failed(dead, details=paused, severity="page"),
        failed(cause, details=paused, severity="page"),
        saw(blind, Outcome.UNKNOWN, message="a control was refused", details=paused),
    )
    assert [f.check for f in verdict.deciding] == [cause, dead]
    assert [f.check for f in grouped(verdict.deciding)[0]] == [cause, dead]
    assert verdict.reason.startswith(f"{cause} failed: {cause} is broken (one cause, 2 checks behind it)")
    alone = judged(failed(dead, details=paused, severity="page"), failed("sql/spot/budget-trigger"))
    assert not any(f.symptom for f in alone.findings), "nothing of the pause failed: a symptom alone tells nothing"


@pytest.mark.parametrize(
    ("cause", "answer"),
    [
        ("drill/flags/bucket-formula", "403 feature_disabled"),
        ("sql/spot/flags-decided-by-formula", "403 feature_disabled"),
        ("sql/spot/fleet-not-paused", "409 agents_paused"),
        ("drill/pause/counts-from-the-next-request", "409 agents_paused"),
    ],
)
def test_what_switches_tenants_off_is_named_before_what_is_refused(cause: str, answer: str) -> None:
    """A wrong rollout formula or a paused fleet comes before refused requests and missing effects."""
    off = {"symptom": f"POST /dlq-replay answered {answer}"}
    wired, late = "drill/flags/replay-switch-is-wired", "drill/outbox/crowd-once-each"
    checks = [(PROOF, off), (wired, off), (late, {}), (cause, {}), ("drill/audit/update-refused", {})]
    verdict = judged(*(failed(check, details=details, severity="page") for check, details in checks))
    assert [f.check for f in verdict.deciding] == [cause, wired, PROOF, late, "drill/audit/update-refused"]
    assert verdict.reason.startswith(f"{cause} failed: {cause} is broken (one cause, 2 checks behind it; and 2 more")
    noted = judged(failed(PROOF, details=off, severity="page"), failed(cause, severity="warn"))
    assert [f.check for f in verdict.deciding][:1] == [cause]
    assert [f.check for f in noted.deciding] == [PROOF], "what does not roll back explains no rollback"


def test_another_release_than_meant_is_one_cause() -> None:
    """A wrong RELEASE is one cause, although a drill and the load also ask /version."""
    asks = ("load/checks{operation:probe}/rate", "drill/identity/one-release-on-every-instance")
    verdict = judged(*(failed(c, severity="page") for c in (*asks, "preflight/release")))
    assert verdict.deciding[0].check == "preflight/release"
    assert len(grouped(verdict.deciding)) == 1
    alone = judged(*(failed(c, severity="page") for c in asks))
    assert len(grouped(alone.deciding)) == 2, "without the cause each is one"


def test_a_target_that_is_not_ready_is_one_cause() -> None:
    """The drills that ask /readyz, too, stand behind the preflight that asked it first."""
    ready, drill = "preflight/ready", "drill/http-surface/ready"
    verdict = judged(failed(drill, details={"symptom": "GET /readyz answered 503"}), failed(ready))
    assert [[f.check for f in group] for group in grouped(verdict.deciding)] == [[ready, drill]]


def test_a_key_that_stays_in_progress_is_one_cause() -> None:
    """Every check that uses a key twice meets it; the check that proves it leads."""
    stuck = {"symptom": "POST /dlq-replay answered 409 in_progress"}
    twice, other = "drill/proof/duplicate-short-circuits", "drill/idempotency/payload-max"
    verdict = judged(*(failed(c, details=stuck) for c in ("drill/proof/admin-token-accepted", other, twice)))
    assert verdict.deciding[0].check == twice
    assert len(grouped(verdict.deciding)) == 1


def test_a_day_of_another_zone_is_named_before_what_is_not_given_back_for_it() -> None:
    """A refund that misses because of the day's time zone comes after the check of the zone."""
    day, refund = "drill/budgets/day-of-utc", "drill/lifecycle/stop-refunds-the-rest"
    verdict = judged(failed(refund, severity="page"), failed(day, severity="page"))
    assert [f.check for f in verdict.deciding] == [day, refund]


def test_an_error_of_the_service_is_looked_up_first() -> None:
    """After a server error the remedy is the service's log; where only the status is wrong, what changed it."""
    check = "drill/authentication/signed-accepted"
    assert remedy_of(check, seen="signed: observed 500 internal; allowed: 403").startswith("Read the service's log")
    assert remedy_of(check, seen="observed 503 in_progress; allowed: 200 or 409").startswith(ALTERED)
    assert remedy_of(check, seen="again: observed 429 rate_limited; allowed: 200") == remedy_of(check)
    hints = {"409 in_progress": "behind a pooler", "413": "proxy limits bodies"}
    assert all(hint in remedy_of(check, seen=f"again: observed {met}; allowed: 200") for met, hint in hints.items())
    assert remedy_of(check, "unknown", seen="observed 500 internal") == ""
    assert because("preflight/credentials/admin-token", "POST /x answers 503 to 3 calls") == "POST /x answers 503"


def test_who_met_a_server_error_comes_behind_who_saw_the_breach() -> None:
    """The drill that saw a wrong charge leads those that only met the 500 that followed."""
    error = {"symptom": "POST /dlq-replay answered 500"}
    saw_it, met_it = RETRIED, "drill/idempotency/key-generated"
    verdict = judged(failed(met_it, details=error, severity="page"), failed(saw_it, severity="page"))
    assert [f.check for f in verdict.deciding] == [saw_it, met_it]


def test_a_wrong_charge_is_named_by_a_check_of_budgets() -> None:
    """Every replay shows a wrong charge; a failed check of budgets leads the others."""
    seen = {"symptom": CHARGED}
    beside = [failed(c, details=seen, severity="page") for c in ("drill/tokens/rules-hold-for-every-caller", RETRIED)]
    assert judged(*beside).deciding[0].check == beside[0].check
    verdict = judged(*beside, failed("drill/budgets/tenants-apart", severity="page"))
    assert [[f.check for f in group] for group in grouped(verdict.deciding)] == [
        ["drill/budgets/tenants-apart", RETRIED, beside[0].check]
    ]


def test_a_load_that_fails_stands_behind_the_drill_that_saw_why() -> None:
    """The load, and drills that met only server errors, come after the drill that saw the reason."""
    load = failed("load/http_req_failed/rate", severity="page"), failed("load/checks{operation:event}/rate")
    met = failed("drill/tokens/two-parts", details={"symptom": "POST /events answered 500"}, severity="page")
    assert [f.check for f in judged(*load, met).deciding][:2] == [load[0].check, met.check]
    saw = failed("drill/flags/direct-effect-with-its-event", severity="page")
    assert judged(*load, saw).deciding[0].check == saw.check


def test_a_call_that_always_fails_is_named_by_its_drill() -> None:
    """The plainest replay fails, too: the load that fails is its consequence, as are the other drills that met it."""
    load = failed("load/http_req_failed/rate", severity="page")
    seen = {"details": {"symptom": "POST /dlq-replay answered 500"}, "severity": "page"}
    proof, other = failed("drill/proof/valid-signature-accepted", **seen), failed("drill/budgets/tenants-apart", **seen)
    groups = [[f.check for f in group] for group in grouped(judged(load, other, proof).deciding)]
    assert groups == [[proof.check, other.check, load.check]]


def test_who_waited_in_vain_comes_behind_who_saw_the_breach() -> None:
    """The manifest that saw a lost index leads the drills that only saw no effect come."""
    waited = failed("drill/lifecycle/unknown-run-is-not-found", details={"symptom": WAITED}, severity="page")
    lost = failed("sql/manifest/indexes", severity="page")
    assert [f.check for f in judged(waited, lost).deciding] == [lost.check, waited.check]


def test_two_that_see_the_formula_are_one_cause() -> None:
    """The check of real tenants and the drill of ten thousand ids judge the same function."""
    off = {"symptom": "POST /dlq-replay answered 403 feature_disabled"}
    both = [lacks("flags-decided-by-formula", "outbox.enabled"), failed("drill/flags/bucket-formula", severity="page")]
    verdict = judged(failed(PROOF, details=off, severity="page"), *both)
    assert [[f.check for f in group] for group in grouped(verdict.deciding)] == [
        ["sql/spot/flags-decided-by-formula", "drill/flags/bucket-formula", PROOF]
    ]


def test_a_prerequisite_that_is_unknown_comes_before_what_failed() -> None:
    """Refused tokens block a hundred checks; failures that follow from the refusal come after it."""
    token = "preflight/credentials/admin-token"
    verdict = judged(
        failed("drill/authentication/one-refusal", severity="warn"),
        saw(token, Outcome.UNKNOWN, message="ADMIN_JWT is refused"),
        *(saw(one.id, Outcome.UNKNOWN, blocked_by=token) for one in CATALOGUE if one.id.startswith("drill/tokens/")),
    )
    assert verdict.deciding[0].check == token
    assert verdict.reason.startswith(f"{token} is unknown: ADMIN_JWT is refused")


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from(IDS), min_size=1, max_size=12, unique=True), st.randoms(use_true_random=False))
def test_the_order_of_findings_hangs_on_what_was_found_alone(checks: list[str], chance: random.Random) -> None:
    """The verdict does not depend on the order of the evidence."""
    lines = [chance.choice([failed(c), failed(c, details=DEAD), saw(c, Outcome.UNKNOWN, details=DEAD)]) for c in checks]
    once = judged(*lines).dump()
    chance.shuffle(lines)
    assert judged(*lines).dump() == once


def test_every_area_has_a_place_and_every_pattern_a_check() -> None:
    """Every area is ranked, and every pattern of the ranking matches a check."""
    assert sorted(itertools.chain(*HARM)) == sorted(contract().areas)
    for pattern in FIRST:
        assert pattern == "evidence/*" or any(PolicyRule(pattern).matches(i) for i in IDS), pattern


def test_every_check_has_a_remedy_of_one_or_two_lines() -> None:
    """Every check has a short remedy, and every pattern of a remedy matches a check."""
    for check in IDS:
        assert 20 <= len(remedy_of(check)) <= 220, check
    assert remedy_of("sql/ours/of-the-user") == ""
    data = _data()
    assert list(data["areas"]) == list(contract().areas), FILE
    stale = [p for p in data["checks"] if not any(PolicyRule(p).matches(i) for i in IDS)]
    assert stale == []


def differs(kind: str, *differences: str, observed: int = 0) -> Evidence:
    return failed(
        f"sql/manifest/{kind}", severity="page", witness=list(differences), observed=observed or len(differences)
    )


def lacks(check: str, *subjects: str) -> Evidence:
    return failed(f"sql/spot/{check}", witness=[{"subject": s, "detail": "d", "witness": None} for s in subjects])


CONSTRAINT = "replay_runs.replay_runs_idempotency_key_company_id_key: missing: UNIQUE (idempotency_key, company_id)"


def test_one_dropped_constraint_is_one_cause() -> None:
    """Spot checks and manifest checks that name the same table are one cause."""
    verdict = judged(
        lacks("idempotency-constraints", "public.replay_runs"),
        lacks("replay-runs-unique", "public.replay_runs"),
        differs("constraints", CONSTRAINT),
        differs("indexes", CONSTRAINT.replace("UNIQUE", "CREATE UNIQUE INDEX")),
    )
    assert verdict.reason == (
        "sql/spot/replay-runs-unique failed: sql/spot/replay-runs-unique is broken (one cause, 3 checks behind it)"
    )
    assert [len(group) for group in grouped(verdict.deciding)] == [4]


def sees(check: str, *rows: str) -> Evidence:
    return failed(f"sql/rls/{check}", severity="page", witness=list(rows), observed=len(rows))


def test_a_table_without_row_security_is_one_cause() -> None:
    """Checks that see its rows are consequences; another table, or a right to all, is its own cause."""
    here, there = "public.events: 3 rows seen", "public.replay_runs (0): 2 rows seen"
    off, seen = lacks("rls-enabled", "public.events"), ("no-claims-see-nothing", "stranger-sees-nothing")
    verdict = judged(*(sees(check, here) for check in seen), off, sees("other-tenants-hidden", here, there))
    assert [len(group) for group in grouped(verdict.deciding)] == [3, 1]
    assert verdict.deciding[0].check == "sql/spot/rls-enabled"
    wide = judged(lacks("tenants-cannot-truncate", "public.events"), sees("stranger-sees-nothing", here))
    assert [len(group) for group in grouped(wide.deciding)] == [1, 1]


def test_companies_whose_replays_all_fail_are_the_cause_of_drills_with_such_a_one() -> None:
    """A token drill with such a tenant met its server error, not a refused token."""
    one, token = "load/companies_failing/count", "drill/tokens/admin-accepted"
    verdict = judged(failed(token, details=DEAD), failed(one))
    assert [[f.check for f in group] for group in grouped(verdict.deciding)] == [[one, token]]


@pytest.mark.parametrize("others", [[], [differs("constraints", CONSTRAINT)]], ids=["alone", "manifest"])
def test_the_replays_that_find_no_key_stand_behind_the_constraint(others: list[Evidence]) -> None:
    """Without the constraint each replay answers 5xx, so the table is to be mended."""
    busy = {"symptom": "POST /dlq-replay answered 503"}
    replays = [s.id for s in CATALOGUE if s.id.startswith("drill/dry-run/")]
    verdict = judged(
        lacks("replay-runs-unique", "public.replay_runs"),
        *others,
        failed(PROOF, details=DEAD),
        *(saw(check, Outcome.UNKNOWN, details=busy) for check in replays),
    )
    assert verdict.reason.endswith(f"(one cause, {len(replays) + 1 + len(others)} checks behind it)")
    assert {f.blocked_by for f in verdict.findings if f.outcome == "unknown"} == {"sql/spot/replay-runs-unique"}


@pytest.mark.parametrize(
    "other",
    [
        lacks("rls-enabled", "public.replay_runs"),  # of another area
        lacks("replay-runs-unique", "public.replay_runs_old"),
        lacks("replay-runs-unique", "public.replay_runs", "public.replay_runs_old"),
        differs("constraints", CONSTRAINT, "events.events_pkey: missing: PRIMARY KEY (id)"),
        differs("constraints", CONSTRAINT, observed=21),  # not all of them are shown
        differs("columns", "replay_runs_old.id: missing: uuid"),
    ],
    ids=["area", "table", "and-another-table", "and-another", "not-all", "other-name"],
)
def test_what_names_more_or_another_object_is_a_cause_of_its_own(other: Evidence) -> None:
    """Findings about different objects stay separate causes."""
    verdict = judged(lacks("idempotency-constraints", "public.replay_runs"), other)
    assert [len(group) for group in grouped(verdict.deciding)] == [1, 1]
    assert not any(f.symptom for f in verdict.findings)


def test_two_runs_are_two_causes() -> None:
    """Rows are no schema objects: findings about two runs stay separate."""
    verdict = judged(lacks("runs-not-stuck", "run 1"), lacks("run-counts", "run 2"))
    assert [len(group) for group in grouped(verdict.deciding)] == [1, 1]


def test_remedies_speak_of_the_deployments_objects() -> None:
    """Remedies use the deployment's names and limits; paths, parts of words and plain English stay."""
    names = names_of(
        {
            "tables": {
                "replay_runs": {"is": "hub.redrives", "columns": {"company_id": "shop"}},
                "events": {"is": "hub.notices"},
            },
            "functions": {"is_feature_enabled": {"is": "hub.open"}},
            "http": {"codes": {"batch_too_large": "TOO_MANY"}, "fields": {"max": "limit"}},
            "limits": {"batch": 20},
        }
    )
    scope = Scope(limits=names.own_limits, objects=names.spoken)
    assert Scope.from_json(scope.to_json()) == scope
    assert remedy_of("sql/spot/replay-runs-unique", scope=scope).startswith(
        "ALTER TABLE hub.redrives ADD UNIQUE (idempotency_key, shop)"
    )
    oversized = "drill/proof/oversized-batch-refused"
    assert remedy_of(oversized, scope=scope).startswith("Refuse `limit` over 20 with 400 `TOO_MANY`")
    assert remedy_of("drill/flags/x", scope=scope).startswith("Ask hub.open of the database")
    assert remedy_of(oversized).startswith("Refuse `max` over 50 with 400 `batch_too_large`")
    assert scope.in_its_words("rows of `events`, of public.events") == "rows of `hub.notices`, of hub.notices"
    others = "see sql_checks/replay_runs/x and replay_runs_old; so many events are late"
    assert scope.in_its_words(others) == others
