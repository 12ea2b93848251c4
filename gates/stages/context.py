"""The input of every stage, its progress, and its result."""

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from gates.contract.scope import WHOLE, Scope
from gates.decision.floor import not_claimed
from gates.decision.policy_file import Settings
from gates.deployment.identity import identity
from gates.deployment.redaction import hidden, redact_evidence
from gates.deployment.target import Target
from gates.evidence import CheckSpec, Evidence, JsonValue, Outcome, TargetKind, stamp
from gates.evidence_file import read_lines, write_lines

COMPANIES = "companies.txt"
"""The file of a stage's companies, one id a line."""


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a stage: checks seen so far, by outcome, of about `expected`."""

    stage: str
    passed: int = 0
    failed: int = 0
    unknown: int = 0
    expected: int = 0
    seconds: float = 0.0
    done: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True)
class StageReport:
    """The result of a stage. `error`: why it did not see everything that it should have."""

    stage: str
    seconds: float
    exit_code: int = 0
    error: str = ""

    def to_json(self) -> dict[str, JsonValue]:
        return {**asdict(self), "seconds": round(self.seconds, 2)}


def now() -> dt.datetime:
    """The clock of the stages, UTC."""
    return dt.datetime.now(dt.UTC)


def silent(_progress: Progress) -> None:
    """A progress callback that does nothing."""


@dataclass(frozen=True, slots=True)
class Context:
    """One run: its target, its limits, its output folder. All stages append to one evidence file, so later stages know
    what earlier ones saw.
    """

    target: Target
    settings: Settings
    out: Path
    run_id: str
    catalogue: tuple[CheckSpec, ...] = ()
    deep: bool = False
    disruptive: bool = False
    only: tuple[str, ...] = ()
    """Patterns of check ids to which the suites are limited; none: no limit."""
    scope: Scope = WHOLE
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    progress: Callable[[Progress], None] = silent

    @property
    def evidence(self) -> Path:
        return self.out / "evidence.ndjson"

    def write(self, evidence: Sequence[Evidence]) -> None:
        """Append evidence of this run. Raise Unwritten if the file cannot take it."""
        write_lines(self.evidence, evidence, self.run_id)

    def note(self, line: Evidence) -> None:
        """Write what the gate itself has just seen of this release, without secrets."""
        clean = redact_evidence(line, hidden(self.target))
        self.write([replace(clean, started_at=line.started_at or stamp(now()), release=self.target.release)])

    def lines(self) -> list[Evidence]:
        """The evidence so far. Lines of another run are unknowns of no check."""
        return read_lines(self.evidence, self.run_id)

    @property
    def state(self) -> Path:
        """The folder for what is remembered of this target. A reference that was started for this run never returns:
        its memory stays with the run.
        """
        name = identity(self.target)
        own = self.target.kind is TargetKind.REFERENCE
        return self.out / "state" / name if own else self.settings.state_of(name)

    @property
    def companies(self) -> Path:
        """The companies that this run created, one id a line."""
        return self.out / COMPANIES

    def applicable(self, prefixes: Sequence[str]) -> list[CheckSpec]:
        """The checks of the catalogue that a stage should run on this target."""
        return [
            s
            for s in self.catalogue
            if s.id.startswith(tuple(prefixes))
            and self.target.kind.allows(s.where, disruptive=self.disruptive)
            and (self.deep or not s.deep)
            and not not_claimed(s, self.scope)
        ]

    def has(self, spec: CheckSpec) -> bool:
        return spec.id in {s.id for s in self.catalogue}

    @property
    def left_out(self) -> list[str]:
        """The checks that the policy's claims leave out: nothing is asked for them."""
        return [s.id for s in self.catalogue if not_claimed(s, self.scope)]

    def ended(
        self, stage: str, found: Iterable[Evidence], expected: int, seconds: float, error: str = ""
    ) -> StageReport:
        """Report the end of a stage, and return its report."""
        outcomes = [e.outcome for e in found]
        passed, failed, unknown = map(outcomes.count, (Outcome.PASS, Outcome.FAIL, Outcome.UNKNOWN))
        self.progress(Progress(stage, passed, failed, unknown, expected, seconds, done=True, error=error))
        return StageReport(stage, seconds, 0, error)

    def block(self, specs: Sequence[CheckSpec], by: Evidence, *, already: int = 0) -> None:
        """Write, for every check of `specs` without evidence after line `already`, that `by` blocks it."""
        self.account_for(specs, f"blocked by {by.check}: {by.message}", already=already, blocked_by=by.check)

    def account_for(self, specs: Sequence[CheckSpec], reason: str, *, already: int = 0, blocked_by: str = "") -> None:
        """Write an unknown, saying why, for every check of `specs` without evidence after line `already`."""
        seen = {e.check for e in self.lines()[already:]}
        at = stamp(now())
        self.write(
            [
                Evidence(
                    s.id, Outcome.UNKNOWN, reason, started_at=at, release=self.target.release, blocked_by=blocked_by
                )
                for s in specs
                if s.id not in seen
            ]
        )
