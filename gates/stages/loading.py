"""The door to the load stage: its specs and its run."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from gates.evidence import CheckSpec, Evidence
from gates.target.deployment import Target


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


def runner(options: argparse.Namespace | None = None) -> Callable[[Target, Path], list[Evidence]] | None:
    """What runs the load stage with these options, or with its quick profile."""
    module = _module()
    if module is None:
        return None
    if options is None:
        parser = argparse.ArgumentParser()
        module.add_arguments(parser)
        options = parser.parse_args([])
    return lambda target, out: list(module.load(target, options, out))
