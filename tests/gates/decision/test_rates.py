"""The page of error rates: parts of it are simulated again, and its text agrees with template and code."""

import random
import re
from collections import Counter

import pytest

from benchmarks import baseline_rates, cohort_rates, mean_rates
from benchmarks import decision_rates as rates
from benchmarks.at_looks import Load
from gates.decision.intervals import rate_bounds
from loadtests.judgement.shares import ANYTIME_RISK, FIXED_RISK, RISK

PAGE = rates.PAGE.read_text(encoding="utf-8")
RUNS = 100


def rows_of(head: str) -> list[list[str]]:
    """The cells of all tables with this head."""
    found: list[list[str]] = []
    lines = iter(PAGE.splitlines())
    for line in lines:
        if line != f"| {head} |":
            continue
        next(lines)
        for row in lines:
            if not row.startswith("|"):
                break
            found.append(row.strip("| ").split(" | "))
    return found


def most(cell: str) -> float:
    """The upper bound, which is in brackets."""
    return float(cell.partition("(")[2].rstrip(")"))


def test_the_page_has_a_place_for_each_table() -> None:
    """A new table replaces the old one of its name; the text around it stays."""
    assert set(re.findall(r"<!-- (\w+) -->\n\|", PAGE)) == set(rates.TABLES)
    assert rates.page(rates.RUNS, []) == PAGE
    assert f"{rates.RUNS:,} seeded" in PAGE


def test_the_risk_is_split_and_not_doubled() -> None:
    """Both tests together keep the stated risk."""
    assert pytest.approx(RISK) == FIXED_RISK + ANYTIME_RISK == 0.05


def test_each_stated_rate_is_kept() -> None:
    """At the limit no wrong verdict is over 5 %, also with stalls in a run that is long enough."""
    seen = 0
    for name, share, passed, failed, *_ in rows_of(rates.VERDICTS):
        at_limit = share == "5 %" or (share == "2 %" and name == "one by one")
        if at_limit and (name == "one by one" or name.endswith("0 s")):
            seen += 1
            assert most(failed) <= 6.0, (name, share, failed)
            assert most(passed) <= (6.0 if name == "one by one" else 10.0), (name, share, passed)
    assert seen == 5
    healthy = [
        row for row in rows_of(rates.TABLES["alerts"][0]) if row[2] in {"99 %", "99.9 %"} and "differing" not in row[0]
    ]
    assert {row[0] for row in healthy} == {"1", "20", "200", "2000"}
    assert all(most(row[4]) <= 1.0 for row in healthy)
    assert all(most(row[5]) <= 3.0 for row in healthy if row[0] != "1")
    assert all(most(row[3]) <= 5.0 for row in rows_of(rates.TABLES["alerts"][0]) if row[2] == "95 %" and row[0] != "1")


def test_means_and_comparisons_keep_their_rates() -> None:
    """At the limit wrong verdicts are rare, and equal releases never fail."""
    at_limit = [row for row in rows_of(rates.MEANS) if row[1] == "100 % of the limit"]
    assert len(at_limit) == 3
    assert all(most(row[2]) <= 6.0 and most(row[3]) <= 5.0 for row in at_limit)
    compared = rows_of(rates.BASELINE)
    at_margin = [row for row in compared if "the margin" in row[0]]
    assert {row[1] for row in at_margin} == {f"`{name}`" for name in baseline_rates.CHECKS}
    assert all(most(row[2]) <= 5.0 and most(row[3]) <= 5.0 for row in at_margin)
    assert all(most(row[3]) <= 0.2 for row in compared if row[0].startswith(("equal", "both")))
    shares = rows_of(rates.TABLES["share"][0])
    assert all(most(row[3]) <= 0.5 for row in shares if row[1] == row[2])


@pytest.mark.parametrize("name", ["equal", "twice as slow"])
def test_a_release_is_compared_as_the_page_says(name: str) -> None:
    """With another seed and few runs: an equal release passes by its p50, one that is twice as slow fails."""
    release = next(one for one in baseline_rates.RELEASES if one.said == name)
    rng = random.Random(f"again {name}")
    found = {baseline_rates.verdicts(rng, release)["baseline_slower_p50"][0] for _ in range(8)}
    assert found == {"pass" if name == "equal" else "fail"}


