"""How often the decisions are wrong: a seeded simulation of the code that decides, for the tables of docs/decision.md.

`python -m benchmarks.decision_rates --write` makes them anew (two processes, about ten minutes); `--runs N` and
`--only TABLE` make it shorter. Every cell has a seed of its own, so a part of the page can be repeated
(tests/gates/decision/test_rates.py).
"""

import argparse
import datetime as dt
import math
import random
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache, partial
from pathlib import Path

from benchmarks import baseline_rates, cohort_rates, mean_rates
from benchmarks.at_looks import Load, at_looks
from gates.decision.dependence import spread
from gates.decision.intervals import binomial_cdf, rate_bounds
from gates.evidence import Outcome, Severity
from sql_checks.rules.file import read_all_rules
from sql_checks.rules.judge import RuleSample, judge_proved
from sql_checks.rules.proof import Count, proved

RUNS = 2000
PAGE = Path(__file__).resolve().parent.parent / "docs" / "decision.md"
NOW = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
WINDOW_S = 600
RULE = next(rule for rule in read_all_rules() if rule.name == "agent-success")


def stalled(rng: random.Random, load: Load) -> list[bool]:
    """Which samples are bad. Stalls come after exponential gaps, and may have begun before the run."""
    n = int(load.most_s * load.per_s)
    gap_s = load.stall_s * (1.0 - load.bad) / load.bad
    at = -rng.random() * load.stall_s if rng.random() < load.bad else rng.expovariate(1.0 / gap_s)
    bad = [False] * n
    while at < load.most_s:
        first, end = (max(0, math.ceil(t * load.per_s - 0.5)) for t in (at, at + load.stall_s))
        for place in range(first, min(n, end)):
            bad[place] = True
        at += load.stall_s + rng.expovariate(1.0 / gap_s)
    return bad


def load_verdict(rng: random.Random, load: Load) -> tuple[str, float]:
    """pass, fail or unknown, and after how many seconds; it looks when the load stage looks."""
    bad = stalled(rng, load) if load.stall_s else []

    def until(at: float) -> int:
        n = int(at * load.per_s)
        bad.extend(rng.random() < load.bad for _ in range(n - len(bad)))
        return n

    return at_looks(load, bad, until, lambda place: (place + 0.5) / load.per_s)


def binomials(rng: random.Random, n: int, share: float, count: int) -> list[int]:
    """`count` random numbers of the binomial distribution of n and share."""
    return rng.choices(range(n + 1), cum_weights=_cumulated(n, share), k=count)


@lru_cache(maxsize=64)
def _cumulated(n: int, share: float) -> list[float]:
    return [binomial_cdf(k, n, share) for k in range(n + 1)]


def alert_verdict(bads: Sequence[int], n: int) -> str:
    """What `agent-success` (98 %) decides of tenants with so many failures in n tasks each."""
    total, bad = n * len(bads), sum(bads)
    rows = [RuleSample("all", 1 - bad / total, total, NOW, bad=bad)]
    rows += [RuleSample(f"t{i}", 1 - b / n, n, NOW, bad=b) for i, b in enumerate(bads)]
    return decided(rows)


def decided(rows: Sequence[RuleSample]) -> str:
    """The rule's decision on these rows of its query."""
    judged = judge_proved(RULE, rows, NOW)
    if judged.outcome is Outcome.PASS:
        return "promote"
    return "rollback" if judged.severity is Severity.PAGE else "hold"


def in_batches(rng: random.Random, tenants: Sequence[int], share: float, size: int) -> list[RuleSample]:
    """What the rule's query gives for ten minutes in which the tenants have so many tasks each, in batches of `size`
    that end in one second, and succeed or fail as a whole.
    """
    all_seconds: set[int] = set()
    all_bad_seconds: set[int] = set()
    rows = []
    for tenant, n in enumerate(tenants):
        sizes = [min(size, n - done) for done in range(0, n, size)]
        batches = [(tasks, rng.randrange(WINDOW_S), rng.random() < share) for tasks in sizes]
        bad = sum(tasks for tasks, _, fails in batches if fails)
        seconds, bad_seconds = {second for _, second, _ in batches}, {second for _, second, fails in batches if fails}
        all_seconds |= seconds
        all_bad_seconds |= bad_seconds
        rows.append(_row(f"t{tenant}", n, bad, len(seconds), len(bad_seconds)))
    return [_row("all", sum(tenants), sum(s.bad or 0 for s in rows), len(all_seconds), len(all_bad_seconds)), *rows]


