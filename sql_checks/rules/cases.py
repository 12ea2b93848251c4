"""Unit tests of alert rules: rows in bare contract tables, a fixed clock, and the expected result.

A case is `KIND EXPECTED: what is given`. That is SQL that fills the tables, or a list of the rows that the judge is
handed: subject, value, samples, the age of the newest row in seconds or null, and, if need be, whether it drains.
"""

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gates.deployment.sql.database import Connection, execute, script, sql
from gates.evidence import JsonValue, Outcome
from gates.inputs.shapes import Fields, ListOf, MapOf, OneOf, Text, shown
from gates.inputs.strict_yaml import YamlNode, read
from sql_checks.rules.file import ALERTS, AlertRule
from sql_checks.rules.judge import RuleResult, RuleSample, judge
from sql_checks.rules.run import Measurement, measure

TESTS = ALERTS / "tests"
SCHEMA = TESTS / "contract_schema.sql"
COMPULSORY = (
    "breach",
    "healthy",
    "below",
    "at",
    "above",
    "empty",
    "no-number",
    "bad-tenant",
    "stale",
    "wrong-unit",
    "few",
)
KINDS = (*COMPULSORY, "excluded", "draining", "predicate")
EXPECTED = ("page", "warn", "investigate", "ok", "unknown")
CLOCK = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
"""The clock of cases that give the judge rows; cases by SQL use the database's, as the queries do."""


@dataclass(frozen=True, slots=True)
class RuleCase:
    """One case of a rule's test: SQL, or rows."""

    kind: str
    expect: str
    given: str | tuple[RuleSample, ...]


@dataclass(frozen=True, slots=True)
class RuleTest:
    """The cases of one rule; `not_applicable` gives the reason for each compulsory kind that has no meaning for it."""

    rule: str
    cases: tuple[RuleCase, ...]
    not_applicable: Mapping[str, str]
    equivalent: Mapping[str, str]

    def missing(self) -> list[str]:
        """Compulsory kinds that have neither a case nor a reason."""
        return [k for k in COMPULSORY if k not in {c.kind for c in self.cases} and not self.not_applicable.get(k)]


@dataclass(frozen=True, slots=True)
class FixtureRow:
    """A row of a rule's query: `[subject, value or null, samples, age in seconds or null]`, and `true` if it drains."""

    def read(self, node: YamlNode) -> RuleSample:
        try:
            subject, number, samples, age_s, draining = [*node.as_value(), False][:5]
            newest = None if age_s is None else CLOCK - dt.timedelta(seconds=age_s)
            value = None if number is None else float(number)
            return RuleSample(str(subject), value, int(samples), newest, draining=bool(draining))
        except (TypeError, ValueError):
            raise node.place.error(shown(node), "[subject, value, samples, age_s]", "Correct the row") from None

    def schema(self) -> dict[str, JsonValue]:
        return {"type": "array", "minItems": 4, "maxItems": 5}


REASONS = MapOf(Text())
CASE = MapOf(
    OneOf(Text(r"[\s\S]*", "SQL"), listing=ListOf(FixtureRow())),
    rf"({'|'.join(KINDS)}) ({'|'.join(EXPECTED)})",
    f"one of {', '.join(KINDS)}, a space, and one of {', '.join(EXPECTED)}",
)
FILE = Fields({"cases": (ListOf(CASE), ""), "not_applicable": (REASONS, ""), "equivalent": (REASONS, "")}, ("cases",))


def read_test(name: str, folder: Path = TESTS) -> RuleTest | None:
    """The test of a rule, or None where it has none. Raise ConfigError."""
    path = folder / f"{name}.yaml"
    if not path.exists():
        return None
    data = FILE.read(read(path.read_text(encoding="utf-8"), str(path)))
    named = (member for one in data["cases"] for member in one)
    cases = tuple(RuleCase(name.split()[0], name.split()[1], given) for _, name, given in named)
    absent, equivalent = ({key: reason for _, key, reason in data.get(k, ())} for k in ("not_applicable", "equivalent"))
    return RuleTest(name, cases, absent, equivalent)


def prepare(connection: Connection) -> None:
    """Make the bare contract tables, and the fixtures' functions in a schema of their own. For test databases only."""
    execute(connection, "drop schema if exists fixture cascade")
    execute(connection, "create schema fixture")
    execute(connection, "set search_path = fixture, pg_catalog")
    execute(connection, "set jit = off")
    script(connection, sql(SCHEMA))


def observe(connection: Connection, rules: Iterable[AlertRule], case: RuleCase) -> list[Measurement]:
    """What the query of each rule sees in the case; everything is rolled back. Raise psycopg.Error."""
    if not isinstance(case.given, str):
        return [Measurement(case.given, CLOCK) for _ in rules]
    execute(connection, "begin")
    try:
        execute(connection, "set local search_path = fixture, pg_catalog")
        execute(connection, "set local timezone = 'UTC'")
        execute(connection, "select set_config('replaygate.excluded', '{}', true)")
        if case.given.strip():
            script(connection, case.given)
        return [measure(rule, connection) for rule in rules]
    finally:
        connection.rollback()


def word(judgement: RuleResult) -> str:
    """The judgement in the words of `expect`."""
    if judgement.outcome is Outcome.FAIL and judgement.severity is not None:
        return judgement.severity.value
    return "ok" if judgement.outcome is Outcome.PASS else "unknown"


def outcome(rule: AlertRule, measured: Measurement) -> str:
    """The rule's result, in the words of `expect`."""
    return word(judge(rule, measured.samples, measured.now))
