"""`gate run` in a third of the time: the same command, path, files and exit codes, but only the checks of the floor, a
few others, and one look at the data.

Its catalogue has no other checks, so it promotes the healthy reference. Only the proof runs it, as a program.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from typing import Any
from unittest import mock

from gates import __main__ as program
from gates import run
from gates.decision.floor import FLOOR
from gates.decision.policy_file import PolicyFile
from gates.evidence import CheckSpec
from gates.stages import collection
from gates.stages.context import Context, StageReport
from gates.stages.drill import drills
from gates.stages.sql import data
from gates.text.patterns import matches

CHECKS = (
    *FLOOR,
    *("preflight/*", "load/*", "drill/observability/series-are-there", "drill/observability/histograms-are-sound"),
)
"""Patterns of its checks: the floor, and a few that read more of what a target says."""
ON_LIVE_ROWS = ("preflight/*", "drill/pause/*", "drill/flags/*")
"""The drills that write rows that everybody uses: a kill must not leave those changed."""
Stage = AbstractContextManager[Callable[[], list[StageReport]]]


def main(words: Sequence[str]) -> int:
    """`drill` first: `gate drill`, with only the drills on live rows. The rest are options of the command."""
    drills_alone = words[:1] == ["drill"]
    patterns = ON_LIVE_ROWS if drills_alone else CHECKS
    all_checks: Callable[[PolicyFile, Mapping[str, str]], tuple[CheckSpec, ...]] = collection.with_own_checks

    def chosen(*given: Any) -> tuple[CheckSpec, ...]:
        return tuple(s for s in all_checks(*given) if matches(s.id, patterns))

    def drills_of(context: Context, *others: Any, **named: Any) -> Stage:
        return drills(replace(context, only=patterns), *others, **named)

    def after_alone(context: Context, when: str) -> Stage:
        return nullcontext(list) if when == "before" else data(context, when)

    with ExitStack() as patches:
        for module, name, value in (
            (collection, "with_own_checks", chosen),
            (run, "drills", drills_of),
            (run, "data", after_alone),
        ):
            patches.enter_context(mock.patch.object(module, name, value))
        return program.main(["drill" if drills_alone else "run", *words[drills_alone:]])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
