"""Generation of programs by Hypothesis: derandomised, so that the same programs run everywhere; other seeds by hand."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from drills.statemachine.programs import RULES, Program, Step

FIXED_SEED = 20241201
LARGEST_NUMBER = 30

OFTEN = ("add_items", "replay", "emit", "advance_clock")
"""Rules without which most others have nothing to work on."""

steps = st.builds(Step, rule=st.sampled_from((*RULES, *OFTEN, *OFTEN)), number=st.integers(0, LARGEST_NUMBER))


def programs(count: int, length: int, chosen_seed: int = FIXED_SEED) -> list[Program]:
    """So many programs of about that many steps, the same for the same seed."""
    found: list[Program] = []

    @seed(chosen_seed)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(steps, min_size=length, max_size=length + length // 2))
    def collect(program: list[Step]) -> None:
        found.append(tuple(program))

    collect()
    return found
