"""The door to the load stage: its specs, its run, and what is removed after it."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import psycopg

from gates.deployment.target import Target
from gates.evidence import CheckSpec, Evidence


def _module() -> ModuleType | None:
    try:
        return importlib.import_module("gates.stages.load")
    except ModuleNotFoundError:
        return None


def specs() -> list[CheckSpec]:
    """The checks of the load stage."""
    module = _module()
    return list(module.SPECS) if module else []


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `gate load`."""
    module = _module()
    if module:
        module.add_arguments(parser)


def options_of_a_run() -> argparse.Namespace | None:
    """The load of a whole run: the quick profile, whose companies stay for the second look at the data.

    TEST_COMPANY_ID is spared: its few limited calls belong to the short drill.
    """
    module = _module()
    if module is None:
        return None
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return parser.parse_args(["--keep-tenants", "--spare-test-company"], argparse.Namespace(whole_run=True))


def runner(options: argparse.Namespace | None) -> Callable[[Target, Path], list[Evidence]] | None:
    """What runs the load stage with these options."""
    module = _module()
    if module is None or options is None:
        return None
    return lambda target, out: list(module.load(target, options, out))


def checks_of(target: Target, options: argparse.Namespace, out: Path) -> tuple[CheckSpec, ...]:
    """The checks that these options of `gate load` make. Raise ConfigError for a thresholds file of no use."""
    module = _module()
    return tuple(module.checks_of(target, options, out)) if module else ()


def clean_up(target: Target, out: Path) -> str:
    """Remove the companies that the load of a run left; why that was refused, or an empty string."""
    module = _module()
    if module is None:
        return ""
    try:
        module.clean_up(target, out)
    except psycopg.Error as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        return f"the companies in {module.FOLDER}/companies.txt were not removed: {said}. Delete them by hand"
    return ""
