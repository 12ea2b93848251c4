"""Known-bad deployments: one small function, statement or event a fault, grouped by the promise that it breaks.

`python -m faults list` prints them; `python -m faults witness ID` says whether a fault is on, by a probe of its own.
A release never imports this package.
"""
