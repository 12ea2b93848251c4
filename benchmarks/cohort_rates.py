"""How often the comparison of cohorts is wrong, and how long it takes: a seeded model of a fleet under a step.

Every tenant has a share of bad events of its own, before the step and after it; events come evenly, and the watch looks
every ten minutes for an hour, which is the bake. A look reads as many events as it reads of a database, and no more.
`decision_rates.py` makes the tables of docs/decision.md from it.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

from gates.decision import cohorts
from gates.evidence import Outcome

LIMITS = cohorts.CohortLimits()
MARGIN = LIMITS.margin_points / 100.0
LOOK_MINUTES, MINUTES = 10, 60
BASE, ALIKE = 0.01, 0.01
"""The mean share of bad events without the release, and how alike those of one tenant are (beta-binomial)."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """tenants, percent of them on, events of a tenant in an hour, by how much more of them is bad with the release.

    sizes: `equal`, `unequal` (lognormal), or `one` tenant with three fifths of all events; `one` is on, and the harm
    may be its alone.
    """

    tenants: int
    percent: int
    events: int
    harm: float = 0.0
    sizes: str = "equal"
    alone: bool = False
    all_alike: float = 0.0


class Decided(NamedTuple):
    """After how many minutes a look failed for the first time, and after how many one passed; None for never."""

    failed: int | None
    passed: int | None


def sizes(rng: random.Random, fleet: Fleet) -> list[int]:
    """Events of each tenant between two looks."""
    usual = fleet.events * LOOK_MINUTES / MINUTES
    if fleet.sizes == "unequal":
        return [max(1, round(usual * rng.lognormvariate(-0.5, 1.0))) for _ in range(fleet.tenants)]
    found = [max(1, round(usual))] * fleet.tenants
    if fleet.sizes == "one":
        found[0] = round(1.5 * usual * (fleet.tenants - 1))
    return found


def bad_of(rng: random.Random, events: int, share: float) -> int:
    """A binomial number, by inversion; of many, its normal approximation."""
    if events * share > 50.0:
        return min(events, max(0, round(rng.gauss(events * share, (events * share * (1.0 - share)) ** 0.5))))
    luck, chance, found = rng.random(), (1.0 - share) ** events, 0
    while luck > chance and found < events:
        luck -= chance
        chance *= (events - found) / (found + 1) * share / (1.0 - share)
        found += 1
    return found


def read(rng: random.Random, counts: Sequence[tuple[int, int]], most: float) -> list[tuple[int, int]]:
    """Bad events and events of each tenant, of which a look reads no more than `most` together."""
    share = min(1.0, most / sum(n for _, n in counts))
    if share == 1.0:
        return [*counts]
    some = [(bad, max(1, round(n * share))) for bad, n in counts]
    return [(min(n, bad_of(rng, bad, share)), n) for bad, n in some]


def looks(rng: random.Random, fleet: Fleet) -> Iterable[list[cohorts.TenantCounts]]:
    """What each look sees: of what came since the step, and of the hour before it."""
    per_look = sizes(rng, fleet)
    own = [rng.betavariate(BASE * (1 - ALIKE) / ALIKE, (1 - BASE) * (1 - ALIKE) / ALIKE) for _ in per_look]
    is_on = [rng.random() * 100.0 < fleet.percent for _ in per_look]
    is_on[0] = is_on[0] or fleet.sizes == "one"
    harmed = [on and (place == 0 or not fleet.alone) for place, on in enumerate(is_on)]
    after = [min(1.0, p + fleet.all_alike + fleet.harm * hit) for p, hit in zip(own, harmed, strict=True)]
    hour = [n * MINUTES // LOOK_MINUTES for n in per_look]
    drawn = [(bad_of(rng, n, p), n) for n, p in zip(hour, own, strict=True)]
    before, bad = read(rng, drawn, LIMITS.most_events * cohorts.BEFORE_SHARE), [0] * fleet.tenants
    for look in range(1, MINUTES // LOOK_MINUTES + 1):
        for place, n in enumerate(per_look):
            bad[place] += bad_of(rng, n, after[place])
        since = read(
            rng, [(b, look * n) for b, n in zip(bad, per_look, strict=True)], LIMITS.most_events * cohorts.BAKE_SHARE
        )
        yield [cohorts.TenantCounts(str(i), is_on[i], *since[i], *before[i]) for i in range(fleet.tenants)]


def decided(rng: random.Random, fleet: Fleet) -> Decided:
    """What an hour's looks come to. A watch goes on after a pass."""
    first: dict[Outcome, int] = {}
    for number, tenants in enumerate(looks(rng, fleet), 1):
        at = number * LOOK_MINUTES
        planned = tenants if at == MINUTES else None
        first.setdefault(cohorts.compare(tenants, MARGIN, LIMITS.fewest_tenants, planned).outcome, at)
    return Decided(first.get(Outcome.FAIL), first.get(Outcome.PASS))


