"""Report pages of typical runs over the whole catalogue, for the tests in a browser."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import replace

from gates import catalogue, reports
from gates.decision.decide import weigh
from gates.decision.rules import Policy
from gates.evidence import Evidence, JsonValue, Outcome, TargetKind
from gates.verdict import Action, Counts, Decision, Effect, Finding, Verdict, settle

CATALOGUE = catalogue.load()
RELEASE = "2026-01-02.1"
NOW = dt.datetime(2026, 1, 2, 12, 0, tzinfo=dt.UTC)
AT = (NOW - dt.timedelta(minutes=1)).isoformat()
REACHABLE, SIGNING, KEYS = (
    "preflight/target-reachable",
    "preflight/credentials/signing-secret",
    "sql/spot/replay-runs-unique",
)
LOAD: dict[str, JsonValue] = {
    "latency": {
        "samples": 900,
        "p50": 41.0,
        "p95": 220.0,
        "p100": 900.0,
        "steps": [8.9 * 1.047**n for n in range(101)],
    },
    "outbox_lag": {"samples": 90, "p50": 310.0, "p95": 1400.0, "p100": 2100.0, "steps": [21.0 * n for n in range(101)]},
    "timeline": [{"second": n, "requests": 30 + n % 7, "failed": 0, "p95": 180.0 + 9 * (n % 5)} for n in range(30)],
}
RUN: dict[str, JsonValue] = {
    "run_id": "0a1b2c3d",
    "gate": "0.1.0",
    "past": [
        {"decision": "promote", "release": "2026-01-01.4", "finished_at": "2026-01-01T10:00:00+00:00", "after": 10}
    ],
    "policy": {"rollout": {"flag": "outbox.enabled", "steps": [10, 50, 100], "bake_minutes": 60}},
    "stages": [
        {"stage": "drill", "seconds": 61.5, "error": ""},
        {"stage": "load", "seconds": 34.2, "error": "no answer at http://staging.example:8080/functions/v1/dlq-replay"},
    ],
}

BAD = {
    "success": "events without an effect within a minute",
    "dead-letters": "events with a dead letter",
    "lag-p95": "events that wait for more than 2.5 s",
}


def saw(check: str, outcome: Outcome = Outcome.PASS, **more: object) -> Evidence:
    return Evidence(check, outcome, **{"samples": 3, "started_at": AT, "release": RELEASE, **more})  # type: ignore[arg-type]


def evidence() -> dict[str, Evidence]:
    """Every check of the catalogue, passed, with the numbers that pictures are drawn from."""
    drills = {s.id for s in CATALOGUE if s.id.startswith("drill/")}
    seen = {s.id: saw(s.id, observed=200 if s.id in drills else None, limit=200) for s in CATALOGUE}
    seen["load/run-valid"] = saw("load/run-valid", details=LOAD)
    seen["watch/outbox-backlog"] = saw(
        "watch/outbox-backlog", details={"samples": [[2 * n, (40 - n) ** 2] for n in range(40)]}
    )
    numbers = {"load/http_req_duration/p95": (220.0, 500.0), "load/outbox_lag_ms/p95": (1400.0, 5000.0)}
    for check, (value, limit) in numbers.items():
        details = {"low": 0.9 * value, "high": 1.2 * value}
        seen[check] = saw(check, observed=value, limit=limit, unit="ms", details=details)
    seen |= {f"cohort/{name}": cohort(name) for name in ("success", "dead-letters", "lag-p95")}
    for name in ("alert/outbox-lag", "alert/dlq-size"):
        seen[name] = saw(name, observed=3.0, limit=10.0, unit="events", details={"limits": {"page": 10.0, "warn": 5.0}})
    known = {s.id for s in CATALOGUE}
    return {check: one for check, one in seen.items() if check in known or check.startswith("watch/")}


def cohort(name: str, outcome: Outcome = Outcome.PASS, *, more: float = 0.0, **rest: object) -> Evidence:
    """A comparison in which tenants with the flag on have `more` bad events."""
    sides: dict[str, JsonValue] = {
        side: {
            "tenants": tenants,
            "events": 90 * tenants,
            "mean": 0.006 + plus,
            "shares": [0.0, 0.002, 0.005 + plus, 0.011 + plus, 0.04 + plus],
        }
        for side, tenants, plus in (("on", 24, more), ("off", 211, 0.0))
    }
    details = {**sides, "difference": [more - 0.003, more, more + 0.003], "bad": BAD[name]}
    return saw(f"cohort/{name}", outcome, observed=100 * more, limit=0.5, unit="points", details=details, **rest)


def judged(changes: Mapping[str, Evidence], action: Action) -> tuple[Verdict, list[Evidence]]:
    lines = list({**evidence(), **changes}.values())
    policy = Policy(CATALOGUE, TargetKind.REFERENCE, release=RELEASE, deep=True)
    return settle(weigh(lines, policy, NOW), action, AT, NOW.isoformat()), lines


def unknown(check: str, message: str, blocked_by: str = "") -> Evidence:
    return saw(check, Outcome.UNKNOWN, message=message, blocked_by=blocked_by, samples=0)


def behind(cause: str, message: str) -> dict[str, Evidence]:
    """One cause, and every drill and load check behind it."""
    blocked = [s.id for s in CATALOGUE if s.id.startswith(("drill/", "load/"))]
    why = f"blocked by {cause}: {message}"
    return {cause: unknown(cause, message), **{check: unknown(check, why, cause) for check in blocked}}


def pages() -> dict[str, str]:
    """The report.html of each run, by name."""
    stays = Action("none", 10, 10, "nothing_to_do")
    off = Action("rollback", 50, 0, "done", "outbox.enabled was switched off in 0.02 s", flag="off")
    off = replace(off, recovery={"decision_to_off_s": 0.02, "in_flight": 0, "on_somewhere": False, "proved": True})
    twins: JsonValue = {"request": {"status": 200, "body": "{}"}, "twin": {"status": 422, "body": "{}"}}
    broken = saw(
        KEYS,
        Outcome.FAIL,
        observed=1,
        limit=0,
        unit="violations",
        samples=16,
        message="the unique constraint is missing",
        witness=twins,
        reproduce="gate sql --only 'sql/spot/replay-runs-unique'",
    )
    paged = saw(
        "alert/outbox-lag",
        Outcome.FAIL,
        observed=31.0,
        limit=10.0,
        unit="s",
        message="31 s; over 10 s is page; 400 samples. See runbooks.md#outbox-lag",
        details={"limits": {"page": 10.0, "warn": 5.0}, "runbook": "runbooks.md#outbox-lag"},
    )
    lost = cohort(
        "success",
        Outcome.FAIL,
        more=0.031,
        message="events without an effect within a minute: 3.7 % of the events of 24 tenants with the flag on, 0.6 % of"
        " 211 with it off; that is 3.10 points more, at least 2.80 points; allowed: 0.50 points; the worst is 2f1c: 9"
        " of 90. Take outbox.enabled back from 10 %",
        witness=[{"tenant": "2f1c", "bad": 9, "events": 90, "bad_before": 0, "events_before": 88}],
    )
    slower = saw(
        "load/baseline_slower_p95/rate",
        Outcome.FAIL,
        observed=0.83,
        limit=0.5,
        samples=412,
        message="the release alone was slower in 342 of 412 pairs; allowed: fewer than half",
    )
    stands = Action(
        "rollback",
        50,
        None,
        "failed",
        "a lock on feature_flags is held by session 4711",
        flag="on",
        by_hand="UPDATE feature_flags SET enabled = false, rollout_percentage = 0 WHERE key = 'outbox.enabled';",
    )
    stopped = {
        s.id: unknown(s.id, "the run was terminated in the stage drill")
        for s in CATALOGUE
        if s.id.startswith(("drill/", "load/", "sql/", "alert/"))
    }
    drills = [s for s in CATALOGUE if s.id.startswith("drill/")]
    lone = {s.id: unknown(s.id, f"reason {n} of many: nothing was seen of it") for n, s in enumerate(drills[:300])}
    runs = {
        "promote": judged({}, Action("promote", 10, 50, "done")),
        "hold": judged({KEYS: unknown(KEYS, "the query was refused: permission denied for table replay_runs")}, stays),
        "rollback": judged(
            {KEYS: broken, "sql/spot/audit-chain": unknown("sql/spot/audit-chain", "it took too long")}, off
        ),
        "unreachable": judged(behind(REACHABLE, "nothing answers at BASE_URL: connection refused"), stays),
        "wrong-secret": judged(behind(SIGNING, "the target refuses what TRANSBOT_HMAC_SECRET signs: 401"), stays),
        "unknowns": judged(lone, stays),
        "cohort": judged({lost.check: lost}, replace(off, from_percent=10)),
        "baseline": judged({slower.check: slower}, stays),
        "interrupted": judged(stopped, Action()),
        "alert": judged({paged.check: paged}, stays),
        "still-on": judged({KEYS: broken}, stands),
    }
    return {name: reports.render("html", verdict, lines, CATALOGUE, RUN) for name, (verdict, lines) in runs.items()}


def large(count: int, kind: str = "html") -> str:
    """A report with this number of findings, each with its own cause."""
    findings = tuple(
        Finding(f"sql/own/check-{n}", "fail" if n % 2 else "unknown", "warn", Effect.HOLD, f"row {n} is wrong")
        for n in range(count)
    )
    verdict = Verdict(
        Decision.HOLD, "much is wrong", RELEASE, counts=Counts(0, count // 2, count // 2), findings=findings
    )
    return reports.render(kind, verdict, [], (), RUN)
