"""Tables take what the contract lets anybody write, and refuse what it says they refuse: tried, and rolled back."""

import pytest

from gates.checks.observation import Observer
from gates.evidence import CheckSpec, Severity, Where
from sql_checks.attempts.contract_writes import Expected, Written, wrong
from sql_checks.collector import WRITES

WRITES_S = 60.0
"""The stage ends earlier."""


def spec(name: str, claim: str, cost: str, *covers: str, severity: Severity = Severity.WARN) -> CheckSpec:
    """The spec of one check; what it writes is rolled back."""
    return CheckSpec(
        f"sql/writes/{name}", claim, cost, severity, Where.SELF_CLEANING, needs=("database",), covers=covers
    )


@pytest.fixture(scope="session")
def written(request: pytest.FixtureRequest) -> Written:
    """The results of all writes; each check judges its own."""
    return request.config.stash[WRITES].result(WRITES_S)


def _judge(written: Written, seen: Observer, *expected: Expected) -> None:
    """Judge the writes of these kinds; tables that this login may not write prove nothing. Nor does what follows a
    write that was cut short, since its row may be missing: then those of these kinds are unknown.
    """
    cut = next((n for n, (_, came) in enumerate(written) if came.is_cut_short), len(written))
    mine = [(one, came) for one, came in written[:cut] if one.expected in expected]
    bad = [f"{one.table}: {what}" for one, came in mine if (what := wrong(one, came))]
    seen.value(len(bad), 0, "attempts")
    if bad:
        seen.witness = list(bad)
        raise AssertionError(f"{len(bad)} observed, 0 allowed: {'; '.join(bad[:5])}")
    if any(one.expected in expected for one, _ in written[cut:]):
        one, came = written[cut]
        seen.unmet(f"{one.table}: {one.what}: {came.error}")
    tables = {one.table for one, _ in mine}
    taken = {one.table for one, came in written if one.expected is Expected.TAKEN and came.rows}
    shown = [one for one, came in mine if one.table in taken and (came.raised or not came.error)]
    if not shown:
        seen.unmet(f"this login may write none of {', '.join(sorted(tables))}, or the deployment has none")
    seen.count(len(shown))
    seen.control(f"{len(shown)} statements came to what the contract says")


@pytest.mark.check(
    spec(
        "contract-rows-are-taken",
        "Every table takes a row that gives only columns of the contract, in each of its states and from one to the"
        " next, however old it is and whatever another tenant has, commits it, keeps what was written, fills in"
        " what the row leaves out, and lets go of what is deleted; a limit may be lowered below what is used. What"
        " happens to a row, or to everybody's, changes no other row. No row of the trail can be changed or deleted,"
        " however old it is; each hashes to its hash. A flag's answer is that of the tenant's row, as its view shows,"
        " for every caller, and where it has none, the contract's at each percentage. Everybody's pause and flag keep"
        " what an operator writes (not tried on production).",
        "What was written against the contract (the release before, another producer) is refused, or writes rows that"
        " no replay takes; a letter that fails again is gone.",
        "N04",
        "N06",
        "N10",
    )
)
def test_contract_rows_are_taken(written: Written, seen: Observer) -> None:
    """Whatever refuses it: NOT NULL, CHECK, a domain, a key, a trigger."""
    _judge(written, seen, Expected.TAKEN, Expected.TYPED, Expected.FILLED, Expected.FIXED)


@pytest.mark.check(
    spec(
        "budget-is-kept",
        "Raising what is used of a budget above its limit is refused, for the day and for the month, and for the next"
        " ones.",
        "A replay can spend more than the limit.",
        "G01",
        severity=Severity.PAGE,
    )
)
def test_budget_is_kept(written: Written, seen: Observer) -> None:
    """A trigger may be there and watch one of the two alone."""
    _judge(written, seen, Expected.REFUSED)


@pytest.mark.check(
    spec(
        "keys-are-told-apart",
        "Two idempotency keys of a company that differ only in case or in a space are two keys, and an error type is"
        " matched exactly.",
        "A replay is answered with another one's result, and never runs.",
        "D15",
        "D17",
    )
)
def test_keys_are_told_apart(written: Written, seen: Observer) -> None:
    """Types and collations without case make one key of two."""
    _judge(written, seen, Expected.APART, Expected.UNLIKE)
