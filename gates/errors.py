"""Errors of the gate itself, by who must act. What is wrong with the target is evidence, not an error."""

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import chain, islice
from typing import TypeVar

Part = TypeVar("Part")

_ENDING = ("INT", "TERM", "HUP", "QUIT", "USR1", "USR2", "ALRM", "VTALRM", "PROF", "XCPU", "IO", "PWR")
ENDING_SIGNALS = frozenset(signal.Signals[f"SIG{name}"] for name in _ENDING if hasattr(signal, f"SIG{name}"))
"""Signals that users, terminals, CI and batch systems end a process with, and timers that do so if not handled. Not
every system has all of them. SIGKILL cannot be handled; other signals report an error in the program.
"""


def unbegun(number: int, _frame: object) -> None:
    """A signal while the gate is loaded: no command has done anything."""
    with suppress(OSError):
        name = signal.Signals(number).name
        os.write(2, f"gate: ended by {name} before it began; nothing was done, and no flag was changed\n".encode())
    os._exit(128 + number)


def ignore_signals() -> None:
    """Ignore signals from now on: Python drops our handlers before it takes its modules apart, which may take long."""
    for number in ENDING_SIGNALS:
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_IGN)


STAYS = "look"
"""The name of a thread that may never return from a library."""


class GateError(Exception):
    """Base: the gate cannot go on. The message says what was observed, what is allowed, where, and what to do."""

    exit_code = 1


class UsageError(GateError):
    """The command line asks for something impossible; the caller must act."""

    exit_code = 2


class ConfigError(GateError):
    """The configuration cannot be used; its author must act."""

    exit_code = 3


MOST_MISTAKES = 20
"""The most mistakes that one error lists; the next run shows the rest."""


def raise_all(mistakes: Iterable[ConfigError]) -> None:
    """Raise all the messages as one error, one per line. Does nothing if there are none."""
    found = list(islice(mistakes, MOST_MISTAKES + 1))
    if len(found) == 1:
        raise found[0]
    if found:
        said = [*dict.fromkeys(str(mistake) for mistake in found[:MOST_MISTAKES])]
        raise ConfigError("\n".join([*said, *["and more mistakes"] * (len(found) > MOST_MISTAKES)]))


def all_of(parts: Iterable[Callable[[], Part]], mistakes: Iterable[ConfigError] = ()) -> list[Part]:
    """The result of each part. Raise the mistakes of all parts, and those found before, as one error."""
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
    """The gate itself cannot work here (no stack, no disk, no suite); its operator must act."""

    exit_code = 4


class NotRolledBack(GateError):  # noqa: N818  -- reads as a sentence
    """A rollback could not be carried out, nor recorded. Somebody must run the SQL at once."""

    exit_code = 21


MOST_SAID = 20_000
"""How much of an error is read: a target may send a gigabyte, and all of it is searched for secrets."""


def of_file(error: OSError) -> str:
    """The system's words about a file that the message names already."""
    return error.strerror or str(error)


def first_line(error: BaseException) -> str:
    """The first line of the error's text, or its class if it has none."""
    return (str(error)[:MOST_SAID].strip() or type(error).__name__).splitlines()[0]
