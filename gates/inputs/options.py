"""Options that several commands share. Each function adds one to a parser."""

import argparse
from pathlib import Path
from typing import Any

from gates.inputs import values
from gates.inputs.values import option

COMPANY, FLAG, FOLDER, RELEASE, REASON = map(
    option, (values.any_id, values.flag_key, values.folder, values.release, values.reason)
)
LIMIT = option(values.whole(0))


def general(made: argparse.ArgumentParser, *, nested: bool = False) -> None:
    """The options of every command. nested: for a subcommand, which then sets no defaults."""
    unset: dict[str, Any] = {"default": argparse.SUPPRESS} if nested else {}
    made.add_argument("--quiet", action="store_true", help="print only results and errors", **unset)
    made.add_argument("--env-file", metavar="FILE", help="variables for what the environment does not set", **unset)


def policy(made: argparse.ArgumentParser) -> None:
    made.add_argument("--policy", type=Path, metavar="FILE", help="the release policy (default: gate.yaml)")


def as_json(made: argparse.ArgumentParser) -> None:
    made.add_argument("--json", action="store_true", help="print the result as JSON on stdout")


def state(made: argparse.ArgumentParser, *, looked_at: bool = True) -> None:
    """looked_at: whether one that is no folder is an error of the command line."""
    said = "where to keep what later runs need (default: the policy's state, else gate-state)"
    made.add_argument("--state", type=FOLDER if looked_at else Path, metavar="DIR", help=said)


def dry_run(made: argparse.ArgumentParser) -> None:
    made.add_argument("--dry-run", action="store_true", help="change no flag; show what would be done to it")


def exit_zero(made: argparse.ArgumentParser) -> None:
    made.add_argument("--exit-zero-on", choices=("hold",), help="exit code 0 for a hold, too")


def folder(made: argparse.ArgumentParser) -> None:
    said = "the output of a run (default: gate-out)"
    made.add_argument("folder", type=Path, nargs="?", default=Path("gate-out"), metavar="DIR", help=said)


def output(made: argparse.ArgumentParser, default: str = "gate-out") -> None:
    said = f"where to write (default: {default})"
    made.add_argument("--output", type=FOLDER, default=Path(default), metavar="DIR", help=said)


def actor(made: argparse.ArgumentParser) -> None:
    said = "who acts, for audit rows (default: who started the CI job, else the login)"
    made.add_argument("--actor", type=option(values.actor), metavar="WHO", help=said)
