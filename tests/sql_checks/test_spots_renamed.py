"""Through a mapping every spot check has the same outcome as without one."""

import re
from collections.abc import Sequence
from functools import partial

import psycopg

from gates.contract.names import Names, names_of
from gates.deployment.dialect.current import use
from gates.deployment.sql.database import execute, script
from sql_checks.export.psql import alerts_to_psql, spots_to_psql
from sql_checks.rules.run import measure
from sql_checks.spotfile import SPOT, read_spot
from sql_checks.spotrun import judge_spot
from tests import renamed
from tests.sql_checks.conftest import COMPANY, RULES, PlantedSession, outcome_of, wrong_together
from tests.sql_checks.test_spots_red import SPOTS, VIOLATIONS

NAMES = names_of(renamed.names())


def renamed_from(planted: PlantedSession) -> None:
    with psycopg.ClientCursor(planted.planted):
        renamed.rename(planted.planted)
    use(NAMES)


def test_green_on_the_renamed_reference(planted: PlantedSession) -> None:
    """Every spot check passes on the reference under other names."""
    renamed_from(planted)
    found = {}
    for name, spot in SPOTS.items():
        execute(planted.planted, "savepoint one")
        try:
            found[name] = outcome_of(partial(judge_spot, spot, planted))[:2]
        except psycopg.Error as error:
            found[name] = "error", str(error)
        execute(planted.planted, "rollback to savepoint one")
    assert {name: told for name, told in found.items() if told != ("pass", "")} == {}


def test_every_alert_rule_measures_the_same(planted: PlantedSession) -> None:
    """Subject, value and samples of every rule are the same under other names."""
    rules = [r for r in RULES.values() if r.name not in OF_THE_SERVER]
    before = {rule.name: measure(rule, planted.planted) for rule in rules}
    renamed_from(planted)
    planted.planted.execute("set local search_path = pg_catalog, pg_temp")
    after = {rule.name: measure(rule, planted.planted) for rule in rules}
    assert len(before) >= 15
    for name, measured in before.items():
        seen = [(s.subject, s.value, s.samples, s.bad, s.draining) for s in measured.samples]
        assert sorted(seen) == sorted(
            (s.subject, s.value, s.samples, s.bad, s.draining) for s in after[name].samples
        ), name


OF_THE_SERVER = {
    "alert-role-sees-rows",
    "connections",
    "disk",
    "long-transactions",
    "replication-slots",
    "transaction-age",
}
"""What these measure changes with the renaming itself."""


def test_red_on_violations_under_other_names(planted: PlantedSession) -> None:
    """A violation is found under other names, too, and spoken of by the real ones. One of each spot check: its whole
    text is translated at once, and runs in `test_green_on_the_renamed_reference`. `test_spots_red` shows each alone.
    """
    connection = planted.planted
    assert connection is not None

    def plant(name: str) -> None:
        execute(connection, "set local search_path = public, pg_catalog")
        script(connection, VIOLATIONS[name][0].replace("COMPANY", COMPANY))

    def missed(names: Sequence[str]) -> dict[str, str]:
        """Spot checks that do not fail, or name what nobody knows there."""
        renamed_from(planted)
        if not any("search_path" in VIOLATIONS[name][0] for name in names):
            execute(connection, "set local search_path = pg_catalog, pg_temp")
        found = {name: outcome_of(partial(judge_spot, SPOTS[name], planted))[:2] for name in names}
        use(Names())
        return {n: f"{what}: {told}" for n, (what, told) in found.items() if what != "fail" or OURS.search(told)}

    by_path = [name for name in SPOTS if "search_path" in VIOLATIONS[name][0]]
    others = [name for name in SPOTS if name not in by_path]
    assert [w for names in (others, by_path) for w in wrong_together(connection, names, plant, missed)] == []


OURS = re.compile(rf"\bpublic\.({'|'.join(renamed.TABLES)}|is_feature_enabled)\b")


def test_exports_have_the_names_of_the_deployment() -> None:
    """Exports use real names, and say what they leave out."""
    given = renamed.names()
    given["tables"]["audit_heads"] = {"absent": True}
    given["tables"]["agent_tasks"] = {"absent": True}
    use(names_of(given))
    spots, rules = spots_to_psql(list(SPOTS.values())), alerts_to_psql(list(RULES.values()))
    for text in (spots, rules):
        assert "ops.failed_jobs" in text
        assert not re.search(rf"\bpublic\.({'|'.join(renamed.TABLES)})\b", text)
    assert "-- sql/spot/audit-heads: left out: names: in gate.yaml says that audit_heads is absent" in spots
    assert "-- agent-success: left out:" in rules


def test_a_limit_is_the_deployments_own() -> None:
    """The policy may admit more calls than the contract's three."""
    path = SPOT / "0064_rate_limit_exact.sql"
    assert "lead(h.hit, 3)" in read_spot(path).violations
    use(names_of({"limits": {"calls": 30}}))
    assert "lead(h.hit, 30)" in read_spot(path).violations
    assert "secs => 300" in read_spot(path).violations
