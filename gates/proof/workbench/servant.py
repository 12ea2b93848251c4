"""A program that answers lines of JSON, so that its start is paid for once."""

import json
import select
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from gates.proof.workbench import programs
from gates.stack.errors import StackError


@dataclass
class Servant:
    """Starts the program at the first question; restarts it after a question without an answer. Use it from one thread:
    the kernel ends it with the thread that started it.
    """

    words: Sequence[str]
    environ: Mapping[str, str] = field(repr=False)
    _process: subprocess.Popen[str] | None = None
    _errors: IO[bytes] | None = None

    def ask(self, question: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """Its answer. Raise StackError if none comes in time."""
        process = self._process or self._started()
        if process.stdin is None or process.stdout is None:
            raise TypeError("a servant without pipes")
        try:
            process.stdin.write(json.dumps(question) + "\n")
            process.stdin.flush()
            ready = select.select([process.stdout], [], [], timeout_s)[0]
            answer: dict[str, Any] = json.loads(process.stdout.readline() if ready else "")
        except (OSError, ValueError) as error:
            said = f"exit code {process.poll()}: {self._last_words()}"
            self.close()
            programs.insist()
            raise StackError(
                f"{' '.join(self.words[1:])} did not answer within {timeout_s:.0f} s ({error}), {said}; allowed: one "
                "line of JSON. See its last words"
            ) from error
        return answer

    def _started(self) -> subprocess.Popen[str]:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  -- closed with the program
        self._process = programs.start(self.words, self.environ, stdin=subprocess.PIPE, stderr=self._errors)
        return self._process

    def _last_words(self) -> str:
        if self._errors is None:
            return ""
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")[-programs.TAIL_CHARACTERS :].strip()

    def close(self) -> None:
        """End the program and all that it started."""
        if self._process is not None:
            programs.end(self._process)
            self._process.communicate(timeout=programs.GRACE_S)
        if self._errors is not None:
            self._errors.close()
        self._process = self._errors = None
