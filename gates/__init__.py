"""The gate runner: collects evidence about a deployment, decides, acts on the flag, reports."""

import gc
from importlib.metadata import PackageNotFoundError, version

gc.set_threshold(50_000)  # what a start makes stays: to look for garbage among it was a sixth of the start


def gate_version() -> str:
    """The version of this package; 0 where it was copied, and not installed."""
    try:
        return version("replaygate")
    except PackageNotFoundError:
        return "0"
