"""The gate runner: collects evidence about a deployment, decides, acts on the flag, reports."""

import gc

gc.set_threshold(50_000)  # what a start makes stays: to look for garbage among it was a sixth of the start
