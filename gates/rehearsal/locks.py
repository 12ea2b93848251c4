"""Runs squawk, if installed, to review the locks that the migrations take."""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gates.inputs.strict_yaml import Place
from gates.rehearsal.reading.sources import SqlSource, blank
from gates.rehearsal.reading.splitting import split

LIMIT_S = 60
ABOUT_LOCKS = (
    *("adding-", "changing-column-type", "constraint-missing-not-valid", "disallowed-unique-constraint"),
    *("require-concurrent-", "require-lock-timeout", "ban-truncate"),
)


@dataclass(frozen=True, slots=True)
class LockHazard:
    """One finding of squawk about a lock."""

    place: Place
    rule: str
    said: str


@dataclass(frozen=True, slots=True)
class LockReview:
    """What squawk found; `said`: why it did not run, if so."""

    said: str = ""
    hazards: tuple[LockHazard, ...] = ()


def review(sources: Sequence[SqlSource], version: int, environ: Mapping[str, str]) -> LockReview:
    """Run squawk on the SQL of each file, without psql's commands and COPY rows. It is told if a file is one
    transaction: then it does not warn about tables that the file itself creates.
    """
    beside = str(Path(sys.executable).parent)
    program = shutil.which("squawk", path=beside) or shutil.which("squawk", path=environ.get("PATH", ""))
    if program is None:
        return LockReview("locks were not looked at: squawk is not installed (pip install squawk-cli)")
    with tempfile.TemporaryDirectory(prefix="replaygate-squawk-") as folder:
        paths = [Path(folder) / f"{number:05d}.sql" for number, _ in enumerate(sources)]
        for path, source in zip(paths, sources, strict=True):
            path.write_text(_only_sql(source), encoding="utf-8")
        words = [program, "--reporter=json", f"--pg-version={version}", "--assume-in-transaction"]
        try:
            done = subprocess.run(
                [*words, *map(str, paths)],
                cwd=folder,
                env={"PATH": "/usr/bin:/bin"},
                capture_output=True,
                text=True,
                timeout=LIMIT_S,
                check=False,
            )
            found = json.loads(done.stdout or "[]")
        except (subprocess.TimeoutExpired, ValueError, OSError) as error:
            return LockReview(f"locks were not looked at: squawk failed ({type(error).__name__})")
    shown = {str(path): source.shown for path, source in zip(paths, sources, strict=True)}
    return LockReview(hazards=tuple(_hazard(one, shown) for one in found if one["rule_name"].startswith(ABOUT_LOCKS)))


def _hazard(one: dict[str, object], shown: Mapping[str, str]) -> LockHazard:
    line, column = int(str(one["line"])) + 1, int(str(one["column"])) + 1
    said = " ".join(str(part) for part in (one["message"], one.get("help")) if part)
    return LockHazard(Place(shown[str(one["file"])], line, column), str(one["rule_name"]), said)


def _only_sql(source: SqlSource) -> str:
    """The statements at their places, each with its `;`."""
    parts, last = [], 0
    for statement in split(source):
        end = statement.start + len(statement.text)
        gap = blank(source.text[last : statement.start])
        text = blank(statement.text) if statement.meta or statement.rows is not None else statement.text
        parts += [gap[1:] if last and gap.startswith(" ") else gap, text, "" if text.isspace() else ";"]
        last = end
    return "".join(parts) + "\n"