def test_a_mean_is_judged_as_the_page_says() -> None:
    """With another seed and few runs: light tails are decided a fifth under the limit, and a quarter over it."""
    rng = random.Random("again")
    assert {mean_rates.verdict(rng, 0.5, 0.8)[0] for _ in range(5)} == {"pass"}
    assert {mean_rates.verdict(rng, 0.5, 1.25)[0] for _ in range(5)} == {"fail"}


@pytest.mark.parametrize(("allowed", "share"), [(0.02, 0.001), (0.02, 0.02), (0.05, 0.10)])
def test_a_threshold_of_the_load_decides_as_the_page_says(allowed: float, share: float) -> None:
    """With another seed and few runs, each of its rates lies within what chance allows."""
    rng = random.Random(f"again {allowed} {share}")
    load = Load(50, 10, 30, allowed, share)
    found = Counter(rates.load_verdict(rng, load)[0] for _ in range(RUNS))
    (row,) = [
        one for one in rows_of(rates.VERDICTS)[:9] if one[1] == f"{100 * share:.3g} %" and _limit_of(one) == allowed
    ]
    for verdict, cell in zip(("pass", "fail", "unknown"), row[2:5], strict=True):
        low, high = rate_bounds(found[verdict], RUNS, 0.999)
        assert low <= most(cell) / 100 + 1e-3, (verdict, cell, found)
        assert float(cell.partition(" ")[0]) / 100 <= high, (verdict, cell, found)


def _limit_of(row: list[str]) -> float:
    return 0.02 if rows_of(rates.VERDICTS).index(row) < len(rates.AROUND) else 0.05


@pytest.mark.parametrize(("tenants", "n", "share"), [(20, 50, 0.01), (1, 200, 0.05), (200, 200, 0.001)])
def test_an_alert_decides_as_the_page_says(tenants: int, n: int, share: float) -> None:
    """With another seed and few runs, each rate of the alerts is within chance."""
    rng = random.Random(f"again {tenants} {n} {share}")
    found = Counter(rates.fleet_verdict(rng, tenants, n, share) for _ in range(RUNS))
    wanted = [f"{tenants}", f"{n}", f"{100 - 100 * share:g} %"]
    (row,) = [one for one in rows_of(rates.TABLES["alerts"][0]) if one[:3] == wanted]
    for verdict, cell in zip(("promote", "rollback", "hold"), row[3:], strict=True):
        low, high = rate_bounds(found[verdict], RUNS, 0.999)
        assert low <= most(cell) / 100 + 1e-3, (verdict, cell, found)
        assert float(cell.partition(" ")[0]) / 100 <= high, (verdict, cell, found)


def test_the_whole_gate_promotes_nothing_bad_and_rolls_back_nothing_healthy() -> None:
    """As the page says: under one run in a hundred each, where nothing or one request in 2,000 fails."""
    stated = {row[0]: row for row in rows_of(rates.TABLES["gate"][0])}
    assert list(stated) == list(rates.DEPLOYMENTS)
    for name, (_, promote, _, rollback) in stated.items():
        good = name.startswith(("nothing", "1 of 2,000"))
        assert most(rollback if good else promote) <= (1.0 if good else 5.0), name
    rng = random.Random(9)
    assert {rates.gate_verdict(rng, *rates.DEPLOYMENTS["nothing fails"]) for _ in range(5)} == {"promote"}


def test_cohorts_decide_within_their_risk() -> None:
    """At the margin rollbacks stay under 1 % and passes under 5 %; equal cohorts are not rolled back."""
    seen = rows_of(rates.COHORTS)
    assert len(seen) == len(cohort_rates.FLEETS)
    for *_, did, failed, _, passed, _ in seen:
        if did == "0.5 points worse":
            assert most(failed) <= 1.0, did
            assert most(passed) <= 5.0, did
        if did in {"nothing", "all 2 points worse", "30 points worse for that one"}:
            assert most(failed) <= 0.2, did
