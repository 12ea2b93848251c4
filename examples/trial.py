"""`python -m examples.trial NAME`: the gate against an example, healthy and with each of its defects.

Each trial brings the example up anew and runs `gate run --dry-run` with the example's gate.yaml. A healthy one must be
promoted without a failure. A defect must not be promoted, and the first finding must be one that the defect names.
A trial takes one to two minutes. Exit code 1 where one is not as due.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from examples.defects import EXAMPLES, Defect, defects
from examples.ground import HERE, ground

GATE_TIMEOUT_S = 900.0
HEALTHY = Defect("healthy", "none", "Nothing.", (), decisions=("promote",))


@dataclass(frozen=True, slots=True)
class TrialResult:
    """What the gate said of one example."""

    defect: Defect
    decision: str
    first: str
    message: str
    counts: Mapping[str, int]
    took_s: float

    @property
    def as_due(self) -> bool:
        """Whether the verdict is the expected one."""
        named = self.defect.is_named_by(self.first) if self.defect.named else not self.counts.get("fail")
        return self.decision in self.defect.decisions and named

    def line(self) -> str:
        counts = "/".join(str(self.counts.get(n, "?")) for n in ("pass", "fail", "unknown"))
        mark = "ok " if self.as_due else "BAD"
        found = f"{self.first}: {self.message[:140]}"
        return f"{mark} {self.defect.id:32} {self.decision:9} {counts:12} {self.took_s:4.0f} s  {found}"


def examine(example: str, defect: Defect, output: Path, *more: str) -> TrialResult:
    """Start the example with the defect, and run the gate on it."""
    with ground(os.environ) as place:
        variables = defect.plant(place, example)
        started = time.monotonic()
        verdict = verdict_of(HERE / example / "gate.yaml", variables, output, *more)
    return result_of(defect, verdict, time.monotonic() - started)


def result_of(defect: Defect, verdict: Mapping[str, Any], took_s: float) -> TrialResult:
    first: dict[str, Any] = next(iter(verdict.get("findings", [])), {})
    said = " ".join(str(first.get("message", verdict.get("reason", ""))).split())
    check, decision = str(first.get("check", "")), str(verdict.get("decision"))
    return TrialResult(defect, decision, check, said, verdict.get("counts", {}), took_s)


def verdict_of(policy: Path, variables: Mapping[str, str], output: Path, *more: str) -> dict[str, Any]:
    """verdict.json of one run of the gate, with this policy."""
    own = {k: v for k, v in os.environ.items() if k in {"PATH", "HOME", "LANG", "TMPDIR", "PYTHONPATH"}}
    files = ("--policy", str(policy), "--output", str(output), "--state", str(output / "state"))
    command = (sys.executable, "-m", "gates", "run", "--dry-run", *files, *more)
    output.mkdir(parents=True, exist_ok=True)
    with (output / "gate.log").open("wb") as log:
        subprocess.run(command, env={**own, **variables}, stdout=log, stderr=log, timeout=GATE_TIMEOUT_S, check=False)
    try:
        found: dict[str, Any] = json.loads((output / "verdict.json").read_text(encoding="utf-8"))
    except OSError:
        return {"decision": "none", "reason": (output / "gate.log").read_text(encoding="utf-8")[-2000:]}
    return found


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.trial", description=__doc__)
    parser.add_argument("name", choices=sorted(EXAMPLES))
    parser.add_argument("--only", action="append", default=[], metavar="ID", help="these defects (globs)")
    parser.add_argument("--healthy", type=int, default=1, metavar="N", help="so many healthy runs first (default 1)")
    parser.add_argument("--output", type=Path, default=None, metavar="DIR", help="keep what each run wrote")
    chosen = parser.parse_args(argv)
    planned = [HEALTHY] * chosen.healthy + [
        d for d in defects(chosen.name) if not chosen.only or any(fnmatchcase(d.id, glob) for glob in chosen.only)
    ]
    wrong = 0
    with _folder(chosen.output) as output:
        for number, defect in enumerate(planned):
            result = examine(chosen.name, defect, output / f"{number:02}-{defect.id}")
            wrong += not result.as_due
            print(result.line(), flush=True)
    print(f"{len(planned) - wrong} of {len(planned)} as due")
    return 1 if wrong else 0


@contextmanager
def _folder(given: Path | None) -> Iterator[Path]:
    if given is not None:
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="replaygate-trial-") as made:
        yield Path(made)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
