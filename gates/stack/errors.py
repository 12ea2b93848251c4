"""What can go wrong while a stack comes up, by who must act."""


class StackError(Exception):
    """The stack could not come up or go on: the message says what was observed, what was allowed, where, what to do."""


class StackOptionError(StackError):
    """The stack was asked for something that it cannot do; the user must change an option."""
