"""A statement that cannot run, for people."""

from dataclasses import dataclass
from enum import StrEnum

from gates.inputs.strict_yaml import Place


class ObstacleKind(StrEnum):
    """A cause; a consequence of an earlier cause; something outside the database; something that only a superuser or
    another server could run, so that it is not judged.
    """

    CAUSE = "cause"
    FOLLOWS = "follows"
    REFUSED = "refused"
    NOT_JUDGED = "not judged"


@dataclass(frozen=True, slots=True)
class Obstacle:
    """A statement that cannot run. `said`: the server's words. `meaning`, `remedy`: ours. `caused_by`: the place of the
    failed statement that caused it.
    """

    place: Place
    kind: ObstacleKind
    code: str
    said: str
    meaning: str
    remedy: str
    statement: str
    caused_by: Place | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """A meaning and a remedy, and the place if the server gave none."""

    meaning: str
    remedy: str
    offset: int | None = None
    kind: ObstacleKind = ObstacleKind.CAUSE
    caused_by: Place | None = None


def at(place: Place) -> str:
    """file:line:column."""
    return f"{place.file}:{place.line}:{place.column}"
