"""A database whose flag is on."""

from tests.gates.act.flagged import database

__all__ = ["database"]
