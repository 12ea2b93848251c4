"""The gate runner: collects evidence about a deployment, decides, acts on the flag, reports."""

import gc

gc.set_threshold(50_000)  # nothing made at startup becomes garbage: collecting took a sixth of the startup time


def gate_version() -> str:
    """The version of this package; 0 where it was copied rather than installed."""
    # loaded here: it takes long, and before __main__ a signal would end in a traceback
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415

    try:
        return version("replaygate")
    except PackageNotFoundError:
        return "0"
