"""psql commands in migrations: most change nothing; some include SQL that the rehearsal has not seen."""

import re
from collections.abc import Sequence

from gates.rehearsal.obstacles import Obstacle, ObstacleKind
from gates.rehearsal.reading.splitting import SqlStatement

_BRING = re.compile(r"\\(?:i|ir|include|include_relative|gexec|copy|!)(?![a-z_])")


def unseen(skipped: Sequence[SqlStatement]) -> tuple[Obstacle, ...]:
    """The commands that run external SQL or programs, which the rehearsal did not see."""
    return tuple(
        Obstacle(
            one.place(),
            ObstacleKind.NOT_JUDGED,
            "psql",
            "not sent",
            f"{one.text.split()[0]} brings in what the rehearsal does not read",
            "Rehearse what it brings in as a file of its own, in its order",
            one.shown,
        )
        for one in skipped
        if one.meta and _BRING.match(one.text)
    )


def undecided(metas: Sequence[SqlStatement]) -> tuple[Obstacle, ...]:
    """The conditions whose values only the caller of psql knows."""
    what = "Whether it holds is not known, so all of its branches were run"
    do = r"Give the variable a value with \set, or rehearse each branch as a file of its own"
    return tuple(
        Obstacle(one.place(), ObstacleKind.NOT_JUDGED, "psql", "not sent", what, do, one.shown) for one in metas
    )


def with_word(skipped: Sequence[SqlStatement]) -> tuple[str, ...]:
    """A sentence about the commands that were skipped, each command once."""
    names = sorted({one.text.split()[0] for one in skipped})
    return (f"skipped, as psql alone knows them: {', '.join(names)} ({len(skipped)} lines)",) if names else ()