def _row(subject: str, n: int, bad: int, groups: int, bad_groups: int) -> RuleSample:
    return RuleSample(subject, 1 - bad / n, n, NOW, bad=bad, groups=groups, bad_groups=bad_groups)


def differing(rng: random.Random, n: int, share: float, rho: float, count: int) -> list[int]:
    """Failures of tenants whose true rates differ: beta-binomial, with this correlation within a tenant."""
    a, b = share * (1 - rho) / rho, (1 - share) * (1 - rho) / rho
    return [sum(rng.random() < rate for _ in range(n)) for rate in (rng.betavariate(a, b) for _ in range(count))]


def repeat(seed: str, runs: int, once: Callable[[random.Random], str]) -> Counter[str]:
    """The verdicts of so many runs."""
    rng = random.Random(seed)
    return Counter(once(rng) for _ in range(runs))


def rate(count: int, runs: int) -> str:
    """Percent, and in brackets what it is at most with 95 % confidence."""
    most = rate_bounds(count, runs, 0.95)[1]
    return f"{100 * count / runs:.1f} ({100 * most:.1f})"


def table(head: str, rows: Iterable[Sequence[str]]) -> str:
    columns = head.count("|") + 1
    lines = [f"| {head} |", "|" + "---|" * columns, *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines)


def load_rows(runs: int, loads: Iterable[tuple[str, Load]]) -> list[list[str]]:
    """Name, true share, and the rates of the three verdicts with the mean time to them."""
    rows = []
    for name, load in loads:
        rng = random.Random(f"load {name} {load}")
        found = [load_verdict(rng, load) for _ in range(runs)]
        verdicts = Counter(verdict for verdict, _ in found)
        rates = [rate(verdicts[one], runs) for one in ("pass", "fail", "unknown")]
        rows.append([name, f"{100 * load.bad:.3g} %", *rates, f"{sum(at for _, at in found) / runs:.0f} s"])
    return rows


def quick(allowed: float, shares: Sequence[float], stall_s: float = 0.0) -> list[tuple[str, Load]]:
    """Runs of the quick profile at 50 samples a second."""
    name = f"stalls of {stall_s:g} s" if stall_s else "one by one"
    return [(name, Load(50, 10, 30, allowed, share, stall_s)) for share in shares]


def long_enough(stall_s: float) -> list[tuple[str, Load]]:
    """Runs that last sixty stalls, against a p95."""
    seconds = 60 * stall_s
    loads = (Load(5, seconds, seconds, 0.05, share, stall_s) for share in (0.005, 0.05, 0.2))
    return [(f"stalls of {stall_s:g} s, {seconds:g} s", load) for load in loads]


def fleet_verdict(rng: random.Random, tenants: int, n: int, share: float, rho: float = 0.0) -> str:
    """The rule's decision on a fleet that is drawn."""
    return alert_verdict(differing(rng, n, share, rho, tenants) if rho else binomials(rng, n, share, tenants), n)


def alert_rows(runs: int) -> list[list[str]]:
    """Fleets of tenants that are all alike, and such that differ."""
    fleets = [(20, n, share, 0.0) for n in (50, 200) for share in (0.001, 0.01, 0.02, 0.05)]
    fleets += [(200, n, share, 0.0) for n in (50, 200) for share in (0.001, 0.01, 0.02, 0.05)]
    fleets += [(2000, 50, share, 0.0) for share in (0.001, 0.01, 0.02)]
    fleets += [(20, 50, share, 0.03) for share in (0.01, 0.05)]
    fleets += [(1, n, share, 0.0) for n in (50, 61, 100, 200) for share in (0.001, 0.01, 0.05)]
    rows = []
    for tenants, n, share, rho in fleets:
        once = partial(fleet_verdict, tenants=tenants, n=n, share=share, rho=rho)
        found = repeat(f"alerts {tenants} {n} {share} {rho}", runs, once)
        rates = [rate(found[one], runs) for one in ("promote", "rollback", "hold")]
        rows.append([f"{tenants}{', differing' * bool(rho)}", f"{n}", f"{100 - 100 * share:g} %", *rates])
    return rows


