"""Output: results to stdout, messages to stderr. The only module that prints.

All text is redacted and escaped, and is never a command to a CI system. A reader that goes away (`gate run | head -1`)
changes nothing: the run goes on, its files are written, its exit code stands.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self, TextIO

from gates.deployment.redaction import redact_text
from gates.reports.terminal import WIDTH, progress_line
from gates.stages.context import Progress
from gates.text.inert import Terminal, workflow
from gates.text.stream import chat, put, shown
from gates.verdict import Verdict

LEAST_WIDTH = 40
UNWRAPPED = "\x1b[?7l{}\x1b[?7h"
"""Cut progress lines to a narrow terminal: a line that wraps could not be overwritten."""


@dataclass
class Console:
    """Prints text. All but Terminal text is foreign, and becomes one line."""

    out: TextIO
    err: TextIO
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    hide: Mapping[str, str] = field(default_factory=dict, repr=False)
    quiet: bool = False
    """Whether to print neither messages nor progress."""
    lost: OSError | None = None
    """Why a result is not where stdout leads: its disk is full."""
    _live: bool = False

    @classmethod
    def of_process(cls, environ: Mapping[str, str], *, quiet: bool = False) -> Self:
        """The streams of this process; characters that they cannot encode are escaped."""
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        return cls(sys.stdout, sys.stderr, environ, quiet=quiet)

    @property
    def colour(self) -> bool:
        return not self.environ.get("NO_COLOR") and _is_terminal(self.err)

    @property
    def colours_results(self) -> bool:
        return self.colour and _is_terminal(self.out)

    @property
    def width(self) -> int:
        """The width of a result: that of its terminal, and at most that of a report."""
        try:
            return max(LEAST_WIDTH, min(WIDTH, os.get_terminal_size(self.out.fileno()).columns))
        except (OSError, ValueError):  # it is no terminal
            return WIDTH

    def result(self, text: Terminal | str) -> None:
        """Print a result on stdout."""
        self._put(redact_text(shown(text), self.hide))

    def verdict(self, verdict: Verdict) -> None:
        """Print the bytes of verdict.json on stdout. They are escaped and redacted already."""
        self._put(verdict.dump())

    def say(self, text: Terminal | str) -> None:
        """Print a message on stderr."""
        if not self.quiet:
            self.warn(text)

    def warn(self, text: Terminal | str) -> None:
        """Print an error or a warning on stderr, even if messages are off."""
        self._end_live()
        chat(self.err, redact_text(shown(text), self.hide))

    def reveal(self, text: str) -> None:
        """Print the variables of `gate up` on stdout: the only output with secrets."""
        self._put(text)

    def annotate(self, title: str, text: str, *, level: str = "error", place: Mapping[str, str] | None = None) -> None:
        """Print an annotation, shown by GitHub Actions at the top of the job: the only CI command that is printed.
        level: `error`, `warning` or `notice`. place: `file`, `line` and `col`, if it is about one.
        """
        if self.environ.get("GITHUB_ACTIONS") == "true":
            members = {**(place or {}), "title": title}
            said = [f"{name}={workflow(redact_text(value, self.hide), also=':,')}" for name, value in members.items()]
            chat(self.err, f"::{level} {','.join(said)}::{workflow(redact_text(text, self.hide))}\n")

    def progress(self, progress: Progress) -> None:
        """On a terminal one line, overwritten until the stage is done; elsewhere one line per finished stage."""
        if self.quiet:
            return
        line = progress_line(progress, colour=self.colour)
        if progress.done:
            self.say(line)
        elif _is_terminal(self.err):
            self._end_live()
            chat(self.err, UNWRAPPED.format(redact_text(shown(line), self.hide).removesuffix("\n")))
            self._live = True

    def _put(self, text: str) -> None:
        self.lost = put(self.out, text) or self.lost

    def _end_live(self) -> None:
        if self._live:
            chat(self.err, "\r\x1b[2K")
            self._live = False


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:  # it was closed
        return False
