"""`gate completion SHELL`: the script that completes commands and options there."""

import argparse
import importlib

import shtab

from gates.reports.console import Console
from gates.text.inert import Terminal


def add_arguments(made: argparse.ArgumentParser, _name: str) -> None:
    made.add_argument("shell", choices=shtab.SUPPORTED_SHELLS, help='for example: eval "$(gate completion bash)"')


def carry_out(options: argparse.Namespace, console: Console) -> int:
    cli = importlib.import_module("gates.cli")  # it imports us when it is asked for us
    script = shtab.complete(cli.parser(*cli.COMMANDS), shell=options.shell)
    console.result(Terminal.document(script))
    return 0