def batch_verdict(rng: random.Random, tenants: Sequence[int], share: float, size: int) -> str:
    """The rule's decision on a fleet whose tasks fail in batches."""
    return decided(in_batches(rng, tenants, share, size))


def batch_rows(runs: int) -> list[list[str]]:
    """Healthy and bad fleets, in batches of two sizes."""
    fleets = (("20", [200] * 20, "200"), ("200, unequal", [50, 100, 400, 1000] * 50, "50 to 1,000"))
    rows = []
    for name, tenants, tasks in fleets:
        for size, share in ((5, 0.01), (20, 0.01), (5, 0.05), (5, 0.10)):
            once = partial(batch_verdict, tenants=tenants, share=share, size=size)
            found = repeat(f"batches {name} {size} {share}", runs, once)
            rates = [rate(found[one], runs) for one in ("promote", "rollback", "hold")]
            rows.append([name, tasks, f"{size}", f"{100 - 100 * share:g} %", *rates])
    return rows


def is_named(rng: random.Random, n: int, share: float) -> str:
    """Whether one bad tenant among 999 at 99 % is proved to be bad."""
    bads = [*binomials(rng, n, 0.01, 999), *binomials(rng, n, share, 1)]
    tenants = {str(i): Count(bad, n) for i, bad in enumerate(bads)}
    counts = {"all": Count(sum(bads), 1000 * n, spread((bad, n) for bad in bads)), **tenants}
    return "named" if "999" in proved(counts, 0.02) else "missed"


def beside_others(rng: random.Random, n: int, share: float) -> str:
    """What is decided of one bad tenant among 19 at 99 %."""
    return alert_verdict([*binomials(rng, n, 0.01, 19), *binomials(rng, n, share, 1)], n)


def named_rows(runs: int) -> list[list[str]]:
    """One tenant at 90 % or 95 %: how often it is named among 999 at 99 %, and how often not promoted among 19."""
    rows = []
    for n in (50, 100, 200, 300, 1000):
        named = [repeat(f"named {n} {bad}", runs, partial(is_named, n=n, share=bad))["named"] for bad in (0.1, 0.05)]
        held = [
            runs - repeat(f"held {n} {bad}", runs, partial(beside_others, n=n, share=bad))["promote"]
            for bad in (0.1, 0.05)
        ]
        rows.append([f"{n}", *(f"{100 * count / runs:.1f}" for count in (*named, *held))])
    return rows


OF_THE_LOAD = {
    "http_req_failed": (100.0, 0.02),
    "http_req_duration": (100.0, 0.05),
    "outbox_lag_ms": (18.0, 0.05),
    "agent_success": (23.0, 0.02),
    **{f"latency of {name}": (per_s, 0.05) for name, per_s in (("replays", 8.0), ("events", 18.0), ("probes", 25.0))},
    "checks of replays": (8.0, 0.05),
    **{f"checks of {name}": (per_s, 0.02) for name, per_s in (("events", 18.0), ("status", 30.0), ("probes", 25.0))},
}
"""Thresholds of a whole run: samples a second, and the share of bad ones that is allowed."""
HEALTHY = dict.fromkeys(OF_THE_LOAD, 0.0005)
DEPLOYMENTS: dict[str, tuple[dict[str, float], float, int]] = {
    "nothing fails": (dict.fromkeys(OF_THE_LOAD, 0.0), 0.0, 1),
    "1 of 2,000 fails, one tenant": (HEALTHY, 0.0005, 1),
    "1 of 2,000 fails, 20 tenants": (HEALTHY, 0.0005, 20),
    "1 of 100 fails, 20 tenants": (dict.fromkeys(OF_THE_LOAD, 0.01), 0.01, 20),
    "6 % of requests fail": ({**HEALTHY, "http_req_failed": 0.06}, 0.0005, 1),
    "10 % of requests are slow": ({**HEALTHY, "http_req_duration": 0.10}, 0.0005, 1),
    "8 % of replays are slow": ({**HEALTHY, "latency of replays": 0.08}, 0.0005, 1),
    "5 % of tasks fail": ({**HEALTHY, "agent_success": 0.05}, 0.05, 1),
}
"""Name -> the true share of bad samples of each threshold, that of the agents' tasks, and the number of tenants."""
ONLY_HOLDS = "latency of"


