"""Scenarios: what is started when. The nouns of k6's executors, reduced to the four ways in which they differ."""

import enum
from dataclasses import dataclass

ITERATIONS_S = 600.0
"""k6's maxDuration, where none is given."""


class Executor(enum.StrEnum):
    """How iterations are started. A constant rate, or number of users, is a ramp with one level."""

    ARRIVALS = "arrivals"
    USERS = "users"
    SHARED = "shared iterations"
    EACH = "iterations of each user"


@dataclass(frozen=True, slots=True)
class Stage:
    """Go from the level before to `target` in `duration_s` seconds, in a straight line; at once in 0 s."""

    duration_s: float
    target: float


@dataclass(frozen=True, slots=True)
class Scenario:
    """One executor and its times, in seconds.

    level, stages: arrivals a second, or users. Without a stage the level lasts as long as the run.
    users: those who share the iterations; of arrivals how many may be open at once (0: as many as the process bears).
    duration_s: after so long no further iteration of a given number begins.
    grace_s, ramp_down_s: what an iteration under way may still take at the end, and where its user is taken away.
    exec: the operation, or the name of the request; all of them by turns where it is empty.
    """

    executor: Executor
    level: float = 0.0
    stages: tuple[Stage, ...] = ()
    users: int = 0
    iterations: int = 0
    duration_s: float = ITERATIONS_S
    start_s: float = 0.0
    grace_s: float = 30.0
    ramp_down_s: float = 30.0
    exec: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    """Tags of all its samples."""

    @property
    def is_counted(self) -> bool:
        """Whether it ends with a number of iterations."""
        return self.executor in {Executor.SHARED, Executor.EACH}

    @property
    def end_s(self) -> float | None:
        """When it is over at the latest; None: with the run."""
        if not self.is_counted and not self.stages:
            return None
        own = self.duration_s if self.is_counted else sum(stage.duration_s for stage in self.stages)
        return self.start_s + own

    @property
    def most_level(self) -> float:
        """Arrivals a second, or users, at most."""
        return max(self.level, *(stage.target for stage in self.stages), 0.0)


def steady(exec_: str, per_s: float) -> Scenario:
    """Arrivals of one kind at a fixed rate for the whole run."""
    return Scenario(Executor.ARRIVALS, per_s, exec=exec_)
