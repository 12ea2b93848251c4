"""What can go wrong with the gate itself, by who must act. What goes wrong with the target is evidence."""

import signal
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import TypeVar

Part = TypeVar("Part")

_ENDING = ("INT", "TERM", "HUP", "QUIT", "USR1", "USR2", "ALRM", "VTALRM", "PROF", "XCPU", "IO", "PWR")
ENDING_SIGNALS = frozenset(signal.Signals[f"SIG{name}"] for name in _ENDING if hasattr(signal, f"SIG{name}"))
"""What people, terminals, CI systems and batch systems end a process with, and what ends one by itself where nobody
takes it; not every system has each. SIGKILL cannot be taken; the others tell of an error in the program.
"""


STAYS = "look"
"""The name of a thread that may never come back from a library."""


class GateError(Exception):
    """Base: the gate cannot go on. The message says what was observed, what is allowed, where, and what to do."""

    exit_code = 1


class UsageError(GateError):
    """The command line asks for something that cannot be; the caller must act."""

    exit_code = 2


class ConfigError(GateError):
    """The configuration cannot be used; whoever wrote it must act."""

    exit_code = 3


MOST_MISTAKES = 20
"""So many mistakes one error tells; who mends them sees the rest with the next run."""


def raise_all(mistakes: Iterable[ConfigError]) -> None:
    """Raise the first of them as one error, a line each, where there are any."""
    found = list(islice(mistakes, MOST_MISTAKES + 1))
    if len(found) == 1:
        raise found[0]
    if found:
        said = [*dict.fromkeys(str(mistake) for mistake in found[:MOST_MISTAKES])]
        raise ConfigError("\n".join([*said, *["and more mistakes"] * (len(found) > MOST_MISTAKES)]))


def all_of(parts: Iterable[Callable[[], Part]], mistakes: Iterable[ConfigError] = ()) -> list[Part]:
    """What each part gives. Raise what is wrong in any of them, and the mistakes found before, as one error."""
    given: list[Part] = []

    def wrong() -> Iterator[ConfigError]:
        for part in parts:
            try:
                given.append(part())
            except ConfigError as error:
                yield error

    raise_all(chain(wrong(), mistakes))
    return given


class CannotWork(GateError):  # noqa: N818  -- reads as a sentence
    """The gate itself cannot work here (no stack, no disk, no suite); whoever runs it must act."""

    exit_code = 4


class NotRolledBack(GateError):  # noqa: N818  -- reads as a sentence
    """A rollback that could not be carried out, and no record of it either; somebody must run the SQL at once."""

    exit_code = 21


MOST_SAID = 20_000
"""Characters of an error that are looked at: a target may say a gigabyte, and each is searched for secrets."""


def of_file(error: OSError) -> str:
    """What the system says of a file that the message names already."""
    return error.strerror or str(error)


def first_line(error: BaseException) -> str:
    """The first line of the error's text, or its class if it has none."""
    return (str(error)[:MOST_SAID].strip() or type(error).__name__).splitlines()[0]
