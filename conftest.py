"""Plugins of every suite in this repository, and nothing else."""

pytest_plugins = ["gates.checks.recorder", "tests.postgres_fixture"]