def many(fleet: Fleet, runs: int, seed: str = "cohorts") -> Sequence[Decided]:
    """Repeated runs, with a seed for each fleet."""
    rng = random.Random(f"{seed} {fleet}")
    return [decided(rng, fleet) for _ in range(runs)]


def step(harm: float, percent: int = 50, tenants: int = 200, events: int = 100, **more: Any) -> Fleet:
    """A fleet with a release that does this harm."""
    return Fleet(tenants, percent, events, harm, **more)


HARMS = (0.0, MARGIN, 0.01, 0.02, 0.05)
FLEETS = (
    *(step(harm) for harm in HARMS),
    *(step(harm, percent=10) for harm in HARMS),
    *(step(harm, percent=10, events=1000) for harm in (0.0, MARGIN, 0.01)),
    *(step(harm, percent=10, sizes="unequal") for harm in (MARGIN, 0.05)),
    step(0.0, all_alike=0.02),
    step(MARGIN, sizes="one"),
    step(0.3, sizes="one", alone=True),
    *(step(harm, tenants=40) for harm in (0.0, MARGIN, 0.05)),
)

SHARES = (
    (40, 50, 0.5),
    (200, 10, 0.1),
    (200, 10, 0.2),
    (200, 50, 0.5),
    (200, 50, 0.3),
    (2000, 10, 0.1),
    (2000, 10, 0.14),
)
"""Tenants, the percent that is planned, and the share that is really on."""


def share_rows(runs: int, rate: Callable[[int, int], str]) -> list[list[str]]:
    """How often another share than was planned is found."""
    found = []
    for tenants, percent, share in SHARES:
        rng = random.Random(f"share {tenants} {percent} {share}")
        drawn = (sum(rng.random() < share for _ in range(tenants)) for _ in range(runs))
        risk = cohorts.DRAW_RISK if round(100 * share) == percent else cohorts.SHARE_RISK
        failed = sum(not cohorts.is_as_planned(on, tenants, percent, risk) for on in drawn)
        found.append([f"{tenants:,}", f"{percent} %", f"{100 * share:g} %", rate(failed, runs), "none"])
    return found


def rows(fleets: Iterable[Fleet], runs: int, rate: Callable[[int, int], str]) -> list[list[str]]:
    """The fleet, and how often and when it is rolled back and passes."""
    found = []
    for fleet in fleets:
        seen = many(fleet, runs)
        both = [[at for at in side if at is not None] for side in zip(*seen, strict=True)]
        cells = [cell for side in both for cell in (rate(len(side), runs), f"{median(side):.0f} min" if side else "")]
        sizes_of = {"equal": "", "unequal": ", unequal", "one": ", one of three fifths"}[fleet.sizes]
        did = f"{100 * fleet.harm:g} points worse" + " for that one" * fleet.alone
        did = f"all {100 * fleet.all_alike:g} points worse" if fleet.all_alike else did if fleet.harm else "nothing"
        found.append([f"{fleet.tenants}{sizes_of}", f"{fleet.percent} %", f"{fleet.events}", did, *cells])
    return found
