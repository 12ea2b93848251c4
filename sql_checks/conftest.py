"""Loads the collector as a plugin of the whole run: the hooks of a conftest reach only files under its own folder."""

pytest_plugins = ["sql_checks.collector"]
