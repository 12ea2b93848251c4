"""Runs a command: its console, its signals, and the exit code and message for each kind of error."""

import argparse
import contextlib
import re
import shutil
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from gates import config
from gates.deployment.redaction import hidden, hide_where_cut
from gates.errors import ENDING_SIGNALS, CannotWork, ConfigError, GateError, NotRolledBack, of_file, unbegun
from gates.reports.console import Console
from gates.stack.errors import StackError, StackOptionError
from gates.text.inert import Terminal

EXIT_INTERNAL = 1
NO_THREAD = "can't start new thread"
"""What Python says if the limits of memory or processes are reached."""
PLACE = re.compile(r"(?P<file>[^\n:]{1,500}):(?P<line>[0-9]{1,9}):(?P<col>[0-9]{1,9}): ")
"""How an error names the line of a file that must be corrected."""
STEP = "whether its change was made is not known: see `gate flags` and the audit rows"
LEFT = {
    "serve": "rollout controllers get no answer until it runs again",
    "watch": "its rounds are in the history",
    "rehearse": "its server is gone, and nothing was decided",
    **dict.fromkeys(("promote", "resume", "flags", "rollback", "emergency", "budget"), STEP),
}

PRINTS = {"status", "history", "doctor", "explain", "checklist", "sign", "completion"}
"""Commands that only print: without their result nothing was done. The others have it on disk, or did something."""

KEPT = "what is on disk says hold, or what was decided"

TOGETHER_S = 3.0
"""Terminals, shells and service managers may send several signals; the later ones must not interrupt the clean-up."""


class Interrupted(BaseException):
    """A signal ended the command; like KeyboardInterrupt it must reach the top."""

    def __init__(self, number: int) -> None:
        super().__init__(f"it was ended by {signal.Signals(number).name}")
        self.number = number


def _taken() -> None:
    """Raise the first signal that ends the command from now on, and ignore those that come with it."""
    came_at = -TOGETHER_S

    def take(number: int, _frame: FrameType | None) -> None:
        nonlocal came_at
        before, came_at = came_at, time.monotonic()
        if came_at - before >= TOGETHER_S:
            raise Interrupted(number)

    for number in ENDING_SIGNALS:
        if signal.getsignal(number) in {signal.SIG_DFL, unbegun}:  # if the parent ignores it, so do we
            signal.signal(number, take)


def execute(carry_out: Callable[[argparse.Namespace, Console], int], options: argparse.Namespace) -> int:
    """Returns the exit code. Prints no traceback, except for an internal error (exit code 1)."""
    console = Console.of_process(config.without_redirects(), quiet=options.quiet)
    _taken()
    try:
        if options.env_file is not None:
            console.environ = config.with_file(console.environ, Path(options.env_file), console.warn)
        console.hide = hidden(config.secrets_in(console.environ))  # of every command, whichever variables it needs
        hide_where_cut(console.hide)
        return _told(carry_out(options, console), options, console)
    except (GateError, StackError) as error:
        return _refused(error, options, console)
    except (KeyboardInterrupt, Interrupted) as came:
        if (owed := _not_rolled_back(came)) is not None:
            return _refused(owed, options, console)
        number = came.number if isinstance(came, Interrupted) else signal.SIGINT
        word = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
        console.warn(f"gate {options.command}: {word}; {LEFT.get(options.command, KEPT)}")
        return 128 + number
    except OSError as error:  # a full disk or a missing folder: a traceback would explain nothing
        room = "" if error.filename else _room(console.environ.get("TMPDIR"), options)
        console.warn(
            f"gate {options.command}: {error}{room}; allowed: files that can be read and written. See to the disk"
        )
        return CannotWork.exit_code
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and NO_THREAD not in str(error):
            return _internal(error, options, console)
        said = str(error) or "there is no memory"
        console.warn(f"gate {options.command}: {said}; allowed: memory and threads. Raise their limits")
        return CannotWork.exit_code
    except Exception as error:  # noqa: BLE001  -- the last resort
        return _internal(error, options, console)


def _told(code: int, options: argparse.Namespace, console: Console) -> int:
    """The exit code of a command whose result may be lost on a full disk."""
    if console.lost is None:
        return code
    console.warn(f"gate {options.command}: stdout: {of_file(console.lost)}; its result is lost or cut. Make room there")
    only = options.command in PRINTS or getattr(options, "export", None)
    return CannotWork.exit_code if only and not code else code


def _refused(error: GateError | StackError, options: argparse.Namespace, console: Console) -> int:
    code = error.exit_code if isinstance(error, GateError) else 3 if isinstance(error, StackOptionError) else 4
    mistakes = str(error).splitlines() if isinstance(error, ConfigError) else [str(error)]
    for said in mistakes or [""]:
        console.warn(f"gate {options.command}: {said}")
        place = PLACE.match(said)
        console.annotate(f"gate {options.command}", said, place=place.groupdict() if place else None)
    return code


def _not_rolled_back(came: BaseException) -> NotRolledBack | None:
    """The rollback that a signal met: a second signal must not hide what the first one interrupted."""
    met: BaseException | None = came
    while met is not None and not isinstance(met, NotRolledBack):
        met = met.__context__
    return met


def _room(temporary: str | None, options: argparse.Namespace) -> str:
    """The free space where files are written, the fullest first, for an error that names no place."""
    room = []
    folders = {"TMPDIR": temporary or tempfile.gettempdir(), "where the gate runs": "."}
    folders |= {f"--{name}": folder for name in ("output", "state") if (folder := getattr(options, name, None))}
    for by, folder in folders.items():
        with contextlib.suppress(OSError):  # a folder that is gone
            room.append((shutil.disk_usage(folder).free, f"{folder} ({by})"))
    return "".join(f"; {free / 1e6:.1f} MB free in {where}" for free, where in sorted(room))


def _internal(error: Exception, options: argparse.Namespace, console: Console) -> int:
    """Say what to report; the output must never look like a verdict."""
    console.warn(Terminal.document("".join(traceback.format_exception(error))))
    console.warn(f"gate {options.command}: internal error ({type(error).__name__}); please report the lines above")
    return EXIT_INTERNAL
