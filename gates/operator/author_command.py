"""`gate lint`, `gate explain`: for authors of checks and policies; neither needs a target."""

import argparse
import datetime as dt
import json

from gates import catalogue
from gates.errors import ConfigError
from gates.inputs import options as shared
from gates.operator import explain, lint
from gates.proof.workbench.programs import known_faults
from gates.reports.console import Console
from gates.stack import extra
from gates.text.inert import Terminal
from gates.text.quantity import with_unit


def add_arguments(made: argparse.ArgumentParser, name: str) -> None:
    if name == "lint":
        shared.policy(made)
        made.add_argument("--target", action="store_true", help="also check all names against DATABASE_URL")
        made.add_argument("--write", action="store_true", help="first regenerate the files that come from the code")
        return
    shared.as_json(made)
    made.add_argument("checks", nargs="*", metavar="ID", help="ids or globs, like 'drill/pause/*'; none: every check")
    made.add_argument("--promises", action="store_true", help="every promise, with its checks or why it has none")


def carry_out(options: argparse.Namespace, console: Console) -> int:
    """The exit code. Raise ConfigError if lint found something."""
    return (_lint if options.command == "lint" else _explain)(options, console)


def _lint(options: argparse.Namespace, console: Console) -> int:
    if options.write:
        console.say(f"written: {', '.join(lint.write(console.environ))}")
    found = lint.lint(options.policy, console.environ, dt.datetime.now(dt.UTC).date(), target=options.target)
    for problem in found.problems:
        console.result(problem)
    if found.problems:
        raise ConfigError(
            f"{with_unit(len(found.problems), 'problems')} in {found.checks} checks; allowed: none. See above"
        )
    names = ", and the names against the database" if options.target else ""
    console.say(f"{found.checks} checks, policy and waivers{names}: no problem found")
    if extra.lacking():
        console.say(f"not looked at: which faults turn a drill red; they need the reference: {extra.INSTALL}")
    return 0


def _explain(options: argparse.Namespace, console: Console) -> int:
    specs = catalogue.load()
    if options.promises:
        rows = explain.promises(specs)
        lines = [json.dumps(rows)] if options.json else explain.promises_text(rows)
    else:
        found = explain.explain(specs, options.checks, known_faults(console.environ))
        lines = [json.dumps([e.to_json() for e in found])] if options.json else explain.as_text(found)
    console.result(Terminal.of_lines(lines))
    return 0
