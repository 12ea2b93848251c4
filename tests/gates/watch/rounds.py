"""Rounds of a watch with fake suites."""

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gates.evidence import CheckSpec, Evidence, Outcome, Severity, Where, stamp
from gates.stages.context import Context, StageReport
from gates.watch.look import SQL
from gates.watch.story import FinishedRound, Watch, one_round

SECRET = "planted-secret-0123456789"


def spec(
    check: str, severity: Severity = Severity.PAGE, where: Where = Where.READ_ONLY, phase: str = "main"
) -> CheckSpec:
    return CheckSpec(check, "the claim", "the cost", severity, where, phase=phase)


GRAVE, MILD = spec("sql/spot/grave"), spec("sql/spot/mild", Severity.WARN)

CATALOGUE = (GRAVE, MILD)


class Suites:
    """Fake suites: each check gets its outcome, and what the round asked for is noted."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self.asked: list[list[str]] = []
        self.left_out: list[str] = []
        self.born: list[str] = []

    @contextmanager
    def data(self, context: Context) -> Iterator[Callable[[], list[StageReport]]]:
        yield lambda: [self._look(context)]

    def _look(self, context: Context) -> StageReport:
        checks = [s.id for s in context.applicable(SQL)]
        self.asked.append(checks)
        context.companies.touch()
        self.left_out = context.companies.read_text(encoding="utf-8").split()
        with context.companies.open("a", encoding="utf-8") as out:
            out.writelines(f"{c}\n" for c in self.born)
        lines = [self._line(check, context) for check in checks]
        context.write(lines)
        return StageReport("data", 0.1)

    def _line(self, check: str, context: Context) -> Evidence:
        outcome = self.outcomes.get(check, Outcome.PASS)
        at = stamp(dt.datetime.now(dt.UTC))
        message = "" if outcome is Outcome.PASS else f"{check} by {context.target.hmac_secret}"
        return Evidence(check, outcome, message, samples=1, started_at=at, release=context.target.release)


def look(watched: Watch, suites: Suites, **outcomes: Outcome) -> FinishedRound:
    """A round in which these checks (named by the last part of their ids) have these outcomes; all others pass."""
    suites.outcomes = {f"sql/spot/{name}": outcome for name, outcome in outcomes.items()}
    done = one_round(watched)
    assert done is not None
    return done


def kinds(done: FinishedRound) -> list[tuple[str, str]]:
    return [(c.kind, c.check.rpartition("/")[2]) for c in done.round.changes]