def gate_verdict(rng: random.Random, shares: dict[str, float], tasks: float, tenants: int) -> str:
    """A whole run: all shares of the load, independent of each other, and the rule for the agents' tasks."""
    found = [alert_verdict(binomials(rng, 200, tasks, tenants), 200)]
    for name, (per_s, allowed) in OF_THE_LOAD.items():
        verdict, _ = load_verdict(rng, Load(per_s, 10, 30, allowed, shares[name]))
        harm = "hold" if name.startswith(ONLY_HOLDS) else "rollback"
        found.append({"pass": "promote", "fail": harm, "unknown": "hold"}[verdict])
    return next((one for one in ("rollback", "hold") if one in found), "promote")


def gate_rows(runs: int) -> list[list[str]]:
    """The decision of a whole run for some deployments."""
    rows = []
    for name, (shares, tasks, tenants) in DEPLOYMENTS.items():
        found = repeat(f"gate {name}", runs, partial(gate_verdict, shares=shares, tasks=tasks, tenants=tenants))
        rows.append([name, *(rate(found[one], runs) for one in ("promote", "hold", "rollback"))])
    return rows


VERDICTS = "bad samples | true share | pass | fail | unknown | mean time"
MEANS = "latencies | true mean | pass | fail | unknown | mean time"
BASELINE = "the release | check | pass | fail | unknown | mean time"
COHORTS = "tenants | on | events an hour | the release | rollback | after | pass | after"
AROUND = tuple(share * 0.02 for share in (0.05, 0.25, 0.5, 1, 2, 5))
STALLS_S = (1.0, 4.0, 6.0)
TABLES: dict[str, tuple[str, Callable[[int], list[list[str]]]]] = {
    "load": (VERDICTS, partial(load_rows, loads=[*quick(0.02, AROUND), *quick(0.05, (0.01, 0.05, 0.10))])),
    "stalls": (VERDICTS, partial(load_rows, loads=[x for s in STALLS_S for x in quick(0.05, (0.005, 0.05, 0.2), s)])),
    "long": (VERDICTS, partial(load_rows, loads=[x for s in STALLS_S for x in long_enough(s)])),
    "alerts": ("tenants | tasks each | true success | promote | rollback | hold", alert_rows),
    "batches": ("tenants | tasks each | in batches of | true success | promote | rollback | hold", batch_rows),
    "named": (
        "tasks each | at 90 %: named among 1,000 | at 95 % | at 90 %: not promoted among 20 | at 95 %",
        named_rows,
    ),
    "cohorts": (COHORTS, partial(cohort_rates.rows, cohort_rates.FLEETS, rate=rate)),
    "means": (MEANS, partial(mean_rates.rows, rate=rate)),
    "baseline": (BASELINE, partial(baseline_rates.rows, rate=rate)),
    "share": (
        "tenants with events | planned | really on | fails | unknown",
        partial(cohort_rates.share_rows, rate=rate),
    ),
    "gate": ("deployment | promote | hold | rollback", gate_rows),
}
"""Name -> the head of a table, and what gives its rows from the number of runs."""


def one_table(name: str, runs: int) -> str:
    head, rows = TABLES[name]
    return table(head, rows(runs))


def page(runs: int, names: Collection[str]) -> str:
    """The page with the tables of these names made anew; all else stays as it was written."""
    with ProcessPoolExecutor(max_workers=2) as pool:
        made = dict(zip(names, pool.map(one_table, names, [runs] * len(names)), strict=True))

    def anew(old: re.Match[str]) -> str:
        return f"<!-- {old[1]} -->\n{made[old[1]].strip()}\n" if old[1] in made else old[0]

    text = re.sub(r"over [\d,]+ seeded", f"over {runs:,} seeded", PAGE.read_text(encoding="utf-8"))
    return re.sub(r"<!-- (\w+) -->\n(?:\|.*\n)+", anew, text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--only", nargs="*", choices=TABLES, default=list(TABLES), help="make these tables anew")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE}")
    options = parser.parse_args()
    text = page(options.runs, options.only)
    if options.write:
        PAGE.write_text(text, encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
