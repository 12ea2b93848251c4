"""Errors of starting a stack, by who must act."""


class StackError(Exception):
    """The stack could not start or go on: the message says what was observed, what was allowed, where, what to do."""


class StackOptionError(StackError):
    """The stack was asked for something impossible; the user must change an option."""
