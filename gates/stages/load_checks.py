"""The checks of the load stage: the checklist's thresholds, and the same for each operation."""

from gates.evidence import CheckSpec, Severity, Where

RUN_VALID = "load/run-valid"
COVERED = {
    "run-valid": ("P01", "P04", "P09"),
    "outbox_drained/rate": ("P05",),
    **dict.fromkeys(("http_req_failed/rate", "answers_mixed/count", "companies_failing/count"), ("P03",)),
    **dict.fromkeys(("events_lost/count", "runs_lost/count"), ("P06",)),
    **dict.fromkeys(("db_connections_growth/count", "memory_growth_mb/count"), ("P08",)),
}
"""Lines of the list of checks; these checks are also P03, every other threshold is P02."""
OPERATIONS = {
    "replay": ("replay calls", 95),
    "event": ("events posted", 98),
    "status": ("questions for an event", 98),
    "probe": ("calls of /healthz and /version", 98),
}
"""The purposes of the load's calls: in words, and the percentage that must be answered as expected."""


def spec_of(name: str, claim: str, cost: str, *needs: str, severity: Severity = Severity.PAGE) -> CheckSpec:
    """The spec of `load/<name>`; all checks but the first are blocked if the measurement was invalid."""
    after = () if name == "run-valid" else (RUN_VALID,)
    lines = COVERED.get(name, ("P03",) if name.startswith("checks") else ("P02",))
    return CheckSpec(f"load/{name}", claim, cost, severity, Where.SELF_CLEANING, needs, after, lines)


SPECS: tuple[CheckSpec, ...] = (
    spec_of(
        "run-valid",
        "The load run was a measurement: every worker lived, the schedule was kept, the target answered.",
        "A run that measured the generator, or nothing, says nothing about the release.",
        severity=Severity.WARN,
    ),
    spec_of(
        "http_req_failed/rate",
        "Under load, fewer than 2 % of the requests fail.",
        "More than one request in fifty is lost to users.",
    ),
    spec_of(
        "http_req_duration/p95",
        "Under load, 95 % of the requests take less than 2.5 s from the moment they were due.",
        "Users wait; callers time out and retry, which makes the load worse.",
    ),
    spec_of(
        "outbox_lag_ms/p95",
        "Under load, 95 % of the events have their effect within 5 s of their commit.",
        "Events pile up faster than they are delivered.",
    ),
    spec_of(
        "outbox_lag_ms/avg",
        "Under load, the mean lag of the outbox stays under 2 s.",
        "Everything that follows from an event comes late.",
    ),
    spec_of(
        "agent_success/rate",
        "Under load, more than 98 % of the events' agent tasks succeed.",
        "Work is accepted and then not done.",
    ),
    spec_of(
        "dlq_items_count/count",
        "During the load run the dead-letter queue grows by fewer than 10 items.",
        "The release turns live events into dead letters.",
        "database",
    ),
    spec_of(
        "outbox_drained/rate",
        "Of the events of the load more than 95 % have come to an end ten seconds after it.",
        "What was accepted under load stays behind when the load is gone.",
        "database",
        severity=Severity.WARN,
    ),
    spec_of(
        "events_lost/count",
        "Every event that was acknowledged under load is in the database after it, and in the outbox if it goes there.",
        "The customer was told that the event is taken, and it is lost.",
        "database",
    ),
    spec_of(
        "runs_lost/count",
        "Every replay that was acknowledged under load is in the database after it.",
        "The operator was told that the dead letters are replayed, and nothing replays them.",
        "database",
    ),
    spec_of(
        "answers_mixed/count",
        "Under load, every answer is of its own request: it names the event, company and key that were sent, and the"
        " same commit of an event each time.",
        "A user sees, or acts upon, what belongs to somebody else.",
    ),
    spec_of(
        "companies_failing/count",
        "Under load, no company's replays all fail while others' succeed.",
        "A whole customer is down, and a rate over all of them hides it.",
        "database",
    ),
    spec_of(
        "db_connections_growth/count",
        "Through the load run, connections to the database that nobody uses do not grow steadily by ten.",
        "Connections leak: the database refuses everybody when they are used up.",
        "database",
        severity=Severity.WARN,
    ),
    spec_of(
        "memory_growth_mb/count",
        "Through the load run the memory of the service, as /metrics shows it, does not grow steadily by 50 MB.",
        "Memory leaks with every request: the service is killed under load, and again after every restart.",
        "memory-metric",
        severity=Severity.WARN,
    ),
    *(
        spec_of(
            f"baseline_slower_p{percent}/rate",
            f"Of the pairs of calls in which only the release or only BASELINE_URL was slower than the baseline's"
            f" p{percent} (the release: by the margin of the policy), fewer than half were the release's.",
            "Users wait longer than before the release.",
            "baseline",
            severity=Severity.WARN,
        )
        for percent in (50, 95)
    ),
    spec_of(
        "baseline_failed/rate",
        "Where the same call goes to the release and to BASELINE_URL, the release alone fails no more often than the"
        " margin of the policy.",
        "What worked before the release fails now.",
        "baseline",
    ),
    *(
        spec_of(
            f"http_req_duration{{operation:{name}}}/p95",
            f"Under load, 95 % of the {calls} alone take less than 2.5 s.",
            "Their users wait, and the many fast calls beside them hide it.",
            severity=Severity.WARN,
        )
        for name, (calls, _) in OPERATIONS.items()
    ),
    *(
        spec_of(
            f"checks{{operation:{name}}}/rate",
            f"Under load, more than {percent} % of the {calls} are answered with what was asked for.",
            "A failure of one operation, or answers that only look like success, are lost among all requests.",
        )
        for name, (calls, percent) in OPERATIONS.items()
    ),
)
