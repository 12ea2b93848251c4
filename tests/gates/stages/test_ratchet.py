"""What a target was once seen to keep cannot be dropped from the claims silently."""

import datetime as dt
import json
from pathlib import Path

import pytest

from gates.act.flag import Order, audit
from gates.contract.contract import contract
from gates.contract.scope import Dropped
from gates.decision.policy_file import Settings
from gates.decision.rules import RolloutPlan
from gates.deployment.sql.database import connect
from gates.deployment.target import Target
from gates.evidence import Evidence, Outcome, TargetKind
from gates.evidence_file import read_lines
from gates.stages import claims
from gates.stages.context import Context

ALL = contract().scope()
LESS = contract().scope([a for a in ALL.claims if a != "audit"])
ACCEPTED = contract().scope(LESS.claims, dropped=[Dropped("audit", "nobody reads it", "ann", dt.date(2026, 2, 1))])


def context(folder: Path, url: str = "") -> Context:
    target = Target(TargetKind.STAGING, "http://unset.invalid", database_url=url, release="r2")
    (folder / "out").mkdir(exist_ok=True)
    return Context(target, Settings(state=folder / "state"), folder / "out", "run", (claims.SPEC,), scope=LESS)


def look(one: Context) -> Evidence:
    claims.claims(one)
    return read_lines(one.evidence)[-1]


def keep(one: Context, areas: dict[str, str]) -> None:
    one.state.mkdir(parents=True, exist_ok=True)
    (one.state / claims.FILE).write_text(claims.dump(areas), encoding="utf-8")


def test_the_first_run_passes_and_is_remembered(tmp_path: Path) -> None:
    """Areas that are claimed and seen are remembered with the date and the release."""
    line = look(context(tmp_path))
    assert line.outcome is Outcome.PASS
    assert claims.kept([line], LESS, ("replay",), promoted=False, when="on 2026-01-02") == {"replay": "on 2026-01-02"}


def test_an_area_that_is_dropped_silently_is_a_failure_that_says_how_to_accept_it(tmp_path: Path) -> None:
    """The message names the area, when it was seen, and the lines of gate.yaml that accept the drop."""
    one = context(tmp_path)
    keep(one, {"audit": "on 2026-01-02 (release r1)", "replay": "on 2026-01-02 (release r1)"})
    line = look(one)
    assert (line.outcome, line.observed, line.limit) == (Outcome.FAIL, 1, 2)
    assert line.message.startswith(
        "claimed and seen on 2026-01-02 (release r1), and not claimed now: audit. Claim it again"
    )
    assert "contract: {dropped: [{area: audit, reason: WHY, owner: WHO, expires: YYYY-MM-DD}]}" in line.message


