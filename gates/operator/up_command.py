"""`gate up`: the options of the stack, and its variables in other formats."""

import argparse
import json
import shlex
from collections.abc import Callable, Mapping

from gates.reports.console import Console
from gates.stack import up as stack_up


def _dotenv(value: str) -> str:
    """In single quotes, in which readers of dotenv files expand nothing."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


FORMATS: dict[str, Callable[[Mapping[str, str]], str]] = {
    "json": lambda variables: json.dumps(dict(variables)) + "\n",
    "env": lambda variables: "".join(f"export {k}={shlex.quote(v)}\n" for k, v in variables.items()),
    "dotenv": lambda variables: "".join(f"{k}={_dotenv(v)}\n" for k, v in variables.items()),
}


def add_arguments(made: argparse.ArgumentParser, _name: str) -> None:
    stack_up.add_arguments(made)
    made.add_argument(
        "--format", choices=FORMATS, default="json", help="how the variables are printed; env: for a shell's eval"
    )


def carry_out(options: argparse.Namespace, console: Console) -> int:
    """Run until a signal; returns its exit code."""
    form = FORMATS[options.format]
    return stack_up.up(
        stack_up.options_of(options), console.environ, lambda found: console.reveal(form(found)), console.say
    )
