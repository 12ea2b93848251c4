"""`gate run` in a third of the time: the same command, path, files and exit codes, with fewer drills, a short load, and
no look at the data. What it leaves out is not in its catalogue, so the healthy reference is promoted by it.

Run as a program of its own, by the proof alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from unittest import mock

from gates import __main__ as program
from gates import lint, run
from gates.evidence import CheckSpec
from gates.policy_file import PolicyFile
from gates.stages.drill import drill

DRILLS = ("test_proof", "series_are_there", "histograms_are_sound", "no_tenants_in_labels")
"""Words of the names of the drills that it runs, as for `pytest -k`."""
CHECKS = (
    "preflight/",
    "drill/proof/",
    "drill/observability/series-are-there",
    "drill/observability/histograms-are-sound",
    "drill/observability/no-tenants-in-labels",
)
LOAD = "load/"
ON_LIVE_ROWS = ("test_pause", "test_flags")
"""The drills that write rows which everybody uses: what a kill must not leave as it is."""


def main(words: Sequence[str]) -> int:
    """`load` first: with the load. `drill` first: `gate drill`, with the drills on live rows alone. The rest are the
    options of the command.
    """
    mode, options = (words[0], words[1:]) if words[:1] in (["load"], ["drill"]) else ("", words)
    checks = {"": CHECKS, "load": (*CHECKS, LOAD), "drill": ("preflight/", "drill/pause/", "drill/flags/")}[mode]
    drills = ON_LIVE_ROWS if mode == "drill" else DRILLS
    all_checks: Callable[[PolicyFile, Mapping[str, str]], tuple[CheckSpec, ...]] = lint.with_own_checks
    with ExitStack() as patches:

        def replaced(module: object, name: str, value: object) -> None:
            patches.enter_context(mock.patch.object(module, name, value))

        replaced(
            lint, "with_own_checks", lambda *given: tuple(s for s in all_checks(*given) if s.id.startswith(checks))
        )
        replaced(run, "drill", partial(drill, selection=("-k", " or ".join(drills))))
        replaced(run, "data", lambda *_given, **_more: [])
        if mode != "load":
            replaced(run, "load", lambda *_given: [])
        return program.main(["drill" if mode == "drill" else "run", *options])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
