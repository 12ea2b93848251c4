"""`gate prove`: tests the gate on deployments that are known to be bad, to be good, or to be none at all. The faults
are in the package `faults`, which is run as a program and never imported.
"""
