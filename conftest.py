"""Plugins of every suite in this repository, and nothing else."""

pytest_plugins = ["gates.recorder", "tests.postgres_fixture"]
