"""`gate doctor`: its options, what it prints and writes, its exit code."""

from __future__ import annotations

import argparse

from gates import config
from gates.contract.contract import contract
from gates.doctor.diagnosis import diagnose
from gates.doctor.report import as_json, as_text
from gates.errors import CannotWork, ConfigError
from gates.inputs import options as shared
from gates.reports.console import Console
from gates.text.inert import Terminal

TO_MEND = 10


def add_arguments(made: argparse.ArgumentParser, _name: str) -> None:
    """The options of `gate doctor`."""
    shared.policy(made)
    shared.as_json(made)
    made.add_argument("--all", action="store_true", help="also every column and member that is as the contract says")


def carry_out(options: argparse.Namespace, console: Console) -> int:
    """Look and tell. 0 where all that could be seen is there, 10 where something is to map or to mend.

    Raise ConfigError where there is nothing to look at, CannotWork where nothing answers.
    """
    target = config.load_target(console.environ)
    if not target.base_url and not target.database_url:
        raise ConfigError(
            "neither BASE_URL nor DATABASE_URL is set; allowed: at least one of them. Set what to look at"
        )
    found = diagnose(target, contract(), {}, "outbox.enabled")
    if not found.reached:
        raise CannotWork("; ".join(found.remarks))
    if options.json:
        console.result(Terminal.document(as_json(found)))
    else:
        console.result(as_text(found, contract(), colour=console.colours_results, whole=options.all))
    return 0 if found.is_complete else TO_MEND
