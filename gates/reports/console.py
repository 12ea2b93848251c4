"""Where text goes: results to stdout, chatter to stderr. The only module that prints.

Everything is made inert, redacted, and kept from being a command to the pipeline that reads along. A reader who goes
away (`gate run | head -1`) changes nothing: the run goes on, its files are written, its exit code stands.
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
"""A line that a narrow terminal cuts: one that went on in a second row could not be written over."""


@dataclass
class Console:
    """Text that is not Terminal is foreign, and becomes one line."""

    out: TextIO
    err: TextIO
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    hide: Mapping[str, str] = field(default_factory=dict, repr=False)
    quiet: bool = False
    """Without chatter and progress."""
    _live: bool = False

    @classmethod
    def of_process(cls, environ: Mapping[str, str], *, quiet: bool = False) -> Self:
        """The streams of this process; text that they cannot encode is written as escapes."""
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
        """Columns of a result: those of the terminal that shows it, and no more than a report has."""
        try:
            return max(LEAST_WIDTH, min(WIDTH, os.get_terminal_size(self.out.fileno()).columns))
        except (OSError, ValueError):  # it is no terminal
            return WIDTH

    def result(self, text: Terminal | str) -> None:
        """A result, on stdout."""
        put(self.out, redact_text(shown(text), self.hide))

    def verdict(self, verdict: Verdict) -> None:
        """The bytes of verdict.json, on stdout: inert by themselves, and of evidence that was redacted already."""
        put(self.out, verdict.dump())

    def say(self, text: Terminal | str) -> None:
        """Chatter, on stderr."""
        if not self.quiet:
            self.warn(text)

    def warn(self, text: Terminal | str) -> None:
        """An error or a warning, on stderr, also where chatter is not wanted."""
        self._end_live()
        chat(self.err, redact_text(shown(text), self.hide))

    def reveal(self, text: str) -> None:
        """The variables of `gate up`, on stdout: the only output that holds secrets."""
        put(self.out, text)

    def annotate(self, title: str, text: str, *, level: str = "error", place: Mapping[str, str] | None = None) -> None:
        """What GitHub Actions shows at the top of the job: the only command to a pipeline that is printed.

        level: `error`, `warning` or `notice`; place: `file`, `line` and `col`, if it is about one.
        """
        if self.environ.get("GITHUB_ACTIONS") == "true":
            members = {**(place or {}), "title": title}
            said = [f"{name}={workflow(redact_text(value, self.hide), also=':,')}" for name, value in members.items()]
            chat(self.err, f"::{level} {','.join(said)}::{workflow(redact_text(text, self.hide))}\n")

    def progress(self, progress: Progress) -> None:
        """On a terminal a line that is written over until the stage is done; elsewhere one line a finished stage."""
        if self.quiet:
            return
        line = progress_line(progress, colour=self.colour)
        if progress.done:
            self.say(line)
        elif _is_terminal(self.err):
            self._end_live()
            chat(self.err, UNWRAPPED.format(redact_text(shown(line), self.hide).removesuffix("\n")))
            self._live = True

    def _end_live(self) -> None:
        if self._live:
            chat(self.err, "\r\x1b[2K")
            self._live = False


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:  # it was closed
        return False