def test_a_person_lets_an_area_go_until_a_promotion_forgets_it() -> None:
    """An accepted drop passes; a hold keeps the area in memory, a promotion removes it."""
    seen = {"audit": "on 2026-01-02", "replay": "on 2026-01-02"}
    line = claims.judge(seen, ACCEPTED)
    assert line.outcome is Outcome.PASS
    assert claims.judge(seen, ALL).outcome is Outcome.PASS
    assert "audit" in claims.kept([line], ACCEPTED, ("replay",), promoted=False, when="now")
    assert "audit" not in claims.kept([line], ACCEPTED, ("replay",), promoted=True, when="now")
    assert "audit" in claims.kept([claims.judge(seen, LESS)], LESS, ("replay",), promoted=True, when="now")


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"let_go": 3}', '{"a": ' * 5000, "3"])
def test_a_memory_that_cannot_be_read_is_unknown_and_stays_as_it_is(tmp_path: Path, text: str) -> None:
    """It may hold more claims, so it is neither trusted nor overwritten."""
    one = context(tmp_path)
    keep(one, {})
    (one.state / claims.FILE).write_text(text, encoding="utf-8")
    line = look(one)
    assert line.outcome is Outcome.UNKNOWN
    assert "cannot be read" in line.message
    assert not claims.kept([line], LESS, ("replay",), promoted=True, when="now")


def test_where_the_state_folder_is_new_the_audit_trail_remembers(tmp_path: Path, migrated_url: str) -> None:
    """Without a state folder, the gate's last audited change of the flag tells the claims of then."""
    one = context(tmp_path, migrated_url)
    with connect(migrated_url) as connection:
        for areas in (("replay",), ("audit", "replay")):
            order = Order(RolloutPlan(), "r1", "replaygate", "why", claims=areas)
            audit(connection, "flag_promoted", order, 1, {"from": 10, "to": 50})
        other = Order(RolloutPlan(flag="other.flag"), "r1", "x", "y", claims=("budgets",))
        audit(connection, "flag_promoted", other, 1, {})
        audit(connection, "flag_promoted", Order(RolloutPlan(), "r1", "gate:ann", "by hand"), 1, {"from": 10, "to": 50})
    line = look(one)
    assert line.outcome is Outcome.FAIL
    assert "(release r1, audit trail), and not claimed now: audit." in line.message
    assert sorted(claims.kept([line], LESS, (), promoted=False, when="now")) == ["audit", "replay"]
    for empty in ({}, {"of-another-version": "on 2026-01-02"}):  # no run leaves such a memory
        keep(one, empty)
        assert look(one).outcome is Outcome.FAIL
    keep(one, {"replay": "on 2026-01-02"})  # of an older cache, or of somebody else's
    assert look(one).outcome is Outcome.FAIL


def test_what_a_promotion_let_go_no_older_row_of_the_trail_brings_back(tmp_path: Path, migrated_url: str) -> None:
    """At the last step a promotion writes no row; its narrower claims hold all the same."""
    one = context(tmp_path, migrated_url)
    with connect(migrated_url) as connection:
        order = Order(RolloutPlan(), "r1", "replaygate", "why", claims=("audit", "replay"))
        audit(connection, "flag_promoted", order, 1, {"from": 50, "to": 100})
    claims.write(one.state, {"replay": "now"}, ACCEPTED, promoted=False)
    assert look(one).outcome is Outcome.FAIL
    claims.write(one.state, {"replay": "now"}, ACCEPTED, promoted=True)
    claims.write(one.state, {"replay": "later"}, LESS, promoted=True)
    assert (look(one).outcome, look(one).details["seen"]) == (Outcome.PASS, {"replay": "later"})
    claims.write(one.state, {"replay": "later", "audit": "later"}, ALL, promoted=False)
    assert look(one).outcome is Outcome.FAIL


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("drop table public.audit_logs cascade", Outcome.PASS),
        ("alter table public.audit_logs rename column metadata to data", Outcome.PASS),
        ("revoke all on public.audit_logs from replay_gate", Outcome.UNKNOWN),
    ],
)
def test_a_trail_that_is_there_and_cannot_be_read_is_unknown(
    tmp_path: Path, gate_url: str, migrated_url: str, statement: str, expected: Outcome
) -> None:
    """Without a trail nothing was claimed in it; a trail that may not be read is unknown."""
    with connect(migrated_url) as connection:
        connection.execute(statement.encode())
    assert look(context(tmp_path, gate_url)).outcome is expected


@pytest.mark.parametrize(
    "told", ["[1, {}, null]", '["audit", 1]', '"audit"', '{"audit": 1}', "null", '["\\n::error::x"]']
)
def test_claims_in_the_trail_that_nobody_wrote_so_are_no_crash(tmp_path: Path, migrated_url: str, told: str) -> None:
    """Malformed claims in a row pass or fail, and never crash."""
    with connect(migrated_url) as connection:
        connection.execute(
            "insert into public.audit_logs (action, actor, scope, metadata) values ('flag_promoted', 'x', 'all', %s)",
            (json.dumps({"key": "outbox.enabled", "claims": json.loads(told)}),),
        )
    expected = Outcome.FAIL if told == '["audit", 1]' else Outcome.PASS
    assert look(context(tmp_path, migrated_url)).outcome is expected
