"""`gate prove`: the gate against deployments that are known to be bad, known to be good, and known to be nothing.

The faults live in the package `faults`, which is asked as a program and never imported.
"""
