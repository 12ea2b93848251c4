"""The names of a deployment in use: SQL and HTTP of the contract become those of the target at its two doors."""
