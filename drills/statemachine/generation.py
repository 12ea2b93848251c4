"""Generates programs by Hypothesis: the same everywhere for a seed."""

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from drills.statemachine.programs import FIXED_SEED, RULES, Program, Step

LARGEST_NUMBER = 30

OFTEN = ("add_items", "replay", "emit", "advance_clock")
"""Rules without which most others have nothing to work on."""

OPENING = ("resume", "advance_clock", "dry_run", "retry_other")
"""Once more of what is refused most of the time, and of what ends the refusals."""

DECK = (*RULES, *OFTEN, *OFTEN, *OPENING)


@st.composite
def decks(draw: st.DrawFn) -> Program:
    """Every rule, some more often, in random order: each program covers all rules."""
    rules = draw(st.permutations(DECK))
    numbers = draw(st.lists(st.integers(0, LARGEST_NUMBER), min_size=len(DECK), max_size=len(DECK)))
    return tuple(Step(rule, number) for rule, number in zip(rules, numbers, strict=True))


def programs(count: int, chosen_seed: int = FIXED_SEED) -> list[Program]:
    """`count` programs, the same for the same seed."""
    found: list[Program] = []

    @seed(chosen_seed)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(decks())
    def collect(program: Program) -> None:
        found.append(program)

    collect()
    return found
